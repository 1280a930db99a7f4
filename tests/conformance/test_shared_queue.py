"""How a worker takes jobs from PostgreSQL and what becomes of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg

from calotype.domain.channel import Channel
from calotype.queue import Run
from calotype.sharedqueue import SharedQueue
from calotype.store.postgres import PostgresStore

LEASE = timedelta(minutes=1)
"""Looking without having been told is rarer than a test is long."""
ADD = """
INSERT INTO pgqueuer (priority, entrypoint, payload, execute_after, dedupe_key, headers, status)
SELECT 0, 'channel-7', convert_to(n::text, 'UTF8'), now(), n::text, '{}'::jsonb, 'queued'
FROM generate_series(1, $1::bigint) AS n
"""
LEFT = "SELECT convert_from(payload, 'UTF8')::bigint, status, attempts FROM pgqueuer ORDER BY 1"


async def add(url: str, number: int) -> None:
    """Enqueue jobs for the tasks 1 to ``number``."""
    database = await asyncpg.connect(url)
    try:
        await database.execute(ADD, number)
    finally:
        await database.close()


async def left(url: str) -> list[tuple[int, str, int]]:
    """Task, status and tries of each job."""
    database = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await database.fetch(LEFT)]
    finally:
        await database.close()


@asynccontextmanager
async def queue(url: str, run: Run, *, at_once: int = 0) -> AsyncIterator[SharedQueue]:
    """A worker's queue for channel 7, with a connection of its own."""
    store = PostgresStore(url)
    channel = Channel(id=7, slug="seven", name="Seven", provider="sandbox", concurrency=at_once)
    made = SharedQueue(run, channels=[channel], jobs=await store.open_jobs(), lease=LEASE)
    made.start()
    try:
        yield made
    finally:
        await made.stop(5)
        await store.close()


async def test_a_task_that_is_to_come_again_comes_after_its_pause(postgres_url: str) -> None:
    times: list[float] = []
    done = asyncio.Event()

    async def run(_task_id: int) -> float | None:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            return 0.2
        done.set()
        return None

    async with queue(postgres_url, run), asyncio.timeout(30):
        await add(postgres_url, 1)
        await done.wait()
        while await left(postgres_url):
            await asyncio.sleep(0.01)
    assert len(times) == 2
    assert times[1] - times[0] >= 0.2


async def test_where_a_channel_is_full_the_end_of_a_task_makes_room_for_the_next(
    postgres_url: str,
) -> None:
    running: set[int] = set()
    most, ended = 0, 0

    async def run(task_id: int) -> float | None:
        nonlocal most, ended
        running.add(task_id)
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.remove(task_id)
        ended += 1
        return None

    await add(postgres_url, 20)
    async with queue(postgres_url, run, at_once=2), asyncio.timeout(30):
        while await left(postgres_url):
            await asyncio.sleep(0.01)
    assert (ended, most <= 2) == (20, True)


async def test_a_task_that_was_cut_off_is_there_for_others_at_once(postgres_url: str) -> None:
    begun = asyncio.Event()

    async def hang(_task_id: int) -> float | None:
        begun.set()
        await asyncio.Event().wait()
        return None

    await add(postgres_url, 1)
    async with queue(postgres_url, hang) as stopping, asyncio.timeout(30):
        await begun.wait()
        assert stopping.running == 1
        assert await stopping.stop(0) == 1
        assert await left(postgres_url) == [(1, "queued", 1)]
        assert not stopping.alive
        taken: list[int] = []

        async def run(task_id: int) -> float | None:
            taken.append(task_id)
            return None

        async with queue(postgres_url, run):
            while await left(postgres_url):
                await asyncio.sleep(0.01)
        assert taken == [1]


async def test_a_task_whose_run_breaks_is_put_back(postgres_url: str) -> None:
    async def run(_task_id: int) -> float | None:
        raise ArithmeticError

    await add(postgres_url, 1)
    async with queue(postgres_url, run), asyncio.timeout(30):
        while await left(postgres_url) != [(1, "queued", 1)]:
            await asyncio.sleep(0.01)
