"""Which protocols there are: one line each, from a provider's name to what makes it."""

from collections.abc import Callable, Mapping
from typing import Final

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

BUILT_IN_CHANNEL: Final = BUILT_IN
"""Serves every model that no configured channel serves."""
