"""Running a task: what follows from each thing that an upstream can answer."""

import asyncio
import struct
import zlib
from itertools import pairwise

import msgspec
import pytest
from aiohttp import web

from calotype.domain.channel import Served
from calotype.domain.outcomes import (
    Accepted,
    Failed,
    PollOutcome,
    Refused,
    Running,
    SourceError,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.task import Asset, AttemptState, Reference, State, Task
from calotype.services.running import UNKNOWN_CHANNEL_MS
from calotype.services.sending import MAX_SENDS
from harness import picture, website
from services.bench import (
    ABANDON_MS,
    DEADLINE_MS,
    FREE,
    NOW,
    PICTURE,
    SOON,
    Bench,
    Scripted,
    Source,
    done,
    stopped,
)

BUSY = TryLater("upstream_rate_limited", "Busy.", retry_after=SOON)
ACCEPTED = Accepted("up-1", poll_after=0)
LOST = Unknown("The connection broke.")


async def test_a_synchronous_upstream_delivers_at_once(bench: Bench) -> None:
    provider = Scripted([done(cost=7)], synchronous=True)
    task = await bench.ran(provider)
    await bench.assert_paid(task)
    attempt = await bench.attempt(task.id)
    assert (attempt.state, attempt.cost_micro_usdc) == (AttemptState.DONE, 7)
    (image,) = task.result
    assert (image.width, image.height, image.content_type) == (64, 48, "image/png")
    assert image.bytes == len(PICTURE)
    assert len(bench.files()) == 1


async def test_a_job_carries_all_that_the_upstream_needs(bench: Bench) -> None:
    asset = await upload(bench)
    served = {"gpt-image-2": Served(id="their-own-name")}
    named = msgspec.structs.replace(FREE, models=served)
    provider = Scripted([done()])
    task_id = await bench.submitted(references=[Reference(asset_id=asset.id)], uploads=[asset])
    await bench.ran(provider, channel=named, task_id=task_id)
    (job,) = provider.sent
    assert (job.attempt, job.model.id, job.upstream_model) == (1, "gpt-image-2", "their-own-name")
    assert job.request.prompt == "a lighthouse"
    (reference,) = job.references
    assert (reference.width, reference.height, reference.size) == (64, 48, len(PICTURE))
    async with reference.open() as chunks:
        assert b"".join([chunk async for chunk in chunks]) == PICTURE


async def test_an_accepted_job_is_polled_to_its_end(bench: Bench) -> None:
    polls: list[PollOutcome] = [
        Running(queued=True, poll_after=0),
        Running(progress=40, poll_after=0),
        done(),
    ]
    provider = Scripted([ACCEPTED], polls)
    task = await bench.ran(provider)
    await bench.assert_paid(task)
    assert provider.polled == ["up-1"] * 3
    assert await bench.attempts(task.id) == [(AttemptState.DONE, "up-1")]


async def test_progress_never_falls_and_a_state_never_goes_back(bench: Bench) -> None:
    seen: list[Task] = []
    steps = [
        (False, 40),
        (True, 10),
        (False, 5),
        (False, None),
        (True, 60),
        (False, 250),
        (False, -3),
    ]
    polls: list[PollOutcome] = [
        Running(progress=progress, queued=queued, poll_after=SOON) for queued, progress in steps
    ]
    provider = Scripted([ACCEPTED], polls)
    task_id = await bench.submitted()
    running = asyncio.create_task(bench.runner(provider).run(task_id))
    while not provider.reached.is_set():
        seen.append(await bench.task(task_id))
        await asyncio.sleep(0)
    seen.append(await bench.task(task_id))
    await stopped(running)
    assert all(before.progress <= after.progress for before, after in pairwise(seen))
    ranks = [list(State).index(task.state) for task in seen]
    assert ranks == sorted(ranks)
    assert (seen[-1].state, seen[-1].progress) == (State.GENERATING, 99)


async def test_the_same_progress_twice_is_one_event(bench: Bench) -> None:
    polls: list[PollOutcome] = [*[Running(progress=40, poll_after=0)] * 5, done()]
    task = await bench.ran(Scripted([ACCEPTED], polls))
    # submit, take, begin, one advance, complete
    assert task.seq == 5


@pytest.mark.parametrize(
    ("synchronous", "state"), [(True, State.GENERATING), (False, State.QUEUING)]
)
async def test_a_task_that_is_being_sent_is_shown_as_what_it_is(
    bench: Bench, *, synchronous: bool, state: State
) -> None:
    provider = Scripted(synchronous=synchronous)
    task_id = await bench.submitted()
    running = asyncio.create_task(bench.runner(provider).run(task_id))
    await provider.reached.wait()
    assert (await bench.task(task_id)).state is state
    assert await bench.attempts(task_id) == [(AttemptState.SENDING, None)]
    await stopped(running)


# Not accepted: another send is safe


async def test_a_busy_upstream_is_asked_again(bench: Bench) -> None:
    provider = Scripted([BUSY, BUSY, done()])
    task = await bench.ran(provider)
    await bench.assert_paid(task)
    assert [job.attempt for job in provider.sent] == [1, 2, 3]
    assert await bench.attempts(task.id) == [
        (AttemptState.REFUSED, None),
        (AttemptState.REFUSED, None),
        (AttemptState.DONE, None),
    ]


async def test_an_upstream_that_stays_busy_is_given_up(bench: Bench) -> None:
    provider = Scripted([BUSY] * (MAX_SENDS + 1))
    task = await bench.ran(provider)
    await bench.assert_released(task, "upstream_rate_limited")
    assert 8 < len(provider.sent) <= MAX_SENDS


async def test_after_the_last_send_nobody_waits_once_more(bench: Bench) -> None:
    last = TryLater("upstream_rate_limited", "Busy.", retry_after=1e6)
    provider = Scripted([*[BUSY] * (MAX_SENDS - 1), last])
    async with asyncio.timeout(10):
        task = await bench.ran(provider)
    await bench.assert_released(task, "upstream_rate_limited")


async def test_a_refusal_is_final(bench: Bench) -> None:
    provider = Scripted([Refused("content_policy_violation", "No.")])
    task = await bench.ran(provider)
    await bench.assert_released(task, "content_policy_violation")
    assert task.error is not None
    assert (task.error.message, task.error.retryable) == ("No.", False)
    assert await bench.attempts(task.id) == [(AttemptState.REFUSED, None)]


# Accepted, and no image


@pytest.mark.parametrize("late", [False, True])
async def test_a_job_that_fails_upstream_is_final(bench: Bench, *, late: bool) -> None:
    failed = Failed("upstream_failed", "It broke.")
    provider = Scripted([ACCEPTED], [failed]) if late else Scripted([failed])
    task = await bench.ran(provider)
    await bench.assert_released(task, "upstream_failed")
    assert await bench.attempts(task.id) == [(AttemptState.FAILED, "up-1" if late else None)]
    assert len(provider.sent) == 1


@pytest.mark.parametrize("answer", [LOST, RuntimeError("a bug of ours")])
async def test_an_unknown_outcome_is_never_sent_again(
    bench: Bench, answer: SubmitOutcome | Exception
) -> None:
    provider = Scripted([answer, done()])
    task = await bench.ran(provider)
    await bench.assert_released(task, "upstream_outcome_unknown")
    assert await bench.attempts(task.id) == [(AttemptState.UNKNOWN, None)]
    assert len(provider.sent) == 1


@pytest.mark.parametrize("answer", [LOST, RuntimeError("a bug of ours")])
@pytest.mark.parametrize("by", ["channel", "provider"])
async def test_an_unknown_outcome_is_sent_again_where_that_is_free(
    bench: Bench, answer: SubmitOutcome | Exception, by: str
) -> None:
    provider = Scripted([answer, done()], free=by == "provider")
    channel = FREE if by == "channel" else msgspec.structs.replace(FREE, free=None)
    task = await bench.ran(provider, channel=channel)
    await bench.assert_paid(task)
    assert [state for state, _ in await bench.attempts(task.id)] == [
        AttemptState.UNKNOWN,
        AttemptState.DONE,
    ]
    assert [job.attempt for job in provider.sent] == [1, 2]


async def test_a_channel_that_is_said_not_to_be_free_is_not_whatever_the_provider_says(
    bench: Bench,
) -> None:
    provider = Scripted([LOST, done()], free=True)
    task = await bench.ran(provider)
    await bench.assert_released(task, "upstream_outcome_unknown")
    assert len(provider.sent) == 1


async def test_an_accepted_job_that_nobody_knows_of_any_more_is_unknown(bench: Bench) -> None:
    provider = Scripted([ACCEPTED, done()], [LOST])
    task = await bench.ran(provider)
    await bench.assert_released(task, "upstream_outcome_unknown")
    assert await bench.attempts(task.id) == [(AttemptState.UNKNOWN, "up-1")]
    assert len(provider.sent) == 1


async def test_a_poll_that_tells_nothing_is_repeated(bench: Bench) -> None:
    fault = TryLater("upstream_unavailable", "Down.", retry_after=SOON)
    provider = Scripted([ACCEPTED], [fault, fault, done()])
    task = await bench.ran(provider)
    await bench.assert_paid(task)
    assert (len(provider.sent), len(provider.polled)) == (1, 3)


# Images


async def test_a_result_stream_that_breaks_is_read_again_from_its_start(bench: Bench) -> None:
    broken = done(Source(), Source(fault=SourceError("reset")))
    provider = Scripted([ACCEPTED], [broken, done(Source(), Source())])
    task = await bench.ran(provider)
    await bench.assert_paid(task)
    assert (len(task.result), len(bench.files())) == (2, 2)
    assert (len(provider.sent), len(provider.polled)) == (1, 2)


async def test_an_image_that_came_with_the_answer_and_broke_is_lost_and_said_to_be(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.services.endings.FETCH_PAUSES", (SOON, SOON))
    provider = Scripted([done(Source(fault=SourceError("reset"))), done()], synchronous=True)
    task = await bench.ran(provider)
    await bench.assert_released(task, "upstream_failed")
    assert await bench.attempts(task.id) == [(AttemptState.FAILED, None)]
    assert len(provider.sent) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b'{"error": "this is no image"}', b"GIF89a" + bytes(40), PICTURE[:-20]],
    ids=["nothing", "a byte", "json", "gif", "cut short"],
)
@pytest.mark.parametrize("late", [False, True])
async def test_a_malformed_image_fails_the_task_and_leaves_no_file(
    bench: Bench, content: bytes, *, late: bool
) -> None:
    bad = done(Source(content))
    provider = Scripted([ACCEPTED], [bad]) if late else Scripted([bad], synchronous=True)
    task = await bench.ran(provider)
    await bench.assert_released(task, "upstream_malformed_response")
    assert [state for state, _ in await bench.attempts(task.id)] == [AttemptState.FAILED]


