"""What whoever develops a task looks at again and again."""

import asyncio

from calotype.domain.errors import failure
from calotype.domain.task import AttemptState, Event
from calotype.store.port import Standing, Store
from conformance.tasks import NOW, funded, submitted, taken


async def test_a_glance_tells_whose_a_task_is_and_whether_it_is_wanted(store: Store) -> None:
    account_id = await funded(store)
    task = await taken(store, await submitted(store, account_id))
    number = await store.begin_attempt(task, channel_id=7, event=Event.QUEUE, now=NOW)
    assert await store.standing(task.id) == Standing(task.claim, None, None)
    await store.cancel(task.id, account_id=account_id, now=NOW + 5)
    again = await taken(store, task.id)
    assert await store.standing(task.id) == Standing(task.claim + 1, None, NOW + 5)
    broken = failure("upstream_failed", "It broke.")
    await store.fail(again, broken, attempt=(number, AttemptState.FAILED), now=NOW + 9)
    ended, none = await asyncio.gather(store.standing(task.id), store.standing(task.id + 1))
    assert (ended, none) == (Standing(again.claim, NOW + 9, NOW + 5), None)
