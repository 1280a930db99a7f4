"""What every store promises, whatever the database."""

import asyncio

import pytest

from calotype.domain import keys
from calotype.domain.errors import IdempotencyConflict, InsufficientBalance, failure
from calotype.domain.keys import ApiKey
from calotype.domain.money import Balance, EntryKind
from calotype.domain.outcomes import Fault
from calotype.domain.task import (
    Attempt,
    AttemptState,
    BillingStatus,
    Event,
    Reference,
    State,
    Task,
)
from calotype.store.port import Begin, Fenced, IdTaken, Keyed, Store
from conformance.tasks import NOW, PRICE, funded, image, new_task, read, submitted, taken


async def test_the_last_of_keys_that_stand_beside_each_other_are_found(store: Store) -> None:
    account, other = await funded(store), await funded(store, name="other")
    for key in ("openaia1f", "openaia10", "openaib99", "openaia"):
        await store.submit(new_task(account, idempotency_key=key, fingerprint=b"x"))
    await store.submit(new_task(other, idempotency_key="openaia2f", fingerprint=b"x"))

    async def last(prefix: str, *, limit: int = 9) -> list[Keyed]:
        lowest, highest = f"{prefix}00", f"{prefix}ff"
        return list(await store.keyed(account, lowest=lowest, highest=highest, limit=limit))

    waiting = [Keyed(key, State.WAITING, None) for key in ("openaia1f", "openaia10")]
    assert await last("openaia") == waiting
    assert await last("openaia", limit=1) == waiting[:1]
    assert [each.key for each in await last("openaib")] == ["openaib99"]
    assert await last("openaic") == []


async def test_an_account_is_opened_once_and_found_again(store: Store) -> None:
    first = await store.open_account("ada", now=NOW)
    again = await store.open_account("ada", now=NOW + 5)
    assert first == again
    assert [account.name for account in await store.accounts()] == ["ada"]
    assert await store.account(first.id) == first
    assert await store.account(first.id + 1) is None


async def test_credit_adds_up_and_cannot_be_taken_below_what_is_reserved(store: Store) -> None:
    account = await funded(store, credit=2 * PRICE)
    await submitted(store, account)
    with pytest.raises(InsufficientBalance):
        await store.book(account, EntryKind.ADJUST, -(PRICE + 1), note="", now=NOW)
    assert await store.book(account, EntryKind.ADJUST, -PRICE, note="back", now=NOW) == Balance(
        PRICE, PRICE
    )
    assert [entry.kind for entry in await store.usage.entries(account, limit=9)] == [
        EntryKind.ADJUST,
        EntryKind.RESERVE,
        EntryKind.CREDIT,
    ]


async def test_a_key_is_found_by_its_hash_and_stays_revoked(store: Store) -> None:
    account = await store.open_account("ada", now=NOW)
    secret = keys.new_key()
    key = ApiKey(5, account.id, "ada", "laptop", secret[:10], NOW, None, None)
    await store.add_key(key, digest=keys.hash_key(secret))
    assert await store.find_key(keys.hash_key(secret)) == key
    assert await store.find_key(keys.hash_key(keys.new_key())) is None
    assert await store.revoke_key(5, now=NOW + 1)
    assert not await store.revoke_key(5, now=NOW + 2)
    found = await store.find_key(keys.hash_key(secret))
    assert found is not None
    assert found.revoked_at == NOW + 1


async def test_a_submission_is_a_waiting_task_with_its_price_reserved(store: Store) -> None:
    account = await funded(store)
    task = await read(store, await submitted(store, account))
    assert (task.state, task.progress, task.billing) == (State.WAITING, 0, BillingStatus.RESERVED)
    assert (task.reserved, task.actual, task.released) == (PRICE, 0, 0)
    assert await store.balance(account) == Balance(10 * PRICE, PRICE)
    assert task.request.parameters == {"aspect_ratio": "1:1"}


async def test_a_submission_that_cannot_be_paid_writes_nothing(store: Store) -> None:
    account = await funded(store, credit=PRICE - 1)
    new = new_task(account)
    with pytest.raises(InsufficientBalance, match=r"0\.03 USDC and the account has 0\.029999"):
        await store.submit(new)
    assert await store.task(new.id) is None
    assert await store.balance(account) == Balance(PRICE - 1, 0)


