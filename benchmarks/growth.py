"""Rows of the table: whether old tasks make new ones cost more."""

import sqlite3
from contextlib import AsyncExitStack, closing
from typing import Final

import asyncpg

import old_tasks
import wrk
from calotype.domain.ids import encode
from hot_paths import SUBMIT
from servers import BODY, Engine, Process, Server, configured, new_key, serving
from table import Figures, Floor, at_most

FEW: Final = 10_000
_SOME: Final = "SELECT id FROM tasks WHERE account_id = 1 ORDER BY RANDOM() LIMIT 8000"
"""From all over the year; of the few as many as of the many, or more are kept ready."""


async def measure(
    engine: Engine, figures: Figures, *, tasks: int, runs: int, seconds: float
) -> None:
    """A server with few old tasks and one with many, in turns; by CPU, which noise moves least."""
    async with AsyncExitStack() as stack:
        few = await _filled(stack, engine, FEW)
        many = await _filled(stack, engine, tasks)
        few_paths, many_paths = await _paths(few), await _paths(many)
        for _ in range(runs):
            for what, least, cost in (
                (
                    "submit",
                    await _submit(few, seconds=seconds),
                    await _submit(many, seconds=seconds),
                ),
                (
                    "retrieve",
                    await _retrieve(few, few_paths, seconds=seconds),
                    await _retrieve(many, many_paths, seconds=seconds),
                ),
            ):
                figures.add(
                    f"{engine.name}: {what} with {tasks:,} old tasks, CPU of the server",
                    cost,
                    " µs",
                    goal=at_most(1.15, of_floor=True),
                    floor=Floor(least, f"with {FEW:,}"),
                )


async def _filled(stack: AsyncExitStack, engine: Engine, tasks: int) -> Server:
    folder, url = await stack.enter_async_context(engine.database())
    settings = configured(folder, url)
    key = await new_key(settings)
    if url:
        await old_tasks.fill_postgres(url, tasks)
    else:
        await old_tasks.fill_sqlite(folder / "calotype.db", tasks)
    process = await stack.enter_async_context(serving(settings, "--no-worker"))
    return Server(process, key, folder, url, settings)


async def _paths(server: Server) -> list[str]:
    if server.database_url:
        database = await asyncpg.connect(server.database_url)
        found = await database.fetch(_SOME)
        await database.close()
    else:
        with closing(sqlite3.connect(server.folder / "calotype.db")) as embedded:
            found = embedded.execute(_SOME).fetchall()
    return [f"/v1/tasks/{encode('task', row[0])}" for row in found]


async def _submit(server: Server, *, seconds: float) -> float:
    cpu = server.process.cpu_seconds()
    load = await wrk.post(server.process.port, server.key, SUBMIT, BODY, seconds=seconds)
    return _each(server.process, cpu, load)


async def _retrieve(server: Server, paths: list[str], *, seconds: float) -> float:
    cpu = server.process.cpu_seconds()
    load = await wrk.get(server.process.port, server.key, paths, seconds=seconds)
    return _each(server.process, cpu, load)


def _each(process: Process, cpu: float, load: wrk.Load) -> float:
    """Microseconds of the server's CPU for each request."""
    return (process.cpu_seconds() - cpu) / load.finished * 1e6
