"""What every store keeps of webhooks: the outbox, its turns, its history, and the settings."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest

from calotype.domain.errors import failure
from calotype.domain.ids import encode
from calotype.domain.task import AttemptState, Event, State
from calotype.domain.webhooks import DeliveryState, Due, Try, Verdict, receiver_of
from calotype.store.port import Fenced, Store
from calotype.store.postgres import PostgresStore
from calotype.store.postgres.reconciliation import FORSAKEN_MS, PATIENCE_MS
from calotype.store.sqlite import SqliteStore
from conformance.tasks import NOW, PRICE, funded, image, new_task, read, taken

URL = "https://hooks.example.com/calotype?token=of-the-account"
OWN = "https://own.example.org:8443/x"
LEASE = 30_000
SOON = NOW + 10


async def ended(
    store: Store, account_id: int, *, callback_url: str | None = None, good: bool = True
) -> int:
    """The id of a task that came to its end at ``SOON``."""
    new = new_task(account_id)
    request = msgspec.structs.replace(new.request, callback_url=callback_url)
    await store.submit(msgspec.structs.replace(new, request=request))
    task = await taken(store, new.id)
    if good:
        number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW + 2)
        result = [image(account_id)]
        await store.complete(task, number, images=result, actual=PRICE, cost=None, now=SOON)
    else:
        await store.fail(task, failure("upstream_failed", "No."), now=SOON)
    return new.id


async def claimed(
    store: Store, *, now: int = SOON, limit: int = 64, under_way: Sequence[Due] = ()
) -> Sequence[Due]:
    return await store.webhooks.claim(now=now, lease_ms=LEASE, under_way=under_way, limit=limit)


async def told(
    store: Store,
    due: Due,
    state: DeliveryState,
    *,
    status: int | None = 500,
    next_at: int | None = None,
    at: int = SOON,
) -> None:
    made = Try(due.number, at, 12, status, None, "hello")
    verdict = Verdict(state, next_at)  # type: ignore[arg-type]  # any of the four that are stored
    await store.webhooks.record(due, made, verdict, now=at + 12)


async def state_of(store: Store, task_id: int) -> tuple[str, int, int | None]:
    webhook = await store.webhooks.of_task(task_id)
    assert webhook is not None
    return webhook.state, webhook.attempts, webhook.next_at


async def redelivered(store: Store, task_id: int, url: str, *, now: int) -> None:
    webhook = await store.webhooks.of_task(task_id)
    assert webhook is not None
    await store.webhooks.redeliver(webhook, url, now=now)


# The outbox


@pytest.mark.parametrize("good", [True, False])
async def test_the_end_of_a_task_writes_its_webhook_with_it(store: Store, good: bool) -> None:  # noqa: FBT001 -- both ends
    account = await funded(store)
    task_id = await ended(store, account, callback_url=OWN, good=good)
    assert (await read(store, task_id)).has_webhook
    webhook = await store.webhooks.of_task(task_id)
    assert webhook is not None
    assert (webhook.url, webhook.event) == (OWN, "task.success" if good else "task.fail")
    assert (webhook.account_id, webhook.created_at, webhook.last_status) == (account, SOON, None)
    assert await state_of(store, task_id) == ("pending", 0, SOON)
    assert await store.prove() == []


async def test_without_a_url_there_is_no_webhook(store: Store) -> None:
    account = await funded(store)
    task_id = await ended(store, account)
    assert not (await read(store, task_id)).has_webhook
    assert await store.webhooks.of_task(task_id) is None
    assert await claimed(store) == []


async def test_the_accounts_url_holds_for_tasks_without_their_own_and_for_no_other_account(
    store: Store,
) -> None:
    account, other = await funded(store), await funded(store, name="bob")
    await store.webhooks.set_url(account, URL, now=NOW)
    plain, own = await ended(store, account), await ended(store, account, callback_url=OWN)
    foreign = await ended(store, other)
    found = [await store.webhooks.of_task(task_id) for task_id in (plain, own, foreign)]
    assert [one and one.url for one in found] == [URL, OWN, None]
    await store.webhooks.set_url(account, None, now=NOW)
    assert await store.webhooks.of_task(await ended(store, account)) is None
    assert {due.receiver for due in await claimed(store)} == {
        f"{account}/hooks.example.com:443",
        f"{account}/own.example.org:8443",
    }
    assert await store.prove() == []


async def test_a_task_that_cannot_be_ended_has_no_webhook(store: Store) -> None:
    account = await funded(store)
    await store.webhooks.set_url(account, URL, now=NOW)
    new = new_task(account)
    await store.submit(new)
    old = await taken(store, new.id)
    await taken(store, new.id)
    with pytest.raises(Fenced):
        await store.fail(old, failure("upstream_failed", "No."), now=SOON)
    assert await store.webhooks.of_task(new.id) is None
    assert await store.prove() == []


async def test_the_reconciler_tells_of_the_tasks_that_it_ends(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    account = await funded(store)
    await store.webhooks.set_url(account, URL, now=NOW)
    new = new_task(account)
    await store.submit(new)
    late = NOW + PATIENCE_MS + FORSAKEN_MS + 1_000_000
    done = await store.reconcile(
        now=late, price=lambda _task, count: count * PRICE, days=lambda _model: 0
    )
    assert done is not None
    assert done.ended == 1
    assert (await read(store, new.id)).state is State.FAIL
    webhook = await store.webhooks.of_task(new.id)
    assert webhook is not None
    assert webhook.event == "task.fail"
    assert await store.prove() == []
    await store.close()


async def test_the_proof_finds_a_task_and_an_outbox_that_disagree(store: Store) -> None:
    account = await funded(store)
    task_id = await ended(store, account, callback_url=OWN)
    await run(store, "UPDATE tasks SET has_webhook = 0")
    (fault,) = await store.prove()
    assert encode("task", task_id) in fault
    await run(store, "UPDATE tasks SET has_webhook = 1")
    await run(store, "UPDATE webhooks SET task_id = task_id + 1")
    assert len(await store.prove()) == 2


async def run(store: Store, statement: str) -> None:
    """Write behind the store's back."""
    if isinstance(store, SqliteStore):
        await store._write(lambda connection: connection.execute(statement).rowcount)
    else:
        assert isinstance(store, PostgresStore)
        await store._db.execute(statement)


