"""Cancelling, as the worker meets it: between any two of its steps, whatever the upstream does."""

import asyncio
from collections import deque
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.domain.catalog import Cancellation
from calotype.domain.errors import CANCELLED
from calotype.domain.ids import encode
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    Fault,
    PollOutcome,
    RecoverOutcome,
    Refused,
    Running,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.task import FINAL, AttemptState, BillingStatus, State, Task
from calotype.providers.plain import Plain
from calotype.providers.port import Job
from calotype.services.cancelling import TIMES, Cancelling
from harness import until
from services.bench import (
    ABANDON_MS,
    CHANNEL,
    CREDIT,
    FREE,
    PRICE,
    SOON,
    Bench,
    Scripted,
    Source,
    done,
    opened_bench,
    stopped,
)
from services.wires import Killed, Wire

ACCEPTED = Accepted("up-1", poll_after=SOON)
BUSY = TryLater("upstream_rate_limited", "Busy.", retry_after=SOON)
BROKEN = Failed("upstream_failed", "It broke.", cost_micro_usdc=7)
STOPPED = Failed("cancelled", "The job was cancelled at the upstream.")
LOST = Unknown("The connection broke.")


class Stoppable(Scripted):
    """One that can be asked to stop, and notes it; ``says`` is what it answers, in turn."""

    def __init__(self, *given: Any, says: tuple[bool | Exception, ...] = (), **named: Any) -> None:
        super().__init__(*given, **named)
        self.stops: list[str] = []
        self._says = deque(says)

    async def cancel(self, job: Job, upstream_id: str) -> bool:
        assert job.task
        self.stops.append(upstream_id)
        said = self._says.popleft() if self._says else True
        if isinstance(said, Exception):
            raise said
        return said


async def marked(bench: Bench, task_id: int) -> Task:
    task = await bench.store.cancel(task_id, account_id=bench.account_id, now=bench.clock.now)
    assert task is not None
    return task


async def generating(bench: Bench, task_id: int) -> None:
    """Leave the task as one whose accepted job is at it."""
    await bench.begun(task_id, upstream_id="up-1")
    provider = Scripted([], [Running(progress=10, poll_after=SOON)])
    running = asyncio.create_task(bench.runner(provider).run(task_id))
    await provider.reached.wait()
    await stopped(running)


async def assert_cancelled(bench: Bench, task: Task, *, paid: int = 0) -> None:
    assert (task.state, task.error, task.result) == (State.FAIL, CANCELLED, ())
    assert (task.actual, task.released) == (paid, task.reserved - paid)
    assert task.billing is (BillingStatus.COMMITTED if paid else BillingStatus.RELEASED)
    await bench.assert_balanced(CREDIT - paid)


# What the upstream says settles it


@pytest.mark.parametrize(
    ("said", "state", "code"),
    [
        (STOPPED, AttemptState.FAILED, "cancelled"),
        (BROKEN, AttemptState.FAILED, "upstream_failed"),
        (Unknown("Gone."), AttemptState.UNKNOWN, "upstream_outcome_unknown"),
    ],
)
async def test_a_job_that_stopped_failed_or_was_lost_costs_nothing(
    bench: Bench, said: PollOutcome, state: AttemptState, code: str
) -> None:
    task_id = await bench.submitted()
    await generating(bench, task_id)
    await marked(bench, task_id)
    provider = Stoppable([], [Running(poll_after=0), said])
    await assert_cancelled(bench, await bench.ran(provider, task_id=task_id))
    attempt = await bench.attempt(task_id)
    assert (attempt.state, attempt.code) == (state, code)
    assert attempt.cost_micro_usdc == (7 if said is BROKEN else None)
    assert (provider.sent, provider.stops) == ([], ["up-1"])


