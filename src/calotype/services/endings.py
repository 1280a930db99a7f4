"""How tasks end: images stored and paid, or a failure and the money released."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic
from typing import Final, TypeVar

import msgspec

from calotype.domain.clock import Clock
from calotype.domain.errors import CANCELLED, Unavailable, failure
from calotype.domain.ids import encode
from calotype.domain.outcomes import Done, Failed, Fault, Refused, SourceError, TryLater
from calotype.domain.task import FINAL, Asset, Attempt, AttemptState, Task
from calotype.observing import metrics
from calotype.services.assets import Assets
from calotype.services.collecting import Collector, Harvest
from calotype.services.prices import Prices
from calotype.services.sending import LOST, UNKNOWN_MESSAGE, Bench
from calotype.store.port import AttemptEnd, Fenced, Store

T = TypeVar("T")

DATABASE_PAUSE: Final = 0.5
"""Between tries to write down what only this process knows."""
STORE_PAUSE: Final = 2.0
"""Between tries to store an image that cannot be asked for again."""
FETCH_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, *(30.0,) * 60)
"""Seconds between tries to fetch one whose address came with the answer."""

log = logging.getLogger(__name__)


class Endings:
    """Writes down how tasks end, and insists on it.

    ``days`` says for how long results of a model are kept, where their account says nothing.
    """

    def __init__(
        self,
        store: Store,
        assets: Assets,
        *,
        prices: Prices,
        days: Callable[[str], int],
        clock: Clock,
    ) -> None:
        self._store = store
        self._assets = assets
        self._clock = clock
        self._prices = prices
        self._days = days
        self._collector = Collector(store, assets, days=days, clock=clock, keep=self._write_with)

    async def deliver(
        self, bench: Bench, number: int, *, done: Done, cancelled: bool = False
    ) -> None:
        """Store the images, settle, finish.

        Args:
            bench: where it was made.
            number: of the attempt.
            done: what the upstream said.
            cancelled: the task is known to be marked, so no image is fetched.

        Raises:
            SourceError: an image could not be read; asking for it again may help.

        """
        task = bench.task
        if task.request.n > 1 and not cancelled:  # only then images may have arrived before
            task = await self._current(task)
            cancelled = task.cancel_at is not None
        if cancelled:
            await self._settle_cancelled(bench, number, done)
            return
        try:
            harvest = await self._collector.collect(task, bench.model, done)
            if harvest.images:
                await self._complete(bench, task, number, done=done, harvest=harvest)
                return
        except Fenced:
            await self._settle_cancelled(bench, number, done)
            return
        nothing = ("The upstream says that it is done and has no image.",)
        message = (harvest.faults or nothing)[0]
        await self._fail_done(bench, number, "upstream_malformed_response", message, done=done)

    async def deliver_at_once(self, bench: Bench, number: int, *, done: Done) -> None:
        """Keep images that came with the answer itself and cannot be asked for again.

        While they can be read here and the asset store has trouble, the task waits with them; one
        that has to be fetched is tried a few times.
        """
        pauses, cancelled = iter(FETCH_PAUSES), False
        while True:
            try:
                await self.deliver(bench, number, done=done, cancelled=cancelled)
            except SourceError as error:
                if (pause := next(pauses, None)) is None:
                    message = f"The image could not be read to its end: {error}"
                    await self._fail_done(bench, number, "upstream_failed", message, done=done)
                    return
                await asyncio.sleep(pause)
            except (Unavailable, OSError) as error:
                if self._clock() >= bench.task.abandon_at:
                    raise
                name = encode("task", bench.task.id)
                log.warning("%s: its image is here and cannot be stored yet: %s", name, error)
                await asyncio.sleep(STORE_PAUSE)
            else:
                return
            cancelled = await _answered(partial(self.is_cancelled, bench.task))

    async def _complete(
        self, bench: Bench, task: Task, number: int, *, done: Done, harvest: Harvest
    ) -> None:
        actual, cost = self._prices.of(task, len(harvest.images)), done.cost_micro_usdc
        served = bench.channel.served(task.model)
        if cost is None and served.cost is not None:
            cost = served.cost * len(done.images)
        detail = None
        if harvest.faults:
            detail = f"{len(harvest.faults)} of {len(done.images)} images were of no use: "
            detail += harvest.faults[0]
        write = partial(
            self._store.complete,
            task,
            number,
            images=harvest.fresh,
            actual=actual,
            cost=cost,
            now=self._clock(),
            result=[each.image for each in harvest.images],
            days=self._days(task.model),
            end=AttemptEnd(detail=detail),
        )
        await self._write_with(write, harvest.fresh)
        self._note_end(task, metrics.SUCCESS, cost=cost, charged=actual)

    async def _write_with(
        self, write: Callable[[], Awaitable[None]], images: Sequence[Asset]
    ) -> None:
        """Insist on a write that images come with; those that it did not write down go."""
        try:
            await self.insist(write)
        except Fenced:
            await self._assets.discard(images)
            raise
        except Unavailable:
            stored = await _answered(partial(self._store.assets, [each.id for each in images]))
            kept = {each.id for each in stored}
            await self._assets.discard([each for each in images if each.id not in kept])
            raise

    async def is_cancelled(self, task: Task) -> bool:
        """Whether the client has asked for a task to be stopped.

        Raises:
            Fenced: it is final, or another worker's.

        """
        found = await self._store.standing(task.id)
        if found is None or found.claim != task.claim or found.completed_at is not None:
            raise Fenced
        return found.cancel_at is not None

    async def _current(self, task: Task) -> Task:
        """The task as it is stored now; waited for while the database does not answer.

        Raises:
            Fenced: it is final, or another worker's.

        """
        found = await _answered(partial(self._store.task, task.id))
        if found is None or found.claim != task.claim or found.state in FINAL:
            raise Fenced
        return found

    async def stopped(self, task: Task) -> bool:
        """End a task that nothing is under way for, when its client has asked for that."""
        if not await self.is_cancelled(task):
            return False
        await self.fail(task, CANCELLED.code, CANCELLED.message)
        return True

    async def _settle_cancelled(self, bench: Bench, number: int, done: Done) -> None:
        """End a task that its client gave up and its upstream finished all the same.

        Raises:
            Fenced: it is another worker's, or its client did not give it up.

        """
        task = await self._current(bench.task)
        if task.cancel_at is None:
            raise Fenced
        made = len(done.images)
        charged = self._prices.of_cancelled(task, made)
        cost, served = done.cost_micro_usdc, bench.channel.served(task.model)
        if cost is None and served.cost is not None:
            cost = served.cost * made
        write = partial(
            self._store.fail,
            task,
            CANCELLED,
            attempt=(number, AttemptState.DONE),
            now=self._clock(),
            detail=f"It was cancelled, and finished all the same; images: {made}.",
            cost=cost,
            charge=charged,
        )
        await self.insist(write)
        self._note_end(task, CANCELLED.code, cost=cost, charged=charged)

    async def _fail_done(
        self, bench: Bench, number: int, code: str, message: str, *, done: Done
    ) -> None:
        """End a task whose upstream was done, and of whose images nothing can be used."""
        if await _answered(partial(self.is_cancelled, bench.task)):
            await self._settle_cancelled(bench, number, done)
            return
        await self.fail(
            bench.task,
            code,
            message,
            attempt=(number, AttemptState.FAILED),
            fault=Fault.UPSTREAM,
            cost=done.cost_micro_usdc,
        )

    async def fail(
        self,
        task: Task,
        code: str,
        message: str,
        *,
        attempt: tuple[int, AttemptState] | None = None,
        fault: Fault | None = None,
        detail: str = "",
        cost: int | None = None,
    ) -> None:
        """End a task of which nothing more comes; images that it has by then are its result.

        One that was cancelled has none, and costs nothing. ``fault``, ``detail`` and ``cost`` go
        with the attempt.
        """
        if task.request.n > 1:  # only then images arrive before the end
            task = await self._current(task)
            if task.arrived and task.cancel_at is None:
                number, state = attempt or (None, AttemptState.DONE)
                end = AttemptEnd(state, detail or message, code, fault)
                if await self._succeed_with_arrived(task, number, end=end, cost=cost):
                    return
        why = failure(code, message)
        await self.insist(
            partial(
                self._store.fail,
                task,
                why,
                attempt=attempt,
                now=self._clock(),
                fault=fault,
                detail=detail or None,
                cost=cost,
            )
        )
        self._note_end(task, why.code, cost=cost)

    async def _succeed_with_arrived(
        self, task: Task, number: int | None, *, end: AttemptEnd, cost: int | None
    ) -> bool:
        """End a task well with the images that it has; False when its client gave it up."""
        told = f"{len(task.arrived)} of {task.request.n} images had come. {end.detail}"
        state = AttemptState.DONE if end.state is AttemptState.FAILED else end.state
        end = msgspec.structs.replace(end, state=state, detail=told)
        charged = self._prices.of(task, len(task.arrived))
        write = partial(
            self._store.complete,
            task,
            number,
            images=(),
            actual=charged,
            cost=cost,
            now=self._clock(),
            result=[each.image for each in task.arrived],
            days=self._days(task.model),
            end=end,
        )
        try:
            await self.insist(write)
        except (Fenced, Unavailable):
            if (await self._current(task)).cancel_at is None:
                raise
            return False
        self._note_end(task, metrics.SUCCESS, cost=cost, charged=charged)
        return True

    async def fail_attempt(
        self, task: Task, number: int, state: AttemptState, *, outcome: Refused | Failed
    ) -> None:
        """End a task with its attempt, for what the upstream answered."""
        await self.fail(
            task,
            outcome.code,
            outcome.message,
            attempt=(number, state),
            fault=outcome.fault,
            detail=outcome.detail if isinstance(outcome, Refused) else "",
            cost=outcome.cost_micro_usdc if isinstance(outcome, Failed) else None,
        )

    async def close(
        self, bench: Bench, number: int, state: AttemptState, *, trouble: TryLater
    ) -> Attempt:
        """End an attempt that another one may follow."""
        now = self._clock()
        await self.insist(
            partial(
                self._store.close_attempt,
                bench.task,
                number,
                state=state,
                detail=trouble.message,
                now=now,
                code=trouble.code,
                fault=trouble.fault,
            )
        )
        return Attempt(
            number=number,
            channel_id=bench.channel.id,
            state=state,
            upstream_id=None,
            started_at=now,
            finished_at=now,
            detail=trouble.message,
            code=trouble.code,
            fault=trouble.fault,
        )

    async def close_unknown(self, bench: Bench, number: int, *, detail: str) -> Attempt | None:
        """End an attempt of which nobody knows what became; it is returned when it may be repeated.

        Otherwise the task has ended with it.
        """
        if not bench.may_repeat:
            await self.fail_unknown(bench.task, number, detail=detail)
            return None
        trouble = TryLater(LOST, detail, fault=Fault.UPSTREAM)
        return await self.close(bench, number, AttemptState.UNKNOWN, trouble=trouble)

    async def fail_unknown(self, task: Task, number: int, *, detail: str) -> None:
        """End a task of which nobody can say whether it was bought."""
        await self.fail(
            task,
            LOST,
            UNKNOWN_MESSAGE,
            attempt=(number, AttemptState.UNKNOWN),
            fault=Fault.UPSTREAM,
            detail=detail,
        )

    async def insist(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write down what only this process knows, for as long as the database does not answer.

        Raises:
            Unavailable: a try that seemed to fail may have been written after all; what is
                stored tells.

        """
        fault: Unavailable | None = None
        while True:
            begun = monotonic()
            try:
                await write()
            except Unavailable as error:
                fault = error
            except Fenced:
                if fault is None:
                    raise
                raise fault from None
            else:
                metrics.DATABASE_SECONDS.note(monotonic() - begun, "end")
                return
            await asyncio.sleep(DATABASE_PAUSE)

    def _note_end(self, task: Task, outcome: str, *, cost: int | None, charged: int = 0) -> None:
        metrics.task_ended(task, outcome, now=self._clock())
        metrics.CHARGED.add(task.channel_id, task.model, by=charged)
        metrics.COST.add(task.channel_id, task.model, by=cost or 0)


async def _answered(read: Callable[[], Awaitable[T]]) -> T:
    """What a read gives, once the database answers."""
    while True:
        try:
            return await read()
        except Unavailable:
            await asyncio.sleep(DATABASE_PAUSE)