async def test_of_many_submissions_at_once_as_many_succeed_as_can_be_paid(store: Store) -> None:
    poor = await funded(store, credit=7 * PRICE, name="poor")
    rich = await funded(store, credit=100 * PRICE, name="rich")
    results = await asyncio.gather(
        *(store.submit(new_task(account)) for _ in range(20) for account in (poor, rich)),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, InsufficientBalance)]
    assert len(refused) == 13
    assert await store.balance(poor) == Balance(7 * PRICE, 7 * PRICE)
    assert await store.balance(rich) == Balance(100 * PRICE, 20 * PRICE)
    assert await store.prove() == []


async def test_a_submission_tells_how_many_of_the_account_stand_before_it(store: Store) -> None:
    account = await funded(store)
    together = await asyncio.gather(*(store.submit(new_task(account)) for _ in range(4)))
    assert sorted(result.backlog for result in together) == [0, 1, 2, 3]
    task = await taken(store, together[0].task_id)
    await store.fail(task, failure("upstream_failed", "It broke."), now=NOW)
    assert (await store.submit(new_task(account))).backlog == 3
    assert await store.prove() == []


async def test_a_taken_id_is_told_and_takes_no_neighbour_with_it(store: Store) -> None:
    account = await funded(store)
    first = await submitted(store, account)
    clash, fine = await asyncio.gather(
        store.submit(new_task(account, task_id=first)),
        store.submit(new_task(account)),
        return_exceptions=True,
    )
    assert isinstance(clash, IdTaken)
    assert not isinstance(fine, BaseException)
    assert await store.balance(account) == Balance(10 * PRICE, 2 * PRICE)


async def test_an_idempotency_key_replays_the_same_request_and_refuses_another(
    store: Store,
) -> None:
    account = await funded(store, credit=PRICE)
    other = await funded(store, name="other")
    first = await store.submit(new_task(account, idempotency_key="k", fingerprint=b"one"))
    replay = await store.submit(new_task(account, idempotency_key="k", fingerprint=b"one"))
    assert (replay.task_id, replay.request_id, replay.replayed) == (
        first.task_id,
        first.request_id,
        True,
    )
    with pytest.raises(IdempotencyConflict):
        await store.submit(new_task(account, idempotency_key="k", fingerprint=b"two"))
    elsewhere = await store.submit(new_task(other, idempotency_key="k", fingerprint=b"two"))
    assert not elsewhere.replayed
    assert await store.balance(account) == Balance(PRICE, PRICE)


async def test_the_same_key_many_times_at_once_is_one_task(store: Store) -> None:
    account = await funded(store)
    results = await asyncio.gather(
        *(
            store.submit(new_task(account, idempotency_key="k", fingerprint=b"one"))
            for _ in range(30)
        )
    )
    assert len({result.task_id for result in results}) == 1
    assert sum(not result.replayed for result in results) == 1
    assert await store.balance(account) == Balance(10 * PRICE, PRICE)


async def test_the_task_of_an_idempotency_key_is_found_without_a_write(store: Store) -> None:
    account = await funded(store)
    assert await store.replayed(account, "k", fingerprint=b"one") is None
    first = await store.submit(new_task(account, idempotency_key="k", fingerprint=b"one"))
    found = await store.replayed(account, "k", fingerprint=b"one")
    assert found is not None
    assert (found.task_id, found.request_id, found.replayed) == (
        first.task_id,
        first.request_id,
        True,
    )
    assert await store.replayed(account, "k", fingerprint=b"two") is None
    assert await store.replayed(account + 1, "k", fingerprint=b"one") is None


async def test_old_idempotency_keys_are_forgotten(store: Store) -> None:
    account = await funded(store)
    first = await store.submit(new_task(account, idempotency_key="k", fingerprint=b"one"))
    assert await store.forget_idempotency_keys(before=NOW) == 0
    assert await store.forget_idempotency_keys(before=NOW + 1) == 1
    again = await store.submit(new_task(account, idempotency_key="k", fingerprint=b"two"))
    assert again.task_id != first.task_id


async def test_a_task_runs_to_success_and_is_paid_once(store: Store) -> None:
    account = await funded(store)
    task_id = await submitted(store, account)
    task = await taken(store, task_id)
    number = await store.begin_attempt(task, channel_id=7, event=Event.QUEUE, now=NOW + 2)
    await store.accept_attempt(task, number, upstream_id="up-1")
    await store.advance(task, Event.RUN, progress=40, now=NOW + 3)
    await store.advance(task, Event.RUN, progress=20, now=NOW + 4)
    assert (await read(store, task_id)).progress == 40
    picture = image(account)
    await store.complete(task, number, images=[picture], actual=PRICE, cost=9, now=NOW + 5)
    done = await read(store, task_id)
    assert (done.state, done.progress, done.billing) == (
        State.SUCCESS,
        100,
        BillingStatus.COMMITTED,
    )
    assert (done.reserved, done.actual, done.released) == (PRICE, PRICE, 0)
    assert done.completed_at == NOW + 5
    assert [result.asset_id for result in done.result] == [picture.id]
    assert await store.asset(picture.id) == picture
    assert await store.balance(account) == Balance(9 * PRICE, 0)
    (attempt,) = await store.attempts(task_id)
    assert (attempt.state, attempt.upstream_id, attempt.cost_micro_usdc) == (
        AttemptState.DONE,
        "up-1",
        9,
    )
    assert await store.prove() == []


