"""Running a task again: after a crash between any two steps, after parking, against another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from calotype.domain.channel import Channel
from calotype.domain.errors import Unavailable
from calotype.domain.outcomes import (
    Accepted,
    Done,
    PollOutcome,
    Running,
    SourceError,
    SubmitOutcome,
    TryLater,
)
from calotype.domain.task import FINAL, AttemptState, Reference, State, Task
from calotype.providers.plain import Plain
from calotype.providers.port import Job
from harness import until, website
from services.bench import (
    ABANDON_MS,
    CHANNEL,
    CREDIT,
    DEADLINE_MS,
    FREE,
    PICTURE,
    PRICE,
    SOON,
    Bench,
    Scripted,
    Source,
    done,
    stopped,
)
from services.wires import Killed, Tripwire

ACCEPTED = Accepted("up-1", poll_after=0)
ACCEPTED_AGAIN = Accepted("up-2", poll_after=0)


# What the rows say is what happens next


async def test_a_job_with_an_upstream_id_is_only_polled(bench: Bench) -> None:
    task_id = await bench.submitted()
    await bench.begun(task_id, upstream_id="up-1")
    provider = Scripted([ACCEPTED_AGAIN], [Running(poll_after=0), done()])
    await bench.assert_paid(await bench.ran(provider, task_id=task_id))
    assert (len(provider.sent), provider.polled) == (0, ["up-1", "up-1"])
    assert await bench.attempts(task_id) == [(AttemptState.DONE, "up-1")]


async def test_a_send_that_was_cut_off_is_unknown_and_never_repeated(bench: Bench) -> None:
    task_id = await bench.submitted()
    await bench.begun(task_id, upstream_id=None)
    provider = Scripted([done()])
    await bench.assert_released(
        await bench.ran(provider, task_id=task_id), "upstream_outcome_unknown"
    )
    assert provider.sent == []
    assert await bench.attempts(task_id) == [(AttemptState.UNKNOWN, None)]


async def test_a_send_that_was_cut_off_is_repeated_where_that_is_free(bench: Bench) -> None:
    task_id = await bench.submitted()
    await bench.begun(task_id, upstream_id=None)
    provider = Scripted([done()])
    await bench.assert_paid(await bench.ran(provider, task_id=task_id, channel=FREE))
    assert [job.attempt for job in provider.sent] == [2]
    assert await bench.attempts(task_id) == [
        (AttemptState.UNKNOWN, None),
        (AttemptState.DONE, None),
    ]


async def test_what_was_never_sent_is_sent(bench: Bench) -> None:
    task_id = await bench.submitted()
    assert await bench.store.take(task_id, now=bench.clock.now) is not None
    provider = Scripted([done()])
    await bench.assert_paid(await bench.ran(provider, task_id=task_id))
    assert len(provider.sent) == 1


async def test_an_accepted_job_is_still_delivered_past_the_deadline(bench: Bench) -> None:
    task_id = await bench.submitted()
    await bench.begun(task_id, upstream_id="up-1")
    bench.clock.forward(ABANDON_MS - 1)
    provider = Scripted([], [Running(poll_after=0), done()])
    await bench.assert_paid(await bench.ran(provider, task_id=task_id))


async def test_even_an_abandoned_job_is_asked_for_once_more(bench: Bench) -> None:
    task_id = await bench.submitted()
    await bench.begun(task_id, upstream_id="up-1")
    bench.clock.forward(10 * ABANDON_MS)
    await bench.assert_paid(await bench.ran(Scripted([], [done()]), task_id=task_id))


async def test_a_send_that_was_cut_off_is_not_repeated_past_the_deadline(bench: Bench) -> None:
    task_id = await bench.submitted()
    await bench.begun(task_id, upstream_id=None)
    bench.clock.forward(DEADLINE_MS)
    provider = Scripted([done()])
    task = await bench.ran(provider, task_id=task_id, channel=FREE)
    await bench.assert_released(task, "deadline_exceeded")
    assert provider.sent == []
    assert await bench.attempts(task_id) == [(AttemptState.UNKNOWN, None)]


# Killed between any two steps


class Upstream(Plain):
    """Makes what it is asked for, and bills every submit that reaches it."""

    def __init__(self, *, synchronous: bool) -> None:
        self.free = False
        self.synchronous = synchronous
        self.bought: list[str] = []
        self.polls = 0

    async def submit(self, job: Job) -> SubmitOutcome:
        self.bought.append(job.task)
        if self.synchronous:
            return done()
        return Accepted(f"up-{len(self.bought)}", poll_after=0)

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        assert job.task
        assert upstream_id == f"up-{len(self.bought)}", "a job that another one replaced is polled"
        self.polls += 1
        return Running(progress=50, poll_after=0) if self.polls % 2 else done()


@pytest.mark.parametrize("channel", [CHANNEL, FREE], ids=["paid", "free"])
@pytest.mark.parametrize("synchronous", [True, False])
async def test_killed_between_any_two_steps_a_task_is_bought_once_and_ends_well(
    bench: Bench, channel: Channel, *, synchronous: bool
) -> None:
    survived, step, spent = False, 0, 0
    while not survived:
        task_id = await bench.submitted()
        upstream, wire = Upstream(synchronous=synchronous), Tripwire(step)
        dying = bench.runner(
            wire.around(upstream),
            store=wire.around(bench.store),
            disk=wire.around(bench.disk),
            channel=channel,
        )
        try:
            await dying.run(task_id)
            survived = True
        except Killed:
            pass
        left = await bench.attempts(task_id)
        was_final = (await bench.task(task_id)).state in FINAL
        bought_before = len(upstream.bought)
        await bench.runner(upstream, channel=channel).run(task_id)
        task = await bench.task(task_id)
        spent += task.actual
        await assert_ended_well(bench, task, upstream, left=left, was_final=was_final)
        assert len(upstream.bought) == bought_before or not left or channel.free
        assert await bench.store.prove() == []
        step += 1
    balance = await bench.store.balance(bench.account_id)
    assert (balance.balance, balance.reserved) == (CREDIT - spent, 0)
    assert step > 15, "the wire was never tripped"


async def assert_ended_well(
    bench: Bench,
    task: Task,
    upstream: Upstream,
    *,
    left: list[tuple[AttemptState, str | None]],
    was_final: bool,
) -> None:
    """By what the dead process left: paid once, or unknown and released."""
    unknown = left == [(AttemptState.SENDING, None)] and not was_final
    after = await bench.attempts(task.id)
    if unknown and (task.state is State.FAIL):
        assert task.error is not None
        assert (task.error.code, task.actual) == ("upstream_outcome_unknown", 0)
        assert after == [(AttemptState.UNKNOWN, None)]
        assert len(upstream.bought) <= 1
        return
    assert (task.state, task.actual) == (State.SUCCESS, PRICE)
    for image in task.result:
        asset = await bench.store.asset(image.asset_id)
        assert asset is not None
        assert bench.disk.path(asset.key).read_bytes() == PICTURE
    assert after[-1][0] is AttemptState.DONE
    assert len(after) == (2 if unknown else 1)
    assert len(upstream.bought) <= len(after)


@pytest.mark.parametrize("free", [True, False])
async def test_cancelled_while_sending_nothing_is_known(bench: Bench, *, free: bool) -> None:
    provider = Scripted()
    channel = FREE if free else CHANNEL
    task_id = await bench.submitted()
    running = asyncio.create_task(bench.runner(provider, channel=channel).run(task_id))
    await provider.reached.wait()
    await stopped(running)
    assert await bench.attempts(task_id) == [(AttemptState.SENDING, None)]
    again = Scripted([done()])
    task = await bench.ran(again, task_id=task_id, channel=channel)
    assert len(again.sent) == int(free)
    assert task.state is (State.SUCCESS if free else State.FAIL)


async def test_cancelled_while_polling_the_job_is_polled_on(bench: Bench) -> None:
    provider = Scripted([ACCEPTED], [Running(progress=30, poll_after=0)])
    task_id = await bench.submitted()
    running = asyncio.create_task(bench.runner(provider).run(task_id))
    await provider.reached.wait()
    await stopped(running)
    again = Scripted([], [Running(progress=10, poll_after=0), done()])
    await bench.assert_paid(await bench.ran(again, task_id=task_id))
    assert (again.sent, again.polled) == ([], ["up-1", "up-1"])


async def test_cancelled_while_an_image_comes_in_nothing_stays_behind(bench: Bench) -> None:
    arriving = asyncio.Event()

    class Slow(Source):
        @asynccontextmanager
        async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
            async def chunks() -> AsyncIterator[bytes]:
                yield PICTURE[:30]
                arriving.set()
                await asyncio.Event().wait()

            yield chunks()

    task_id = await bench.submitted()
    provider = Scripted([ACCEPTED], [done(Source(), Slow())])
    running = asyncio.create_task(bench.runner(provider).run(task_id))
    await arriving.wait()
    await stopped(running)
    assert bench.files() == []
    await bench.assert_paid(await bench.ran(Scripted([], [done()]), task_id=task_id))


# Parking


async def test_a_task_that_is_polled_is_parked_and_taken_up_by_the_next_process(
    bench: Bench,
) -> None:
    provider = Scripted([ACCEPTED], [Running(progress=20, poll_after=3600)])
    runner = bench.runner(provider)
    task_id = await bench.submitted()
    running = asyncio.create_task(runner.run(task_id))
    await until(lambda: len(provider.polled) == 1)
    runner.park()
    await running
    parked = await bench.task(task_id)
    assert (parked.state, parked.progress) == (State.GENERATING, 20)
    assert await bench.attempts(task_id) == [(AttemptState.ACCEPTED, "up-1")]
    again = Scripted([], [done()])
    await bench.assert_paid(await bench.ran(again, task_id=task_id))
    assert (again.sent, again.polled) == ([], ["up-1"])


async def test_a_task_that_waits_for_a_busy_upstream_is_parked(bench: Bench) -> None:
    busy = TryLater("upstream_rate_limited", "Busy.", retry_after=3600)
    provider = Scripted([busy, done()])
    runner = bench.runner(provider)
    task_id = await bench.submitted()
    running = asyncio.create_task(runner.run(task_id))
    await until(lambda: len(provider.sent) == 1)
    runner.park()
    await running
    assert len(provider.sent) == 1
    assert await bench.attempts(task_id) == [(AttemptState.REFUSED, None)]
    await bench.assert_paid(await bench.ran(Scripted([done()]), task_id=task_id))


async def test_after_parking_nothing_new_is_sent_or_polled(bench: Bench) -> None:
    provider = Scripted([done()], [done()])
    runner = bench.runner(provider)
    runner.park()
    fresh, accepted = await bench.submitted(), await bench.submitted()
    await bench.begun(accepted, upstream_id="up-1")
    for task_id in (fresh, accepted):
        await runner.run(task_id)
        assert (await bench.task(task_id)).state not in FINAL
    assert (provider.sent, provider.polled) == ([], [])
    assert await bench.attempts(fresh) == []


async def test_a_request_on_its_way_is_brought_to_its_end_though_parked(bench: Bench) -> None:
    def parked() -> Done:
        runner.park()
        return done()

    runner = bench.runner(Scripted([parked], synchronous=True))
    task_id = await bench.submitted()
    await runner.run(task_id)
    await bench.assert_paid(await bench.task(task_id))


async def test_the_upstreams_id_is_kept_though_parked(bench: Bench) -> None:
    def parked() -> Accepted:
        runner.park()
        return ACCEPTED

    runner = bench.runner(Scripted([parked]))
    task_id = await bench.submitted()
    await runner.run(task_id)
    assert await bench.attempts(task_id) == [(AttemptState.ACCEPTED, "up-1")]


# Fenced by another worker


async def test_a_fenced_workers_images_are_removed_and_the_others_stay(bench: Bench) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    class Late(Source):
        @asynccontextmanager
        async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
            async def chunks() -> AsyncIterator[bytes]:
                yield PICTURE
                arrived.set()
                await go_on.wait()

            yield chunks()

    slow = Scripted([ACCEPTED], [done(Late())])
    task_id = await bench.submitted()
    running = asyncio.create_task(bench.runner(slow).run(task_id))
    await arrived.wait()
    task = await bench.ran(Scripted([], [done()]), task_id=task_id)
    go_on.set()
    await running
    await bench.assert_paid(await bench.task(task_id))
    assert await bench.task(task_id) == task
    assert len(bench.files()) == 1


async def test_a_fenced_workers_references_are_removed(bench: Bench) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def image(_request: web.Request) -> web.Response:
        if not asked.is_set():
            asked.set()
            await go_on.wait()
        return web.Response(body=PICTURE, content_type="image/png")

    async with website(image) as site:
        task_id = await bench.submitted(references=[Reference(url=f"{site}/a.png")])
        slow = Scripted([done()])
        running = asyncio.create_task(bench.runner(slow).run(task_id))
        await asked.wait()
        task = await bench.ran(Scripted([done()]), task_id=task_id)
        go_on.set()
        await running
    assert slow.sent == []
    await bench.assert_paid(task)
    assert len(bench.files()) == 2, "one reference and one result"


async def test_a_worker_that_is_fenced_before_it_sends_sends_nothing(bench: Bench) -> None:
    task_id = await bench.submitted()
    provider = Scripted([done()])

    async def taken_by_another() -> None:
        await bench.store.take(task_id, now=bench.clock.now)

    runner = bench.runner(
        provider,
        store=Faulty(bench, before={"begin_attempt": taken_by_another}),
        channel=msgspec.structs.replace(CHANNEL, requests_per_minute=60),  # it awaits its turn
    )
    await runner.run(task_id)
    assert provider.sent == []
    assert await bench.attempts(task_id) == []


# The database does not answer


class Faulty:
    """The store, with something that happens before or after a verb."""

    def __init__(
        self,
        bench: Bench,
        *,
        before: dict[str, Callable[[], Awaitable[None]]] | None = None,
        after: dict[str, Callable[[], Awaitable[None]]] | None = None,
    ) -> None:
        self._store = bench.store
        self._before, self._after = before or {}, after or {}

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)

        async def faulty(*given: Any, **named: Any) -> Any:
            if name in self._before:
                await self._before[name]()
            result = await verb(*given, **named)
            if name in self._after:
                await self._after[name]()
            return result

        return faulty


class Outage:
    """Raises ``Unavailable`` as often as said."""

    def __init__(self, times: int) -> None:
        self.left = times

    async def __call__(self) -> None:
        if self.left:
            self.left -= 1
            raise Unavailable("The database cannot be written right now.")


@pytest.mark.parametrize("verb", ["accept_attempt", "complete"])
async def test_while_the_database_does_not_answer_what_was_bought_is_not_forgotten(
    bench: Bench, verb: str
) -> None:
    task_id = await bench.submitted()
    provider = Scripted([ACCEPTED], [done()])
    outage = Outage(2)
    await bench.runner(provider, store=Faulty(bench, before={verb: outage})).run(task_id)
    await bench.assert_paid(await bench.task(task_id))
    assert (len(provider.sent), len(bench.files()), outage.left) == (1, 1, 0)


@pytest.mark.parametrize("verb", ["accept_attempt", "complete"])
async def test_a_write_that_only_seemed_to_fail_costs_no_image(bench: Bench, verb: str) -> None:
    task_id = await bench.submitted()
    provider = Scripted([ACCEPTED], [done()])
    runner = bench.runner(provider, store=Faulty(bench, after={verb: Outage(1)}))
    with pytest.raises(Unavailable):
        await runner.run(task_id)
    await bench.assert_paid(await bench.ran(Scripted([], [done()]), task_id=task_id))
    assert (len(provider.sent), len(bench.files())) == (1, 1)


async def test_a_refusal_is_told_although_the_database_was_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.services.endings.FETCH_PAUSES", ())
    task_id = await bench.submitted()
    broken = Scripted([done(Source(fault=SourceError("reset")))])
    runner = bench.runner(broken, store=Faulty(bench, before={"fail": Outage(1)}))
    await runner.run(task_id)
    await bench.assert_released(await bench.task(task_id), "upstream_failed")


@pytest.mark.parametrize("verb", ["take", "begin_attempt", "asset", "advance", "attempts"])
async def test_before_and_after_that_the_task_is_simply_tried_again(
    bench: Bench, verb: str
) -> None:
    async with Source().open() as chunks:
        kept = await bench.assets.keep(
            chunks, account_id=bench.account_id, kind="reference", max_bytes=10**6
        )
    task_id = await bench.submitted(
        references=[Reference(asset_id=kept.asset.id)], uploads=[kept.asset]
    )
    provider = Scripted([ACCEPTED], [Running(poll_after=SOON), done()])
    try:
        await bench.runner(provider, store=Faulty(bench, before={verb: Outage(1)})).run(task_id)
    except Unavailable:
        provider = Scripted([] if provider.sent else [ACCEPTED], [done()])
        await bench.runner(provider).run(task_id)
    await bench.assert_paid(await bench.task(task_id))


# Something of ours is broken


async def test_a_poll_that_raises_is_tried_again_by_the_queue(bench: Bench) -> None:
    task_id = await bench.submitted()
    provider = Scripted([ACCEPTED], [RuntimeError("a bug of ours")])
    with pytest.raises(RuntimeError):
        await bench.runner(provider).run(task_id)
    assert await bench.attempts(task_id) == [(AttemptState.ACCEPTED, "up-1")]
    await bench.assert_paid(await bench.ran(Scripted([], [done()]), task_id=task_id))


@pytest.mark.parametrize("upstream_id", ["up-1", None])
async def test_what_stays_broken_past_its_time_fails_and_the_operator_sees_the_attempt(
    bench: Bench, upstream_id: str | None
) -> None:
    def broken() -> PollOutcome:
        bench.clock.forward(ABANDON_MS)
        raise RuntimeError("a bug of ours")

    task_id = await bench.submitted()
    if upstream_id:
        await bench.begun(task_id, upstream_id=upstream_id)
    task = await bench.ran(Scripted([ACCEPTED], [broken]), task_id=task_id)
    await bench.assert_released(task, "internal_error")
    assert await bench.attempts(task_id) == [(AttemptState.UNKNOWN, "up-1")]
