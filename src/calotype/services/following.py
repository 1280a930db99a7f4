"""Following an accepted job to its end: polled however late it is, woken by its upstream."""

import asyncio
import logging
import random
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final, assert_never

from calotype.domain.clock import Clock
from calotype.domain.errors import Unavailable
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    PollOutcome,
    Running,
    SourceError,
    TryLater,
    Unknown,
)
from calotype.domain.task import Attempt, AttemptState, Event
from calotype.observing import metrics, tracing
from calotype.providers.port import Job, Provider
from calotype.services.cancelling import Stop
from calotype.services.endings import Endings
from calotype.services.health import HealthKeeper
from calotype.services.sending import LONGEST_PAUSE, Bench, jittered
from calotype.store.port import Store

LONGEST_WAIT: Final = 300.0
"""Seconds between two polls at most, whatever the upstream asks for."""

_WORD: Final = 40

log = logging.getLogger(__name__)


class Parked(Exception):
    """The server is stopping; the task goes on at the next start."""


class Patience:
    """Waiting that ends when the server stops."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self._sleepers: set[asyncio.Event] = set()

    def end(self) -> None:
        """From now on nobody waits."""
        self._stopping.set()
        for wake in self._sleepers:
            wake.set()

    @property
    def over(self) -> bool:
        """Whether the server is stopping."""
        return self._stopping.is_set()

    def check(self) -> None:
        """Raise ``Parked`` when the server is stopping."""
        if self.over:
            raise Parked

    async def wait(self, seconds: float, wake: asyncio.Event | None = None) -> None:
        """Wait so long, or until woken.

        Raises:
            Parked: the server is stopping.

        """
        self.check()
        if seconds <= 0:
            return
        waker = wake or asyncio.Event()
        self._sleepers.add(waker)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waker.wait()
        finally:
            self._sleepers.discard(waker)
        self.check()
        waker.clear()


class _Alarm:
    """Ends the pause before a poll.

    Attributes:
        wake: set when there is something to see to.
        called: its upstream says that the job ended.

    """

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.called = False


class Follower:
    """Polls the jobs that upstreams accepted."""

    def __init__(
        self,
        store: Store,
        endings: Endings,
        health: HealthKeeper,
        *,
        providers: Mapping[int, Provider],
        patience: Patience,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._store = store
        self._endings = endings
        self._health = health
        self._providers = providers
        self._patience = patience
        self._clock = clock
        self._chance = chance
        self._followed: dict[tuple[int, str], _Alarm] = {}
        self._tasks: dict[int, _Alarm] = {}

    def nudge(self, channel_id: int, upstream_id: str) -> bool:
        """Poll a job now, because its upstream says that it ended; False when it is not here."""
        alarm = self._followed.get((channel_id, upstream_id.partition(" ")[0]))
        if alarm is not None:
            alarm.called = True
            alarm.wake.set()
        return alarm is not None

    def look(self, task_id: int) -> None:
        """See at once whether a task that is followed here is to be stopped."""
        if (alarm := self._tasks.get(task_id)) is not None:
            alarm.wake.set()

    async def accepted(
        self, bench: Bench, job: Job, *, upstream_id: str, poll_after: float
    ) -> Attempt | None:
        """Keep the id of a job that was accepted just now, and follow it."""
        await self._endings.insist(
            partial(self._store.accept_attempt, bench.task, job.attempt, upstream_id=upstream_id)
        )
        accepted = Accepted(upstream_id, poll_after)
        self._health.note(bench.channel.id, bench.task.model, accepted, begun=bench.begun)
        return await self.follow(bench, job, upstream_id=upstream_id, delay=poll_after)

    async def follow(
        self, bench: Bench, job: Job, *, upstream_id: str, delay: float
    ) -> Attempt | None:
        """Poll an accepted job to its end, first after ``delay`` seconds.

        One whose client gave it up is stopped where the upstream can do that, and polled on: only
        the upstream knows what became of it.

        Returns:
            None when the task has ended; the closed attempt when its upstream lost the job, and
            sending it again is free.

        """
        key = (bench.channel.id, upstream_id.partition(" ")[0])
        alarm = self._followed[key] = self._tasks[bench.task.id] = _Alarm()
        stop = Stop(bench, job)
        shown: tuple[Event, int] | None = None
        not_before = 0.0
        try:
            while True:
                pause = jittered(min(delay, LONGEST_WAIT), self._chance)
                await self._patience.wait(pause, alarm.wake)
                # The channel's provider of this moment: its key may have been changed meanwhile.
                provider = self._providers.get(bench.channel.id, bench.provider)
                if cancelled := await self._is_cancelled(bench):
                    await stop.ask(provider, upstream_id)
                held = not_before - monotonic()
                if held > 0 and not alarm.called:
                    delay = held
                    continue
                alarm.called = False
                with tracing.span("upstream poll", kind="CLIENT", channel=bench.channel.slug):
                    outcome = await provider.poll(job, upstream_id)
                if isinstance(outcome, Running):
                    shown = await self._show(bench, outcome, shown)
                    delay = outcome.poll_after
                elif isinstance(outcome, TryLater):
                    delay = outcome.retry_after or _longer(delay)
                    if outcome.retry_after:
                        not_before = monotonic() + min(delay, LONGEST_WAIT)
                elif isinstance(outcome, Unknown):
                    self._note(bench, outcome)
                    return await self._endings.close_unknown(
                        bench, job.attempt, detail=outcome.message
                    )
                elif await self._end(bench, job, outcome, cancelled=cancelled):
                    return None
                else:
                    delay = _longer(delay)
                if self._clock() >= bench.task.abandon_at:
                    await self._abandon(bench, job, upstream_id, outcome)
                    return None
        finally:
            self._followed.pop(key, None)
            if self._tasks.get(bench.task.id) is alarm:
                del self._tasks[bench.task.id]

    async def _is_cancelled(self, bench: Bench) -> bool:
        try:
            return await self._endings.is_cancelled(bench.task)
        except Unavailable:  # the next round looks again
            return False

    async def _show(
        self, bench: Bench, outcome: Running, shown: tuple[Event, int] | None
    ) -> tuple[Event, int]:
        event = Event.QUEUE if outcome.queued else Event.RUN
        percent = outcome.progress or 0
        if (event, percent) != shown:
            await self._store.advance(bench.task, event, progress=percent, now=self._clock())
        return event, percent

    async def _end(
        self, bench: Bench, job: Job, outcome: Done | Failed, *, cancelled: bool
    ) -> bool:
        """End the task as its job ended; False when the result could not be read yet."""
        self._note(bench, outcome)
        match outcome:
            case Done():
                try:
                    await self._endings.deliver(
                        bench, job.attempt, done=outcome, cancelled=cancelled
                    )
                except SourceError as error:
                    log.warning("%s: a result could not be read: %s", job.task, error)
                    return False
            case Failed():
                await self._endings.fail_attempt(
                    bench.task, job.attempt, AttemptState.FAILED, outcome=outcome
                )
            case _:
                assert_never(outcome)
        return True

    def _note(self, bench: Bench, outcome: PollOutcome) -> None:
        channel, model = bench.channel.id, bench.task.model
        self._health.note(channel, model, outcome, begun=bench.begun, polled=True)
        took = self._clock() - bench.begun
        metrics.upstream_answered(channel, model, outcome, milliseconds=took)

    async def _abandon(
        self, bench: Bench, job: Job, upstream_id: str, outcome: PollOutcome
    ) -> None:
        """End a task whose upstream does not; what it goes on with is not wanted any more."""
        message = "The upstream accepted the job and did not finish it in time."
        if isinstance(outcome, Running) and outcome.state:
            message += f" Its last word was '{outcome.state[:_WORD]}'."
        attempt = (job.attempt, AttemptState.UNKNOWN)
        await self._endings.fail(bench.task, "deadline_exceeded", message, attempt=attempt)
        await Stop(bench, job).ask(bench.provider, upstream_id)


def _longer(delay: float) -> float:
    return min(LONGEST_PAUSE, max(1.0, delay * 2))
