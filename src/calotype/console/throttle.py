"""How often somebody may try to sign in."""

import ipaddress
import math
import time
from collections import OrderedDict
from functools import cached_property
from typing import TYPE_CHECKING, Final

from starlette.requests import Request

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.strategies import MovingWindowRateLimiter

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

OF_ADDRESS: Final = 10
"""Tries a minute from one address."""
OF_ALL: Final = 100
"""And from everywhere together, at what can be guessed."""
REMEMBERED: Final = 4096
"""Addresses that are counted at once; of more, those that tried last."""
_MINUTE: Final = 60
_NETWORK_V6: Final = 64
"""Bits of an IPv6 address that its holder cannot choose."""


class Throttle:
    """Counts tries in a moving window of a minute, in this process."""

    def __init__(self) -> None:
        self._tried: OrderedDict[str, float] = OrderedDict()
        """When each address that is counted tried last, the longest ago first."""

    def wait(self, address: str, *, guessable: bool = False) -> int:
        """Count a try; the seconds to wait where it is one too many, else 0.

        Tries at what is ``guessable``, which is a password, are counted together, too; nobody
        who tries at keys or links of 256 bits keeps others from signing in.
        """
        from limits import RateLimitItemPerMinute

        each, every = RateLimitItemPerMinute(OF_ADDRESS), RateLimitItemPerMinute(OF_ALL)
        if guessable and not self._limiter.test(every, "all"):
            return self._seconds(every, "all")
        self._remember(each, address)
        if not self._limiter.hit(each, "of", address):
            return self._seconds(each, "of", address)
        if guessable:
            self._limiter.hit(every, "all")
        return 0

    def _seconds(self, item: "RateLimitItem", *names: str) -> int:
        until = self._limiter.get_window_stats(item, *names).reset_time
        return min(_MINUTE, max(1, math.ceil(until - time.time())))

    def _remember(self, each: "RateLimitItem", address: str) -> None:
        """Forget whoever has not tried for a minute, or is one too many: ``limits`` does not."""
        now = time.monotonic()
        self._tried[address] = now
        self._tried.move_to_end(address)
        while len(self._tried) > REMEMBERED or next(iter(self._tried.values())) < now - _MINUTE:
            gone, _ = self._tried.popitem(last=False)
            self._limiter.clear(each, "of", gone)

    @cached_property
    def _limiter(self) -> "MovingWindowRateLimiter":
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        return MovingWindowRateLimiter(MemoryStorage())


def address_of(request: Request, *, behind_proxy: bool) -> str:
    """Where a request comes from: where a proxy of ours passes it on, what that says.

    Args:
        request: of a browser.
        behind_proxy: whether the operator says that there is a proxy.

    """
    peer = _address(request.client.host) if request.client else None
    if peer is None or not peer.is_private or not behind_proxy:
        return _network(peer)
    passed_on = request.headers.getlist("x-forwarded-for")
    said = _address(passed_on[-1].rpartition(",")[2].strip()) if passed_on else None
    return _network(said or peer)


def _address(text: str) -> _Address | None:
    """An address, without what anybody may add to it; None where it is none."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _network(address: _Address | None) -> str:
    """An address as far as nobody can change it at will."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _NETWORK_V6), strict=False))
    return "" if address is None else str(address)
