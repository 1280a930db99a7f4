"""What a submission and a read cost SQLite with 10 thousand, 1 and 10 million old tasks.

``python benchmarks/growth.py FOLDER [SIZE ...]`` writes a database of about a kilobyte a task into
FOLDER, lets it grow from size to size, and prints for each: CPU of the process for a submission
(64 at a time, the commit included) and for a read of a random old task, how long each took, and the
bytes that a submission wrote. Delete FOLDER afterwards.
"""

import asyncio
import random
import sqlite3
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from calotype.domain.ids import IdSource
from calotype.domain.money import EntryKind
from calotype.domain.task import NewTask, Request
from calotype.store.sqlite import SqliteStore

SIZES: Final = (10_000, 1_000_000, 10_000_000)
CHUNK: Final = 100_000
CALLERS: Final = 64
SUBMISSIONS: Final = 6_400
READS: Final = 10_000
ROUNDS: Final = 5
PRICE: Final = 60_000
FIRST_MS: Final = 1_736_000_000_000
STEP: Final = 2 << 22
"""Between two old ids: two milliseconds, so that ten million make five hours of 2025."""
FIRST_ID: Final = (FIRST_MS - 1_735_689_600_000) << 22

_OLD: Final = """
WITH RECURSIVE counted(n) AS (
    SELECT :first UNION ALL SELECT n + 1 FROM counted WHERE n + 1 < :end
), old AS MATERIALIZED (
    SELECT n, :id + n * :step AS id, :at + n * 2 AS at, n % 97 + 2 AS account FROM counted
)
"""
_FILL: Final = """
INSERT INTO tasks (
    id, account_id, key_id, request_id, state, progress, request, refs, channel_id, claim, seq,
    billing, reserved, actual, released, result, deadline_at, abandon_at, created_at, updated_at,
    completed_at
) {old} SELECT id, account, 1, 'req_' || n, 'success', 100,
    CAST('{"model":"nano-banana-pro","prompt":"A lighthouse at dusk, number ' || n ||
        ', in oil on canvas","n":1,"parameters":{"aspect_ratio":"16:9"}}' AS BLOB),
    x'5b5d', 1, 1, 4, 'committed', :price, :price, 0,
    CAST('[{"asset_id":' || (id + 1) || ',"content_type":"image/png","width":1024,"height":1024,'
        || '"bytes":1500000}]' AS BLOB),
    at, at, at, at, at FROM old;

INSERT INTO events (account_id, task_id, seq, at, event, state, progress)
{old} SELECT account, id, seq, at, event, state, 0 FROM old, (
    SELECT 1 AS seq, 'submit' AS event, 'waiting' AS state UNION ALL SELECT 2, 'take', 'queuing'
    UNION ALL SELECT 3, 'run', 'generating' UNION ALL SELECT 4, 'complete', 'success'
);

INSERT INTO ledger (account_id, task_id, kind, amount, created_at)
{old} SELECT account, id, kind, :price, at
FROM old, (SELECT 'reserve' AS kind UNION ALL SELECT 'commit');

INSERT INTO attempts (task_id, number, channel_id, state, started_at, finished_at)
{old} SELECT id, 1, 1, 'done', at, at FROM old;

INSERT INTO assets (
    id, account_id, task_id, kind, key, content_type, bytes, width, height, created_at
) {old} SELECT id + 1, account, id, 'result', 'results/' || n || '.png', 'image/png', 1500000,
    1024, 1024, at FROM old
"""


def grow(path: Path, first: int, end: int) -> None:
    """Write finished tasks number ``first`` to ``end``, past the server."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA synchronous = OFF")
    for start in range(first, end, CHUNK):
        values = {"first": start, "end": min(start + CHUNK, end), "price": PRICE}
        values |= {"id": FIRST_ID, "step": STEP, "at": FIRST_MS}
        database.execute("BEGIN")
        for statement in _FILL.split(";"):
            database.execute(statement.replace("{old}", _OLD), values)
        database.execute("COMMIT")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


async def measure(store: SqliteStore, size: int) -> str:
    """One line of figures."""
    ids = IdSource(lambda: int(time.time() * 1000))
    account = await store.open_account(f"grown to {size}", now=1)
    await store.book(account.id, EntryKind.CREDIT, 10**12, note="", now=1)

    def new() -> NewTask:
        request = Request("nano-banana-pro", "A lighthouse", 1, {"aspect_ratio": "16:9"})
        now = int(time.time() * 1000)
        return NewTask(
            id=ids.next(),
            account_id=account.id,
            key_id=1,
            request_id="req_growth",
            request=request,
            references=(),
            uploads=(),
            channel_id=1,
            price=PRICE,
            deadline_at=now,
            abandon_at=now,
            created_at=now,
        )

    async def submit() -> None:
        await store.submit(new())

    async def read() -> None:
        await store.task(FIRST_ID + random.randrange(size) * STEP)  # noqa: S311 -- no secret

    def written() -> int:
        return next(
            int(line.split()[1])
            for line in Path("/proc/self/io").read_text().splitlines()
            if line.startswith("write_bytes")
        )

    before = written()
    submitting = [await _cost(submit, SUBMISSIONS, CALLERS) for _ in range(ROUNDS)]
    each = (written() - before) / SUBMISSIONS / ROUNDS
    reading = [await _cost(read, READS, 1) for _ in range(ROUNDS)]
    return (
        f"{size:>10,} tasks: submit {_medians(submitting)}, {each:,.0f} bytes; "
        f"read {_medians(reading)}"
    )


def _medians(costs: Sequence[tuple[float, float]]) -> str:
    cpu, took = (statistics.median(figures) for figures in zip(*costs, strict=True))
    return f"{cpu:.0f} µs of CPU, {took:.0f} µs each"


async def _cost(
    work: Callable[[], Awaitable[None]], times: int, at_once: int
) -> tuple[float, float]:
    """CPU and time of one, in microseconds."""
    left = iter(range(times))

    async def caller() -> None:
        for _ in left:
            await work()

    cpu, begun = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    return (
        (time.process_time() - cpu) / times * 1e6,
        (time.perf_counter() - begun) / times * 1e6,
    )


async def main(folder: Path, sizes: list[int]) -> None:
    """Grow and measure, size after size."""
    path, first = folder / "growth.db", 0
    await SqliteStore(path).migrate()
    for size in sizes:
        await asyncio.to_thread(grow, path, first, size)
        first = size
        store = SqliteStore(path)
        print(await measure(store, size), flush=True)
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), [int(each) for each in sys.argv[2:]] or list(SIZES)))
