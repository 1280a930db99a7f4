"""Very many clients that wait for tasks on one server process, and how soon they learn of the end.

The tasks are waiting ones; a client cancels them, which ends each in one transition, at a moment
that is known. What is measured is the way from there to those who wait; nothing is developed.
"""

import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from statistics import median, quantiles
from typing import Final, NamedTuple

import aiohttp
import asyncpg
import msgspec

import crowd
from calotype.domain.ids import decode
from postgres import running_postgres
from servers import HERE, Process, calotype, client, environment, run, script, submit
from table import Rows

POLLS: Final = 5000
STREAMS: Final = 2000
ENDS_PER_SECOND: Final = 125
"""So slow that a wait of 60 seconds sees the last end."""
ROUNDS: Final = 3
SETTLE_SECONDS: Final = 2.0
"""Between the last request sent and the first end, for what has been sent to be read."""
_ENDS: Final = "SELECT task_id, at FROM events WHERE state = 'fail'"
"""By the stamp that an event has, a moment before it is committed."""
_COMMITS: Final = (
    "SELECT task_id, (1000 * EXTRACT(epoch FROM pg_xact_commit_timestamp(xmin)))::float8 "
    "FROM events WHERE state = 'fail'"
)


class Target(NamedTuple):
    """A server under measurement."""

    server: Process
    key: str
    http: aiohttp.ClientSession
    tasks: Callable[[int], Awaitable[list[str]]]
    """Makes so many tasks that wait."""
    ends: Callable[[Mapping[str, float]], Awaitable[Mapping[str, float]]]
    """Unix time of each task's end, from the times at which it was asked for."""


class Waits(NamedTuple):
    """Milliseconds from a task's end to those who waited for it."""

    p50: float
    p99: float

    def __str__(self) -> str:
        return f"{self.p50:.1f} / {self.p99:.1f} ms"


class Held(NamedTuple):
    """What holding them cost."""

    kib_each: float
    mib: float
    polls: Waits
    streams: Waits
    server_cpu: float
    """Seconds, from the first end to the last answer."""
    crowd_cpu: float


async def embedded(folder: Path, rows: Rows) -> None:
    """On SQLite, beside bare sockets in the same run."""
    async with bare() as target:
        floor = await everything(target)
    async with calotype(folder, "--no-worker") as (server, key), client(server, key) as http:
        ends = _ends_in_sqlite(folder / "calotype.db")
        ours = await everything(Target(server, key, http, _submitter(http), ends))
    _show(rows, ours, floor, where="")


async def shared(folder: Path, rows: Rows) -> None:
    """On PostgreSQL, where an API process learns of ends by looking every 50 ms."""
    async with bare() as target:
        floor = await everything(target)
    with (
        tempfile.TemporaryDirectory(prefix="calotype-pg-") as data,
        running_postgres(
            Path(data), "shared_buffers=512MB", "track_commit_timestamp=on"
        ) as postgres,
    ):
        url = postgres.url()
        await run(environment(CALOTYPE_DATABASE_URL=url), "migrate")
        async with (
            calotype(folder, "--no-worker", database_url=url) as (server, key),
            client(server, key) as http,
        ):
            ends = _ends_in_postgres(url)
            ours = await everything(Target(server, key, http, _submitter(http), ends))
    _show(rows, ours, floor, where="PostgreSQL: ")


async def everything(target: Target) -> tuple[Held, Waits, Waits]:
    """All that is measured of one server."""
    held = await each_its_task(target)
    one_task = [await of_one_task(target) for _ in range(ROUNDS)]
    one_account = [await of_one_account(target) for _ in range(ROUNDS)]
    return held, _middle(one_task), _middle(one_account)