async def test_an_image_of_more_pixels_than_anyone_can_open_is_malformed(bench: Bench) -> None:
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + PICTURE[24:29]
    bomb = PICTURE[:12] + header + struct.pack(">I", zlib.crc32(header)) + PICTURE[33:]
    task = await bench.ran(Scripted([done(Source(bomb))]))
    await bench.assert_released(task, "upstream_malformed_response")


@pytest.mark.parametrize("late", [False, True])
async def test_success_without_an_image_is_malformed(bench: Bench, *, late: bool) -> None:
    nothing = msgspec.structs.replace(done(), images=())
    provider = Scripted([ACCEPTED], [nothing]) if late else Scripted([nothing])
    task = await bench.ran(provider)
    await bench.assert_released(task, "upstream_malformed_response")


@pytest.mark.parametrize(("made", "actual"), [(1, 33_333), (2, 66_666), (3, 100_000), (4, 100_000)])
async def test_only_the_images_that_were_asked_for_and_made_are_paid(
    bench: Bench, made: int, actual: int
) -> None:
    task_id = await bench.submitted(n=3, price=100_000)
    provider = Scripted([done(*[Source()] * made)])
    await bench.assert_paid(await bench.ran(provider, task_id=task_id), actual=actual)


# Time


async def test_a_task_that_waited_past_its_deadline_is_not_sent(bench: Bench) -> None:
    task_id = await bench.submitted()
    bench.clock.forward(DEADLINE_MS)
    provider = Scripted([done()])
    await bench.assert_released(await bench.ran(provider, task_id=task_id), "deadline_exceeded")
    assert provider.sent == []
    assert await bench.attempts(task_id) == []