async def test_a_success_for_less_releases_the_rest(store: Store) -> None:
    account = await funded(store)
    task = await taken(store, await submitted(store, account))
    number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW)
    await store.complete(
        task, number, images=[image(account)], actual=PRICE - 7, cost=None, now=NOW
    )
    done = await read(store, task.id)
    assert (done.reserved, done.actual, done.released) == (PRICE, PRICE - 7, 7)
    assert await store.balance(account) == Balance(9 * PRICE + 7, 0)
    assert await store.prove() == []


async def test_a_failure_releases_everything_and_says_why(store: Store) -> None:
    account = await funded(store)
    task = await taken(store, await submitted(store, account))
    number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW)
    why = failure("upstream_failed", "It broke.")
    await store.fail(task, why, attempt=(number, AttemptState.FAILED), now=NOW)
    failed = await read(store, task.id)
    assert (failed.state, failed.error, failed.billing) == (
        State.FAIL,
        why,
        BillingStatus.RELEASED,
    )
    assert (failed.actual, failed.released) == (0, PRICE)
    assert await store.balance(account) == Balance(10 * PRICE, 0)
    assert await store.prove() == []


async def test_a_final_task_cannot_be_taken_moved_or_settled_again(store: Store) -> None:
    account = await funded(store)
    task = await taken(store, await submitted(store, account))
    number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW)
    why = failure("upstream_failed", "It broke.")
    await store.fail(task, why, now=NOW)
    assert await store.take(task.id, now=NOW) is None
    for write in (
        store.advance(task, Event.RUN, progress=5, now=NOW),
        store.fail(task, why, now=NOW),
        store.complete(task, number, images=[], actual=PRICE, cost=None, now=NOW),
        store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW),
        store.keep_references(task, [], [], days=2),
        store.reroute(task, 8, now=NOW),
    ):
        with pytest.raises(Fenced):
            await write
    assert await store.prove() == []


async def test_whoever_took_a_task_before_can_write_nothing_after(store: Store) -> None:
    account = await funded(store)
    task_id = await submitted(store, account)
    old = await taken(store, task_id)
    number = await store.begin_attempt(old, channel_id=7, event=Event.RUN, now=NOW)
    found = await store.take(task_id, now=NOW)
    assert found is not None
    assert found.task.claim == old.claim + 1
    assert [attempt.state for attempt in found.attempts] == [AttemptState.SENDING]
    why = failure("upstream_failed", "It broke.")
    for write in (
        store.accept_attempt(old, number, upstream_id="late"),
        store.close_attempt(old, number, state=AttemptState.REFUSED, detail="", now=NOW),
        store.advance(old, Event.RUN, progress=5, now=NOW),
        store.begin_attempt(old, channel_id=7, event=Event.RUN, now=NOW),
        store.complete(old, number, images=[], actual=PRICE, cost=None, now=NOW),
        store.fail(old, why, now=NOW),
        store.reroute(old, 8, now=NOW),
    ):
        with pytest.raises(Fenced):
            await write
    await store.accept_attempt(found.task, number, upstream_id="in time")
    assert await store.balance(account) == Balance(10 * PRICE, PRICE)


async def test_a_new_task_is_taken_up_with_its_first_attempt_and_never_with_another(
    store: Store,
) -> None:
    account = await funded(store)
    task_id = await submitted(store, account)
    asked: list[Task] = []

    def choose(task: Task) -> Begin:
        asked.append(task)
        return Begin(7, Event.RUN)

    first = await store.take(task_id, now=NOW, choose=choose)
    assert first is not None
    assert (first.begun, first.attempts, first.task.claim) == (1, (), 1)
    assert (asked[0].id, asked[0].claim) == (task_id, 1)
    assert [(a.number, a.channel_id, a.state) for a in await store.attempts(task_id)] == [
        (1, 7, AttemptState.SENDING)
    ]
    stored = await read(store, task_id)
    assert (stored.state, stored.seq, stored.claim) == (State.GENERATING, 3, 1)
    again = await store.take(task_id, now=NOW, choose=choose)
    assert again is not None
    assert (again.begun, len(again.attempts), len(asked)) == (None, 1, 1)
    await store.complete(again.task, 1, images=[], actual=PRICE, cost=None, now=NOW)
    assert await store.prove() == []


