"""The same on PostgreSQL: one API process, one or more workers, one database, one machine.

The server comes from the wheel that the tests use; everything shares the machine's cores, so
more workers than free cores show what the database and the queue cost, not what they could do.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import asyncpg

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from bench import BODY, CALOTYPE, Process, Rows, client, started, submit
from load import drive, request
from postgres import running_postgres

ENDS_AT_ONCE: Final = "sandbox:500-after"
"""Runs through every step but the picture, which would hide what the steps cost."""
RUNS_FOR_LONG: Final = "sandbox:delay=90000"
MANY: Final = 10_000
OLD_ROWS: Final = 1_000_000


async def measure(folder: Path, rows: Rows, *, seconds: float) -> None:
    """Every figure on PostgreSQL."""
    with (
        tempfile.TemporaryDirectory(prefix="calotype-pg-") as data,
        running_postgres(Path(data), "max_connections=200", "shared_buffers=512MB") as server,
    ):
        url = server.url()
        environment = {
            "CALOTYPE_DATABASE_URL": url,
            "CALOTYPE_DATA_DIR": str(folder),
            "CALOTYPE_PORT": "0",
            "CALOTYPE_SANDBOX_SECONDS": "0",
        }
        await run(environment, "migrate")
        credit = ("--name", "bench", "--credits", "100000000")
        key = (await run(environment, "keys", "create", *credit)).strip()
        database = await asyncpg.connect(url)
        async with started(*CALOTYPE, "serve", "--no-worker", environment=environment) as api:
            await throughput(api, key, rows, seconds=seconds)
            await drain(api, key, database, environment, rows)
            await pickup(api, key, database, environment, rows)
            await take_over(api, key, database, environment, rows)
            await memory(api, key, database, environment, rows)
            await growth(api, key, database, rows, seconds=seconds)
        await database.close()


async def throughput(api: Process, key: str, rows: Rows, *, seconds: float, note: str = "") -> None:
    """Submissions and reads a second."""
    post = request("POST", "/v1/images/generations", key=key, body=BODY)
    submits = await drive(api.port, lambda: post, seconds=seconds, expect=202)
    async with client(api, key) as http:
        task_id = (await submit(http))["task_id"]
    get = request("GET", f"/v1/tasks/{task_id}", key=key)
    reads = await drive(api.port, lambda: get, seconds=seconds)
    for name, result in (("submit", submits), ("retrieve", reads)):
        figures = f"p50 {result.p50_ms:.1f}, p99 {result.p99_ms:.1f} ms"
        wrong = f", {result.bad} wrong answers" if result.bad else ""
        rows.add(
            f"PostgreSQL: {name}{note}",
            f"{result.per_second:,.0f}/s",
            goal="",
            note=figures + wrong,
        )


async def drain(
    api: Process, key: str, database: Any, environment: dict[str, str], rows: Rows
) -> None:
    """Tasks a second through 1, 2 and 4 workers."""
    for number in (1, 2, 4):
        await clear(database)
        await pile(api, key, ENDS_AT_ONCE, 3000)
        async with workers(environment, number):
            began = time.perf_counter()
            await until(database, "SELECT COUNT(*) FROM tasks WHERE completed_at IS NULL", 0)
            spent = time.perf_counter() - began
        rows.add(
            f"PostgreSQL: tasks ended, {number} workers",
            f"{3000 / spent:,.0f}/s",
            goal="",
            note="from start of the workers, no picture drawn",
        )


async def pickup(
    api: Process, key: str, database: Any, environment: dict[str, str], rows: Rows
) -> None:
    """From the submission to the worker's hand, idle."""
    await clear(database)
    async with workers(environment, 1), client(api, key) as http:
        await asyncio.sleep(1)
        for _ in range(100):
            await submit(http, prompt=ENDS_AT_ONCE)
            await asyncio.sleep(0.05)
        await until(database, "SELECT COUNT(*) FROM tasks WHERE completed_at IS NULL", 0)
    found = await database.fetch(
        "SELECT e.at - t.created_at FROM tasks t JOIN events e ON e.task_id = t.id AND e.seq = 2"
    )
    waits = [row[0] for row in found]
    p99 = quantiles(waits, n=100)[98]
    rows.add(
        "PostgreSQL: submit → worker, idle",
        f"p50 {median(waits)} ms",
        goal="",
        note=f"p99 {p99:.0f} ms, clock of whole ms",
    )


