"""Several images of one task: each stored as it comes, none fetched twice, those that came paid."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from calotype.domain.channel import Served
from calotype.domain.errors import Unavailable
from calotype.domain.money import EntryKind
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    Fault,
    PollOutcome,
    Refused,
    Running,
    SourceError,
    SubmitOutcome,
    Unknown,
)
from calotype.domain.task import FINAL, AttemptState, State, Task
from calotype.providers.plain import Plain
from calotype.providers.port import Job
from harness import picture
from services.bench import (
    ABANDON_MS,
    CHANNEL,
    CREDIT,
    DEADLINE_MS,
    FREE,
    PRICE,
    SOON,
    Bench,
    Scripted,
    Source,
    done,
    stopped,
)
from services.wires import Killed, Tripwire

ACCEPTED = Accepted("up-1", poll_after=SOON)
PICTURES = [picture(size=(40 + place, 30)) for place in range(4)]
LOST = SourceError("reset")
GONE = SourceError("it is no longer there", retryable=False)


class Counted(Source):
    """One that counts how often it was read, and can hang."""

    def __init__(self, place: int, *, fault: BaseException | None = None) -> None:
        super().__init__(PICTURES[place], fault)
        self.reads = 0
        self.reached = asyncio.Event()
        self.hang = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
        self.reads += 1
        self.reached.set()
        if self.hang:
            await asyncio.Event().wait()
        async with super().open() as chunks:
            yield chunks


def sources(number: int = 3) -> list[Counted]:
    return [Counted(place) for place in range(number)]


async def assert_paid(bench: Bench, task: Task, *places: int) -> None:
    """Success with exactly these of the upstream's images, in this order, and no other file."""
    await bench.assert_paid(task, len(places) * PRICE)
    assert [image.width for image in task.result] == [40 + place for place in places]
    assert task.arrived == ()
    for image, place in zip(task.result, places, strict=True):
        asset = await bench.store.asset(image.asset_id)
        assert asset is not None
        assert bench.disk.path(asset.key).read_bytes() == PICTURES[place]
    assert len(bench.files()) == len(places)


async def left_behind(bench: Bench, arrived: int, *, upstream_id: str | None, n: int = 3) -> int:
    """A task whose worker died when so many of its images had arrived."""
    task_id = await bench.submitted(n=n, price=n * PRICE)
    images = sources(n)
    images[arrived].hang = True
    submits: list[SubmitOutcome] = [done(*images)]
    polls: list[PollOutcome] = []
    if upstream_id is not None:
        submits, polls = [Accepted(upstream_id, poll_after=0)], [done(*images)]
    running = asyncio.create_task(bench.runner(Scripted(submits, polls)).run(task_id))
    await images[arrived].reached.wait()
    await stopped(running)
    assert len((await bench.task(task_id)).arrived) == arrived == len(bench.files())
    return task_id


@pytest.mark.parametrize("synchronous", [True, False])
async def test_each_image_is_stored_and_told_of_before_the_next_is_fetched(
    bench: Bench, *, synchronous: bool
) -> None:
    images = sources()
    task_id = await bench.submitted(n=3, price=3 * PRICE)
    seen: list[tuple[int, int, State]] = []

    class Watching(Counted):
        @asynccontextmanager
        async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
            task = await bench.task(task_id)
            seen.append((len(task.arrived), task.progress, task.state))
            async with super().open() as chunks:
                yield chunks

    images = [Watching(place) for place in range(3)]
    script = Scripted([done(*images)], synchronous=True)
    if not synchronous:
        script = Scripted([ACCEPTED], [Running(poll_after=0), done(*images)])
    await assert_paid(bench, await bench.ran(script, task_id=task_id), 0, 1, 2)
    assert [each[0] for each in seen] == [0, 1, 2]
    assert [each[1:] for each in seen[1:]] == [(33, State.GENERATING), (66, State.GENERATING)]
    log = await bench.store.events(after="", limit=99, task_id=task_id)
    assert [each.progress for each in log if each.event == "run"][-2:] == [33, 66]