# Turns


async def test_what_was_claimed_is_given_to_nobody_else_until_the_lease_is_over(
    store: Store,
) -> None:
    account = await funded(store)
    task_id = await ended(store, account, callback_url=OWN)
    (due,) = await claimed(store)
    assert (due.task_id, due.account_id, due.url) == (task_id, account, OWN)
    assert (due.number, due.tries, due.version, due.previous_until) == (1, 0, 1, None)
    assert await claimed(store, now=SOON + LEASE - 1) == []
    (again,) = await claimed(store, now=SOON + LEASE)
    assert (again.number, again.tries) == (2, 0), "the first one never came to an end"
    assert await state_of(store, task_id) == ("pending", 2, None)


async def test_two_who_look_at_once_get_each_delivery_once(postgres_url: str) -> None:
    stores = [PostgresStore(postgres_url) for _ in range(3)]
    account = await funded(stores[0], credit=100 * PRICE)
    ids = {
        await ended(stores[0], account, callback_url=f"https://h{place % 5}.example.com/")
        for place in range(30)
    }
    got: list[int] = []
    while len(got) < len(ids):
        for found in await asyncio.gather(*(claimed(one, limit=4) for one in stores)):
            got += [due.task_id for due in found]
    assert sorted(got) == sorted(ids)
    for store in stores:
        await store.close()


async def test_receivers_take_turns_and_busy_ones_get_nothing(store: Store) -> None:
    account = await funded(store, credit=100 * PRICE)
    for _ in range(20):
        await ended(store, account, callback_url="https://slow.example.com/")
    quick = await ended(store, account, callback_url=OWN)
    first = await claimed(store)
    assert Counter(due.receiver for due in first) == {
        f"{account}/slow.example.com:443": 8,
        f"{account}/own.example.org:8443": 1,
    }
    assert await claimed(store, under_way=first) == []
    done = next(due for due in first if due.task_id != quick)
    others = [due for due in first if due is not done]
    (more,) = await claimed(store, under_way=others, limit=9)
    assert more.receiver == done.receiver
    await redelivered(store, quick, OWN, now=SOON)
    left = [due for due in first if due.task_id != quick]
    (due,) = await claimed(store, under_way=left)
    assert due.task_id == quick


