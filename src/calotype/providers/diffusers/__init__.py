"""Pictures drawn by this machine itself, with open weights and the diffusers library.

The worker's side is light: torch and diffusers are imported by the engines alone, which are
processes of their own (``engine``), told what to do by lines of JSON (``wire``).
"""

from typing import TYPE_CHECKING, Final

from calotype.domain.channel import Channel
from calotype.domain.wire import Upstream
from calotype.providers.diffusers.options import OPTIONS, check_here, set_up
from calotype.providers.kind import Kind

if TYPE_CHECKING:  # the engines import this package too, and need none of it
    from calotype.providers.line import Tools
    from calotype.providers.port import Provider


def _make(channel: Channel, upstream: Upstream, tools: "Tools") -> "Provider":
    from calotype.providers.diffusers.provider import Diffusers

    return Diffusers(channel, upstream, tools)


KIND: Final = Kind(
    make=_make,
    needs_key=False,
    remote=False,
    options=OPTIONS,
    set_up=set_up,
    check_here=check_here,
)