async def each_its_task(target: Target) -> Held:
    """Long-polls of as many tasks, and streams of some of them; the tasks end one by one."""
    tasks = await target.tasks(POLLS)
    before = target.server.memory_mib()
    streamed = tasks[:: POLLS // STREAMS][:STREAMS]
    async with (
        waiting(target, [f"/v1/tasks/{task}?wait=60&since=99" for task in tasks]) as polls,
        waiting(target, [f"/v1/tasks/{task}/events" for task in streamed], stream=True) as streams,
    ):
        await asyncio.sleep(SETTLE_SECONDS)
        after, cpu = target.server.memory_mib(), target.server.cpu_seconds()
        asked = await ended(target, tasks)
        told, heard = await polls(), await streams()
        cpu = target.server.cpu_seconds() - cpu
    ends = await target.ends(asked)
    return Held(
        (after - before) * 1024 / (POLLS + len(streamed)),
        after,
        _waits(told, [ends[task] for task in tasks]),
        _waits(heard, [ends[task] for task in streamed]),
        cpu,
        told.cpu_seconds + heard.cpu_seconds,
    )


async def of_one_task(target: Target) -> Waits:
    """Long-polls of one and the same task."""
    (task,) = await target.tasks(1)
    async with waiting(target, [f"/v1/tasks/{task}?wait=60&since=99"] * POLLS) as polls:
        await asyncio.sleep(SETTLE_SECONDS)
        ends = await target.ends(await ended(target, [task]))
        return _waits(await polls(), [ends[task]] * POLLS)


async def of_one_account(target: Target) -> Waits:
    """Streams of one account."""
    (task,) = await target.tasks(1)
    async with waiting(target, ["/v1/events"] * STREAMS, stream=True) as streams:
        await asyncio.sleep(SETTLE_SECONDS)
        ends = await target.ends(await ended(target, [task]))
        return _waits(await streams(), [ends[task]] * STREAMS)


async def ended(target: Target, tasks: Sequence[str]) -> dict[str, float]:
    """End tasks at an even pace, and say when each was asked to."""
    asked = dict[str, float]()

    async def end(task: str) -> None:
        asked[task] = time.time()
        async with target.http.post(f"/v1/tasks/{task}/cancel") as response:
            answer = await response.text()
            if response.status != 200:
                raise SystemExit(f"not cancelled: {answer}")

    began = time.perf_counter()
    async with asyncio.TaskGroup() as ending:
        for place, task in enumerate(tasks):
            await asyncio.sleep(began + place / ENDS_PER_SECOND - time.perf_counter())
            ending.create_task(end(task))
    return asked


@asynccontextmanager
async def waiting(
    target: Target, paths: Sequence[str], *, stream: bool = False
) -> AsyncIterator[Callable[[], Awaitable[crowd.Told]]]:
    """While entered, a process holds these requests; what is yielded waits for their answers."""
    marker, held = ("event: task.fail", ": still here") if stream else ('"state":"fail"', "")
    order = crowd.Order(target.server.port, crowd.lines(paths, target.key), marker, held)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "crowd.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64 * 1024 * 1024,
    )
    if process.stdin is None or process.stdout is None:
        raise SystemExit("no pipes")
    process.stdin.write(msgspec.json.encode(order) + b"\n")
    await process.stdin.drain()
    await process.stdout.readline()
    answers = process.stdout

    async def told() -> crowd.Told:
        return msgspec.json.decode(await answers.readline(), type=crowd.Told)

    try:
        yield told
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def bare() -> AsyncIterator[Target]:
    """The floor."""

    async def tasks(number: int) -> list[str]:
        return [f"task_{place:013d}" for place in range(number)]

    async def ends(asked: Mapping[str, float]) -> Mapping[str, float]:
        return asked

    async with (
        script("floor_waiters.py") as server,
        client(server, "x" * 46) as http,
    ):
        yield Target(server, "x" * 46, http, tasks, ends)


def _submitter(http: aiohttp.ClientSession) -> Callable[[int], Awaitable[list[str]]]:
    async def tasks(number: int) -> list[str]:
        made = list[str]()
        while len(made) < number:
            batch = min(50, number - len(made))
            answers = await asyncio.gather(*(submit(http) for _ in range(batch)))
            made += [answer["task_id"] for answer in answers]
        return made

    return tasks


def _ends_in_sqlite(
    path: Path,
) -> Callable[[Mapping[str, float]], Awaitable[Mapping[str, float]]]:
    place = f"{path.absolute().as_uri()}?mode=ro"

    async def ends(asked: Mapping[str, float]) -> Mapping[str, float]:
        with closing(sqlite3.connect(place, uri=True)) as database:
            return _of(asked, dict(database.execute(_ENDS).fetchall()))

    return ends


def _ends_in_postgres(
    url: str,
) -> Callable[[Mapping[str, float]], Awaitable[Mapping[str, float]]]:
    async def ends(asked: Mapping[str, float]) -> Mapping[str, float]:
        database = await asyncpg.connect(url)
        try:
            return _of(asked, {row[0]: row[1] for row in await database.fetch(_COMMITS)})
        finally:
            await database.close()

    return ends


def _of(asked: Mapping[str, float], ends: Mapping[int, float]) -> dict[str, float]:
    return {task: ends[decode("task", task) or 0] / 1000 for task in asked}


def _waits(told: crowd.Told, ends: Sequence[float]) -> Waits:
    arrivals = told.arrivals
    if not all(arrivals):
        lost = sum(not each for each in arrivals)
        raise SystemExit(f"{lost} of {len(arrivals)} were not told; one got: {told.instead}")
    waits = [(arrival - end) * 1000 for arrival, end in zip(arrivals, ends, strict=True)]
    return Waits(median(waits), quantiles(waits, n=100)[98])


def _middle(rounds: Sequence[Waits]) -> Waits:
    return Waits(median(each.p50 for each in rounds), median(each.p99 for each in rounds))


def _show(
    rows: Rows,
    ours: tuple[Held, Waits, Waits],
    floor: tuple[Held, Waits, Waits],
    *,
    where: str,
) -> None:
    held, bare_held = ours[0], floor[0]
    rows.add(
        f"{where}{POLLS:,} long-polls and {STREAMS:,} streams held",
        f"{held.mib:.0f} MiB",
        goal="",
        note=f"{held.kib_each:.1f} KiB each; bare sockets {bare_held.kib_each:.1f}",
    )
    rows.add(
        f"{where}CPU while their tasks end, {ENDS_PER_SECOND}/s",
        f"{held.server_cpu / POLLS * 1000:.2f} ms a task",
        goal="",
        note=f"bare sockets {bare_held.server_cpu / POLLS * 1000:.2f}; "
        f"the waiting clients {held.crowd_cpu / POLLS * 1000:.2f}",
    )
    for what, waits, least in (
        (f"{POLLS:,} long-polls, a task each", held.polls, bare_held.polls),
        (f"{STREAMS:,} streams, a task each", held.streams, bare_held.streams),
        (f"{POLLS:,} long-polls of one task", ours[1], floor[1]),
        (f"{STREAMS:,} streams of one account", ours[2], floor[2]),
    ):
        rows.add(f"{where}end → told, {what}", f"{waits}", goal="", note=f"bare sockets {least}")
