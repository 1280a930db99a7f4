"""What is known of the channels' health, kept in the database so that every process knows it."""

import asyncio
import logging
from typing import assert_never

from calotype.domain.clock import Clock
from calotype.domain.errors import Unavailable
from calotype.domain.health import Breakers, Change, Happening
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    Fault,
    PollOutcome,
    Refused,
    Running,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.store.port import Store

FRESH_SECONDS = 2.0
"""How old this process's knowledge of the other processes' breakers may be."""

log = logging.getLogger(__name__)


class HealthKeeper:
    """Takes outcomes in, and tells the other processes when a breaker opens or closes."""

    def __init__(self, store: Store, breakers: Breakers, *, clock: Clock) -> None:
        self._store = store
        self._breakers = breakers
        self._clock = clock

    async def note(
        self, channel_id: int, model: str, fault: Fault | None, *, detail: str = ""
    ) -> None:
        """Take in the outcome of one send; ``None``: it went well."""
        changes = self._breakers.note(channel_id, model, fault, detail=detail, now=self._clock())
        for change in changes:
            await self._tell(change)

    async def note_accepted(self, channel_id: int, model: str) -> None:
        """Take in that a job was accepted."""
        for change in self._breakers.note_accepted(channel_id, model, now=self._clock()):
            await self._tell(change)

    async def note_outcome(
        self, channel_id: int, model: str, outcome: SubmitOutcome | PollOutcome
    ) -> None:
        """Take in what an outcome says of the channel."""
        match outcome:
            case Accepted():
                await self.note_accepted(channel_id, model)
            case Running():
                pass
            case Done():
                await self.note(channel_id, model, None)
            case Unknown():
                await self.note(channel_id, model, Fault.UPSTREAM, detail=outcome.message)
            case Refused():
                said = outcome.detail or outcome.message
                await self.note(channel_id, model, outcome.fault, detail=said)
            case TryLater() | Failed():
                if isinstance(outcome, TryLater) and outcome.retry_after:
                    now = self._clock()
                    until = now + int(outcome.retry_after * 1000)
                    self._breakers.hold(channel_id, model, until=until, now=now)
                await self.note(channel_id, model, outcome.fault, detail=outcome.message)
            case _:
                assert_never(outcome)

    async def _tell(self, change: Change) -> None:
        health = change.health
        what = f"channel {health.channel_id}{f', {health.model}' if health.model else ''}"
        try:
            if change.happening is Happening.OPENED:
                seconds = (health.until - health.updated_at) / 1000
                log.warning("%s: nothing is sent for %g s: %s", what, seconds, health.fault)
                await self._store.note_health(health)
            else:
                log.warning("%s: is well again", what)
                await self._store.clear_health(
                    health.channel_id, health.model, now=health.updated_at
                )
        except Unavailable:
            log.warning("%s: the database could not be told", what)

    async def refresh(self) -> None:
        """Learn what the other processes know."""
        self._breakers.adopt(await self._store.health(), now=self._clock())

    async def keep_fresh(self) -> None:
        """Learn it again and again, until cancelled."""
        while True:
            try:
                await self.refresh()
            except Unavailable:
                log.warning("the channels' health has to wait: the database does not answer")
            except Exception:
                log.exception("the channels' health could not be read; it is tried again")
            await asyncio.sleep(FRESH_SECONDS)
