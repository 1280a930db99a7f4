"""Which protocols there are: one line each, from a provider's name to what makes it."""

import math
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.clock import Clock
from calotype.providers.port import Provider
from calotype.providers.sandbox.provider import BUILT_IN, SandboxProvider
from calotype.providers.sandbox.studio import Studio
from calotype.settings import Settings

Maker = Callable[[Channel, Settings, Clock], Provider]


def _sandbox(_channel: Channel, settings: Settings, clock: Clock) -> Provider:
    studio = Studio(settings.sandbox_processes)
    return SandboxProvider(studio, seconds=settings.sandbox_seconds, clock=clock)


PROVIDERS: Final[Mapping[str, Maker]] = {
    "sandbox": _sandbox,
}


def built_in_channel(settings: Settings) -> Channel:
    """The channel for every model that no configured channel serves."""
    usual = math.ceil(settings.sandbox_seconds) + 1
    return msgspec.structs.replace(BUILT_IN, eta_seconds=usual)
