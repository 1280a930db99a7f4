"""What the operator watches: how channels do, what waits, and what needs a person."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from calotype.domain.catalog import Catalog, Model
from calotype.domain.channel import Channel
from calotype.domain.clock import Clock
from calotype.domain.health import WHOLE, Health
from calotype.domain.task import AttemptState
from calotype.services.effective import Offer, offers
from calotype.services.routing import Router
from calotype.store.operating import ChannelFigures, QueueDepth, SentAttempt, Switch
from calotype.store.port import ChannelEvent, Store

WINDOW_MS: Final = 24 * 3600 * 1000
"""Figures are of attempts that began since then; of the newest ones where there are many."""
MINUTE_MS: Final = 60_000
LEAST_FREE: Final = 256 * 1024 * 1024
"""Bytes of disk below which new images may not fit."""
LITTLE_FREE: Final = 10 * LEAST_FREE
FAILURES_SHOWN: Final = 20
EVENTS_SHOWN: Final = 30
_EVENTS_READ: Final = 1000
"""Of all channels."""
_FAILED: Final = frozenset({AttemptState.REFUSED, AttemptState.FAILED, AttemptState.UNKNOWN})
_STATES: Final = {
    "done": AttemptState.DONE,
    "refused": AttemptState.REFUSED,
    "failed": AttemptState.FAILED,
    "unknown": AttemptState.UNKNOWN,
}


class ChannelStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How a channel stands."""

    channel: Channel
    takes_new: bool
    switch: Switch | None
    breakers: tuple[Health, ...]
    """Those that are open or half-open, that of the whole channel first."""
    figures: ChannelFigures
    """Of the last 24 hours."""
    depth: QueueDepth
    sent_lately: int
    """Sends of the last minute."""


class ModelStanding(msgspec.Struct, frozen=True):
    """How a channel does with one of its models."""

    model: Model
    offer: Offer
    breaker: Health | None
    figures: ChannelFigures


class ChannelReport(msgspec.Struct, frozen=True):
    """All that is told of one channel."""

    standing: ChannelStanding
    models: Sequence[ModelStanding]
    failures: Sequence[SentAttempt]
    """What came to nothing, newest first."""
    events: Sequence[ChannelEvent]
    """What happened to its breakers, newest first."""


class Watching:
    """Looks at the whole server, for its operator."""

    def __init__(self, store: Store, catalog: Catalog, router: Router, *, clock: Clock) -> None:
        self._store = store
        self._catalog = catalog
        self._router = router
        self._clock = clock

    async def channels(self) -> list[ChannelStanding]:
        """How every channel in force stands."""
        now, operating = self._clock(), self._store.operating
        switches = {one.channel_id: one for one in await operating.switches()}
        figures = {one.channel_id: one for one in await operating.figures(since=now - WINDOW_MS)}
        lately = await operating.counts(since=now - MINUTE_MS)
        depths = {one.channel_id: one for one in await operating.depth()}
        health = sorted(await self._store.health(), key=lambda one: (one.model != WHOLE, one.model))
        return [
            ChannelStanding(
                channel=channel,
                takes_new=self._takes_new(channel, switches.get(channel.id)),
                switch=switches.get(channel.id),
                breakers=tuple(one for one in health if one.channel_id == channel.id),
                figures=figures.get(channel.id) or figures_of(channel.id, ()),
                depth=depths.get(channel.id) or QueueDepth(channel.id, 0, 0, 0, now),
                sent_lately=lately.get(channel.id, 0),
            )
            for channel in self._router.channels
        ]

    async def channel(self, slug: str) -> ChannelReport | None:
        """All of one channel; None where there is none of that slug."""
        standings = {one.channel.slug: one for one in await self.channels()}
        standing = standings.get(slug)
        if standing is None:
            return None
        id_, now = standing.channel.id, self._clock()
        sent = await self._store.operating.sent(id_, since=now - WINDOW_MS)
        events = await self._store.channel_events(since=0, limit=_EVENTS_READ)
        return ChannelReport(
            standing,
            [
                self._model(standing, model, sent)
                for model in self._catalog.models.values()
                if standing.channel.serves(model.id)
            ],
            [one for one in sent if one.attempt.state in _FAILED][:FAILURES_SHOWN],
            [one for one in events if one.channel_id == id_][:EVENTS_SHOWN],
        )

    def unserved(self) -> list[str]:
        """The models that are offered, and that no channel takes."""
        return [
            model.id
            for model in self._catalog.models.values()
            if model.enabled and not self._router.serving(model.id)
        ]

    def _takes_new(self, channel: Channel, switch: Switch | None) -> bool:
        return channel.enabled if switch is None else switch.enabled

    def _model(
        self, standing: ChannelStanding, model: Model, sent: Sequence[SentAttempt]
    ) -> ModelStanding:
        channel = standing.channel
        (offer,) = offers(self._catalog, model, [channel])
        breakers = {one.model: one for one in standing.breakers}
        of_model = [one for one in sent if one.model == model.id]
        return ModelStanding(model, offer, breakers.get(model.id), figures_of(channel.id, of_model))


def figures_of(channel_id: int, sent: Sequence[SentAttempt]) -> ChannelFigures:
    """What attempts come to."""
    costed = [one for one in sent if one.attempt.cost_micro_usdc is not None]
    counts = {
        name: sum(one.attempt.state is state for one in sent) for name, state in _STATES.items()
    }
    return ChannelFigures(
        channel_id=channel_id,
        attempts=len(sent),
        **counts,
        costed=len(costed),
        cost=sum(one.attempt.cost_micro_usdc or 0 for one in costed),
        paid=sum(one.paid for one in costed),
        milliseconds=tuple(
            sorted(
                one.attempt.finished_at - one.attempt.started_at
                for one in sent
                if one.attempt.state is AttemptState.DONE and one.attempt.finished_at is not None
            )
        ),
    )


async def free_bytes(folder: Path) -> int:
    """How much still fits on the disk of a folder."""
    usage = await asyncio.to_thread(shutil.disk_usage, folder)
    return usage.free
