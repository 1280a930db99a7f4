"""Rows of the table: how soon one thing follows another while nothing else is under way."""

from statistics import median
from typing import Final

import msgspec

from callers import callers
from mock_upstream import Call
from servers import Engine, Process
from table import Figures, at_most
from whole_tasks import request

DELAY_MS: Final = 50
"""What the upstream takes, so that the client waits when it is done."""
_CALLED_GOAL: Final = {"SQLite": 2, "PostgreSQL": 5}


async def measure(engine: Engine, mock: Process, figures: Figures, *, tasks: int) -> None:
    """One run: so many tasks, one after the other."""
    called, told = list[float](), list[float]()
    async with (
        engine.server(mock=mock) as server,
        callers(mock.port, "", 1) as (asker,),
        callers(server.process.port, server.key, 1) as (caller,),
    ):
        for number in range(tasks):
            prompt = f"mock:size=64k,delay={DELAY_MS},call={number}"
            accepted = await caller.submit(request(prompt))
            accepted_ns = caller.answered_ns
            await caller.ended(accepted.task_id)
            calls = msgspec.json.decode(await asker.get("/calls"), type=dict[str, Call])
            call = calls[str(number)]
            called.append((call.arrived_ns - accepted_ns) / 1e6)
            told.append((caller.answered_ns - call.answered_ns) / 1e6)
    path = f"{engine.name}: idle, 202 → upstream called, p50"
    figures.add(path, median(called), " ms", goal=at_most(_CALLED_GOAL[engine.name]))
    path = f"{engine.name}: idle, upstream done → success told, p50"
    figures.add(path, median(told), " ms", goal=at_most(3))
