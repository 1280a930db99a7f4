"""The built-in upstream: draws a real picture of the right size from the prompt, for nothing.

It has no file in ``catalog/upstreams/``: it takes every model as it is, with every parameter.
"""

import math
from typing import TYPE_CHECKING, Final

from calotype.domain.channel import Channel
from calotype.domain.wire import Upstream
from calotype.providers.kind import Kind

if TYPE_CHECKING:  # the processes that draw import this package too, and need none of it
    from calotype.providers.line import Tools
    from calotype.providers.port import Provider

SANDBOX: Final = "sandbox"
"""The provider's name."""


def built_in_channel(seconds: float) -> Channel:
    """The channel for every model that no configured channel serves.

    Args:
        seconds: how long its work takes.

    """
    return Channel(
        id=1,
        slug="sandbox",
        name="Sandbox",
        provider=SANDBOX,
        description="Built in: draws a placeholder picture from the prompt. No upstream is called.",
        eta_seconds=math.ceil(seconds) + 1,
    )


def _make(_channel: Channel, _upstream: Upstream, tools: "Tools") -> "Provider":
    from calotype.providers.sandbox.provider import SandboxProvider
    from calotype.providers.sandbox.studio import Studio

    studio = Studio(tools.sandbox_processes)
    return SandboxProvider(studio, seconds=tools.sandbox_seconds, clock=tools.clock)


KIND: Final = Kind(make=_make, needs_key=False)
