"""Rows of the table: how soon one thing follows another while nothing else is under way."""

from statistics import median
from typing import Final

import msgspec

from callers import Caller, callers
from mock_upstream import Call
from servers import Engine, Process, worker
from table import Figures, Goal, at_most
from whole_tasks import request

DELAY_MS: Final = 50
"""What the upstream takes, so that the client waits when it is done."""


async def measure(engine: Engine, mock: Process, figures: Figures, *, tasks: int) -> None:
    """One run: so many tasks, one after the other; on PostgreSQL also by a worker of its own."""
    async with engine.server(mock=mock) as server:
        called, told = await _moments(server.process, mock, server.key, tasks=tasks)
    path, goal = f"{engine.name}: idle", at_most(5 if server.database_url else 2)
    _tell(figures, path, called, told, goal)
    if server.database_url:
        async with engine.server("--no-worker", mock=mock) as server, worker(server.settings):
            called, told = await _moments(server.process, mock, server.key, tasks=tasks)
        _tell(figures, f"{path}, worker of its own", called, told, goal)


def _tell(figures: Figures, path: str, called: list[float], told: list[float], goal: Goal) -> None:
    figures.add(f"{path}, 202 → upstream called, p50", median(called), " ms", goal=goal)
    figures.add(f"{path}, upstream done → success told, p50", median(told), " ms", goal=at_most(3))


async def _moments(
    server: Process, mock: Process, key: str, *, tasks: int
) -> tuple[list[float], list[float]]:
    called, told = list[float](), list[float]()
    async with (
        callers(mock.port, "", 1) as (asker,),
        callers(server.port, key, 1) as (caller,),
    ):
        await _one(caller, asker)  # whoever takes it is up by then
        for _ in range(tasks):
            accepted_ns, call, told_ns = await _one(caller, asker)
            called.append((call.arrived_ns - accepted_ns) / 1e6)
            told.append((told_ns - call.answered_ns) / 1e6)
    return called, told


async def _one(caller: Caller, asker: Caller) -> tuple[int, Call, int]:
    """When the 202 came, what the upstream noted, and when the success came."""
    accepted = await caller.submit(request(f"mock:size=64k,delay={DELAY_MS},call=1"))
    accepted_ns = caller.answered_ns
    await caller.ended(accepted.task_id)
    calls = msgspec.json.decode(await asker.get("/calls"), type=dict[str, Call])
    return accepted_ns, calls["1"], caller.answered_ns
