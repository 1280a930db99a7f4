"""Comparing the asset store with the database: files of nobody, images whose file is gone."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from calotype.assets.disk import DiskAssets
from calotype.domain.task import Asset, Event
from calotype.services.assets import asset_of, place_of
from calotype.services.orphans import AGE_MS, Orphans
from calotype.services.thumbnails import thumbnail_keys
from calotype.store.port import Store
from calotype.store.sqlite import SqliteStore
from conformance.tasks import NOW, PRICE, funded, image, submitted, taken

OLD = NOW - AGE_MS - 1


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = SqliteStore(tmp_path / "calotype.db")
    await store.migrate()
    yield store
    await store.close()


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[DiskAssets]:
    disk = DiskAssets(tmp_path / "assets")
    yield disk
    await disk.close()


def put(disk: DiskAssets, key: str, *, at: int = OLD) -> None:
    """A file of ten bytes that was last changed at a time."""
    path = disk.path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"0123456789")
    os.utime(path, ns=(at * 1_000_000, at * 1_000_000))


async def kept(store: Store, account_id: int, disk: DiskAssets | None) -> Asset:
    """An image that a task names, with its file where there is a disk for it."""
    task = await taken(store, await submitted(store, account_id))
    number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW)
    picture = named(image(account_id))
    await store.complete(task, number, images=[picture], actual=PRICE, cost=None, now=NOW)
    if disk is not None:
        put(disk, picture.key)
    return picture


def named(asset: Asset) -> Asset:
    """An image that lies where images lie."""
    key = f"results/{place_of(asset.id)}.png"
    return Asset(asset.id, asset.account_id, key, "image/png", 10, 4, 3, NOW)


async def test_files_of_nobody_and_images_without_a_file_are_found(
    store: Store, disk: DiskAssets
) -> None:
    ada = await funded(store)
    there, gone = await kept(store, ada, disk), await kept(store, ada, None)
    put(disk, thumbnail_keys(there)[0])
    lost, young, copied = (named(image(ada)) for _ in range(3))
    put(disk, lost.key)
    put(disk, thumbnail_keys(copied)[1])
    put(disk, young.key, at=NOW - 1)
    put(disk, "lost+found/notes.txt")
    orphans = Orphans(store, disk, before=NOW - AGE_MS)
    found = await orphans.compare()
    assert sorted(found.orphans.names) == sorted([lost.key, thumbnail_keys(copied)[1]])
    assert (found.orphans.count, found.orphans.bytes) == (2, 20)
    assert (found.missing.count, found.missing.names) == (1, [gone.key])
    assert (found.foreign.count, found.foreign.names) == (1, ["lost+found/notes.txt"])
    assert (found.files, found.images) == (6, 2)

    removed = await orphans.remove()
    assert (removed.count, removed.bytes) == (2, 20)
    assert (await orphans.compare()).orphans.count == 0
    for key in (there.key, thumbnail_keys(there)[0], young.key, "lost+found/notes.txt"):
        assert disk.path(key).is_file()


async def test_files_of_another_database_are_told_from_a_few_that_were_left(
    store: Store, disk: DiskAssets
) -> None:
    ada = await funded(store)
    orphans = Orphans(store, disk, before=NOW - AGE_MS)
    assert not (await orphans.compare()).is_of_strangers
    put(disk, named(image(ada)).key)
    put(disk, "lost+found/notes.txt")
    assert (await orphans.compare()).is_of_strangers, "no image, and a file"
    await kept(store, ada, disk)
    assert not (await orphans.compare()).is_of_strangers
    await kept(store, ada, None)
    assert not (await orphans.compare()).is_of_strangers, "one of two has lost its file"
    await kept(store, ada, None)
    assert (await orphans.compare()).is_of_strangers, "two of three"
    await kept(store, ada, disk)
    put(disk, named(image(ada)).key)
    assert not (await orphans.compare()).is_of_strangers
    put(disk, named(image(ada)).key)
    assert (await orphans.compare()).is_of_strangers, "three of five are nobody's"


async def test_what_is_being_deleted_is_no_orphan_and_not_missing(
    store: Store, disk: DiskAssets
) -> None:
    ada = await funded(store)
    there = await kept(store, ada, disk)
    (task,) = await store.tasks(limit=1)
    await store.gallery.delete(task.id, account_id=ada, now=NOW)
    found = await Orphans(store, disk, before=NOW - AGE_MS).compare()
    assert (found.orphans.count, found.missing.count, found.images) == (0, 0, 0)
    await disk.delete([there.key])
    found = await Orphans(store, disk, before=NOW - AGE_MS).compare()
    assert (found.orphans.count, found.missing.count) == (0, 0)


async def test_more_files_than_one_look_takes_are_compared_all(
    store: Store, disk: DiskAssets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.services.orphans._PAGE", 2)
    ada = await funded(store, credit=99 * PRICE)
    for place in range(5):
        await kept(store, ada, disk if place else None)
    for _ in range(7):
        put(disk, named(image(ada)).key)
    found = await Orphans(store, disk, before=NOW - AGE_MS).compare()
    assert (found.orphans.count, len(found.orphans.names)) == (7, 5)
    assert (found.missing.count, found.files, found.images) == (1, 11, 5)


def test_a_file_belongs_to_the_image_that_its_name_says() -> None:
    asset = named(image(1))
    for key in (asset.key, *thumbnail_keys(asset)):
        assert asset_of(key) == asset.id
    word = asset.key.partition("/")[2]
    for key in (
        f"results/0000/{word.partition('/')[2]}",
        f"others/{word}",
        f"{asset.key}.part",
        word,
        "",
    ):
        assert asset_of(key) is None
