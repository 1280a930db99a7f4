"""What is known of the channels' health, kept in the database so that every process knows it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import assert_never

from calotype.domain.clock import Clock
from calotype.domain.errors import Unavailable
from calotype.domain.health import Breakers, Change, Happening
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
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
        self._telling: set[asyncio.Task[None]] = set()

    def note(
        self,
        channel_id: int,
        model: str,
        outcome: SubmitOutcome | PollOutcome,
        *,
        begun: int,
        polled: bool = False,
    ) -> None:
        """Take in what an outcome says of a channel; never raises, and waits for nothing.

        Args:
            channel_id: whose outcome it is.
            model: the public id of the model.
            outcome: what came.
            begun: when it was sent.
            polled: it came of a question about an accepted job.

        """
        breakers, now = self._breakers, self._clock()
        match outcome:
            case Running():
                return
            case Accepted():
                changes = breakers.note_accepted(channel_id, model, begun=begun, now=now)
                self._tell_soon(changes)
                return
            case Done():
                fault, detail = None, ""
            case Unknown():
                fault, detail = outcome.fault, outcome.message
            case Refused():
                fault, detail = outcome.fault, outcome.detail or outcome.message
            case Failed(code="cancelled"):  # it was stopped: that says nothing of the upstream
                return
            case TryLater() | Failed():
                fault, detail = outcome.fault, outcome.message
            case _:
                assert_never(outcome)
        if isinstance(outcome, TryLater) and outcome.retry_after:
            until = now + int(outcome.retry_after * 1000)
            breakers.hold(channel_id, model, until=until, now=now)
        note = breakers.note_ended if polled else breakers.note
        self._tell_soon(note(channel_id, model, fault, detail=detail, begun=begun, now=now))

    def _tell_soon(self, changes: Sequence[Change]) -> None:
        for change in changes:
            telling = asyncio.create_task(self._tell(change))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

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
        except Exception:
            log.exception("%s: the database could not be told", what)

    async def forget(self, channel_ids: Collection[int]) -> None:
        """Begin anew with channels that are others now."""
        for channel_id in channel_ids:
            self._breakers.forget(channel_id)
        for health in await self._store.health():
            if health.channel_id in channel_ids:
                await self._store.clear_health(health.channel_id, health.model, now=self._clock())

    async def refresh(self) -> None:
        """Learn what the other processes know."""
        self._breakers.adopt(await self._store.health(), now=self._clock())


async def keep_fresh(*sources: Callable[[], Awaitable[None]]) -> None:
    """Learn what other processes know of channels, again and again, until cancelled."""
    while True:
        for refresh in sources:
            try:
                await refresh()
            except Unavailable:
                log.warning("what is known of channels has to wait: the database does not answer")
            except Exception:
                log.exception("what is known of channels could not be read; it is tried again")
        await asyncio.sleep(FRESH_SECONDS)
