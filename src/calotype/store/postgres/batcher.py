"""Many callers, one round trip: whatever is waiting when the last trip is over goes together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_BATCH: Final = 128
"""More gain nothing, and all of them wait until the last of them is written."""


class Batcher(Generic[Item, Result]):
    """Gathers items and has them dealt with together.

    Args:
        deal: gives, for each item, its result or the exception it deserves.

    """

    def __init__(
        self, deal: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]]
    ) -> None:
        self._deal = deal
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._running: asyncio.Task[None] | None = None

    async def add(self, item: Item) -> Result:
        """The result for one item."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._running is not None:
            await self._running

    async def _run(self) -> None:
        while self._waiting:
            first, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            batch = [(item, future) for item, future in first if not future.done()]
            if not batch:  # whoever asked for it was cancelled
                continue
            try:
                results = await self._deal([item for item, _ in batch])
            except Exception as error:  # noqa: BLE001 -- it belongs to everyone in the batch
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._running = None
