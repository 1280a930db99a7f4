"""Rows of the table: what a server costs that has nothing to do, or only waits for upstreams."""

import asyncio
from typing import Final

from callers import callers, submit_many
from servers import Engine, Process, script
from table import Figures, Floor, at_most
from whole_tasks import SMALL, request

IN_FLIGHT: Final = 10_000
_HELD: Final = "mock:size=64k,delay=3600000"


async def start(engine: Engine, figures: Figures) -> None:
    """One start."""
    async with script("floor_app.py") as bare, engine.server() as server:
        process, floor = server.process, "uvicorn, empty app"
        least = Floor(bare.ready_seconds, floor)
        figures.add(
            f"{engine.name}: start to ready",
            process.ready_seconds,
            " s",
            goal=at_most(0.7),
            floor=least,
        )
        least = Floor(bare.memory_mib(), floor)
        figures.add(
            f"{engine.name}: idle memory",
            process.memory_mib(),
            " MiB",
            goal=at_most(80),
            floor=least,
        )


async def in_flight(engine: Engine, mock: Process, figures: Figures) -> None:
    """Very many tasks at once in one process, each with its call to the upstream open."""
    async with (
        engine.server(mock=mock) as server,
        callers(mock.port, "", 1) as (asker,),
        callers(server.process.port, server.key, 1) as (caller,),
    ):
        await caller.ended((await caller.submit(request(SMALL))).task_id)
        idle = server.process.memory_mib()
        body = request(_HELD)
        await submit_many(server.process.port, server.key, lambda: body, IN_FLIGHT)
        while int(await asker.get("/held")) < IN_FLIGHT:
            await asyncio.sleep(0.1)
        each = (server.process.memory_mib() - idle) * 1024 / IN_FLIGHT
    path = f"{engine.name}: {IN_FLIGHT:,} generating tasks, memory each"
    figures.add(path, each, " KiB", goal=at_most(15))
