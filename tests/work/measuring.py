"""What each operation costs, in work: the least of several rounds, as what disturbs only adds."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final

from work.database import counting_database
from work.site import Site, opened

ENGINES: Final = ("sqlite", "postgres")
MANY: Final = 64
_ROUNDS: Final = 3
_WARM: Final = 2
"""Times that something is done before it is counted."""

Costs = dict[str, dict[str, float]]
"""Operation → what is counted → how much of it one takes, or all of those done at once."""


@asynccontextmanager
async def site_on(engine: str, root: Path) -> AsyncIterator[Site]:
    """A site on a database of this kind."""
    async with AsyncExitStack() as stack:
        url = ""
        if engine == "postgres":
            url = await stack.enter_async_context(counting_database())
        yield await stack.enter_async_context(opened(root, database_url=url))


async def measure(site: Site) -> Costs:
    """What everything costs."""
    await site.serve()
    costs = await whole_tasks(site)
    costs["task in flight"] = {"bytes": await memory(site)}
    await site.stop()
    await site.serve("--no-worker")
    costs |= await requests(site)
    await site.stop()
    return costs


async def requests(site: Site) -> Costs:
    """Submission and retrieval, without a worker in the way."""
    prompts = (f"a lighthouse, number {number}" for number in count())
    ids: list[str] = []

    async def submit() -> None:
        document = await site.one(site.submission(next(prompts)))
        ids.append(document["task_id"])

    async def retrieve_new() -> None:
        await site.one(site.retrieval(ids.pop()))

    async def retrieve_again() -> None:
        await site.one(site.retrieval(ids[-1]))

    async def submit_many() -> None:
        await site.at_once([site.submission(next(prompts)) for _ in range(MANY)])

    async def retrieve_many() -> None:
        await site.at_once([site.retrieval(ids[-1])] * MANY)

    await submit_many()  # opens what many need
    return {
        "submit": await _least(site, submit, times=30),
        "retrieve, first time": await _least(site, retrieve_new, times=20),
        "retrieve, again": await _least(site, retrieve_again, times=20),
        f"submit {MANY} at once": await _least(site, submit_many, times=1),
        f"retrieve {MANY} at once": await _least(site, retrieve_many, times=1),
    }


async def whole_tasks(site: Site) -> Costs:
    """From submission to success, with nobody waiting for it."""

    async def whole() -> None:
        await site.one(site.submission("a lighthouse"))
        while await site.unfinished():
            await asyncio.sleep(0.002)

    return {"whole task, 65 KB": await _least(site, whole, times=10)}


async def memory(site: Site) -> float:
    """Bytes of Python's that a task takes while its upstream works."""
    taken = 0.0
    for _ in range(2):  # the first time fills what is made once
        before = await site.ask("memory")
        site.answering.clear()
        await site.at_once([site.submission("a lighthouse") for _ in range(MANY)])
        while site.held < MANY:
            await asyncio.sleep(0.02)
        taken = (await site.ask("memory") - before) / MANY
        site.answering.set()
        while await site.unfinished():
            await asyncio.sleep(0.02)
    return taken


async def _least(
    site: Site, work: Callable[[], Awaitable[None]], *, times: int
) -> dict[str, float]:
    for _ in range(_WARM):
        await work()
    rounds: list[Counter[str]] = []
    for _ in range(_ROUNDS):
        before = await site.counts()
        for _ in range(times):
            await work()
        counted = await site.counts()
        counted.subtract(before)
        rounds.append(counted)
    return {what: round(min(counted[what] for counted in rounds) / times, 1) for what in rounds[0]}