async def test_one_image_is_no_event_of_its_own(bench: Bench) -> None:
    task = await bench.ran(Scripted([done()], synchronous=True))
    # submit, take, begin, complete
    assert task.seq == 4


async def test_more_images_than_were_asked_for_are_kept_together(bench: Bench) -> None:
    task = await bench.ran(Scripted([done(*sources(2))], synchronous=True))
    await bench.assert_paid(task, PRICE)
    assert (len(task.result), task.seq) == (2, 4)


@pytest.mark.parametrize("bad", [Source(b"no image"), Source(PICTURES[1], GONE)])
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_an_image_of_no_use_costs_nothing_and_the_others_are_delivered(
    bench: Bench, bad: Source, place: int
) -> None:
    images: list[Source] = [*sources()]
    images[place] = bad
    task_id = await bench.submitted(n=3, price=3 * PRICE)
    served = msgspec.structs.replace(CHANNEL, models={"gpt-image-2": Served(cost=7)})
    task = await bench.ran(Scripted([done(*images)]), task_id=task_id, channel=served)
    await assert_paid(bench, task, *({0, 1, 2} - {place}))
    attempt = await bench.attempt(task_id)
    assert (attempt.state, attempt.cost_micro_usdc) == (AttemptState.DONE, 21)
    assert (attempt.detail or "").startswith("1 of 3 images were of no use: ")


async def test_none_of_use_fails_and_is_released(bench: Bench) -> None:
    task_id = await bench.submitted(n=3, price=3 * PRICE)
    provider = Scripted([done(*(Source(b"no image") for _ in range(3)))])
    task = await bench.ran(provider, task_id=task_id)
    await bench.assert_released(task, "upstream_malformed_response")


async def test_an_image_that_cannot_be_read_yet_is_asked_for_alone(bench: Bench) -> None:
    images, again = sources(), sources()
    images[1] = Counted(1, fault=LOST)
    task_id = await bench.submitted(n=3, price=3 * PRICE)
    provider = Scripted([ACCEPTED], [done(*images), Running(poll_after=0), done(*again)])
    await assert_paid(bench, await bench.ran(provider, task_id=task_id), 0, 1, 2)
    assert [each.reads for each in images] == [1, 1, 1]
    assert [each.reads for each in again] == [0, 1, 0]


async def test_of_an_answer_that_comes_but_once_only_the_missing_image_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.services.endings.FETCH_PAUSES", (SOON,) * 3)
    images = sources()
    images[0] = Counted(0, fault=LOST)
    task_id = await bench.submitted(n=3, price=3 * PRICE)
    task = await bench.ran(Scripted([done(*images)], synchronous=True), task_id=task_id)
    await assert_paid(bench, task, 1, 2)
    assert [each.reads for each in images] == [4, 1, 1]
    assert (await bench.attempt(task_id)).state is AttemptState.DONE


# After a crash in the middle


@pytest.mark.parametrize("arrived", [1, 2])
async def test_of_an_accepted_job_only_what_is_missing_is_fetched(
    bench: Bench, arrived: int
) -> None:
    task_id = await left_behind(bench, arrived, upstream_id="up-1")
    before, again = (await bench.task(task_id)).arrived, sources()
    provider = Scripted([], [Running(poll_after=0), done(*again)])
    task = await bench.ran(provider, task_id=task_id)
    await assert_paid(bench, task, 0, 1, 2)
    assert [each.reads for each in again] == [0] * arrived + [1] * (3 - arrived)
    assert task.result[:arrived] == tuple(each.image for each in before)
    assert (provider.sent, provider.polled) == ([], ["up-1"] * 2)


