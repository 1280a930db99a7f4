"""Running one task, from wherever it stands: one coroutine, killable between any two lines.

What comes next is decided from what is stored alone:

* an attempt with the upstream's id is polled, however late it is;
* an attempt that was begun and has no id may have been bought: it is sent again only where that
  is free, otherwise the task fails and the operator sees the attempt;
* with no attempt open, a new one is written down before a byte goes out.

Two limits end a task: after ``deadline_at`` nothing new is sent, after ``abandon_at`` an accepted
job is no longer waited for.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, assert_never

import msgspec

from calotype.domain.catalog import Catalog, Model
from calotype.domain.channel import Channel
from calotype.domain.clock import Clock
from calotype.domain.errors import InvalidRequest, Unavailable, UnknownModel, failure
from calotype.domain.ids import encode
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    Refused,
    Running,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.task import OPEN_ATTEMPT, Asset, Attempt, AttemptState, Event, Task
from calotype.providers.port import Job, Provider, ReferenceImage, SourceError
from calotype.services.assets import MAX_RESULT_BYTES, Assets
from calotype.services.references import ReferenceFailed, ReferenceIntake
from calotype.services.routing import Router
from calotype.store.port import Fenced, Store, Taken

MAX_SENDS: Final = 8
"""Sends of one task: with the pauses below, half a minute of patience with a busy upstream."""
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 30.0
DATABASE_PAUSE: Final = 0.5
"""Between tries to write down what only this process knows."""
BODIES: Final = 64
"""Images read from upstreams at a time: more costs memory and brings no speed."""

log = logging.getLogger(__name__)


class Parked(Exception):
    """The server is stopping; the task goes on at the next start."""


class _Bench(msgspec.Struct, frozen=True):
    """A task under a claim, with what it is developed by."""

    task: Task
    model: Model
    channel: Channel
    provider: Provider

    @property
    def free(self) -> bool:
        return self.provider.free if self.channel.free is None else self.channel.free


class Runner:
    """Runs tasks.

    Args:
        providers: channel id → what speaks to it.

    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        router: Router,
        *,
        providers: Mapping[int, Provider],
        assets: Assets,
        references: ReferenceIntake,
        clock: Clock,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._router = router
        self._providers = providers
        self._assets = assets
        self._references = references
        self._clock = clock
        self._stopping = asyncio.Event()
        self._bodies = asyncio.Semaphore(BODIES)

    def park(self) -> None:
        """From now on tasks stop at the next point where nothing is under way."""
        self._stopping.set()

    async def run(self, task_id: int) -> None:
        """Take a task up and bring it to its end, or leave it where another can go on.

        Raises:
            Exception: something of ours is broken; the task is to be tried again later.

        """
        taken = await self._store.take(task_id, now=self._clock())
        if taken is None:
            return
        name = encode("task", task_id)
        try:
            await self._develop(taken)
        except Fenced:
            log.info("%s was moved on by another worker", name)
        except Parked:
            log.info("%s is parked until the next start", name)
        except Exception:
            if self._clock() < taken.task.abandon_at:
                raise
            log.exception("%s broke and is past its time", name)
            message = "Something broke on our side, again and again."
            await self._give_up(taken.task, "internal_error", message)

    async def _develop(self, taken: Taken) -> None:
        task = taken.task
        try:
            model = self._catalog.get(task.model)
        except UnknownModel:
            await self._give_up(task, "no_channel_available", "The model is no longer offered.")
            return
        channel = self._router.get(task.channel_id)
        if channel is None:
            message = "The channel is no longer configured."
            await self._give_up(task, "no_channel_available", message)
            return
        bench = _Bench(task, model, channel, self._providers[channel.id])
        last = taken.attempts[-1] if taken.attempts else None
        if last is not None and last.state in OPEN_ATTEMPT:
            if last.upstream_id is not None:
                await self._follow(bench, last.number, upstream_id=last.upstream_id, delay=0)
                return
            if not await self._resolve_unknown(bench, last):
                return
        await self._prepare_and_send(bench)

    async def _resolve_unknown(self, bench: _Bench, attempt: Attempt) -> bool:
        """What to do with a send that was cut off; True when it may be sent again."""
        detail = "The server stopped while the request was on its way."
        if not bench.free:
            await self._fail_unknown(bench.task, attempt.number)
            return False
        await self._store.close_attempt(
            bench.task,
            attempt.number,
            state=AttemptState.UNKNOWN,
            detail=detail,
            now=self._clock(),
        )
        return True

    async def _prepare_and_send(self, bench: _Bench) -> None:
        task = bench.task
        if any(reference.asset_id is None for reference in task.references):
            try:
                filled, fetched = await self._references.fetch(
                    task.references,
                    account_id=task.account_id,
                    limits=bench.model.references,
                    deadline_at=task.deadline_at,
                )
            except ReferenceFailed as error:
                await self._fail(task, error.code, error.message)
                return
            try:
                await self._store.keep_references(task, filled, fetched)
            except Fenced:
                await self._assets.discard(fetched)
                raise
            task = msgspec.structs.replace(task, references=filled)
            bench = msgspec.structs.replace(bench, task=task)
        await self._send(bench)

    async def _send(self, bench: _Bench) -> None:
        """Send until something is accepted, refused for good, or the time is up."""
        task, trouble = bench.task, TryLater("deadline_exceeded", "No upstream took it in time.")
        event = Event.RUN if bench.provider.synchronous else Event.QUEUE
        references = await self._reference_images(task)
        for sends in range(1, MAX_SENDS + 1):
            if self._clock() >= task.deadline_at:
                break
            self._check_parking()
            number = await self._store.begin_attempt(
                task, channel_id=bench.channel.id, event=event, now=self._clock()
            )
            outcome = await self._submit(bench, _job(bench, number, references))
            match outcome:
                case Accepted(upstream_id=upstream_id, poll_after=poll_after):
                    await self._insist(
                        partial(self._store.accept_attempt, task, number, upstream_id=upstream_id)
                    )
                    await self._follow(bench, number, upstream_id=upstream_id, delay=poll_after)
                    return
                case Done():
                    await self._deliver_at_once(bench, number, done=outcome)
                    return
                case Refused(code=code, message=message):
                    await self._fail(task, code, message, attempt=(number, AttemptState.REFUSED))
                    return
                case Failed(code=code, message=message):
                    await self._fail(task, code, message, attempt=(number, AttemptState.FAILED))
                    return
                case TryLater():
                    state, trouble = AttemptState.REFUSED, outcome
                case Unknown(message=message):
                    if not bench.free:
                        await self._fail_unknown(task, number)
                        return
                    state = AttemptState.UNKNOWN
                    trouble = TryLater("upstream_outcome_unknown", message)
                case _:
                    assert_never(outcome)
            await self._insist(
                partial(
                    self._store.close_attempt,
                    task,
                    number,
                    state=state,
                    detail=trouble.message,
                    now=self._clock(),
                )
            )
            if sends < MAX_SENDS:
                await self._pause(trouble.retry_after or FIRST_PAUSE * 2 ** (sends - 1))
        await self._fail(task, trouble.code, trouble.message)

    async def _submit(self, bench: _Bench, job: Job) -> SubmitOutcome:
        try:
            return await bench.provider.submit(job)
        except Exception:  # a provider that raises is broken; the money may be spent all the same
            log.exception("channel %s broke while sending", bench.channel.slug)
            return Unknown("The request broke off on our side.")

    async def _follow(self, bench: _Bench, number: int, *, upstream_id: str, delay: float) -> None:
        """Poll an accepted job to its end."""
        task = bench.task
        job = _job(bench, number, await self._reference_images(task))
        shown: tuple[Event, int] | None = None
        while True:
            await self._pause(delay)
            outcome = await bench.provider.poll(job, upstream_id)
            match outcome:
                case Done():
                    try:
                        await self._deliver(bench, number, done=outcome)
                    except SourceError as error:
                        log.warning("%s: a result could not be read: %s", job.task, error)
                        delay = min(LONGEST_PAUSE, max(1.0, delay * 2))
                    else:
                        return
                case Failed(code=code, message=message):
                    await self._fail(task, code, message, attempt=(number, AttemptState.FAILED))
                    return
                case Unknown():
                    await self._fail_unknown(task, number)
                    return
                case TryLater(retry_after=retry_after):
                    delay = retry_after or min(LONGEST_PAUSE, max(1.0, delay * 2))
                case Running(progress=progress, queued=queued, poll_after=poll_after):
                    event = Event.QUEUE if queued else Event.RUN
                    now_shown = (event, progress or 0)
                    if now_shown != shown:
                        await self._store.advance(
                            task, event, progress=progress or 0, now=self._clock()
                        )
                        shown = now_shown
                    delay = poll_after
                case _:
                    assert_never(outcome)
            if self._clock() >= task.abandon_at:
                message = "The upstream accepted the job and did not finish it in time."
                await self._fail(
                    task, "deadline_exceeded", message, attempt=(number, AttemptState.UNKNOWN)
                )
                return

    async def _deliver_at_once(self, bench: _Bench, number: int, *, done: Done) -> None:
        """Keep images that came with the answer itself and cannot be asked for again."""
        try:
            await self._deliver(bench, number, done=done)
        except SourceError as error:
            await self._fail(
                bench.task,
                "upstream_failed",
                f"The image could not be read to its end: {error}",
                attempt=(number, AttemptState.FAILED),
            )

    async def _deliver(self, bench: _Bench, number: int, *, done: Done) -> None:
        """Store the images, settle, finish."""
        task = bench.task
        attempt = (number, AttemptState.FAILED)
        if not done.images:
            message = "The upstream says that it is done and has no image."
            await self._fail(task, "upstream_malformed_response", message, attempt=attempt)
            return
        try:
            images = await self._keep_images(task, done)
        except InvalidRequest as error:
            message = f"The upstream's answer is no image that can be used: {error.message}"
            await self._fail(task, "upstream_malformed_response", message, attempt=attempt)
            return
        try:
            await self._insist(
                partial(
                    self._store.complete,
                    task,
                    number,
                    images=images,
                    actual=task.reserved * min(len(images), task.request.n) // task.request.n,
                    cost=done.cost_micro_usdc,
                    now=self._clock(),
                )
            )
        except Fenced:
            await self._assets.discard(images)
            raise

    async def _keep_images(self, task: Task, done: Done) -> list[Asset]:
        images = list[Asset]()
        try:
            for source in done.images:
                async with self._bodies, source.open() as chunks:
                    kept = await self._assets.keep(
                        chunks,
                        account_id=task.account_id,
                        kind="result",
                        max_bytes=MAX_RESULT_BYTES,
                    )
                    images.append(kept.asset)
        except BaseException:
            await self._assets.discard(images)
            raise
        return images

    async def _reference_images(self, task: Task) -> tuple[ReferenceImage, ...]:
        references: list[ReferenceImage] = []
        for reference in task.references:
            asset = reference.asset_id and await self._store.asset(reference.asset_id)
            if asset:
                references.append(
                    ReferenceImage(
                        content_type=asset.content_type,
                        width=asset.width,
                        height=asset.height,
                        size=asset.bytes,
                        open=partial(self._assets.store.open, asset.key),
                    )
                )
        return tuple(references)

    async def _fail(
        self,
        task: Task,
        code: str,
        message: str,
        *,
        attempt: tuple[int, AttemptState] | None = None,
    ) -> None:
        why = failure(code, message)
        await self._insist(partial(self._store.fail, task, why, attempt=attempt, now=self._clock()))

    async def _give_up(self, task: Task, code: str, message: str) -> None:
        """Fail a task whatever it is at; of a job left behind nobody knows what became."""
        attempts = await self._store.attempts(task.id)
        left = attempts[-1] if attempts and attempts[-1].state in OPEN_ATTEMPT else None
        attempt = (left.number, AttemptState.UNKNOWN) if left else None
        await self._fail(task, code, message, attempt=attempt)

    async def _fail_unknown(self, task: Task, number: int) -> None:
        message = (
            "Nobody can say whether the upstream took the request; it was not sent again, "
            "and you were not charged."
        )
        attempt = (number, AttemptState.UNKNOWN)
        await self._fail(task, "upstream_outcome_unknown", message, attempt=attempt)

    async def _insist(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write down what only this process knows, for as long as the database does not answer.

        Raises:
            Unavailable: a try that seemed to fail may have been written after all; what is
                stored tells.

        """
        fault: Unavailable | None = None
        while True:
            try:
                return await write()
            except Unavailable as error:
                fault = error
            except Fenced:
                if fault is None:
                    raise
                raise fault from None
            await asyncio.sleep(DATABASE_PAUSE)

    def _check_parking(self) -> None:
        if self._stopping.is_set():
            raise Parked

    async def _pause(self, seconds: float) -> None:
        self._check_parking()
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(seconds, LONGEST_PAUSE)):
                    await self._stopping.wait()
            self._check_parking()


def _job(bench: _Bench, number: int, references: tuple[ReferenceImage, ...]) -> Job:
    task = bench.task
    return Job(
        task=encode("task", task.id),
        attempt=number,
        model=bench.model,
        upstream_model=(bench.channel.models or {}).get(task.model, task.model),
        request=task.request,
        references=references,
    )
