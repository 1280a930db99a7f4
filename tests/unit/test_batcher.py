"""Many callers, one round trip."""

import asyncio
from collections.abc import Sequence

import pytest

from calotype.store.postgres.batcher import MAX_BATCH, Batcher


class Trips:
    """Deals with items as with a database that answers when it is let."""

    def __init__(self) -> None:
        self.made: list[list[int]] = []
        self.may_end = asyncio.Event()

    async def deal(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.made.append(list(items))
        await self.may_end.wait()
        return [ValueError(item) if item < 0 else 10 * item for item in items]


async def waiting(batcher: Batcher[int, int], *items: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(batcher.add(item)) for item in items]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_while_a_trip_is_under_way_goes_together_on_the_next() -> None:
    trips = Trips()
    batcher = Batcher(trips.deal)
    first = await waiting(batcher, 1)
    more = await waiting(batcher, 2, -3, 4)
    trips.may_end.set()
    results = await asyncio.gather(*first, *more, return_exceptions=True)
    assert trips.made == [[1], [2, -3, 4]]
    assert results[:2] == [10, 20]
    assert isinstance(results[2], ValueError)
    assert results[3] == 40


async def test_what_was_cancelled_before_its_trip_is_not_written() -> None:
    trips = Trips()
    batcher = Batcher(trips.deal)
    first = await waiting(batcher, 1)
    gone, stays = await waiting(batcher, 2, 3)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    trips.may_end.set()
    assert await asyncio.gather(*first, stays) == [10, 30]
    assert trips.made == [[1], [3]]


async def test_a_trip_takes_only_so_much() -> None:
    trips = Trips()
    trips.may_end.set()
    batcher = Batcher(trips.deal)
    await asyncio.gather(*(batcher.add(item) for item in range(MAX_BATCH + 1)))
    assert [len(trip) for trip in trips.made] == [MAX_BATCH, 1]
