"""Rows of the table: durable submission and retrieval, 64 connections, no worker in the way."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import asyncpg

import floors
import wrk
from callers import submit_many
from servers import BODY, Engine, Server, script
from table import Figures, Floor, at_least, at_most
from wrk import Load

SUBMIT = "/v1/images/generations"
TASKS = 500
"""That are read, one after the other."""
_TOUCH = "UPDATE accounts SET unfinished = unfinished"
_PAUSE_SECONDS = 0.01


async def measure(engine: Engine, figures: Figures, *, seconds: float) -> None:
    """One run."""
    async with script("floor_app.py") as bare:
        posted = await wrk.post(bare.port, "x" * 46, SUBMIT, BODY, seconds=seconds)
        got = await wrk.get(bare.port, "x" * 46, ["/v1/tasks/x"], seconds=seconds)
    async with engine.database() as (folder, url):
        commits = await floors.group_commits(folder, url, seconds=seconds / 2)
    async with engine.server("--no-worker") as server:
        port, key = server.process.port, server.key
        cpu = server.process.cpu_seconds()
        submitted = await wrk.post(port, key, SUBMIT, BODY, seconds=seconds)
        cpu = server.process.cpu_seconds() - cpu
        ids = await submit_many(port, key, lambda: BODY, TASKS)
        paths = [f"/v1/tasks/{task_id}" for task_id in ids]
        read = await wrk.get(port, key, paths, seconds=seconds)
        async with _writing(server):
            disturbed = await wrk.get(port, key, paths, seconds=seconds)
    name = engine.name
    _tell_submissions(figures, name, submitted, posted, commits)
    per_submit = cpu / submitted.finished * 1e6
    figures.add(f"{name}: submit, CPU of the server", per_submit, " µs")
    _tell_reads(figures, f"{name}: retrieve", read, got)
    _tell_reads(figures, f"{name}: retrieve while another process writes", disturbed, got)


def _tell_submissions(figures: Figures, name: str, load: Load, bare: Load, commits: float) -> None:
    path = f"{name}: submit, durable"
    least = Floor(bare.per_second, "uvicorn, empty app")
    figures.add(path, load.per_second, "/s", goal=at_least(15_000), floor=least)
    figures.add(
        f"{path}, beside the disk",
        load.per_second,
        "/s",
        floor=Floor(commits, "bare group commits"),
    )
    figures.add(f"{path}, p50", load.p50_ms, " ms", floor=Floor(bare.p50_ms, least.what))
    least = Floor(bare.p99_ms, least.what)
    figures.add(f"{path}, p99", load.p99_ms, " ms", goal=at_most(12), floor=least)


def _tell_reads(figures: Figures, path: str, load: Load, bare: Load) -> None:
    least = Floor(bare.per_second, "uvicorn, empty app")
    figures.add(path, load.per_second, "/s", goal=at_least(45_000), floor=least)


@asynccontextmanager
async def _writing(server: Server) -> AsyncIterator[None]:
    """Meanwhile this process commits to the server's database, up to a hundred times a second."""
    writer = asyncio.create_task(_write(server))
    try:
        yield
    finally:
        writer.cancel()
        await asyncio.wait([writer])
    if not writer.cancelled():
        writer.result()


async def _write(server: Server) -> None:
    if server.database_url:
        database = await asyncpg.connect(server.database_url)
        while True:
            await database.execute(_TOUCH)
            await asyncio.sleep(_PAUSE_SECONDS)
    with closing(sqlite3.connect(server.folder / "calotype.db", isolation_level=None)) as embedded:
        while True:
            embedded.execute(_TOUCH)
            await asyncio.sleep(_PAUSE_SECONDS)
