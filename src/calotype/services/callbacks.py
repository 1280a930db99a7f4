"""Callbacks of upstreams: they say that a job ended, and are believed in nothing else."""

import logging
from collections.abc import Awaitable, Callable, Mapping

from calotype.domain.errors import CallbackNotFound, InvalidSignature
from calotype.providers.port import Provider
from calotype.services.routing import Router

TOPIC = "callback"
"""What the processes of a shared database tell each other under."""

log = logging.getLogger(__name__)


class Callbacks:
    """Takes callbacks in.

    Args:
        providers: channel id → what speaks to it, and knows its upstream's signature.
        tell: has the job polled by whoever follows it, ``(channel id, upstream id)``.

    """

    def __init__(
        self,
        router: Router,
        providers: Mapping[int, Provider],
        *,
        tell: Callable[[int, str], Awaitable[None]],
    ) -> None:
        self._router = router
        self._providers = providers
        self._tell = tell

    async def receive(self, slug: str, headers: Mapping[str, str], body: bytes) -> None:
        """Take one callback in.

        Args:
            slug: the channel's.
            headers: with names in lower case.
            body: as it came, which is what signatures are made over.

        Raises:
            errors.CallbackNotFound: no channel of this slug asks for callbacks.
            errors.InvalidSignature: it is not from the channel's upstream, or too old.

        """
        channel = next((each for each in self._router.channels if each.slug == slug), None)
        provider = self._providers.get(channel.id) if channel else None
        if channel is None or provider is None or not channel.callbacks:
            raise CallbackNotFound("No channel of this name asks for callbacks.")
        upstream_id = provider.callback(headers, body)
        if upstream_id is None:
            log.warning("channel %s: a callback was refused: forged, stale or malformed", slug)
            raise InvalidSignature("This callback was not signed by the channel's upstream.")
        await self._tell(channel.id, upstream_id)


def packed(channel_id: int, upstream_id: str) -> str:
    """A callback as one text, to be told to other processes."""
    return f"{channel_id} {upstream_id.partition(' ')[0]}"


def unpacked(text: str) -> tuple[int, str]:
    """The channel and the upstream's id in it."""
    channel_id, _, upstream_id = text.partition(" ")
    return int(channel_id), upstream_id