async def test_accounts_take_turns_and_none_gets_more_than_it_leaves_free(store: Store) -> None:
    many, few = await funded(store, credit=100 * PRICE), await funded(store, name="bob")
    for place in range(12):
        await ended(store, many, callback_url=f"https://h{place}.example.com/")
    first = await claimed(store, limit=8)
    assert len(first) == 4
    quick = await ended(store, few, callback_url="https://h0.example.com/")
    second = await claimed(store, under_way=first, limit=4)
    assert [due.task_id for due in second] == [quick], "it shares a host, but no turn"
    assert await claimed(store, under_way=[*first, *second], limit=3) == []


async def test_who_is_sending_something_is_not_given_it_again(store: Store) -> None:
    account = await funded(store)
    await ended(store, account, callback_url=OWN)
    sending = await claimed(store)
    assert await claimed(store, now=SOON + 2 * LEASE, under_way=sending) == []
    assert len(await claimed(store, now=SOON + 2 * LEASE)) == 1


async def test_what_was_never_tried_is_due_after_a_clock_was_set_back(store: Store) -> None:
    account = await funded(store)
    task_id = await ended(store, account, callback_url=OWN)
    (due,) = await claimed(store, now=SOON - 3_600_000)
    assert due.task_id == task_id


async def test_what_a_dead_process_was_sending_is_released(store: Store) -> None:
    account = await funded(store)
    lost, tried = [await ended(store, account, callback_url=OWN) for _ in range(2)]
    by_id = {due.task_id: due for due in await claimed(store)}
    await told(store, by_id[tried], DeliveryState.PENDING, next_at=SOON + 5000)
    assert await store.webhooks.release(now=SOON + 1) == 1
    assert [due.task_id for due in await claimed(store, now=SOON + 1)] == [lost]


# What came of a try


async def test_a_try_is_kept_and_moves_the_delivery_on(store: Store) -> None:
    account = await funded(store)
    task_id = await ended(store, account, callback_url=OWN)
    (due,) = await claimed(store)
    await told(store, due, DeliveryState.PENDING, next_at=SOON + 5000)
    assert await state_of(store, task_id) == ("pending", 1, SOON + 5000)
    assert await claimed(store, now=SOON + 4999) == []
    (due,) = await claimed(store, now=SOON + 5000)
    await told(store, due, DeliveryState.DELIVERED, status=204, at=SOON + 5000)
    assert await state_of(store, task_id) == ("delivered", 2, None)
    assert await store.webhooks.history(task_id) == [
        Try(1, SOON, 12, 500, None, "hello"),
        Try(2, SOON + 5000, 12, 204, None, "hello"),
    ]
    assert await claimed(store, now=SOON + 10**9) == []
    assert await store.prove() == []


async def test_what_comes_late_is_history_and_changes_nothing(store: Store) -> None:
    account = await funded(store)
    task_id = await ended(store, account, callback_url=OWN)
    (slow,) = await claimed(store)
    (other,) = await claimed(store, now=SOON + LEASE)
    await told(store, slow, DeliveryState.FAILED)
    assert (await state_of(store, task_id))[0] == "pending"
    await told(store, other, DeliveryState.DELIVERED, status=200)
    assert (await state_of(store, task_id))[0] == "delivered"
    assert [one.number for one in await store.webhooks.history(task_id)] == [1, 2]


@pytest.mark.parametrize("meanwhile", [DeliveryState.PENDING, DeliveryState.FAILED])
async def test_that_a_receiver_has_it_counts_however_late_it_is_written_down(
    store: Store, meanwhile: DeliveryState
) -> None:
    account = await funded(store)
    task_id = await ended(store, account, callback_url=OWN)
    (slow,) = await claimed(store)
    (other,) = await claimed(store, now=SOON + LEASE)
    if meanwhile is DeliveryState.FAILED:
        await told(store, other, meanwhile)
    await told(store, slow, DeliveryState.DELIVERED, status=200)
    if meanwhile is DeliveryState.PENDING:
        await told(store, other, meanwhile, next_at=SOON + 10**6)
    assert await state_of(store, task_id) == ("delivered", 2, None)
    assert await store.prove() == []


