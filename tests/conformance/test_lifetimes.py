"""How long images are kept, and what is told of it, in every store."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import asyncpg
import msgspec
import pytest

from calotype.domain.limits import DAY_MS
from calotype.domain.task import ArrivedImage, Asset, Event, Reference, Task, result_image
from calotype.store.lifetimes import FIRST, OVER
from calotype.store.port import Store
from calotype.store.postgres import PostgresStore
from calotype.store.sqlite import SqliteStore
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


async def test_the_account_says_before_model_and_settings_how_long_images_are_kept(
    store: Store,
) -> None:
    account_id = await funded(store)
    assert await store.lifetimes.set_days(account_id, results=9, references=0)
    account = await store.account(account_id)
    assert account is not None
    assert (account.result_days, account.reference_days) == (9, 0)
    picture = await completed(store, account_id, days=3)
    assert picture.expires_at == NOW + 9 * DAY_MS
    sent = image(account_id)
    new = new_task(account_id, references=[Reference(asset_id=sent.id)], uploads=[sent])
    await store.submit(msgspec.structs.replace(new, reference_days=2))
    assert (await kept(store, sent)).expires_at is None

    assert await store.lifetimes.set_days(account_id, results=None, references=None)
    assert (await completed(store, account_id, days=3)).expires_at == NOW + 3 * DAY_MS
    assert not await store.lifetimes.set_days(account_id + 999, results=1, references=1)


async def test_what_is_expired_goes_a_batch_at_a_time_first_what_was_due_first(
    store: Store,
) -> None:
    account_id = await funded(store)
    pictures = [await completed(store, account_id, days=1, now=NOW + step) for step in (3, 1, 2)]
    forever = await completed(store, account_id, days=0)
    now, gone, after = NOW + DAY_MS + 2, list[int](), FIRST
    while True:
        batch = await store.lifetimes.expire(now=now, after=after, limit=1)
        gone += [each.id for each in batch.images]
        if batch.last is None:
            break
        after = batch.last
    assert gone == [pictures[1].id, pictures[2].id]
    ids = [forever.id, *(each.id for each in pictures)]
    assert {each.id for each in await store.assets(ids)} == {forever.id, pictures[0].id}
    assert {each.id for each in await store.gallery.doomed(limit=9)} == set(gone)
    assert set(await store.lifetimes.keys(ids)) == set(ids)
    await store.gallery.bury(gone)
    assert set(await store.lifetimes.keys(ids)) == {forever.id, pictures[0].id}
    left = await store.lifetimes.stored(limit=9)
    assert {each.id for each in left} == {forever.id, pictures[0].id}
    assert await store.lifetimes.stored(after=max(ids), limit=9) == []


async def test_an_image_stays_while_a_task_lives_that_may_name_it(store: Store) -> None:
    ada, bob = await funded(store), await funded(store, name="bob")
    old, free = await completed(store, ada, days=1), await completed(store, bob, days=1)
    due = NOW + DAY_MS
    living = await store.submit(new_task(ada, created_at=due - 1))
    await store.submit(new_task(bob, created_at=due))
    batch = await store.lifetimes.expire(now=due, limit=9)
    assert [each.id for each in batch.images] == [free.id]
    assert batch.last is not None
    assert await store.asset(old.id) == old
    await store.cancel(living.task_id, account_id=ada, now=due)
    batch = await store.lifetimes.expire(now=due, limit=9)
    assert [each.id for each in batch.images] == [old.id]
    assert (await store.lifetimes.expire(now=due, limit=9)).last is None


async def test_several_servers_take_each_image_once(store: Store) -> None:
    account_id = await funded(store, credit=99 * PRICE)
    pictures = [await completed(store, account_id, days=1) for _ in range(12)]
    rounds = [store.lifetimes.expire(now=NOW + DAY_MS, limit=50) for _ in range(8)]
    taken_ids = [each.id for one in await asyncio.gather(*rounds) for each in one.images]
    assert sorted(taken_ids) == sorted(each.id for each in pictures)


async def test_what_is_extended_while_it_is_taken_stays_whole(store: Store) -> None:
    """As a file does that a new task names: one of the two is first, and the other sees it."""
    account_id = await funded(store, credit=99 * PRICE)
    pictures = [await completed(store, account_id, days=1) for _ in range(20)]
    now = NOW + DAY_MS

    async def collect() -> set[int]:
        gone, after = set[int](), FIRST
        while (batch := await store.lifetimes.expire(now=now, after=after, limit=3)).last:
            gone |= {each.id for each in batch.images}
            after = batch.last
        return gone

    collecting = asyncio.create_task(collect())
    extended = await asyncio.gather(*(extend(store, each.id, until=now + 9) for each in pictures))
    gone = await collecting
    kept_ids = {each.id for each, is_kept in zip(pictures, extended, strict=True) if is_kept}
    assert gone.isdisjoint(kept_ids)
    assert gone | kept_ids == {each.id for each in pictures}
    ids = [each.id for each in pictures]
    assert {each.id for each in await store.assets(ids)} == kept_ids


async def test_images_that_are_held_do_not_make_the_only_writer_wait(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "calotype.db")
    await store.migrate()
    account_id = await funded(store)
    for _ in range(3):
        await completed(store, account_id, days=1)
    await store.submit(new_task(account_id))
    with closing(sqlite3.connect(tmp_path / "calotype.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        batch = await store.lifetimes.expire(now=NOW + DAY_MS, limit=2)
        assert (list(batch.images), batch.last) == ([], None)
        other.execute("ROLLBACK")
        values = (NOW + DAY_MS, *FIRST, 2)
        plan = str(other.execute(f"EXPLAIN QUERY PLAN {OVER}", values).fetchall())
        assert "USING INDEX tasks_oldest" in plan
    await store.close()


async def test_a_task_that_comes_while_an_image_is_being_marked_keeps_it(
    postgres_url: str,
) -> None:
    store = PostgresStore(postgres_url)
    await store.prepare()
    account_id = await funded(store)
    picture = await completed(store, account_id, days=1)
    living = await store.submit(new_task(account_id, created_at=NOW + DAY_MS))
    other = await asyncpg.connect(postgres_url)
    holding = other.transaction()
    await holding.start()
    await other.execute("LOCK TABLE assets IN SHARE MODE")
    marking = asyncio.create_task(store.lifetimes.expire(now=NOW + DAY_MS, limit=9))
    waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'assets'::regclass"
    async with asyncio.timeout(30):
        while await other.fetchval(waits) is None:
            await asyncio.sleep(0.01)
    await other.execute("UPDATE tasks SET created_at = $1 WHERE id = $2", NOW, living.task_id)
    await holding.commit()
    assert list((await marking).images) == []
    assert await kept(store, picture) == picture
    await other.close()
    await store.close()


EXTEND = "UPDATE assets SET expires_at = $1 WHERE id = $2 AND deleted_at IS NULL RETURNING id"


async def extend(store: Store, asset_id: int, *, until: int) -> bool:
    """Move an image's time on, unless it is gone."""
    if isinstance(store, PostgresStore):
        return bool(await store._db.fetch(EXTEND, until, asset_id))
    assert isinstance(store, SqliteStore)
    statement = EXTEND.replace("$", "?")
    return bool(await store._write(lambda db: db.execute(statement, (until, asset_id)).fetchall()))
