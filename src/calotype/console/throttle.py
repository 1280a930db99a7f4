"""How often somebody may try to sign in."""

import ipaddress
import math
import time
from functools import cached_property
from typing import TYPE_CHECKING, Final

from starlette.requests import Request

if TYPE_CHECKING:
    from limits.strategies import MovingWindowRateLimiter

OF_ADDRESS: Final = 10
"""Tries a minute from one address."""
OF_ALL: Final = 100
"""And from everywhere together."""
_MINUTE: Final = 60
_NETWORK_V6: Final = 64
"""Bits of an IPv6 address that its holder cannot choose."""


class Throttle:
    """Counts tries in a moving window of a minute, in this process."""

    def wait(self, address: str) -> int:
        """Count a try; the seconds to wait where it is one too many, else 0."""
        from limits import RateLimitItemPerMinute

        each, every = RateLimitItemPerMinute(OF_ADDRESS), RateLimitItemPerMinute(OF_ALL)
        for item, name in ((each, address), (every, "")):
            if not self._limiter.hit(item, "sign-in", name):
                until = self._limiter.get_window_stats(item, "sign-in", name).reset_time
                return min(_MINUTE, max(1, math.ceil(until - time.time())))
        return 0

    @cached_property
    def _limiter(self) -> "MovingWindowRateLimiter":
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        return MovingWindowRateLimiter(MemoryStorage())


def address_of(request: Request) -> str:
    """Where a request comes from: where a proxy of ours passes it on, what that says."""
    peer = request.client.host if request.client else ""
    if peer and not _near(peer):
        return _network(peer)
    passed_on = request.headers.getlist("x-forwarded-for")
    last = passed_on[-1].rpartition(",")[2].strip() if passed_on else ""
    return _network(last) or peer


def _near(address: str) -> bool:
    """Whether this is a machine or a network of ours, from which a proxy may speak."""
    try:
        return ipaddress.ip_address(address).is_private
    except ValueError:
        return False


def _network(address: str) -> str:
    """An address as far as nobody can change it at will; empty when it is none."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, _NETWORK_V6), strict=False))
    return str(found)