@pytest.mark.parametrize(("percent", "paid"), [(100, PRICE), (50, PRICE // 2), (0, 0), (1, 600)])
async def test_a_job_that_finished_all_the_same_costs_the_models_share(
    bench: Bench, percent: int, paid: int
) -> None:
    model = msgspec.structs.replace(
        bench.catalog.get("gpt-image-2"), cancellation=Cancellation(percent=percent)
    )
    bench.catalog = msgspec.structs.replace(bench.catalog, models={model.id: model})
    task_id = await bench.submitted()
    await generating(bench, task_id)
    await marked(bench, task_id)
    broken = Source(fault=AssertionError("nobody wants it"))
    provider = Stoppable([], [done(broken, cost=9)], says=(False,))
    await assert_cancelled(bench, await bench.ran(provider, task_id=task_id), paid=paid)
    attempt = await bench.attempt(task_id)
    assert (attempt.state, attempt.cost_micro_usdc) == (AttemptState.DONE, 9)
    assert bench.files() == []


async def test_what_was_not_generating_yet_when_it_was_cancelled_costs_nothing(
    bench: Bench,
) -> None:
    task_id = await bench.submitted()
    await bench.begun(task_id, upstream_id="up-1")
    assert (await marked(bench, task_id)).state is State.QUEUING
    provider = Stoppable([], [Running(progress=50, poll_after=0), done()])
    task = await bench.ran(provider, task_id=task_id)
    await assert_cancelled(bench, task)
    assert task.progress == 50
    assert (await bench.attempt(task_id)).state is AttemptState.DONE


async def test_cancelled_while_its_image_comes_in_the_image_goes_and_is_paid(
    bench: Bench,
) -> None:
    task_id = await bench.submitted()
    arriving, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Source):
        def open(self) -> Any:
            arriving.set()
            return super().open()

    provider = Stoppable([ACCEPTED], [Running(poll_after=SOON), done(Slow())])

    class Waiting:
        def __getattr__(self, name: str) -> Any:
            return getattr(bench.store, name)

        async def complete(self, *given: Any, **named: Any) -> None:
            await go_on.wait()
            await bench.store.complete(*given, **named)

    runner = bench.runner(provider, store=Waiting())
    running = asyncio.create_task(runner.run(task_id))
    await arriving.wait()
    assert (await marked(bench, task_id)).state is State.GENERATING
    go_on.set()
    await running
    await assert_cancelled(bench, await bench.task(task_id), paid=PRICE)
    assert bench.files() == []


# A send is not broken off, and not repeated


@pytest.mark.parametrize(
    ("said", "state", "paid"),
    [
        (done(), AttemptState.DONE, PRICE),
        (BROKEN, AttemptState.FAILED, 0),
        (BUSY, AttemptState.REFUSED, 0),
        (Refused("upstream_rejected", "No."), AttemptState.REFUSED, 0),
        (Refused("upstream_rejected", "No.", Fault.KEY), AttemptState.REFUSED, 0),
        (LOST, AttemptState.UNKNOWN, 0),
        (RuntimeError("a bug of ours"), AttemptState.UNKNOWN, 0),
    ],
)
async def test_cancelled_while_it_is_being_sent_a_task_is_settled_by_the_answer(
    bench: Bench, said: Any, state: AttemptState, paid: int
) -> None:
    task_id = await bench.submitted()
    sending, answer = asyncio.Event(), asyncio.Event()

    class Slow(Stoppable):
        async def submit(self, job: Job) -> SubmitOutcome:
            sending.set()
            await answer.wait()
            return await super().submit(job)

    provider = Slow([said, done()], synchronous=True)
    running = asyncio.create_task(bench.runner(provider).run(task_id))
    await sending.wait()
    await marked(bench, task_id)
    assert not running.done()
    answer.set()
    await running
    await assert_cancelled(bench, await bench.task(task_id), paid=paid)
    assert (await bench.attempt(task_id)).state is state
    assert len(provider.sent) == 1


async def test_where_a_second_send_is_free_there_is_none_all_the_same(bench: Bench) -> None:
    task_id = await bench.submitted()
    await bench.begun(task_id, upstream_id=None)
    await marked(bench, task_id)
    provider = Stoppable([done()])
    await assert_cancelled(bench, await bench.ran(provider, task_id=task_id, channel=FREE))
    assert provider.sent == []


async def test_a_lost_answer_that_is_found_again_is_stopped_and_polled(bench: Bench) -> None:
    task_id = await bench.submitted()
    await bench.begun(task_id, upstream_id=None)
    await marked(bench, task_id)
    provider = Stoppable([], [STOPPED], [ACCEPTED])
    await assert_cancelled(bench, await bench.ran(provider, task_id=task_id))
    assert (provider.sent, provider.stops) == ([], ["up-1"])
    assert await bench.attempts(task_id) == [(AttemptState.FAILED, "up-1")]


async def test_a_worker_that_died_after_the_refusal_leaves_nothing_to_send(bench: Bench) -> None:
    task_id = await bench.submitted()
    taken = await bench.store.take(task_id, now=bench.clock.now)
    assert taken is not None
    await bench.begun(task_id, upstream_id=None)
    await marked(bench, task_id)
    task = await bench.task(task_id)
    await bench.store.close_attempt(
        task, 1, state=AttemptState.REFUSED, detail="Busy.", now=bench.clock.now
    )
    provider = Stoppable([done()])
    await assert_cancelled(bench, await bench.ran(provider, task_id=task_id))
    assert provider.sent == []


# How the upstream learns of it


@pytest.mark.parametrize(
    ("says", "times"),
    [
        ((True, True), 1),
        ((False, True), 2),
        ((False,) * 9, TIMES),
        ((RuntimeError("a bug of ours"), True), 2),
    ],
)
async def test_an_upstream_is_asked_until_it_agrees_and_not_for_ever(
    bench: Bench, says: tuple[bool | Exception, ...], times: int
) -> None:
    task_id = await bench.submitted()
    await bench.begun(task_id, upstream_id="up-1")
    await marked(bench, task_id)
    provider = Stoppable([], [*[Running(poll_after=0)] * 6, STOPPED], says=says)
    await assert_cancelled(bench, await bench.ran(provider, task_id=task_id))
    assert (provider.stops, len(provider.polled)) == (["up-1"] * times, 7)


async def test_a_worker_that_is_told_looks_at_once_and_one_that_is_not_on_its_round(
    bench: Bench,
) -> None:
    for told in (True, False):
        pause = 3600 if told else 0.01
        task_id = await bench.submitted()
        provider = Stoppable([ACCEPTED], [*[Running(poll_after=pause)] * 2, STOPPED])
        runner = bench.runner(provider)
        running = asyncio.create_task(runner.run(task_id))
        await until(lambda provider=provider: len(provider.polled) >= 1)  # type: ignore[misc]  # bound here
        cancelling = Cancelling(bench.store, tell=tell(runner, told=told), clock=bench.clock)
        word = provider.sent[0].task
        task = await cancelling.cancel(word, account_id=bench.account_id)
        assert task.cancel_at == bench.clock.now
        await until(lambda provider=provider: provider.stops == ["up-1"])  # type: ignore[misc]  # bound here
        if told:
            runner.nudge(CHANNEL.id, "up-1")
        await running
        await assert_cancelled(bench, await bench.task(task_id))


def tell(runner: Any, *, told: bool) -> Any:
    async def tell(task_id: int) -> None:
        if told:
            runner.look(task_id)

    return tell


async def test_a_send_that_can_be_interrupted_is(bench: Bench) -> None:
    task_id = await bench.submitted()
    interrupted = asyncio.Event()

    class Local(Stoppable):
        async def submit(self, job: Job) -> SubmitOutcome:
            self.sent.append(job)
            await interrupted.wait()
            return STOPPED

        async def cancel(self, job: Job, upstream_id: str) -> bool:
            assert (job, upstream_id) == (self.sent[0], "")
            interrupted.set()
            return True

    provider = Local(synchronous=True)
    runner = bench.runner(provider)
    running = asyncio.create_task(runner.run(task_id))
    await until(lambda: len(provider.sent) == 1)
    runner.look(task_id)
    runner.look(task_id + 1)
    await marked(bench, task_id)
    runner.look(task_id)
    await running
    await assert_cancelled(bench, await bench.task(task_id))


async def test_a_job_that_never_ends_is_given_up_as_cancelled(bench: Bench) -> None:
    def late() -> PollOutcome:
        bench.clock.forward(ABANDON_MS)
        return Running(poll_after=0)

    task_id = await bench.submitted()
    await generating(bench, task_id)
    await marked(bench, task_id)
    provider = Stoppable([], [late])
    await assert_cancelled(bench, await bench.ran(provider, task_id=task_id))
    assert await bench.attempts(task_id) == [(AttemptState.UNKNOWN, "up-1")]


# Between any two steps


Way = Literal["done", "failed", "busy", "refused", "lost"]


class Fickle(Plain):
    """An upstream that does what it was told to, and stops if it can."""

    def __init__(self, plan: list[Way], *, synchronous: bool, free: bool, stops: bool) -> None:
        self.free, self.synchronous = free, synchronous
        self.plan, self.stops = deque(plan), stops
        self.sends = 0
        self.finished: set[str] = set()
        self.jobs: dict[str, Way] = {}
        self.polls = 0

    def _next(self) -> Way:
        return self.plan.popleft() if self.plan else "done"

    async def submit(self, job: Job) -> SubmitOutcome:
        self.sends += 1
        way = self._next()
        if way == "busy":
            return BUSY
        if way == "refused":
            return Refused("content_policy_violation", "No.", Fault.POLICY)
        if way == "lost":
            return LOST
        if not self.synchronous:
            name = f"up-{self.sends}"
            self.jobs[name] = way
            return Accepted(name, poll_after=0)
        if way == "failed":
            return BROKEN
        self.finished.add(job.task)
        return Done((Source(),) * job.request.n)

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        self.polls += 1
        if self.jobs[upstream_id] == "failed":
            return BROKEN
        if self.polls % 2:
            return Running(progress=10, poll_after=0)
        self.finished.add(job.task)
        return Done((Source(),) * job.request.n)

    async def recover(self, _job: Job) -> RecoverOutcome:
        return LOST

    async def cancel(self, _job: Job, upstream_id: str) -> bool:
        if self.stops:
            self.jobs[upstream_id] = "failed"
        return self.stops


class Meddler(Wire):
    """Cancels at one step and kills at another; -1 is never."""

    def __init__(self, bench: Bench, task_id: int, *, cancel: int, kill: int) -> None:
        self._bench, self._task_id = bench, task_id
        self._cancel, self._kill = cancel, kill
        self.steps = 0
        self.dead = False
        self.answer: Task | None = None
        self.begun = 0
        """How many attempts there were when it was cancelled."""

    async def step(self) -> None:
        now, self.steps = self.steps, self.steps + 1
        if now == self._cancel:
            self.answer = await marked(self._bench, self._task_id)
            self.begun = len(await self._bench.store.attempts(self._task_id))
        if now == self._kill:
            self.dead = True
        if self.dead:
            raise Killed


@settings(max_examples=120, deadline=None)
@given(
    plan=st.lists(st.sampled_from(["done", "failed", "busy", "refused", "lost"]), max_size=3),
    synchronous=st.booleans(),
    free=st.booleans(),
    stops=st.booleans(),
    n=st.integers(1, 3),
    cancel=st.integers(-1, 60),
    kill=st.just(-1) | st.integers(0, 60),
)
def test_wherever_a_cancel_meets_a_task_it_ends_once_is_sent_no_more_and_the_money_is_exact(
    tmp_path_factory: pytest.TempPathFactory, **drawn: Any
) -> None:
    asyncio.run(met(tmp_path_factory.mktemp("met"), **drawn))


async def met(
    root: Path,
    plan: list[Way],
    *,
    synchronous: bool,
    free: bool,
    stops: bool,
    n: int,
    cancel: int,
    kill: int,
) -> None:
    channel = FREE if free else CHANNEL
    async with opened_bench(root) as bench:
        task_id = await bench.submitted(n=n, price=n * PRICE)
        meddler = Meddler(bench, task_id, cancel=cancel, kill=kill)
        upstream = Fickle(plan, synchronous=synchronous, free=free, stops=stops)
        runner = bench.runner(
            meddler.around(upstream),
            store=meddler.around(bench.store),
            disk=meddler.around(bench.disk),
            channel=channel,
        )
        try:
            await runner.run(task_id)
        except Killed:
            await bench.runner(upstream, channel=channel).run(task_id)
        task = await bench.task(task_id)
        if meddler.answer is None and cancel >= 0 and meddler.dead:
            await marked(bench, task_id)
            task = await bench.task(task_id)
        await assert_sound(bench, task, meddler=meddler, upstream=upstream)


async def assert_sound(bench: Bench, task: Task, *, meddler: Meddler, upstream: Fickle) -> None:
    assert task.state in FINAL
    log = await bench.store.events(after="", limit=999, task_id=task.id)
    assert [each.state in FINAL for each in log].count(True) == 1
    assert [each.seq for each in log] == [*range(1, task.seq + 1)]
    assert task.reserved == task.actual + task.released
    await bench.assert_balanced(CREDIT - task.actual)
    answer, each = meddler.answer, task.reserved // task.request.n
    made = encode("task", task.id) in upstream.finished
    if answer is None or answer.state is State.SUCCESS:
        if task.state is State.SUCCESS:
            assert task.actual == each * len(task.result)
        else:
            assert task.actual == 0
        return
    attempts = await bench.store.attempts(task.id)
    assert upstream.sends <= len(attempts) == meddler.begun, "it was sent after it was cancelled"
    assert task.state is State.FAIL
    if answer.state in FINAL:
        assert (task, task.actual) == (answer, 0)
        return
    assert task.error == CANCELLED
    assert task.cancel_free == (answer.state is State.QUEUING)
    if task.cancel_free or not made:
        assert task.actual == 0
    elif meddler.dead:  # what a dead process was told, nobody may know
        assert task.actual in {0, task.reserved}
    else:
        assert task.actual == task.reserved, "what was made was not paid"
