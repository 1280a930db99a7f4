"""What a task comes to in money and files when its end is disturbed, or cancelled."""

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest

from calotype.domain.catalog import Cancellation
from calotype.domain.channel import Served
from calotype.domain.errors import CANCELLED, Unavailable
from calotype.domain.ids import encode
from calotype.domain.outcomes import (
    Accepted,
    Failed,
    Fault,
    PollOutcome,
    Refused,
    Running,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.task import FINAL, AttemptState, State, Task
from calotype.services.cancelling import TELL_AGAIN_MS, Cancelling
from harness import until
from services.bench import (
    ABANDON_MS,
    CHANNEL,
    CREDIT,
    PRICE,
    SOON,
    Bench,
    Scripted,
    Source,
    done,
    stopped,
)
from services.test_cancelling import BROKEN, STOPPED, Stoppable, generating, marked, tell
from services.test_several import left_behind, sources

BLIP = Unavailable("The database does not answer.", retry_after=1)
ACCEPTED = Accepted("up-1", poll_after=SOON)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_PAUSE", "STORE_PAUSE"):
        monkeypatch.setattr(f"calotype.services.endings.{name}", SOON)


class Around:
    """The bench's store, counting what is asked of it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self.bench.store, name)


def priced(bench: Bench, **changes: object) -> None:
    """Change the catalog as an operator does who starts the server anew."""
    model = msgspec.structs.replace(bench.catalog.get("gpt-image-2"), **changes)
    bench.catalog = msgspec.structs.replace(bench.catalog, models={model.id: model})


async def assert_charged(bench: Bench, task: Task, amount: int) -> None:
    assert (task.state, task.error) == (State.FAIL, CANCELLED)
    assert (task.actual, task.released) == (amount, task.reserved - amount)
    await bench.assert_balanced(CREDIT - amount)


# A verdict that only this process knows


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    ("said", "state", "cost"),
    [
        (Refused("content_policy_violation", "No.", Fault.POLICY), AttemptState.REFUSED, None),
        (Failed("upstream_failed", "It broke.", cost_micro_usdc=7), AttemptState.FAILED, 7),
    ],
)
async def test_a_verdict_outlives_a_moment_without_a_database(
    bench: Bench, n: int, said: Refused | Failed, state: AttemptState, cost: int | None
) -> None:
    class Blip(Around):
        armed = False

        async def task(self, task_id: int) -> Task | None:
            if self.armed:
                self.armed = False
                raise BLIP
            return await self.bench.store.task(task_id)

    blip = Blip(bench)

    def answer() -> SubmitOutcome:
        blip.armed = True
        return said

    task_id = await bench.submitted(n=n, price=n * PRICE)
    provider = Scripted([answer], synchronous=True)
    await bench.runner(provider, store=blip).run(task_id)
    await bench.assert_released(await bench.task(task_id), said.code)
    attempt = await bench.attempt(task_id)
    assert (attempt.state, attempt.code, attempt.cost_micro_usdc) == (state, said.code, cost)


# A price that is gone


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("way", ["tier", "channel"])
async def test_a_task_whose_price_was_taken_away_ends_all_the_same(
    bench: Bench, way: str, *, cancel: bool
) -> None:
    task_id = await left_behind(bench, 1, upstream_id="up-1", n=2)
    if cancel:
        await marked(bench, task_id)
    channel = CHANNEL
    if way == "tier":
        pricing = bench.catalog.get("gpt-image-2").pricing
        held = {"resolution": "1K", "aspect_ratio": "1:1"}
        tiers = tuple(each for each in pricing.tiers if not each.holds(held))
        priced(bench, pricing=msgspec.structs.replace(pricing, tiers=tiers))
    else:
        served = Served(price={"other": 5})
        channel = msgspec.structs.replace(CHANNEL, models={"gpt-image-2": served})
    said = done() if cancel else BROKEN
    task = await bench.ran(Scripted([], [said]), task_id=task_id, channel=channel)
    assert task.state is (State.FAIL if cancel else State.SUCCESS)
    assert task.actual == (0 if cancel else PRICE)
    await bench.assert_balanced(CREDIT - task.actual)


# What cancelling costs


@pytest.mark.parametrize("said", [Unknown("Lost."), STOPPED, BROKEN])
async def test_cancelled_and_not_finished_a_task_costs_nothing_whatever_had_arrived(
    bench: Bench, said: PollOutcome
) -> None:
    task_id = await left_behind(bench, 1, upstream_id="up-1")
    await marked(bench, task_id)
    await assert_charged(bench, await bench.ran(Stoppable([], [said]), task_id=task_id), 0)


async def test_cancelled_and_given_up_a_task_costs_nothing_whatever_had_arrived(
    bench: Bench,
) -> None:
    task_id = await left_behind(bench, 1, upstream_id="up-1")
    await marked(bench, task_id)
    bench.clock.forward(ABANDON_MS)
    provider = Stoppable([], [Running(poll_after=0)])
    await assert_charged(bench, await bench.ran(provider, task_id=task_id), 0)


@pytest.mark.parametrize("synchronous", [True, False])
async def test_images_of_a_cancelled_task_count_unseen(bench: Bench, *, synchronous: bool) -> None:
    task_id = await bench.submitted(n=2, price=2 * PRICE)
    useless = done(Source(b"no image"), Source(b"nor this"))
    began, answer = asyncio.Event(), asyncio.Event()

    class Slow(Stoppable):
        async def submit(self, job: Any) -> SubmitOutcome:
            began.set()
            await answer.wait()
            return await super().submit(job)

    if synchronous:
        provider: Stoppable = Slow([useless], synchronous=True)
        running = asyncio.create_task(bench.runner(provider).run(task_id))
        await began.wait()
        await marked(bench, task_id)
        answer.set()
        await running
    else:
        await generating(bench, task_id)
        await marked(bench, task_id)
        await bench.ran(Stoppable([], [useless], says=(False,)), task_id=task_id)
    await assert_charged(bench, await bench.task(task_id), 2 * PRICE)


@pytest.mark.parametrize("n", [1, 2])
async def test_cancelled_while_images_are_found_to_be_of_no_use_they_count_too(
    bench: Bench, n: int
) -> None:
    task_id = await bench.submitted(n=n, price=n * PRICE)

    class Late(Source):
        def open(self) -> Any:
            late.set()
            return super().open()

    late = asyncio.Event()

    class Cancelled(Around):
        async def standing(self, task_id: int) -> Any:
            if late.is_set():
                await marked(bench, task_id)
            return await bench.store.standing(task_id)

    images = [Late(b"no image") for _ in range(n)]
    provider = Scripted([done(*images)], synchronous=True)
    await bench.runner(provider, store=Cancelled(bench)).run(task_id)
    await assert_charged(bench, await bench.task(task_id), n * PRICE)


async def test_fractions_are_dropped_for_each_image_as_discovery_shows_it(bench: Bench) -> None:
    priced(bench, cancellation=Cancellation(percent=50))
    channel = msgspec.structs.replace(CHANNEL, models={"gpt-image-2": Served(price=101)})
    task_id = await bench.submitted(n=3, price=3 * 101)
    await generating(bench, task_id)
    await marked(bench, task_id)
    provider = Stoppable([], [done(*sources())], says=(False,))
    task = await bench.ran(provider, task_id=task_id, channel=channel)
    await assert_charged(bench, task, 3 * 50)


async def test_the_share_is_the_catalogs_at_the_end(bench: Bench) -> None:
    priced(bench, cancellation=Cancellation(percent=0))
    task_id = await bench.submitted()
    await generating(bench, task_id)
    await marked(bench, task_id)
    priced(bench, cancellation=Cancellation(percent=50))
    task = await bench.ran(Stoppable([], [done()], says=(False,)), task_id=task_id)
    await assert_charged(bench, task, PRICE // 2)


# Files of writes that nobody knows of


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("written", [True, False])
async def test_no_file_is_left_without_its_row_and_no_row_without_its_file(
    bench: Bench, n: int, *, written: bool
) -> None:
    """The answer to a write is lost, and the client cancels before it is tried again."""
    task_id = await bench.submitted(n=n, price=n * PRICE)

    class Hiccup(Around):
        over = False

        async def once(self, name: str, given: Any, named: Any) -> None:
            write = getattr(bench.store, name)
            if self.over:
                await write(*given, **named)
                return
            self.over = True
            if written:
                await write(*given, **named)
            await marked(bench, task_id)
            raise BLIP

        async def complete(self, *given: Any, **named: Any) -> None:
            await self.once("complete", given, named)

        async def keep_arrived(self, *given: Any, **named: Any) -> None:
            await self.once("keep_arrived", given, named)

    provider = Scripted([done(*sources(n))], synchronous=True)
    await bench.runner(provider, store=Hiccup(bench)).run(task_id)
    task = await bench.task(task_id)
    assert task.state in FINAL
    if written and n == 1:
        await bench.assert_paid(task)
    else:
        await assert_charged(bench, task, n * PRICE)
    assert len(bench.files()) == (1 if written else 0)


# What a look costs


async def test_a_round_of_polling_reads_no_more_than_the_mark(bench: Bench) -> None:
    store = Around(bench)
    polls: list[PollOutcome] = [*[Running(progress=1, poll_after=SOON)] * 5, done()]
    task_id = await bench.submitted()
    await bench.runner(Scripted([ACCEPTED], polls), store=store).run(task_id)
    await bench.assert_paid(await bench.task(task_id))
    assert (store.calls["task"], store.calls["standing"]) == (0, len(polls))


async def test_an_image_that_came_at_once_is_delivered_without_a_read(bench: Bench) -> None:
    store = Around(bench)
    task_id = await bench.submitted()
    provider = Scripted([done()], synchronous=True)
    await bench.runner(provider, store=store).run(task_id)
    await bench.assert_paid(await bench.task(task_id))
    assert (store.calls["task"], store.calls["standing"]) == (0, 0)


async def test_asking_again_and_again_is_told_once_in_a_while(bench: Bench) -> None:
    task_id = await bench.submitted()
    await bench.begun(task_id, upstream_id="up-1")
    told: list[int] = []
    reached = [False, True, True]

    async def tell(number: int) -> None:
        told.append(number)
        if not reached.pop(0):
            raise BLIP

    service = Cancelling(bench.store, tell=tell, clock=bench.clock)
    for pause, times in ((0, 1), (0, 2), (0, 2), (TELL_AGAIN_MS - 1, 2), (1, 3), (0, 3)):
        bench.clock.forward(pause)
        await service.cancel(encode("task", task_id), account_id=bench.account_id)
        assert told == [task_id] * times


async def test_a_cancel_is_passed_on_at_once_and_the_upstreams_pause_is_kept(bench: Bench) -> None:
    task_id = await bench.submitted()
    await bench.begun(task_id, upstream_id="up-1")
    busy = TryLater("upstream_rate_limited", "Busy.", retry_after=3600)
    provider = Stoppable([], [busy, STOPPED])
    runner = bench.runner(provider)
    running = asyncio.create_task(runner.run(task_id))
    await until(lambda: len(provider.polled) == 1)
    service = Cancelling(bench.store, tell=tell(runner, told=True), clock=bench.clock)
    await service.cancel(encode("task", task_id), account_id=bench.account_id)
    await until(lambda: provider.stops == ["up-1"])
    runner.look(task_id)
    assert len(provider.polled) == 1
    runner.nudge(CHANNEL.id, "up-1")
    await running
    await assert_charged(bench, await bench.task(task_id), 0)


async def test_a_cancel_within_a_pause_of_ours_is_followed_by_a_poll(bench: Bench) -> None:
    task_id = await bench.submitted()
    await bench.begun(task_id, upstream_id="up-1")
    provider = Stoppable([], [Running(poll_after=3600), Running(poll_after=3600)])
    runner = bench.runner(provider)
    running = asyncio.create_task(runner.run(task_id))
    await until(lambda: len(provider.polled) == 1)
    await marked(bench, task_id)
    runner.look(task_id)
    await until(lambda: len(provider.polled) == 2)
    await stopped(running)
    assert provider.stops == ["up-1"]