async def test_only_what_came_to_an_end_counts_in_the_round(store: Store) -> None:
    account = await funded(store)
    await ended(store, account, callback_url=OWN)
    now = SOON
    for number in range(1, 10):
        (lost,) = await claimed(store, now=now)
        assert (lost.number, lost.tries) == (number, 0)
        now += LEASE
    (due,) = await claimed(store, now=now)
    await told(store, due, DeliveryState.PENDING, next_at=now)
    (due,) = await claimed(store, now=now)
    assert (due.number, due.tries) == (11, 1)


async def test_a_redelivery_is_sent_though_the_clock_was_ahead_when_the_receiver_wanted_no_more(
    store: Store,
) -> None:
    account = await funded(store)
    task_id = await ended(store, account, callback_url=OWN)
    (due,) = await claimed(store)
    await told(store, due, DeliveryState.DISABLED, status=410, at=SOON + 2000)
    await redelivered(store, task_id, OWN, now=SOON + 500)
    assert [one.task_id for one in await claimed(store, now=SOON + 500)] == [task_id]


async def test_a_receiver_that_wanted_no_more_before_its_owner_enabled_it_stays_enabled(
    store: Store,
) -> None:
    account = await funded(store)
    for _ in range(3):
        await ended(store, account, callback_url=OWN)
    first, late, after = await claimed(store)
    await told(store, first, DeliveryState.DISABLED, status=410)
    await store.webhooks.set_url(account, OWN, now=SOON + 20)
    await told(store, late, DeliveryState.DISABLED, status=410, at=SOON + 19)
    assert list(await store.webhooks.disabled_urls(account)) == []
    assert (await state_of(store, await ended(store, account, callback_url=OWN)))[0] == "pending"
    await told(store, after, DeliveryState.DISABLED, status=410, at=SOON + 20)
    assert list(await store.webhooks.disabled_urls(account)) == [OWN]


async def test_a_redelivery_begins_a_new_round_whatever_the_state_and_whoever_is_sending(
    store: Store,
) -> None:
    account = await funded(store)
    task_id = await ended(store, account, callback_url=OWN)
    (sending,) = await claimed(store)
    await redelivered(store, task_id, OWN, now=SOON)
    assert await state_of(store, task_id) == ("pending", 1, SOON + 1)
    await told(store, sending, DeliveryState.DELIVERED, status=200)
    assert (await state_of(store, task_id))[0] == "pending", "it was asked for once more"
    (due,) = await claimed(store)
    assert (due.number, due.tries) == (2, 0)
    await told(store, due, DeliveryState.FAILED)
    await redelivered(store, task_id, URL, now=SOON + 99)
    (due,) = await claimed(store, now=SOON + 99)
    assert (due.number, due.tries, due.receiver) == (3, 0, receiver_of(account, URL))


async def test_a_receiver_that_wants_no_more_is_sent_nothing_until_it_is_enabled(
    store: Store,
) -> None:
    account, other = await funded(store), await funded(store, name="bob")
    first, waiting = [await ended(store, account, callback_url=OWN) for _ in range(2)]
    foreign = await ended(store, other, callback_url=OWN)
    (due,) = [each for each in await claimed(store) if each.task_id == first]
    await told(store, due, DeliveryState.DISABLED, status=410)
    assert await state_of(store, first) == ("disabled", 1, None)
    assert list(await store.webhooks.disabled_urls(account)) == [OWN]
    assert list(await store.webhooks.disabled_urls(other)) == []

    later = await ended(store, account, callback_url=OWN)
    assert await state_of(store, later) == ("disabled", 0, None)
    left = await claimed(store, now=SOON + LEASE)
    assert [due.task_id for due in left] == [foreign], "what was pending is given up"
    assert (await state_of(store, waiting))[0] == "disabled"
    assert await store.prove() == []

    await redelivered(store, later, OWN, now=SOON + 50)
    (due,) = await claimed(store, now=SOON + 50)
    await told(store, due, DeliveryState.DELIVERED, status=200, at=SOON + 50)
    assert list(await store.webhooks.disabled_urls(account)) == []
    assert (await state_of(store, await ended(store, account, callback_url=OWN)))[0] == "pending"