async def test_a_busy_upstream_is_not_asked_past_the_deadline(bench: Bench) -> None:
    def late() -> TryLater:
        bench.clock.forward(DEADLINE_MS)
        return BUSY

    provider = Scripted([late, done()])
    await bench.assert_released(await bench.ran(provider), "upstream_rate_limited")
    assert len(provider.sent) == 1


async def test_an_accepted_job_is_delivered_past_the_deadline(bench: Bench) -> None:
    def late() -> Running:
        bench.clock.forward(ABANDON_MS - 1)
        return Running(poll_after=0)

    task = await bench.ran(Scripted([ACCEPTED], [late, done()]))
    await bench.assert_paid(task)
    assert task.completed_at == NOW + ABANDON_MS - 1


@pytest.mark.parametrize(
    "answer",
    [
        Running(poll_after=0),
        TryLater("upstream_unavailable", "Down.", retry_after=SOON),
        done(Source(fault=SourceError("reset"))),
    ],
    ids=["running", "no answer", "no image to be read"],
)
async def test_an_accepted_job_is_abandoned_in_the_end_and_counts_as_unknown(
    bench: Bench, answer: PollOutcome
) -> None:
    def late() -> PollOutcome:
        bench.clock.forward(ABANDON_MS)
        return answer

    provider = Scripted([ACCEPTED], [late, done()])
    task = await bench.ran(provider)
    await bench.assert_released(task, "deadline_exceeded")
    assert await bench.attempts(task.id) == [(AttemptState.UNKNOWN, "up-1")]
    assert len(provider.polled) == 1


