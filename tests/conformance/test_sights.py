"""Whoever has read a task can ask whether it has changed since."""

import asyncio

from calotype.domain.task import State
from calotype.domain.webhooks import DeliveryState
from calotype.store.port import Sight, Store
from conformance.tasks import NOW, funded, read, submitted, taken
from conformance.test_webhooks import OWN, claimed, ended
from conformance.test_webhooks import told as webhook_told


async def seen(store: Store, task_id: int, mark: int | None = None) -> Sight:
    """A task that is not as it was at ``mark``."""
    sight = await store.task_since(task_id, mark)
    assert sight is not None
    return sight


async def test_a_task_is_read_again_only_after_it_has_changed(store: Store) -> None:
    account = await funded(store)
    task_id = await submitted(store, account)
    first = await seen(store, task_id)
    assert first.task == await read(store, task_id)
    assert first.mark is not None
    for _ in range(3):
        assert await store.task_since(task_id, first.mark) is None
    await taken(store, task_id)
    changed = await seen(store, task_id, first.mark)
    assert changed.task == await read(store, task_id) != first.task
    await store.cancel(task_id, account_id=account, now=NOW + 2)
    last = await seen(store, task_id, changed.mark)
    assert last.task is not None
    assert last.task.state is State.FAIL
    assert await store.task_since(task_id, last.mark) is None


async def test_those_who_ask_together_are_each_told_by_their_own_mark(store: Store) -> None:
    account = await funded(store)
    quiet, moved = await submitted(store, account), await submitted(store, account)
    before = await seen(store, moved)
    await taken(store, moved)
    now, still = await seen(store, moved), await seen(store, quiet)
    asked = [(moved, before.mark), (quiet, still.mark), (moved, now.mark), (moved, None)]
    told = await asyncio.gather(*(store.task_since(*one) for one in asked))
    assert told == [now, None, None, now]


async def test_a_task_that_is_not_there_is_none_at_every_mark(store: Store) -> None:
    task_id = await submitted(store, await funded(store))
    mark = (await seen(store, task_id)).mark
    assert (await seen(store, task_id + 1)).task is None
    elsewhere = await store.task_since(task_id + 1, None if mark is None else mark + 1)
    assert elsewhere is not None
    assert elsewhere.task is None


async def test_no_mark_hides_what_became_of_a_webhook(store: Store) -> None:
    task_id = await ended(store, await funded(store), callback_url=OWN)
    before = await seen(store, task_id)
    (due,) = await claimed(store)
    await webhook_told(store, due, DeliveryState.DELIVERED, status=200)
    await seen(store, task_id, before.mark)
