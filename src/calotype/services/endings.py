"""How tasks end: images stored and paid, or a failure and the money released."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from calotype.domain.catalog import OUTPUT_FORMAT
from calotype.domain.clock import Clock
from calotype.domain.errors import InvalidRequest, Unavailable, failure
from calotype.domain.ids import encode
from calotype.domain.outcomes import Done, Failed, Fault, Refused, SourceError, TryLater
from calotype.domain.pricing import price
from calotype.domain.task import Asset, Attempt, AttemptState, Task
from calotype.services.assets import MAX_RESULT_BYTES, Assets
from calotype.services.conversion import CONTENT_TYPES
from calotype.services.sending import LOST, UNKNOWN_MESSAGE, Bench
from calotype.store.port import Fenced, Store

DATABASE_PAUSE: Final = 0.5
"""Between tries to write down what only this process knows."""
STORE_PAUSE: Final = 2.0
"""Between tries to store an image that cannot be asked for again."""
FETCH_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, *(30.0,) * 60)
"""Seconds between tries to fetch one whose address came with the answer."""
BODIES: Final = 64
"""Images read from upstreams at a time: more costs memory and brings no speed."""

log = logging.getLogger(__name__)


class Endings:
    """Writes down how tasks end, and insists on it."""

    def __init__(self, store: Store, assets: Assets, *, clock: Clock) -> None:
        self._store = store
        self._assets = assets
        self._clock = clock
        self._bodies = asyncio.Semaphore(BODIES)

    async def deliver(self, bench: Bench, number: int, *, done: Done) -> None:
        """Store the images, settle, finish.

        Raises:
            SourceError: an image could not be read; asking for it again may help.

        """
        if not done.images:
            message = "The upstream says that it is done and has no image."
            await self._malformed(bench.task, number, message, done)
            return
        try:
            images = await self._keep_images(bench, done)
        except InvalidRequest as error:
            message = f"The upstream's answer is no image that can be used: {error.message}"
            await self._malformed(bench.task, number, message, done)
            return
        except SourceError as error:
            if error.retryable:
                raise
            await self._malformed(bench.task, number, f"The image cannot be read: {error}", done)
            return
        try:
            await self.insist(partial(self._complete, bench, number, images, done))
        except Fenced:
            await self._assets.discard(images)
            raise

    async def deliver_at_once(self, bench: Bench, number: int, *, done: Done) -> None:
        """Keep images that came with the answer itself and cannot be asked for again.

        While they can be read here and the asset store has trouble, the task waits with them; one
        that has to be fetched is tried a few times.
        """
        pauses = iter(FETCH_PAUSES)
        while True:
            try:
                await self.deliver(bench, number, done=done)
            except SourceError as error:
                if (pause := next(pauses, None)) is not None:
                    await asyncio.sleep(pause)
                    continue
                message = f"The image could not be read to its end: {error}"
                await self._fail_done(bench.task, number, "upstream_failed", message, done=done)
            except (Unavailable, OSError) as error:
                if self._clock() >= bench.task.abandon_at:
                    raise
                name = encode("task", bench.task.id)
                log.warning("%s: its image is here and cannot be stored yet: %s", name, error)
                await asyncio.sleep(STORE_PAUSE)
                continue
            return

    async def _complete(self, bench: Bench, number: int, images: list[Asset], done: Done) -> None:
        task, served = bench.task, bench.channel.served(bench.task.model)
        count = min(len(images), task.request.n)
        asked = price(bench.model, task.request.parameters, count, served)
        cost = done.cost_micro_usdc
        if cost is None and served.cost is not None:
            cost = served.cost * len(images)
        await self._store.complete(
            task,
            number,
            images=images,
            actual=min(task.reserved * count // task.request.n, asked),
            cost=cost,
            now=self._clock(),
        )

    async def _keep_images(self, bench: Bench, done: Done) -> list[Asset]:
        asked = bench.task.request.parameters.get(OUTPUT_FORMAT, bench.model.output_format)
        images = list[Asset]()
        try:
            for source in done.images:
                async with self._bodies, source.open() as chunks:
                    kept = await self._assets.keep(
                        chunks,
                        account_id=bench.task.account_id,
                        kind="result",
                        max_bytes=MAX_RESULT_BYTES,
                        wanted=CONTENT_TYPES[str(asked)],
                    )
                    images.append(kept.asset)
        except BaseException:
            await self._assets.discard(images)
            raise
        return images

    async def _malformed(self, task: Task, number: int, message: str, done: Done) -> None:
        await self._fail_done(task, number, "upstream_malformed_response", message, done=done)

    async def _fail_done(
        self, task: Task, number: int, code: str, message: str, *, done: Done
    ) -> None:
        """End a task whose upstream was done, and of whose images nothing can be used."""
        await self.fail(
            task,
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
        """End a task without an image; ``fault``, ``detail``, ``cost`` go with the attempt."""
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
            try:
                return await write()
            except Unavailable as error:
                fault = error
            except Fenced:
                if fault is None:
                    raise
                raise fault from None
            await asyncio.sleep(DATABASE_PAUSE)