async def test_a_hole_is_filled_in_its_place(bench: Bench) -> None:
    images, again = sources(4), sources(4)
    images[1], images[3].hang = Counted(1, fault=LOST), True
    task_id = await bench.submitted(n=4, price=4 * PRICE)
    provider = Scripted([ACCEPTED], [done(*images)])
    running = asyncio.create_task(bench.runner(provider).run(task_id))
    await images[3].reached.wait()
    await stopped(running)
    assert [each.place for each in (await bench.task(task_id)).arrived] == [0, 2]
    await assert_paid(
        bench, await bench.ran(Scripted([], [done(*again)]), task_id=task_id), 0, 1, 2, 3
    )
    assert [each.reads for each in again] == [0, 1, 0, 1]


@pytest.mark.parametrize("arrived", [1, 2])
async def test_of_an_answer_that_is_lost_those_that_came_are_the_result(
    bench: Bench, arrived: int
) -> None:
    task_id = await left_behind(bench, arrived, upstream_id=None)
    provider = Scripted([done()])
    task = await bench.ran(provider, task_id=task_id)
    await assert_paid(bench, task, *range(arrived))
    assert provider.sent == []
    (unknown,) = await bench.store.operating.unknown(limit=9)
    attempt = unknown.attempt
    assert (unknown.task_id, attempt.state) == (task_id, AttemptState.UNKNOWN)
    assert (attempt.code, attempt.fault) == ("upstream_outcome_unknown", "upstream")
    assert attempt.detail == (
        f"{arrived} of 3 images had come. The server stopped while the request was on its way."
    )


async def test_where_a_second_send_is_free_only_the_missing_images_of_it_are_taken(
    bench: Bench,
) -> None:
    task_id = await left_behind(bench, 2, upstream_id=None)
    again = sources()
    task = await bench.ran(Scripted([done(*again)]), task_id=task_id, channel=FREE)
    await assert_paid(bench, task, 0, 1, 2)
    assert [each.reads for each in again] == [0, 0, 1]
    assert [state for state, _ in await bench.attempts(task_id)] == ["unknown", "done"]


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (Failed("upstream_failed", "Gone.", cost_micro_usdc=5), AttemptState.DONE),
        (Done(()), AttemptState.DONE),
        (Unknown("Never heard of it."), AttemptState.UNKNOWN),
    ],
)
async def test_whatever_becomes_of_the_rest_what_came_is_the_result(
    bench: Bench, said: PollOutcome, state: AttemptState
) -> None:
    task_id = await left_behind(bench, 2, upstream_id="up-1")
    task = await bench.ran(Scripted([], [said]), task_id=task_id)
    await assert_paid(bench, task, 0, 1)
    attempt = await bench.attempt(task_id)
    assert attempt.state is state
    assert attempt.cost_micro_usdc == (5 if isinstance(said, Failed) else None)


async def test_when_the_time_is_up_what_came_is_the_result(bench: Bench) -> None:
    def late() -> PollOutcome:
        bench.clock.forward(ABANDON_MS)
        return Running(poll_after=0)

    task_id = await left_behind(bench, 1, upstream_id="up-1")
    await assert_paid(bench, await bench.ran(Scripted([], [late]), task_id=task_id), 0)
    assert await bench.attempts(task_id) == [(AttemptState.UNKNOWN, "up-1")]


async def test_past_the_deadline_nothing_is_sent_for_the_rest(bench: Bench) -> None:
    task_id = await left_behind(bench, 2, upstream_id=None)
    bench.clock.forward(DEADLINE_MS)
    provider = Scripted([done()])
    await assert_paid(bench, await bench.ran(provider, task_id=task_id, channel=FREE), 0, 1)
    assert provider.sent == []


async def test_a_second_send_that_is_refused_leaves_what_the_first_brought(bench: Bench) -> None:
    task_id = await left_behind(bench, 1, upstream_id=None)
    refusal = Refused("content_policy_violation", "No.", Fault.POLICY)
    task = await bench.ran(Scripted([refusal]), task_id=task_id, channel=FREE)
    await assert_paid(bench, task, 0)
    assert [state for state, _ in await bench.attempts(task_id)] == ["unknown", "refused"]


