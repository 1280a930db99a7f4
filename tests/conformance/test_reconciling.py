"""What the reconciler charges for a task that no worker comes to."""

import pytest

from calotype.domain.task import Event, State
from calotype.store.postgres import PostgresStore
from calotype.store.postgres.reconciliation import FORSAKEN_MS, PATIENCE_MS
from conformance.tasks import NOW, funded, image, read, submitted, taken
from conformance.test_cancelling import arrived


@pytest.mark.parametrize(("is_cancelled", "paid"), [(False, 7), (True, 0)])
async def test_it_is_the_price_of_what_came_and_nothing_for_a_cancelled_one(
    postgres_url: str, paid: int, *, is_cancelled: bool
) -> None:
    store = PostgresStore(postgres_url)
    account_id = await funded(store)
    task = await taken(store, await submitted(store, account_id))
    await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW)
    picture = image(account_id)
    kept = [arrived(picture, 0)]
    await store.keep_arrived(task, kept, images=[picture], progress=50, now=NOW)
    if is_cancelled:
        await store.cancel(task.id, account_id=account_id, now=NOW)
    late = task.abandon_at + PATIENCE_MS + FORSAKEN_MS + 1
    done = await store.reconcile(
        now=late, price=lambda _task, count: 7 * count, days=lambda _model: 0
    )
    assert done is not None
    assert done.ended == 1
    after = await read(store, task.id)
    assert (after.state is State.SUCCESS, after.actual) == (not is_cancelled, paid)
    assert await store.prove() == []
    await store.close()
