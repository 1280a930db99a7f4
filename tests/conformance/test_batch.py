"""Many requests in one transaction, each judged on its own."""

import asyncio
from collections.abc import Sequence

import pytest

from calotype.domain.errors import CalotypeError, IdempotencyConflict, InsufficientBalance
from calotype.domain.money import Balance
from calotype.domain.task import Event, NewTask, State
from calotype.store.port import IdTaken, Store, Submitted
from calotype.store.postgres import PostgresStore
from conformance.tasks import PRICE, funded, image, new_task, read, submitted, taken, told


def kinds(results: Sequence[Submitted | CalotypeError]) -> list[str]:
    """What became of each."""
    return [
        ("replay" if result.replayed else "new") if isinstance(result, Submitted) else result.code
        for result in results
    ]


async def test_a_batch_is_as_many_waiting_tasks_in_their_order(store: Store) -> None:
    account = await funded(store)
    await submitted(store, account)
    upload = image(account)
    news = [
        new_task(account, metadata={"page": "1"}),
        new_task(account, uploads=[upload]),
        new_task(account, idempotency_key="k"),
    ]
    results = await store.submit_batch(news)
    assert kinds(results) == ["new", "new", "new"]
    assert [(r.task_id, r.request_id, r.backlog) for r in results if isinstance(r, Submitted)] == [
        (new.id, new.request_id, place) for place, new in enumerate(news, start=1)
    ]
    assert [(await read(store, new.id)).state for new in news] == [State.WAITING] * 3
    assert (await read(store, news[0].id)).metadata == {"page": "1"}
    assert await store.asset(upload.id) == upload
    assert await store.balance(account) == Balance(10 * PRICE, 4 * PRICE)
    assert [event.event for event in await told(store)] == ["submit"] * 4
    assert await store.prove() == []


async def test_one_that_cannot_be_paid_refuses_no_smaller_one_after_it(store: Store) -> None:
    account = await funded(store, credit=10)
    other = await funded(store, credit=3, name="other")
    prices = [(account, 4), (account, 7), (other, 3), (account, 6), (account, 1), (other, 1)]
    news = [new_task(owner, price=price) for owner, price in prices]
    results = await store.submit_batch(news)
    no = "insufficient_balance"
    assert kinds(results) == ["new", no, "new", "new", no, no]
    assert isinstance(results[1], InsufficientBalance)
    assert "0.000007 USDC and the account has 0.000006" in str(results[1])
    assert [result.backlog for result in results if isinstance(result, Submitted)] == [0, 0, 1]
    for new, kind in zip(news, kinds(results), strict=True):
        assert (await store.task(new.id) is not None) == (kind == "new")
    assert await store.balance(account) == Balance(10, 10)
    assert await store.prove() == []


async def test_keys_replay_and_conflict_as_they_do_one_by_one(store: Store) -> None:
    account = await funded(store, credit=10)
    before = new_task(account, price=1, idempotency_key="before", fingerprint=b"1")
    await store.submit(before)

    asked = [
        *(("before", b"1", 1), ("before", b"2", 1), ("dear", b"1", 20), ("twice", b"1", 2)),
        *(("twice", b"1", 2), ("twice", b"2", 2), ("dear", b"2", 3), ("hopeless", b"1", 20)),
    ]
    news = [
        new_task(account, price=price, idempotency_key=key, fingerprint=fingerprint)
        for key, fingerprint, price in asked
    ]
    results = await store.submit_batch(news)
    refused, conflict = "insufficient_balance", "idempotency_conflict"
    assert kinds(results) == [
        *("replay", conflict, refused, "new", "replay", conflict, "new", refused)
    ]
    assert [r.task_id for r in results if isinstance(r, Submitted)] == [
        *(before.id, news[3].id, news[3].id, news[6].id)
    ]
    assert isinstance(results[1], IdempotencyConflict)
    again = await store.submit_batch(news)
    assert kinds(again) == [
        *("replay", conflict, conflict, "replay", "replay", conflict, "replay", refused)
    ]
    free = new_task(account, price=1, idempotency_key="hopeless", fingerprint=b"9")
    assert not (await store.submit(free)).replayed
    assert await store.balance(account) == Balance(10, 7)
    assert await store.prove() == []


async def test_an_id_that_is_taken_undoes_the_whole_batch(store: Store) -> None:
    account = await funded(store)
    there = await submitted(store, account)
    news = [
        new_task(account, idempotency_key="k", metadata={"a": "b"}),
        new_task(account, task_id=there),
    ]
    with pytest.raises(IdTaken):
        await store.submit_batch(news)
    assert await store.task(news[0].id) is None
    assert await store.balance(account) == Balance(10 * PRICE, PRICE)
    assert len(await told(store)) == 1
    assert kinds(await store.submit_batch([news[0], new_task(account)])) == ["new", "new"]


async def test_batches_and_single_requests_at_once_wait_in_no_circle(store: Store) -> None:
    ada = await funded(store, credit=1000)
    bob = await funded(store, credit=1000, name="bob")
    keys = "abcdefgh"

    def keyed(account: int, key: str) -> NewTask:
        return new_task(account, price=1, idempotency_key=key)

    batches = [
        store.submit_batch([keyed(owner, key) for key in order for owner in owners])
        for order, owners in [(keys, (ada, bob)), (keys[::-1], (bob, ada))] * 4
    ]
    singles = [store.submit(keyed(owner, key)) for key in keys for owner in (bob, ada)]
    async with asyncio.timeout(60):
        await asyncio.gather(*batches, *singles)
    assert await store.balance(ada) == Balance(1000, 8)
    assert await store.balance(bob) == Balance(1000, 8)
    assert await store.prove() == []


async def test_nothing_is_a_batch_too(store: Store) -> None:
    assert await store.submit_batch([]) == []


async def test_the_tasks_of_a_batch_can_be_taken_at_once(store: Store) -> None:
    account = await funded(store)
    news = [new_task(account) for _ in range(3)]
    await store.submit_batch(news)
    for new in news:
        task = await taken(store, new.id)
        await store.advance(task, Event.RUN, progress=1, now=task.created_at)
    if isinstance(store, PostgresStore):
        jobs = await store._db.fetch("SELECT payload FROM pgqueuer ORDER BY priority DESC")
        assert [int(row[0]) for row in jobs] == [new.id for new in news]