async def take_over(
    api: Process, key: str, database: Any, environment: dict[str, str], rows: Rows
) -> None:
    """A killed worker's tasks in another's hands."""
    await clear(database)
    await pile(api, key, RUNS_FOR_LONG, 200)
    held = "SELECT COUNT(*) FROM tasks WHERE state = 'generating'"
    taken_over = "SELECT COUNT(*) FROM tasks WHERE claim > 1"
    async with workers(environment, 1) as (victim,):
        await until(database, held, 200)
        async with workers(environment, 1):
            victim.kill()
            began = time.perf_counter()
            await until(database, taken_over, 200)
            spent = time.perf_counter() - began
    rows.add("PostgreSQL: 200 tasks of a killed worker taken over", f"{spent:.1f} s", goal="≤ 20 s")


async def memory(
    api: Process, key: str, database: Any, environment: dict[str, str], rows: Rows
) -> None:
    """One worker with very many tasks."""
    await clear(database)
    async with workers(environment, 1) as (worker,):
        await asyncio.sleep(2)
        idle = resident_mib(worker.pid)
        await pile(api, key, RUNS_FOR_LONG, MANY)
        await until(database, "SELECT COUNT(*) FROM tasks WHERE state = 'generating'", MANY)
        full = resident_mib(worker.pid)
        worker.kill()
    each = (full - idle) * 1024 / MANY
    rows.add(
        f"PostgreSQL: {MANY:,} tasks in one worker",
        f"{full:.0f} MiB",
        goal="≤ 20 KiB a task",
        note=f"{each:.1f} KiB a task over {idle:.0f} MiB idle",
    )


async def growth(api: Process, key: str, database: Any, rows: Rows, *, seconds: float) -> None:
    """The same submissions and reads with a million old tasks in the table."""
    await clear(database)
    await database.execute(OLD_TASKS, OLD_ROWS, timeout=None)
    await database.execute("ANALYZE tasks")
    await throughput(api, key, rows, seconds=seconds, note=f", {OLD_ROWS:,} old tasks")


OLD_TASKS: Final = """
INSERT INTO tasks (
    id, account_id, key_id, request_id, state, progress, request, refs, channel_id, claim, seq,
    billing, reserved, actual, released, deadline_at, abandon_at, created_at, updated_at,
    completed_at
)
SELECT n, 1, 1, 'req_' || n, 'fail', 0,
    '{"model":"gpt-image-2","prompt":"an old one","n":1,"parameters":{}}', '[]', 1, 1, 3,
    'released', 0, 0, 0, 0, 0, 0, 0, 0
FROM generate_series(1, $1::bigint) AS n
"""


async def clear(database: Any) -> None:
    """End what is unfinished: old tasks stay, so that the tables are not empty."""
    await database.execute("DELETE FROM pgqueuer")
    await database.execute("TRUNCATE tasks, events, attempts", timeout=None)
    await database.execute("UPDATE accounts SET reserved = 0, unfinished = 0")


async def pile(api: Process, key: str, prompt: str, number: int) -> None:
    """Submit many tasks, 100 at a time."""
    async with client(api, key) as http:
        for _ in range(number // 100):
            await asyncio.gather(*(submit(http, prompt=prompt) for _ in range(100)))


async def until(database: Any, count: str, wanted: int) -> None:
    """Wait for a count in the database."""
    while await database.fetchval(count) != wanted:
        await asyncio.sleep(0.05)


def resident_mib(pid: int) -> float:
    """Resident memory of a process (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def run(environment: dict[str, str], *arguments: str) -> str:
    """Run a command and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *CALOTYPE,
        *arguments,
        env={**os.environ, **environment},  # noqa: TID251 -- handed on as it is
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    return (await process.communicate())[0].decode()


@asynccontextmanager
async def workers(
    environment: dict[str, str], number: int
) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Worker processes, stopped at the end."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(worker(environment)) for _ in range(number)]


@asynccontextmanager
async def worker(environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """One worker process."""
    process = await asyncio.create_subprocess_exec(
        *CALOTYPE,
        "worker",
        env={**os.environ, **environment},  # noqa: TID251 -- handed on as it is
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