async def test_attempts_are_numbered_and_closed_one_by_one(store: Store) -> None:
    account = await funded(store)
    task = await taken(store, await submitted(store, account))
    first = await store.begin_attempt(task, channel_id=7, event=Event.QUEUE, now=NOW)
    await store.close_attempt(task, first, state=AttemptState.REFUSED, detail="busy", now=NOW)
    second = await store.begin_attempt(task, channel_id=8, event=Event.QUEUE, now=NOW)
    assert (first, second) == (1, 2)
    assert [(a.number, a.channel_id, a.state) for a in await store.attempts(task.id)] == [
        (1, 7, AttemptState.REFUSED),
        (2, 8, AttemptState.SENDING),
    ]
    with pytest.raises(Fenced):
        await store.close_attempt(task, first, state=AttemptState.FAILED, detail="", now=NOW)


async def test_an_attempt_keeps_why_it_ended_and_whose_fault_it_was(store: Store) -> None:
    account = await funded(store)
    task = await taken(store, await submitted(store, account))
    first = await store.begin_attempt(task, channel_id=7, event=Event.QUEUE, now=NOW)
    await store.close_attempt(
        task,
        first,
        state=AttemptState.REFUSED,
        detail="429",
        now=NOW + 1,
        code="upstream_rate_limited",
        fault=Fault.BUSY,
    )
    second = await store.begin_attempt(task, channel_id=8, event=Event.QUEUE, now=NOW + 2)
    why = failure("upstream_failed", "It broke.")
    await store.fail(
        task,
        why,
        attempt=(second, AttemptState.FAILED),
        now=NOW + 3,
        fault=Fault.UPSTREAM,
        detail="state: dead",
        cost=7,
    )
    assert await store.attempts(task.id) == [
        Attempt(
            number=1,
            channel_id=7,
            state=AttemptState.REFUSED,
            upstream_id=None,
            started_at=NOW,
            finished_at=NOW + 1,
            detail="429",
            code="upstream_rate_limited",
            fault="busy",
        ),
        Attempt(
            number=2,
            channel_id=8,
            state=AttemptState.FAILED,
            upstream_id=None,
            started_at=NOW + 2,
            finished_at=NOW + 3,
            detail="state: dead",
            cost_micro_usdc=7,
            code="upstream_failed",
            fault="upstream",
        ),
    ]
    assert (await read(store, task.id)).error == why
    assert await store.balance(account) == Balance(10 * PRICE, 0)
    assert await store.prove() == []


async def test_a_failure_without_a_detail_is_its_own(store: Store) -> None:
    account = await funded(store)
    task = await taken(store, await submitted(store, account))
    number = await store.begin_attempt(task, channel_id=7, event=Event.QUEUE, now=NOW)
    why = failure("upstream_failed", "It broke.")
    await store.fail(task, why, attempt=(number, AttemptState.FAILED), now=NOW)
    (attempt,) = await store.attempts(task.id)
    assert (attempt.detail, attempt.code, attempt.fault, attempt.cost_micro_usdc) == (
        "It broke.",
        "upstream_failed",
        None,
        None,
    )


async def test_attempts_that_may_have_been_billed_are_listed_the_last_ended_first(
    store: Store,
) -> None:
    account = await funded(store)
    tasks = [await taken(store, await submitted(store, account)) for _ in range(3)]
    why = failure("upstream_outcome_unknown", "Nobody can say.")
    for task, ended in zip(tasks, (NOW + 5, NOW + 9, NOW + 7), strict=True):
        number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW)
        await store.close_attempt(task, number, state=AttemptState.REFUSED, detail="", now=NOW + 20)
        number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW)
        await store.fail(task, why, attempt=(number, AttemptState.UNKNOWN), now=ended)
    found = await store.operating.unknown(limit=2)
    assert [(one.task_id, one.attempt.number) for one in found] == [
        (tasks[1].id, 2),
        (tasks[2].id, 2),
    ]
    assert found[0].attempt == (await store.attempts(tasks[1].id))[1]
    assert len(await store.operating.unknown(limit=9)) == 3