async def test_a_refusal_is_told_although_the_database_was_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.services.endings.DATABASE_PAUSE", SOON)
    task_id, outages = await bench.submitted(n=3, price=3 * PRICE), [1, 1]

    class Away:
        def __getattr__(self, name: str) -> Any:
            return getattr(bench.store, name)

        async def task(self, number: int) -> Task | None:
            if outages:
                raise Unavailable(f"Not now: {outages.pop()}.")
            return await bench.store.task(number)

    refusal = Refused("upstream_rejected", "No.")
    await bench.runner(Scripted([refusal]), store=Away()).run(task_id)
    await bench.assert_released(await bench.task(task_id), "upstream_rejected")
    assert outages == []


async def test_a_model_that_was_taken_away_meanwhile_takes_no_image_with_it(bench: Bench) -> None:
    task_id = await left_behind(bench, 2, upstream_id="up-1")
    bench.catalog = msgspec.structs.replace(bench.catalog, models={})
    await assert_paid(bench, await bench.ran(Scripted(), task_id=task_id), 0, 1)


async def test_a_fenced_workers_image_is_removed_and_those_written_down_stay(bench: Bench) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    class Late(Counted):
        @asynccontextmanager
        async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
            async with super().open() as chunks:
                arrived.set()
                await go_on.wait()
                yield chunks

    slow = Scripted([ACCEPTED], [done(Counted(0), Late(1), Counted(2))])
    task_id = await bench.submitted(n=3, price=3 * PRICE)
    running = asyncio.create_task(bench.runner(slow).run(task_id))
    await arrived.wait()
    task = await bench.ran(Scripted([], [done(*sources())]), task_id=task_id)
    go_on.set()
    await running
    assert await bench.task(task_id) == task
    await assert_paid(bench, task, 0, 1, 2)


class Upstream(Plain):
    """Makes three images of each send that reaches it, and bills them."""

    def __init__(self, *, synchronous: bool) -> None:
        self.free, self.synchronous = False, synchronous
        self.bought = 0

    async def submit(self, job: Job) -> SubmitOutcome:
        self.bought += 1
        assert job.request.n == 3
        return done(*sources()) if self.synchronous else Accepted("up-1", poll_after=0)

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        assert (job.attempt, upstream_id) == (1, "up-1")
        return done(*sources())


@pytest.mark.parametrize("synchronous", [True, False])
async def test_killed_between_any_two_steps_nothing_that_came_is_lost(
    bench: Bench, *, synchronous: bool
) -> None:
    await bench.store.book(bench.account_id, EntryKind.CREDIT, CREDIT, note="", now=bench.clock.now)
    survived, step, spent, partial = False, 0, 0, 0
    while not survived:
        task_id = await bench.submitted(n=3, price=3 * PRICE)
        upstream, wire = Upstream(synchronous=synchronous), Tripwire(step)
        dying = bench.runner(
            wire.around(upstream), store=wire.around(bench.store), disk=wire.around(bench.disk)
        )
        try:
            await dying.run(task_id)
            survived = True
        except Killed:
            pass
        left = await bench.task(task_id)
        sent = bool(await bench.store.attempts(task_id))
        await bench.runner(upstream).run(task_id)
        task = await bench.task(task_id)
        spent += task.actual
        assert task.state in FINAL
        assert upstream.bought <= 1
        if left.state in FINAL or not sent or (await bench.attempts(task_id))[0][1]:
            assert (task.state, len(task.result)) == (State.SUCCESS, 3)
        else:
            assert len(task.result) == len(left.arrived)
            partial += bool(left.arrived)
        assert [each.width for each in task.result] == [40, 41, 42][: len(task.result)]
        assert task.actual == PRICE * len(task.result)
        for image in task.result:
            asset = await bench.store.asset(image.asset_id)
            assert asset is not None
            assert bench.disk.path(asset.key).exists()
        assert await bench.store.prove() == []
        step += 1
    assert (await bench.store.balance(bench.account_id)).balance == 2 * CREDIT - spent
    assert partial > 0 or not synchronous
