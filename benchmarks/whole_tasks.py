"""Rows of the table: tasks from submission to success, through the mock upstream."""

from typing import Final

import msgspec

import floors
import wrk
from callers import callers, run_tasks
from servers import Engine, Process
from table import Figures, Floor, at_least, at_most

SMALL: Final = "mock:size=64k,delay=0"
LARGE: Final = "mock:size=3m,delay=0"
SLOW: Final = "mock:size=64k,delay=200"
AT_ONCE: Final = 32
"""Tasks in flight where the upstream answers at once."""
IN_FLIGHT: Final = 512
_DRAIN: Final = "bare drain, decode, write, sync"


def request(prompt: str) -> bytes:
    """A submission."""
    return msgspec.json.encode({"model": "gpt-image-2", "prompt": f"a red fox {prompt}"})


async def small(engine: Engine, mock: Process, figures: Figures, *, seconds: float) -> None:
    """A small image from an upstream that answers at once."""
    least = await _floor(engine, mock, SMALL, seconds=seconds)
    rate, cpu_ms, _ = await _run(engine, mock, SMALL, connections=AT_ONCE, seconds=seconds)
    path = f"{engine.name}: whole task, 65 KB"
    floor = Floor(least.per_second, _DRAIN)
    figures.add(path, rate, "/s", goal=at_least(1200), floor=floor)
    floor = Floor(least.cpu_ms, _DRAIN)
    figures.add(f"{path}, CPU of the server", cpu_ms, " ms", goal=at_most(1), floor=floor)


async def large(engine: Engine, mock: Process, figures: Figures, *, seconds: float) -> None:
    """A large image from the same."""
    least = await _floor(engine, mock, LARGE, seconds=seconds)
    rate, cpu_ms, peak = await _run(engine, mock, LARGE, connections=AT_ONCE, seconds=seconds)
    path = f"{engine.name}: whole task, 3.1 MB"
    figures.add(path, rate, "/s", goal=at_least(130))
    goal, floor = at_least(0.7, of_floor=True), Floor(least.per_second, _DRAIN)
    figures.add(f"{path}, beside its bytes", rate, "/s", goal=goal, floor=floor)
    floor = Floor(least.cpu_ms, _DRAIN)
    figures.add(f"{path}, CPU of the server", cpu_ms, " ms", floor=floor)
    figures.add(f"{path}, peak memory", peak, " MiB", goal=at_most(200))


async def slow(engine: Engine, mock: Process, figures: Figures, *, seconds: float) -> None:
    """Very many small ones at a time, from an upstream that takes its time."""
    bare = await wrk.post(mock.port, "", "/", request(SLOW), seconds=seconds, connections=IN_FLIGHT)
    rate, *_ = await _run(engine, mock, SLOW, connections=IN_FLIGHT, seconds=seconds)
    floor = Floor(bare.per_second, "the mock itself")
    path = f"{engine.name}: whole task, upstream takes 200 ms, {IN_FLIGHT} in flight"
    figures.add(path, rate, "/s", goal=at_least(1200), floor=floor)


async def _floor(engine: Engine, mock: Process, prompt: str, *, seconds: float) -> floors.Drained:
    async with engine.database() as (folder, _):
        return await floors.drained(mock.port, prompt, folder, seconds=seconds)


async def _run(
    engine: Engine, mock: Process, prompt: str, *, connections: int, seconds: float
) -> tuple[float, float, float]:
    """Tasks a second, milliseconds of CPU for each, and the most memory in MiB."""
    body = request(prompt)
    async with engine.server(mock=mock) as server:
        process = server.process
        async with callers(process.port, server.key, 1) as (caller,):
            await caller.ended((await caller.submit(body)).task_id)
        cpu = process.cpu_seconds()
        load = await run_tasks(
            process.port, server.key, body, connections=connections, seconds=seconds
        )
        cpu = process.cpu_seconds() - cpu
        return load.per_second, cpu / load.finished * 1000, process.peak_mib()