async def test_a_task_goes_on_at_another_channel(store: Store) -> None:
    account = await funded(store)
    task = await taken(store, await submitted(store, account))
    number = await store.begin_attempt(task, channel_id=7, event=Event.QUEUE, now=NOW)
    await store.close_attempt(task, number, state=AttemptState.REFUSED, detail="", now=NOW)
    await store.reroute(task, 8, now=NOW + 9)
    after = await read(store, task.id)
    assert (after.channel_id, after.updated_at) == (8, NOW + 9)
    assert (after.state, after.claim, after.seq) == (State.QUEUING, task.claim, task.seq + 1)
    assert [one.channel_id for one in await store.unfinished(after=0, limit=9)] == [8]
    again = await store.take(task.id, now=NOW + 10)
    assert again is not None
    assert (again.task.channel_id, len(again.attempts)) == (8, 1)
    assert await store.prove() == []


async def test_a_task_whose_attempt_is_open_stays_where_it_is(store: Store) -> None:
    account = await funded(store)
    task = await taken(store, await submitted(store, account))
    number = await store.begin_attempt(task, channel_id=7, event=Event.QUEUE, now=NOW)
    with pytest.raises(Fenced):
        await store.reroute(task, 8, now=NOW)
    await store.accept_attempt(task, number, upstream_id="up-1")
    with pytest.raises(Fenced):
        await store.reroute(task, 8, now=NOW)
    assert (await read(store, task.id)).channel_id == 7


async def test_the_channels_of_unfinished_tasks_are_known(store: Store) -> None:
    account = await funded(store)
    assert await store.unfinished_channels() == []
    tasks = [await taken(store, await submitted(store, account)) for _ in range(4)]
    await store.reroute(tasks[0], 3, now=NOW)
    await store.reroute(tasks[1], 5, now=NOW)
    await store.fail(tasks[1], failure("upstream_failed", "It broke."), now=NOW)
    assert await store.unfinished_channels() == [3, 7]


async def test_many_images_are_read_at_once_and_those_that_are_gone_left_out(store: Store) -> None:
    account, other = await funded(store), await funded(store, name="bob")
    uploads = [image(account) for _ in range(100)]
    await store.submit(new_task(account, uploads=uploads))
    theirs = image(other)
    await store.submit(new_task(other, uploads=[theirs]))
    for asked in (uploads[:2], [*uploads, theirs]):
        ids = [each.id for each in asked]
        found = await store.assets([*ids, 7, *ids])
        assert sorted(found, key=lambda each: each.id) == sorted(asked, key=lambda each: each.id)
    assert list(await store.assets([7])) == list(await store.assets([])) == []


async def test_references_that_were_fetched_are_there_at_the_next_take(store: Store) -> None:
    account = await funded(store)
    upload = image(account)
    new = new_task(
        account,
        references=[Reference(url="https://example.com/a.png"), Reference(asset_id=upload.id)],
        uploads=[upload],
    )
    await store.submit(new)
    assert await store.asset(upload.id) == upload
    task = await taken(store, new.id)
    assert task.references[0].asset_id is None
    fetched = image(account)
    filled = [Reference(url="https://example.com/a.png", asset_id=fetched.id), task.references[1]]
    await store.keep_references(task, filled, [fetched], days=2)
    assert list((await taken(store, new.id)).references) == filled


async def test_unfinished_tasks_are_listed_by_id_in_pages(store: Store) -> None:
    account = await funded(store)
    ids = [await submitted(store, account) for _ in range(5)]
    finished = await taken(store, ids[2])
    await store.fail(finished, failure("upstream_failed", "It broke."), now=NOW)
    first = await store.unfinished(after=0, limit=2)
    rest = await store.unfinished(after=first[-1].task_id, limit=9)
    assert [one.task_id for one in (*first, *rest)] == [ids[0], ids[1], ids[3], ids[4]]
    assert {(one.channel_id, one.account_id) for one in first} == {(7, account)}


async def test_tasks_are_listed_newest_first_by_account_and_state(store: Store) -> None:
    ada, bob = await funded(store), await funded(store, name="bob")
    mine = [await submitted(store, ada) for _ in range(3)]
    await submitted(store, bob)
    await taken(store, mine[0])
    assert [t.id for t in await store.tasks(account_id=ada, limit=2)] == [mine[2], mine[1]]
    assert [t.id for t in await store.tasks(account_id=ada, state=State.QUEUING)] == [mine[0]]
    assert len(await store.tasks()) == 4


async def test_every_progress_is_a_numbered_event(store: Store) -> None:
    account = await funded(store)
    task = await taken(store, await submitted(store, account))
    assert task.seq == 2
    await store.advance(task, Event.QUEUE, progress=0, now=NOW)
    await store.advance(task, Event.RUN, progress=30, now=NOW)
    assert (await read(store, task.id)).seq == 4


async def test_ping_answers(store: Store) -> None:
    await store.ping()