async def test_an_image_that_is_there_at_the_last_moment_is_delivered(bench: Bench) -> None:
    def late() -> PollOutcome:
        bench.clock.forward(10 * ABANDON_MS)
        return done()

    await bench.assert_paid(await bench.ran(Scripted([ACCEPTED], [late])))


# What the operator changed meanwhile


async def test_a_task_whose_model_is_gone_fails_and_is_not_sent(bench: Bench) -> None:
    provider = Scripted([done()])
    task_id = await bench.submitted(model="gone")
    await bench.assert_released(await bench.ran(provider, task_id=task_id), "no_channel_available")
    assert provider.sent == []


async def test_a_task_whose_channel_is_unknown_here_is_left_to_others_and_then_fails(
    bench: Bench,
) -> None:
    provider = Scripted([done()])
    task_id = await bench.submitted()
    runner = bench.runner(provider, channel=None)
    assert await runner.run(task_id) is not None
    bench.clock.forward(UNKNOWN_CHANNEL_MS)
    assert await runner.run(task_id) is None
    await bench.assert_released(await bench.task(task_id), "no_channel_available")
    assert provider.sent == []


async def test_a_job_at_a_channel_that_stays_away_is_told_to_the_operator_as_unknown(
    bench: Bench,
) -> None:
    task_id = await bench.submitted()
    await bench.begun(task_id, upstream_id="up-1")
    runner = bench.runner(Scripted(), channel=None)
    assert await runner.run(task_id) is not None, "the operator may put it back"
    assert await bench.attempts(task_id) == [(AttemptState.ACCEPTED, "up-1")]
    bench.clock.forward(ABANDON_MS)
    assert await runner.run(task_id) is None
    await bench.assert_released(await bench.task(task_id), "no_channel_available")
    assert await bench.attempts(task_id) == [(AttemptState.UNKNOWN, "up-1")]


async def test_a_task_that_is_final_or_was_never_there_is_left_alone(bench: Bench) -> None:
    provider = Scripted([done()])
    task = await bench.ran(provider)
    again = await bench.ran(provider, task_id=task.id)
    assert again == task
    await bench.runner(provider).run(12345)
    assert len(provider.sent) == 1


# References


async def test_references_by_url_are_fetched_once_and_kept(bench: Bench) -> None:
    asked = 0

    async def image(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(body=picture("JPEG"), content_type="image/jpeg")

    upstream = Scripted([BUSY, done()])
    async with website(image) as site:
        first = await upload(bench)
        references = [Reference(asset_id=first.id), Reference(url=f"{site}/a.jpg?secret=1")]
        task_id = await bench.submitted(references=references, uploads=[first])
        task = await bench.ran(upstream, task_id=task_id)
    await bench.assert_paid(task)
    assert asked == 1
    assert [each.content_type for each in upstream.sent[1].references] == [
        "image/png",
        "image/jpeg",
    ]


async def test_a_reference_that_cannot_be_had_fails_the_task_before_anything_is_sent(
    bench: Bench,
) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/a.png":
            return web.Response(body=PICTURE, content_type="image/png")
        raise web.HTTPNotFound

    provider = Scripted([done()])
    async with website(answer) as site:
        references = [Reference(url=f"{site}/a.png"), Reference(url=f"{site}/gone.png?secret=1")]
        task_id = await bench.submitted(references=references)
        task = await bench.ran(provider, task_id=task_id)
    await bench.assert_released(task, "reference_fetch_failed")
    assert task.error is not None
    assert "secret" not in task.error.message
    assert provider.sent == []


async def upload(bench: Bench) -> Asset:
    async with Source().open() as chunks:
        kept = await bench.assets.keep(
            chunks, account_id=bench.account_id, kind="reference", max_bytes=10**6
        )
    return kept.asset
