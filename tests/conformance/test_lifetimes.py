"""How long images are kept, and what is told of it, in every store."""

import msgspec
import pytest

from calotype.domain.limits import DAY_MS
from calotype.domain.task import ArrivedImage, Asset, Event, Reference, Task, result_image
from calotype.store.port import Store
from conformance.tasks import NOW, PRICE, funded, image, new_task, read, submitted, taken

ABANDON = NOW + 2000


async def begun(store: Store, account_id: int) -> tuple[Task, int]:
    task = await taken(store, await submitted(store, account_id))
    number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW + 2)
    return task, number


async def completed(store: Store, account_id: int, *, days: int, now: int = NOW) -> Asset:
    """The image of a task that ended."""
    task, number = await begun(store, account_id)
    picture = image(account_id)
    await store.complete(
        task, number, images=[picture], actual=PRICE, cost=None, now=now, days=days
    )
    return await kept(store, picture)


async def kept(store: Store, asset: Asset) -> Asset:
    found = await store.asset(asset.id)
    assert found is not None
    return found


def arrived(asset: Asset, place: int) -> ArrivedImage:
    return ArrivedImage(asset.id, asset.content_type, asset.width, asset.height, asset.bytes, place)


@pytest.mark.parametrize(("days", "expected"), [(3, NOW + 3 * DAY_MS), (0, None)])
async def test_a_task_that_succeeds_says_when_its_images_go(
    store: Store, days: int, expected: int | None
) -> None:
    account_id = await funded(store)
    task, number = await begun(store, account_id)
    picture = image(account_id)
    assert task.expires_at is None
    await store.complete(
        task, number, images=[picture], actual=PRICE, cost=None, now=NOW, days=days
    )
    assert (await read(store, task.id)).expires_at == expected
    assert (await kept(store, picture)).expires_at == expected


async def test_images_that_came_early_outlive_their_task_and_go_with_the_others(
    store: Store,
) -> None:
    account_id = await funded(store)
    task, number = await begun(store, account_id)
    early, late = image(account_id), image(account_id)
    await store.keep_arrived(
        task, [arrived(early, 0)], images=[early], progress=50, now=NOW + 3, days=3
    )
    assert (await kept(store, early)).expires_at == ABANDON + 3 * DAY_MS
    await store.complete(
        task,
        number,
        images=[late],
        actual=PRICE,
        cost=None,
        now=NOW + 9,
        result=[result_image(early), result_image(late)],
        days=3,
    )
    until = {each.expires_at for each in await store.assets([early.id, late.id])}
    assert until == {NOW + 9 + 3 * DAY_MS} == {(await read(store, task.id)).expires_at}


async def test_references_are_kept_from_when_their_task_is_over_at_the_latest(
    store: Store,
) -> None:
    account_id = await funded(store)
    sent, fetched = image(account_id), image(account_id)
    new = new_task(
        account_id,
        references=[Reference(asset_id=sent.id), Reference(url="https://a.test/b.png")],
        uploads=[sent],
    )
    new = msgspec.structs.replace(new, reference_days=2, metadata={"a": "b"})
    await store.submit(new)
    task = await taken(store, new.id)
    filled = (new.references[0], Reference("https://a.test/b.png", fetched.id))
    await store.keep_references(task, filled, [fetched], days=2)
    until = {each.expires_at for each in await store.assets([sent.id, fetched.id])}
    assert until == {ABANDON + 2 * DAY_MS}
