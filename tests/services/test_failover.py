"""Failover: only what is known not to have been accepted is sent elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.channel import Channel, Served
from calotype.domain.health import RULES, TRIALS
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    Fault,
    PollOutcome,
    Refused,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.task import AttemptState, State
from calotype.services.running import BOUNCE_SECONDS
from services.bench import CHANNEL, SOON, Bench, Gateway, Script, Scripted, Source, done, stopped

SECOND = msgspec.structs.replace(CHANNEL, id=11, slug="second", name="Second")
THIRD = msgspec.structs.replace(CHANNEL, id=12, slug="third", name="Third")

BUSY = TryLater("upstream_rate_limited", "Busy.", retry_after=SOON)
UNREACHABLE = TryLater("upstream_unavailable", "No way.", fault=Fault.UNREACHABLE)
KEY = Refused("upstream_unavailable", "Not now.", Fault.KEY, detail="HTTP 401: bad key sk-1")
POLICY = Refused("content_policy_violation", "Not this.", Fault.POLICY)

never = Scripted()


def two(
    first: Script[SubmitOutcome], second: Script[SubmitOutcome], polls: Script[PollOutcome] = ()
) -> tuple[Scripted, Scripted]:
    return Scripted(first, polls), Scripted(second, polls)


@pytest.mark.parametrize(
    "refusal",
    [
        BUSY,
        UNREACHABLE,
        KEY,
        Refused("upstream_unavailable", "No credit.", Fault.ACCOUNT),
        Refused("upstream_unavailable", "No such model.", Fault.MODEL),
    ],
)
async def test_what_was_not_accepted_goes_to_another_channel(
    bench: Bench, refusal: SubmitOutcome
) -> None:
    first, second = two([refusal], [done()])
    gateway = bench.gateway((CHANNEL, first), (SECOND, second))
    task = await gateway.ran(await bench.submitted())
    await bench.assert_paid(task)
    assert (task.channel_id, len(first.sent), len(second.sent)) == (SECOND.id, 1, 1)
    assert [move[1] for move in gateway.moves] == [SECOND.id]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (POLICY, "content_policy_violation"),
        (Refused("upstream_rejected", "No such size."), "upstream_rejected"),
        (Failed("upstream_failed", "It broke."), "upstream_failed"),
        (Unknown("The connection broke."), "upstream_outcome_unknown"),
    ],
)
async def test_what_concerns_the_request_or_may_have_been_bought_goes_nowhere_else(
    bench: Bench, outcome: SubmitOutcome, code: str
) -> None:
    first, second = two([outcome], [done()])
    gateway = bench.gateway((CHANNEL, first), (SECOND, second))
    task = await gateway.ran(await bench.submitted())
    await bench.assert_released(task, code)
    assert second.sent == []


async def test_a_job_that_failed_after_it_was_accepted_is_not_bought_elsewhere(
    bench: Bench,
) -> None:
    first = Scripted([Accepted("job-1", SOON)], [Failed("upstream_failed", "It broke.")])
    second = Scripted([done()])
    task = await bench.gateway((CHANNEL, first), (SECOND, second)).ran(await bench.submitted())
    await bench.assert_released(task, "upstream_failed")
    assert second.sent == []


async def test_a_channel_with_a_bad_key_is_not_asked_twice_and_its_secret_is_not_shown(
    bench: Bench,
) -> None:
    first, second = two([KEY], [BUSY, BUSY, done()])
    gateway = bench.gateway((CHANNEL, first), (SECOND, second))
    task = await gateway.ran(await bench.submitted())
    await bench.assert_paid(task)
    assert (len(first.sent), len(second.sent)) == (1, 3)
    operator_sees = (await bench.store.attempts(task.id))[0]
    assert operator_sees.detail == "HTTP 401: bad key sk-1"
    assert (operator_sees.code, operator_sees.fault) == ("upstream_unavailable", Fault.KEY)


async def test_when_every_channel_refuses_the_client_is_told_nothing_of_the_inside(
    bench: Bench,
) -> None:
    first, second = two([KEY], [KEY])
    task = await bench.gateway((CHANNEL, first), (SECOND, second)).ran(await bench.submitted())
    await bench.assert_released(task, "upstream_unavailable")
    assert task.error is not None
    assert "sk-1" not in task.error.message


async def test_a_task_never_leaves_the_channels_that_its_key_may_use(bench: Bench) -> None:
    first, third = two([BUSY], [BUSY, done()])
    gateway = bench.gateway((CHANNEL, first), (SECOND, never), (THIRD, third))
    task = await gateway.ran(await bench.submitted(allowed=(THIRD.id, CHANNEL.id)))
    await bench.assert_paid(task)
    assert (task.channel_id, never.sent) == (THIRD.id, [])


async def test_a_task_whose_key_has_no_channel_left_fails_though_others_could(
    bench: Bench,
) -> None:
    gateway = bench.gateway((CHANNEL, Scripted([KEY])), (SECOND, never))
    task = await gateway.ran(await bench.submitted(allowed=(CHANNEL.id,)))
    await bench.assert_released(task, "upstream_unavailable")
    assert never.sent == []


async def test_each_channel_is_tried_once_before_one_is_tried_again(bench: Bench) -> None:
    scripts = [Scripted([BUSY, BUSY, done()]) for _ in range(3)]
    channels = [CHANNEL, SECOND, THIRD]
    gateway = bench.gateway(*zip(channels, scripts, strict=True))
    task = await gateway.ran(await bench.submitted())
    await bench.assert_paid(task)
    order = [attempt.channel_id for attempt in await bench.store.attempts(task.id)]
    assert set(order[:3]) == {10, 11, 12}
    assert len(order) > 3


async def test_the_higher_priority_is_asked_first_and_again_when_all_were_busy(
    bench: Bench,
) -> None:
    low = msgspec.structs.replace(SECOND, priority=-1)
    first, second = two([BUSY, done()], [BUSY])
    task = await bench.gateway((CHANNEL, first), (low, second)).ran(await bench.submitted())
    await bench.assert_paid(task)
    order = [attempt.channel_id for attempt in await bench.store.attempts(task.id)]
    assert order == [CHANNEL.id, low.id, CHANNEL.id]


async def test_a_pinned_channel_is_the_only_one(bench: Bench) -> None:
    first, second = two([BUSY, BUSY, done()], [done()])
    gateway = bench.gateway((CHANNEL, first), (SECOND, second))
    task = await gateway.ran(await bench.submitted(pinned=CHANNEL.id))
    await bench.assert_paid(task)
    assert (len(first.sent), second.sent) == (3, [])


async def test_a_disabled_channels_waiting_tasks_go_elsewhere(bench: Bench) -> None:
    off = msgspec.structs.replace(CHANNEL, enabled=False)
    first, second = two([done()], [done()])
    task = await bench.gateway((off, first), (SECOND, second)).ran(await bench.submitted())
    await bench.assert_paid(task)
    assert first.sent == []


async def test_a_task_that_pinned_a_channel_is_still_done_there_when_it_takes_nothing_new(
    bench: Bench,
) -> None:
    off = msgspec.structs.replace(CHANNEL, enabled=False)
    first, second = two([done()], [done()])
    gateway = bench.gateway((off, first), (SECOND, second))
    await bench.assert_paid(await gateway.ran(await bench.submitted(pinned=CHANNEL.id)))
    assert second.sent == []


def switched_off(gateway: Gateway) -> None:
    gateway.router.switch({CHANNEL.id: False})


def configured_off(gateway: Gateway) -> None:
    off = msgspec.structs.replace(CHANNEL, enabled=False)
    others = [each for each in gateway.router.channels if each.id != off.id]
    gateway.router.replace([off, *others])


both_ways = pytest.mark.parametrize("turned_off", [switched_off, configured_off])


@both_ways
async def test_a_task_stays_with_a_channel_that_takes_nothing_new_where_no_other_can_have_it(
    bench: Bench, turned_off: Callable[[Gateway], None]
) -> None:
    first = Scripted([BUSY, done()])
    gateway = bench.gateway((CHANNEL, first), (SECOND, never))
    number = await bench.submitted(allowed=(CHANNEL.id,))
    turned_off(gateway)
    await bench.assert_paid(await gateway.ran(number))
    assert (len(first.sent), never.sent) == (2, [])


@both_ways
async def test_a_task_comes_back_to_no_channel_that_takes_nothing_new(
    bench: Bench, turned_off: Callable[[Gateway], None]
) -> None:
    first, second = two([done()], [KEY])
    gateway = bench.gateway((CHANNEL, first), (SECOND, second))
    turned_off(gateway)
    task = await gateway.ran(await bench.submitted())
    await bench.assert_released(task, "upstream_unavailable")
    assert (first.sent, len(second.sent)) == ([], 1)


@both_ways
async def test_what_may_have_been_bought_is_asked_for_again_where_nothing_new_is_taken(
    bench: Bench, turned_off: Callable[[Gateway], None]
) -> None:
    def unheard_of() -> TryLater:
        turned_off(gateway)
        return UNREACHABLE

    first = Scripted([Unknown("Cut."), done()], recovers=[unheard_of])
    gateway = bench.gateway((CHANNEL, first), (SECOND, never))
    await bench.assert_paid(await gateway.ran(await bench.submitted()))
    assert (len({job.reference for job in first.sent}), len(first.sent)) == (1, 2)
    assert never.sent == []


@both_ways
async def test_an_accepted_job_is_followed_where_nothing_new_is_taken(
    bench: Bench, turned_off: Callable[[Gateway], None]
) -> None:
    def accepted() -> Accepted:
        turned_off(gateway)
        return Accepted("job-1", SOON)

    first = Scripted([accepted], [done()])
    gateway = bench.gateway((CHANNEL, first), (SECOND, never))
    task = await gateway.ran(await bench.submitted())
    await bench.assert_paid(task)
    assert (task.channel_id, never.sent) == (CHANNEL.id, [])


async def test_a_removed_channels_waiting_tasks_go_elsewhere(bench: Bench) -> None:
    second = Scripted([done()])
    task = await bench.gateway((SECOND, second)).ran(await bench.submitted())
    await bench.assert_paid(task)
    assert task.channel_id == SECOND.id


async def test_a_channel_whose_breaker_is_open_is_passed_over_without_a_send(
    bench: Bench,
) -> None:
    first, second = two([done()], [done()])
    gateway = bench.gateway((CHANNEL, first), (SECOND, second))
    for _ in range(RULES[Fault.KEY].least):
        gateway.router.breakers.note(CHANNEL.id, "gpt-image-2", Fault.KEY, now=bench.clock.now)
    task = await gateway.ran(await bench.submitted())
    await bench.assert_paid(task)
    assert (first.sent, len(second.sent)) == ([], 1)


async def test_when_every_breaker_is_open_the_task_waits_in_the_queue(bench: Bench) -> None:
    first = Scripted([done()])
    gateway = bench.gateway((CHANNEL, first))
    for _ in range(RULES[Fault.UPSTREAM].least):
        gateway.router.breakers.note(CHANNEL.id, "gpt-image-2", Fault.UPSTREAM, now=bench.clock.now)
    number = await bench.submitted()
    later = await gateway.runner.run(number)
    assert later is not None
    assert 15 <= later <= 18
    assert (await bench.task(number)).state is State.QUEUING
    bench.clock.forward(int(later * 1000))
    await bench.assert_paid(await gateway.ran(number))


async def test_an_upstream_that_asks_for_patience_gets_it_from_every_task(bench: Bench) -> None:
    patient = TryLater("upstream_rate_limited", "Busy.", retry_after=30)
    first = Scripted([patient, done(), done()])
    gateway = bench.gateway((CHANNEL, first))
    one, other = await bench.submitted(), await bench.submitted()
    assert await gateway.runner.run(one) is not None
    assert await gateway.runner.run(other) is not None
    assert len(first.sent) == 1
    bench.clock.forward(37_000)
    assert (await gateway.ran(one)).state is State.SUCCESS
    assert (await gateway.ran(other)).state is State.SUCCESS


async def test_no_more_than_the_allowed_requests_go_out_in_a_minute(bench: Bench) -> None:
    slow = msgspec.structs.replace(CHANNEL, requests_per_minute=2)
    first = Scripted([done() for _ in range(5)])
    gateway = bench.gateway((slow, first))
    tasks = [await bench.submitted() for _ in range(5)]
    sent_at: list[int] = []
    while len(sent_at) < 5:
        for task in list(tasks):
            before = len(first.sent)
            if await gateway.runner.run(task) is None:
                tasks.remove(task)
            sent_at += [bench.clock.now] * (len(first.sent) - before)
        bench.clock.forward(5_000)
    assert all(third - one >= 60_000 for one, third in zip(sent_at, sent_at[2:], strict=False))


async def test_each_task_is_charged_the_price_of_the_channel_that_made_it(bench: Bench) -> None:
    cheap = msgspec.structs.replace(
        SECOND, models={"gpt-image-2": Served(price=40_000, cost=30_000)}
    )
    first, second = two([BUSY], [done()])
    task = await bench.gateway((CHANNEL, first), (cheap, second)).ran(await bench.submitted())
    await bench.assert_paid(task, actual=40_000)
    attempts = await bench.store.attempts(task.id)
    assert attempts[-1].cost_micro_usdc == 30_000


async def test_a_send_whose_answer_was_lost_is_asked_for_by_our_own_reference(
    bench: Bench,
) -> None:
    first = Scripted([Unknown("Cut.")], [done()], [Accepted("job-9", SOON)])
    task = await bench.gateway((CHANNEL, first)).ran(await bench.submitted())
    await bench.assert_paid(task)
    assert first.recovered == [first.sent[0].reference]
    assert first.polled == ["job-9"]


async def test_what_the_upstream_knows_nothing_of_is_sent_again_under_the_same_name(
    bench: Bench,
) -> None:
    nothing = TryLater("upstream_unavailable", "Never heard of it.")
    first = Scripted([Unknown("Cut."), done()], [], [nothing])
    task = await bench.gateway((CHANNEL, first)).ran(await bench.submitted())
    await bench.assert_paid(task)
    assert len(first.sent) == 2
    assert first.sent[0].reference == first.sent[1].reference, "the first may still arrive"


async def test_an_idempotent_channel_is_sent_the_same_purchase_again(bench: Bench) -> None:
    same = msgspec.structs.replace(CHANNEL, idempotent=True)
    first = Scripted([Unknown("Cut."), Unknown("Cut again."), done()])
    task = await bench.gateway((same, first)).ran(await bench.submitted())
    await bench.assert_paid(task)
    assert len({job.reference for job in first.sent}) == 1
    states = [attempt.state for attempt in await bench.store.attempts(task.id)]
    assert states == [AttemptState.UNKNOWN, AttemptState.UNKNOWN, AttemptState.DONE]


async def test_what_may_have_been_bought_goes_to_no_other_channel_though_it_may_be_repeated(
    bench: Bench,
) -> None:
    same = msgspec.structs.replace(CHANNEL, idempotent=True)
    first, second = two([Unknown("Cut."), UNREACHABLE, BUSY, done()], [done()])
    task = await bench.gateway((same, first), (SECOND, second)).ran(await bench.submitted())
    await bench.assert_paid(task)
    assert (len(first.sent), second.sent) == (4, [])
    assert len({job.reference for job in first.sent}) == 1


async def test_what_the_upstream_did_not_know_of_yet_goes_to_no_other_channel(
    bench: Bench,
) -> None:
    nothing = TryLater("upstream_unavailable", "Never heard of it.")
    first = Scripted([Unknown("Cut."), done()], [], [nothing])
    second = Scripted([done()])
    task = await bench.gateway((CHANNEL, first), (SECOND, second)).ran(await bench.submitted())
    await bench.assert_paid(task)
    assert second.sent == []


async def test_a_lost_purchase_that_cannot_go_on_ends_as_unknown(bench: Bench) -> None:
    same = msgspec.structs.replace(CHANNEL, idempotent=True)
    first, second = two([Unknown("Cut."), KEY], [done()])
    task = await bench.gateway((same, first), (SECOND, second)).ran(await bench.submitted())
    await bench.assert_released(task, "upstream_outcome_unknown")
    assert second.sent == []


async def test_a_free_upstreams_lost_send_may_go_elsewhere(bench: Bench) -> None:
    free = msgspec.structs.replace(CHANNEL, free=True)
    first, second = two([Unknown("Cut.")], [done()])
    task = await bench.gateway((free, first), (SECOND, second)).ran(await bench.submitted())
    await bench.assert_paid(task)
    assert len(second.sent) == 1


async def test_what_one_server_cannot_do_another_may(bench: Bench) -> None:
    small = Refused("upstream_rejected", "Not here.", Fault.UNFIT, detail="max_width is 512")
    first, second = two([small], [done()])
    task = await bench.gateway((CHANNEL, first), (SECOND, second)).ran(await bench.submitted())
    await bench.assert_paid(task)


async def test_where_no_server_can_the_client_is_told_so_in_general(bench: Bench) -> None:
    small = Refused("upstream_rejected", "Not here.", Fault.UNFIT, detail="max_width is 512")
    task = await bench.gateway((CHANNEL, Scripted([small]))).ran(await bench.submitted())
    await bench.assert_released(task, "upstream_rejected")
    assert task.error is not None
    assert "512" not in task.error.message


@pytest.mark.parametrize("synchronous", [True, False])
@pytest.mark.parametrize("per_minute", [0, 600])
async def test_a_half_open_channel_is_tried_by_a_few_however_many_wait(
    bench: Bench, per_minute: int, *, synchronous: bool
) -> None:
    limited = msgspec.structs.replace(CHANNEL, requests_per_minute=per_minute)
    first = Scripted([], synchronous=synchronous)
    gateway = bench.gateway((limited, first))
    for _ in range(RULES[Fault.UPSTREAM].least):
        gateway.router.breakers.note(CHANNEL.id, "gpt-image-2", Fault.UPSTREAM, now=bench.clock.now)
    bench.clock.forward(RULES[Fault.UPSTREAM].hold_ms)
    tasks = [await bench.submitted() for _ in range(20)]
    runs = [asyncio.create_task(gateway.runner.run(task)) for task in tasks]
    finished, hanging = await asyncio.wait(runs, timeout=1)
    assert len(first.sent) == len(hanging) == TRIALS
    assert all(run.result() is not None for run in finished)
    for run in hanging:
        await stopped(run)


async def test_a_task_that_comes_back_unsent_rests_before_it_is_moved_again(bench: Bench) -> None:
    first, second = Scripted(), Scripted()
    here = bench.gateway((CHANNEL, first), (SECOND, second))
    there = bench.gateway((CHANNEL, first), (SECOND, second))
    now, late = bench.clock.now, bench.clock.now + 60_000
    here.router.breakers.hold(CHANNEL.id, "gpt-image-2", until=late, now=now)
    there.router.breakers.hold(SECOND.id, "gpt-image-2", until=late, now=now)
    task = await bench.submitted()
    assert await here.runner.run(task) is None
    assert await there.runner.run(task) is None
    assert (await bench.task(task)).channel_id == CHANNEL.id
    assert await here.runner.run(task) == BOUNCE_SECONDS


async def test_a_breaker_that_cannot_be_written_down_costs_no_id(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_health: object) -> None:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(bench.store, "note_health", broken)
    first = Scripted([Accepted("job-1", SOON)], [Failed("upstream_failed", "It broke.")])
    gateway = bench.gateway((CHANNEL, first))
    for _ in range(RULES[Fault.UPSTREAM].least - 1):
        gateway.router.breakers.note(CHANNEL.id, "gpt-image-2", Fault.UPSTREAM, now=bench.clock.now)
    task = await gateway.ran(await bench.submitted())
    await bench.assert_released(task, "upstream_failed")


async def test_an_image_that_is_here_waits_for_an_asset_store_in_trouble(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.services.endings.STORE_PAUSE", SOON)

    class Stubborn(Source):
        reads = 0

        @asynccontextmanager
        async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
            Stubborn.reads += 1
            if Stubborn.reads < 4:
                raise OSError(28, "No space left on device")
            async with super().open() as chunks:
                yield chunks

    first = Scripted([Done((Stubborn(),))], synchronous=True)
    task = await bench.gateway((CHANNEL, first)).ran(await bench.submitted())
    await bench.assert_paid(task)
    assert (Stubborn.reads, len(first.sent)) == (4, 1)


OUTCOMES = st.sampled_from(
    [
        BUSY,
        KEY,
        POLICY,
        TryLater("upstream_unavailable", "No way.", retry_after=SOON, fault=Fault.UNREACHABLE),
        Refused("upstream_unavailable", "No such model.", Fault.MODEL),
        Failed("upstream_failed", "It broke."),
        Unknown("Cut."),
        Accepted("job-1", SOON),
        "done",
    ]
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(OUTCOMES, min_size=30, max_size=30), min_size=3, max_size=3))
async def test_whatever_three_channels_answer_nothing_is_bought_twice(
    bench: Bench, scripts: list[list[SubmitOutcome | str]]
) -> None:
    credit = (await bench.store.balance(bench.account_id)).balance
    providers = [
        Scripted([done() if isinstance(step, str) else step for step in script], [done()] * 3)
        for script in scripts
    ]
    channels: Sequence[Channel] = (CHANNEL, SECOND, THIRD)
    gateway = bench.gateway(*zip(channels, providers, strict=True))
    task = await gateway.ran(await bench.submitted())
    attempts = await bench.store.attempts(task.id)
    bought = [each for each in attempts if each.state is not AttemptState.REFUSED]
    assert len(bought) <= 1
    for one, following in pairwise(attempts):
        assert one.state is AttemptState.REFUSED, (one, following)
    assert task.state in {State.SUCCESS, State.FAIL}
    assert (task.state is State.SUCCESS) == any(
        each.state is AttemptState.DONE for each in attempts
    )
    assert (await bench.store.balance(bench.account_id)).balance == credit - task.actual
    assert await bench.store.prove() == []