async def test_an_answer_from_before_does_not_enable_a_url_again(store: Store) -> None:
    account = await funded(store)
    for _ in range(2):
        await ended(store, account, callback_url=OWN)
    early, late = await claimed(store)
    await told(store, late, DeliveryState.DISABLED, status=410)
    await told(store, early, DeliveryState.DELIVERED, status=200)
    assert list(await store.webhooks.disabled_urls(account)) == [OWN]
    await store.webhooks.set_url(account, OWN, now=SOON + 20)
    assert list(await store.webhooks.disabled_urls(account)) == []


# Lists and settings


async def test_deliveries_are_listed_newest_first_by_state_and_page(store: Store) -> None:
    account, other = await funded(store, credit=100 * PRICE), await funded(store, name="bob")
    ids = [await ended(store, account, callback_url=OWN) for _ in range(5)]
    await ended(store, other, callback_url=OWN)
    mine = [due for due in await claimed(store) if due.account_id == account]
    await told(store, mine[0], DeliveryState.DELIVERED, status=200)
    await told(store, mine[1], DeliveryState.FAILED)

    async def listed(
        state: DeliveryState | None = None, *, before: int | None = None, limit: int = 9
    ) -> list[int]:
        found = await store.webhooks.of_account(account, state=state, before=before, limit=limit)
        return [webhook.task_id for webhook in found]

    assert await listed() == sorted(ids, reverse=True)
    assert await listed(limit=2) == sorted(ids, reverse=True)[:2]
    assert await listed(before=sorted(ids)[1]) == sorted(ids)[:1]
    assert await listed(DeliveryState.DELIVERED) == [mine[0].task_id]
    assert await listed(DeliveryState.FAILED) == [mine[1].task_id]
    assert await listed(DeliveryState.DISABLED) == []
    assert len(await listed(DeliveryState.PENDING)) == 3


async def test_settings_have_a_first_version_and_each_rotation_makes_another(
    store: Store,
) -> None:
    account = await funded(store)
    first = await store.webhooks.settings(account)
    assert (first.url, first.version, first.version_at) == (None, 1, NOW)
    assert (first.previous_at, first.previous_until) == (None, None)
    assert first.live(NOW) == [1]
    await store.webhooks.rotate(account, overlap_ms=1000, now=NOW + 1)
    second = await store.webhooks.settings(account)
    assert (second.version, second.version_at, second.previous_at) == (2, NOW + 1, NOW)
    assert (second.live(NOW + 1000), second.live(NOW + 1001)) == ([2, 1], [2])
    await store.webhooks.set_url(account, URL, now=NOW)
    await store.webhooks.rotate(account, overlap_ms=0, now=NOW + 2)
    third = await store.webhooks.settings(account)
    assert (third.url, third.version, third.previous_at) == (URL, 3, NOW + 1)
    assert third.live(NOW + 2) == [3]
    await ended(store, account)
    (due,) = await claimed(store)
    assert (due.version, due.previous_until) == (3, NOW + 2)


async def test_an_account_that_said_nothing_else_can_set_its_url(store: Store) -> None:
    account = await funded(store)
    await store.webhooks.set_url(account, URL, now=NOW)
    settings = await store.webhooks.settings(account)
    assert (settings.url, settings.version, settings.version_at) == (URL, 1, NOW)


async def test_an_attempt_that_is_open_at_the_end_is_closed_with_the_webhook(
    store: Store,
) -> None:
    account = await funded(store)
    new = new_task(account)
    request = msgspec.structs.replace(new.request, callback_url=OWN)
    await store.submit(msgspec.structs.replace(new, request=request))
    task = await taken(store, new.id)
    number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW + 2)
    await store.fail(
        task,
        failure("upstream_failed", "No."),
        attempt=(number, AttemptState.FAILED),
        now=SOON,
    )
    assert [one.state for one in await store.attempts(new.id)] == [AttemptState.FAILED]
    assert (await state_of(store, new.id))[0] == "pending"
