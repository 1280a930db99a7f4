"""The whole way of a task: all is as it is in service, but for the upstream and the clock."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from calotype.domain.outcomes import Accepted
from calotype.domain.pricing import price
from calotype.domain.task import FINAL, Attempt, NewTask, Task
from providers.bed import Bed, Observed, catalog, request
from providers.fakes.base import SIZE, Fake
from providers.protocol import Expected
from providers.scripts import Script
from services.bench import ABANDON_MS, DEADLINE_MS, Bench, Clock, opened_bench, stopped


class Stride(Clock):
    """A clock that is a second further whenever it is read, so that no pause is sat out."""

    def __call__(self) -> int:
        self.forward(1_000)
        return self.now


@asynccontextmanager
async def opened_way(root: Path) -> AsyncIterator[Bench]:
    """A bench whose clock does not stand still."""
    async with opened_bench(root) as bench:
        bench.clock, bench.catalog = Stride(), catalog()
        yield bench


@dataclass
class Went:
    """A task that went the whole way."""

    task: Task
    seen: Observed
    fake: Fake
    attempts: Sequence[Attempt]
    balance: int
    """Of the account before it."""


async def gone(bench: Bench, bed: Bed, fake: Fake) -> Went:
    """Submit the protocol's first example and see it to its end."""
    bed.clock = bench.clock
    seen, channel = bed.observed(fake), bed.channel(fake)
    runner = bench.runner(seen, channel=channel)
    seen.nudge = partial(runner.nudge, channel.id)
    balance = (await bench.store.balance(bench.account_id)).balance
    task_id = await submitted(bench, bed)
    nudging = asyncio.create_task(_nudge(seen, fake))
    try:
        while (later := await runner.run(task_id)) is not None:
            bench.clock.forward(int(later * 1000))
    finally:
        await stopped(nudging)
    task = await bench.task(task_id)
    assert task.state in FINAL
    return Went(task, seen, fake, await bench.store.attempts(task_id), balance)


async def _nudge(seen: Observed, fake: Fake) -> None:
    """Cut short the pause after a download that broke off: nothing else may end it."""
    while True:
        if any(each.script == Script.RESULT_BROKEN and each.downloads == 1 for each in fake.bought):
            for outcome in seen.submitted:
                if isinstance(outcome, Accepted):
                    seen.nudge(outcome.upstream_id)
        await asyncio.sleep(0.01)


async def submitted(bench: Bench, bed: Bed) -> int:
    """A new task of the protocol's first example."""
    number, now = bench.ids.next(), bench.clock.now
    example = bed.protocol.examples[0]
    assert not example.references, "the first example goes the whole way, without references"
    new = NewTask(
        id=number,
        account_id=bench.account_id,
        key_id=1,
        request_id=f"req_{number}",
        request=request(example),
        references=(),
        uploads=(),
        channel_id=10,
        price=_price(bed),
        deadline_at=now + DEADLINE_MS,
        abandon_at=now + ABANDON_MS,
        created_at=now,
    )
    return (await bench.store.submit(new)).task_id


def _price(bed: Bed) -> int:
    asked = request(bed.protocol.examples[0])
    return price(catalog().get(asked.model), asked.parameters, asked.n)


async def assert_went(bench: Bench, went: Went, expected: Expected) -> None:
    """What the row of the table says of the task and of the money."""
    task = went.task
    error = task.error
    assert (task.state, error.code if error else "") == (expected.state, expected.code), error
    assert went.fake.purchases <= 1 or went.seen.free, "bought twice"
    if expected.billed:
        (image,) = task.result
        assert (image.width, image.height) == SIZE
        assert (task.actual, task.released) == (task.reserved, 0)
    else:
        assert (task.actual, task.released, task.result) == (0, task.reserved, ())
    await bench.assert_balanced(went.balance - task.actual)
    went.fake.assert_sound()
