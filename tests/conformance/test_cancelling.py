"""Cancelling and images that come one by one, in every store."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from calotype.domain.errors import CANCELLED, failure
from calotype.domain.money import Balance, EntryKind
from calotype.domain.task import (
    ArrivedImage,
    Asset,
    AttemptState,
    BillingStatus,
    Event,
    State,
    Task,
    result_image,
)
from calotype.store.port import AttemptEnd, Fenced, Store
from calotype.store.postgres import PostgresStore
from calotype.store.postgres.reconciliation import FORSAKEN_MS, PATIENCE_MS
from conformance.tasks import NOW, PRICE, funded, image, read, submitted, taken, told

CREDIT = 10 * PRICE
BROKEN = failure("upstream_failed", "It broke.")


async def begun(store: Store, *, event: Event = Event.QUEUE) -> tuple[int, Task, int]:
    """An account, its task under a claim, and the number of its open attempt."""
    account_id = await funded(store)
    task = await taken(store, await submitted(store, account_id))
    number = await store.begin_attempt(task, channel_id=7, event=event, now=NOW + 2)
    return account_id, task, number


async def cancelled(store: Store, task: Task, *, now: int = NOW + 5) -> Task:
    after = await store.cancel(task.id, account_id=task.account_id, now=now)
    assert after is not None
    assert after == await read(store, task.id)
    return after


def arrived(asset: Asset, place: int) -> ArrivedImage:
    shown = result_image(asset)
    return ArrivedImage(
        shown.asset_id, shown.content_type, shown.width, shown.height, shown.bytes, place
    )


async def refused(write: Coroutine[Any, Any, object]) -> None:
    with pytest.raises(Fenced):
        await write


async def events(store: Store, task: Task) -> list[tuple[int, str, State]]:
    return [(each.seq, each.event, each.state) for each in await told(store, task_id=task.id)]


@pytest.mark.parametrize("is_taken", [False, True])
async def test_a_task_of_which_nothing_was_sent_ends_at_once_and_costs_nothing(
    store: Store, *, is_taken: bool
) -> None:
    account_id = await funded(store)
    task = await read(store, await submitted(store, account_id))
    if is_taken:
        task = await taken(store, task.id)
    after = await cancelled(store, task)
    assert (after.state, after.error, after.cancel_at) == (State.FAIL, CANCELLED, None)
    assert (after.billing, after.actual, after.released) == (BillingStatus.RELEASED, 0, PRICE)
    assert after.completed_at == after.updated_at == NOW + 5
    assert (await events(store, task))[-1] == (task.seq + 1, "fail", State.FAIL)
    assert await store.balance(account_id) == Balance(balance=CREDIT, reserved=0)
    assert await store.take(task.id, now=NOW) is None
    await refused(store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW))
    await refused(store.reroute(task, 8, now=NOW))
    assert await store.prove() == []


@pytest.mark.parametrize(("event", "free"), [(Event.QUEUE, True), (Event.RUN, False)])
async def test_a_task_that_an_upstream_may_have_is_marked_and_told_of(
    store: Store, event: Event, *, free: bool
) -> None:
    _, task, _ = await begun(store, event=event)
    before = await read(store, task.id)
    after = await cancelled(store, task)
    assert (after.cancel_at, after.cancel_free) == (NOW + 5, free)
    assert (after.state, after.billing) == (before.state, BillingStatus.RESERVED)
    assert (after.completed_at, after.claim) == (None, before.claim)
    assert (await events(store, task))[-1] == (before.seq + 1, "cancel", before.state)


async def test_asking_again_changes_nothing(store: Store) -> None:
    _, task, _ = await begun(store)
    first = await cancelled(store, task)
    await store.advance(task, Event.RUN, progress=30, now=NOW + 6)
    again = await cancelled(store, task, now=NOW + 9)
    assert (again.cancel_at, again.cancel_free) == (first.cancel_at, True)
    assert (again.state, again.seq) == (State.GENERATING, first.seq + 1)


async def test_a_final_task_stays_as_it_is(store: Store) -> None:
    account_id, task, number = await begun(store)
    picture = image(account_id)
    await store.complete(task, number, images=[picture], actual=PRICE, cost=None, now=NOW + 3)
    before = await read(store, task.id)
    assert await cancelled(store, task) == before
    assert before.state is State.SUCCESS


async def test_of_anothers_task_nothing_is_told_and_nothing_is_done(store: Store) -> None:
    _, task, _ = await begun(store)
    other = await funded(store, name="bob")
    before = await read(store, task.id)
    assert await store.cancel(task.id, account_id=other, now=NOW) is None
    assert await store.cancel(task.id + 1, account_id=task.account_id, now=NOW) is None
    assert await read(store, task.id) == before


async def test_a_marked_task_is_sent_no_more_and_can_only_fail_as_cancelled(store: Store) -> None:
    account_id, task, number = await begun(store)
    await cancelled(store, task)
    picture = image(account_id)
    keeping = store.keep_arrived(task, [arrived(picture, 0)], images=[picture], progress=1, now=NOW)
    await refused(keeping)
    done = store.complete(task, number, images=[picture], actual=PRICE, cost=None, now=NOW)
    await refused(done)
    await store.accept_attempt(task, number, upstream_id="up-1")
    await store.advance(task, Event.RUN, progress=5, now=NOW)
    await store.close_attempt(
        task, number, state=AttemptState.REFUSED, detail="Busy.", now=NOW, code="upstream_failed"
    )
    await refused(store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW))
    await store.fail(task, BROKEN, now=NOW + 9)
    after = await read(store, task.id)
    assert (after.state, after.error, after.actual) == (State.FAIL, CANCELLED, 0)
    assert await store.asset(picture.id) is None
    assert await store.prove() == []


async def test_cancelling_again_ends_a_marked_task_whose_attempt_is_over(store: Store) -> None:
    _, task, number = await begun(store)
    await cancelled(store, task)
    await store.close_attempt(task, number, state=AttemptState.REFUSED, detail="", now=NOW)
    after = await cancelled(store, task, now=NOW + 7)
    assert (after.state, after.error, after.cancel_at) == (State.FAIL, CANCELLED, NOW + 5)
    assert await store.prove() == []


@pytest.mark.parametrize("charge", [0, 1, PRICE // 2, PRICE])
async def test_what_cancelling_costs_is_committed_and_the_rest_released(
    store: Store, charge: int
) -> None:
    account_id, task, number = await begun(store, event=Event.RUN)
    await cancelled(store, task)
    await store.fail(
        task,
        CANCELLED,
        attempt=(number, AttemptState.DONE),
        now=NOW + 9,
        detail="It finished all the same.",
        cost=12,
        charge=charge,
    )
    after = await read(store, task.id)
    assert (after.actual, after.released) == (charge, PRICE - charge)
    assert after.billing is (BillingStatus.COMMITTED if charge else BillingStatus.RELEASED)
    assert await store.balance(account_id) == Balance(balance=CREDIT - charge, reserved=0)
    booked = {
        each.kind: each.amount
        for each in await store.usage.entries(account_id, limit=9)
        if each.kind in {EntryKind.COMMIT, EntryKind.RELEASE}
    }
    left = {EntryKind.RELEASE: PRICE - charge} if charge < PRICE else {}
    assert booked == left | ({EntryKind.COMMIT: charge} if charge else {})
    (attempt,) = await store.attempts(task.id)
    assert (attempt.state, attempt.code, attempt.cost_micro_usdc) == ("done", "cancelled", 12)
    assert await store.prove() == []


async def test_the_attempt_keeps_the_true_reason(store: Store) -> None:
    _, task, number = await begun(store)
    await cancelled(store, task)
    attempt = (number, AttemptState.FAILED)
    await store.fail(task, BROKEN, attempt=attempt, now=NOW, fault="upstream", cost=3)
    (closed,) = await store.attempts(task.id)
    assert (closed.state, closed.code, closed.detail) == ("failed", BROKEN.code, BROKEN.message)
    assert (await read(store, task.id)).error == CANCELLED


async def test_a_mark_outlives_its_worker(store: Store) -> None:
    _, task, _ = await begun(store)
    marked = await cancelled(store, task)
    again = await taken(store, task.id)
    assert (again.cancel_at, again.cancel_free) == (marked.cancel_at, True)


async def test_however_a_send_and_a_cancel_meet_only_one_of_them_has_its_way(store: Store) -> None:
    account_id = await funded(store, credit=40 * PRICE)
    for _ in range(20):
        task = await taken(store, await submitted(store, account_id))
        sending = store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW)
        cancelling = store.cancel(task.id, account_id=account_id, now=NOW)
        begun_, _ = await asyncio.gather(sending, cancelling, return_exceptions=True)
        after = await read(store, task.id)
        if isinstance(begun_, int):
            assert (after.state, after.cancel_at) == (State.GENERATING, NOW)
        else:
            assert isinstance(begun_, Fenced)
            assert (after.state, after.cancel_at) == (State.FAIL, None)
            assert await store.attempts(task.id) == []
    assert await store.prove() == []


# Images that come one by one


async def test_images_are_kept_as_they_come_and_completed_in_their_order(store: Store) -> None:
    account_id, task, number = await begun(store)
    late, early, last = image(account_id), image(account_id), image(account_id)
    first = [arrived(early, 1)]
    await store.keep_arrived(task, first, images=[early], progress=33, now=NOW + 3)
    one = await read(store, task.id)
    assert (one.state, one.progress, one.arrived) == (State.GENERATING, 33, tuple(first))
    assert await store.asset(early.id) == early
    both = [arrived(late, 0), *first]
    await store.keep_arrived(task, both, images=[late], progress=250, now=NOW + 4)
    two = await read(store, task.id)
    assert (two.seq, two.progress, two.arrived) == (one.seq + 1, 99, tuple(both))
    assert (await events(store, task))[-2:] == [
        (one.seq, "run", State.GENERATING),
        (two.seq, "run", State.GENERATING),
    ]
    assert (await taken(store, task.id)).arrived == tuple(both)
    task = await taken(store, task.id)
    result = [result_image(each) for each in (late, early, last)]
    await store.complete(
        task, number, images=[last], actual=PRICE, cost=5, now=NOW + 9, result=result
    )
    after = await read(store, task.id)
    assert (after.state, after.progress, after.result) == (State.SUCCESS, 100, tuple(result))
    assert after.arrived == ()
    assert await store.asset(last.id) == last
    assert await store.prove() == []


async def test_keeping_the_same_again_changes_nothing(store: Store) -> None:
    account_id, task, _ = await begun(store)
    picture = image(account_id)
    for _ in range(2):
        await store.keep_arrived(
            task, [arrived(picture, 0)], images=[picture], progress=50, now=NOW + 3
        )
    after = await read(store, task.id)
    assert (after.seq, len(after.arrived)) == (4, 1)


@pytest.mark.parametrize("way", ["taken", "failed", "cancelled"])
async def test_a_worker_that_lost_the_task_keeps_no_image(store: Store, way: str) -> None:
    account_id, task, _ = await begun(store)
    picture = image(account_id)
    kept = [arrived(picture, 0)]
    await store.keep_arrived(task, kept, images=[picture], progress=50, now=NOW + 3)
    if way == "taken":
        await taken(store, task.id)
    elif way == "failed":
        await store.fail(task, BROKEN, now=NOW)
    else:
        await cancelled(store, task)
    await refused(store.keep_arrived(task, kept, images=[picture], progress=50, now=NOW + 3))
    other = image(account_id)
    more = [*kept, arrived(other, 1)]
    await refused(store.keep_arrived(task, more, images=[other], progress=50, now=NOW + 3))
    assert (await read(store, task.id)).arrived == tuple(kept)


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_task_succeeds_with_what_came_when_nobody_knows_of_the_rest(
    store: Store, *, is_open: bool
) -> None:
    account_id, task, number = await begun(store)
    picture = image(account_id)
    kept = [arrived(picture, 0)]
    await store.keep_arrived(task, kept, images=[picture], progress=50, now=NOW + 3)
    if not is_open:
        await store.close_attempt(task, number, state=AttemptState.UNKNOWN, detail="?", now=NOW)
    await store.complete(
        task,
        number if is_open else None,
        images=[],
        actual=PRICE // 2,
        cost=None,
        now=NOW + 9,
        result=[result_image(picture)],
        end=AttemptEnd(AttemptState.UNKNOWN, "?", "upstream_outcome_unknown", "upstream"),
    )
    after = await read(store, task.id)
    assert (after.state, after.result) == (State.SUCCESS, (result_image(picture),))
    assert (after.actual, after.released) == (PRICE // 2, PRICE - PRICE // 2)
    (unknown,) = await store.operating.unknown(limit=9)
    attempt = unknown.attempt
    assert (unknown.task_id, attempt.state, attempt.detail) == (task.id, "unknown", "?")
    assert attempt.code == ("upstream_outcome_unknown" if is_open else None)
    assert await store.prove() == []


# Where no worker comes any more


@pytest.fixture
async def shared(postgres_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    yield store
    await store.close()


async def overdue(store: PostgresStore, *, cancel: bool) -> Task:
    """A task that was left with one of its images, after reconciliation had its say."""
    account_id, task, _ = await begun(store)
    picture = image(account_id)
    kept = [arrived(picture, 0)]
    await store.keep_arrived(task, kept, images=[picture], progress=50, now=NOW + 3)
    if cancel:
        await cancelled(store, task)
    done = await store.reconcile(
        now=task.abandon_at + FORSAKEN_MS + PATIENCE_MS + 1,
        price=lambda _task, count: count * PRICE,
        days=lambda _model: 0,
    )
    assert done is not None
    assert done.ended == 1
    assert await store.prove() == []
    return await read(store, task.id)


async def test_what_came_is_the_result_of_a_task_that_nobody_went_on_with(
    shared: PostgresStore,
) -> None:
    task = await overdue(shared, cancel=False)
    assert (task.state, task.actual, task.error) == (State.SUCCESS, PRICE, None)
    assert len(task.result) == 1
    (attempt,) = await shared.attempts(task.id)
    assert (attempt.state, attempt.code) == ("unknown", "deadline_exceeded")


async def test_a_cancelled_task_that_nobody_went_on_with_ends_as_cancelled(
    shared: PostgresStore,
) -> None:
    task = await overdue(shared, cancel=True)
    assert (task.state, task.actual, task.error) == (State.FAIL, 0, CANCELLED)
    (attempt,) = await shared.attempts(task.id)
    assert (attempt.state, attempt.code) == ("unknown", "deadline_exceeded")
