"""What every store of images does: the folder, and S3 as a real server speaks it."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from calotype.assets.address import Bucket, parse
from calotype.assets.cloud import PART, CloudAssets
from calotype.assets.disk import DiskAssets
from calotype.assets.port import AssetStore
from calotype.assets.staging import GATHERED
from calotype.domain.errors import AssetNotFound, Unavailable
from harness import until
from s3 import S3Server

PLACE = "results/1k0v/asset_1k0v3m9d5b8qe.png"
OTHER = "references/1k0v/asset_1k0v3m9d5b8qf.jpg"
COPY = "thumbnails/1k0v/asset_1k0v3m9d5b8qe-320.webp"


@pytest_asyncio.fixture(params=["disk", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AssetStore]:
    made: AssetStore
    if request.param == "disk":
        made = DiskAssets(tmp_path / "assets")
    else:
        server: S3Server = request.getfixturevalue("s3")
        bucket = parse(server.url())
        assert isinstance(bucket, Bucket)
        made = CloudAssets(bucket, staging=tmp_path / "staging", signs=True)
    await made.prepare()
    yield made
    await made.close()


async def keep(store: AssetStore, data: bytes, key: str = PLACE) -> None:
    async with store.stage() as staged:
        for start in range(0, len(data), 100_000):
            await staged.write(data[start : start + 100_000])
        await staged.publish(key, content_type="image/png")


async def read(store: AssetStore, key: str = PLACE, **span: int) -> bytes:
    async with store.open(key, **span) as chunks:
        return b"".join([chunk async for chunk in chunks])


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]


def staging_in(folder: Path) -> Path:
    disk = folder / "assets" / "incoming"
    return disk if disk.exists() else folder / "staging"


@pytest.mark.parametrize(
    "size", [0, 1, GATHERED, GATHERED + 1, PART - 1, PART, PART + 1, 2 * PART + 7]
)
async def test_an_image_of_any_size_comes_back_as_it_was_published(
    store: AssetStore, size: int
) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    await keep(store, data)
    assert await read(store) == data
    assert await store.holds(PLACE)


async def test_a_part_is_read_from_start_up_to_stop(store: AssetStore) -> None:
    data = bytes(range(256)) * 40
    await keep(store, data)
    for start, stop in ((0, 1), (0, 10_240), (5, 300), (10_239, 10_240), (10_000, 99_999)):
        assert await read(store, start=start, stop=stop) == data[start:stop]
    assert await read(store, start=300) == data[300:]
    assert await read(store, start=10_240) == b""
    assert await read(store, start=7, stop=7) == b""


async def test_what_was_never_published_is_not_there(store: AssetStore, tmp_path: Path) -> None:
    async with store.stage() as staged:
        await staged.write(b"an image")
        path = await staged.finish()
        assert path.read_bytes() == b"an image"
    assert files(tmp_path) == []
    assert not await store.holds(PLACE)
    with pytest.raises(AssetNotFound):
        await read(store)
    with pytest.raises(AssetNotFound):
        async with store.file(PLACE):
            raise AssertionError
    assert [page async for page in store.walk()] in ([], [[]])


async def test_a_file_holds_the_image_while_it_is_asked_for(
    store: AssetStore, tmp_path: Path
) -> None:
    await keep(store, b"an image")
    before = files(tmp_path)
    async with store.file(PLACE) as path:
        assert path.read_bytes() == b"an image"
    assert files(tmp_path) == before


async def test_every_image_is_walked_by_with_its_size_and_time(store: AssetStore) -> None:
    for key, size in ((PLACE, 1), (OTHER, 22), (COPY, 333)):
        await keep(store, b"x" * size, key)
    async with store.stage() as staged:
        await staged.write(b"not yet")
        await store.ping()
        found = [each async for page in store.walk() for each in page]
    assert {each.key: each.size for each in found} == {PLACE: 1, OTHER: 22, COPY: 333}
    assert all(each.modified_at > 1_700_000_000_000 for each in found)


async def test_images_are_deleted_whether_they_are_there_or_not(store: AssetStore) -> None:
    await keep(store, b"one")
    await keep(store, b"two", OTHER)
    await store.delete([])
    await store.delete([COPY, PLACE, "results/none/asset_0.png"])
    assert not await store.holds(PLACE)
    assert await read(store, OTHER) == b"two"
    await store.delete([PLACE])


async def test_publishing_again_puts_the_new_image_in_its_place(store: AssetStore) -> None:
    await keep(store, b"first")
    await keep(store, b"second one")
    assert await read(store) == b"second one"


async def test_an_image_that_is_given_up_takes_none_with_it_that_is_published_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs, may_sync, sync = list[int](), threading.Semaphore(0), os.fdatasync

    def wait_and_sync(descriptor: int) -> None:
        syncs.append(descriptor)
        may_sync.acquire()
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", wait_and_sync)
    store = DiskAssets(tmp_path / "assets")
    first = asyncio.create_task(keep(store, b"first"))
    await until(lambda: len(syncs) == 1)
    beside = asyncio.create_task(keep(store, b"beside", OTHER))
    given_up = asyncio.create_task(keep(store, b"given up", COPY))
    await asyncio.sleep(0)  # both wait for the next trip
    may_sync.release()
    await until(lambda: len(syncs) == 2)
    for _ in range(3):
        given_up.cancel()
        await asyncio.sleep(0)
    may_sync.release(2)
    results = await asyncio.gather(first, beside, given_up, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), type(None), asyncio.CancelledError]
    assert await read(store, OTHER) == b"beside"
    await store.close()


async def test_what_a_killed_process_left_staged_is_swept_and_nothing_else(
    store: AssetStore, tmp_path: Path
) -> None:
    left = staging_in(tmp_path) / "0123456789abcdef"
    left.mkdir(parents=True)
    (left / "lock").touch()
    (left / "half").write_bytes(b"half an image")
    await keep(store, b"an image")
    async with store.stage() as staged:
        await staged.write(b"being written")
        assert await store.sweep() == 1
        await staged.publish(OTHER, content_type="image/jpeg")
    assert not left.exists()
    assert await read(store, OTHER) == b"being written"
    assert await read(store) == b"an image"


async def test_what_waits_together_is_published_together_and_fails_alone(tmp_path: Path) -> None:
    root = tmp_path / "assets"
    store = DiskAssets(root)
    await keep(store, b"the first")
    (root / "blocked").touch()
    keys = [f"results/{number % 3}/{number}.png" for number in range(100)]
    done = await asyncio.gather(
        *(keep(store, key.encode(), key) for key in [*keys, "blocked/in/the.png"]),
        return_exceptions=True,
    )
    assert done[:-1] == [None] * len(keys)
    assert isinstance(done[-1], Unavailable)
    for key in keys:
        assert await read(store, key) == key.encode()
    await store.close()
    assert files(root / "incoming") == []


async def test_one_that_is_given_up_while_it_is_published_leaves_nothing_staged(
    tmp_path: Path,
) -> None:
    store = DiskAssets(tmp_path / "assets")
    keeping = [asyncio.create_task(keep(store, b"image", f"results/a/{n}.png")) for n in range(20)]
    await asyncio.sleep(0)
    for each in keeping:
        each.cancel()
    await asyncio.gather(*keeping, return_exceptions=True)
    assert files(tmp_path / "assets" / "incoming") == []
    await keep(store, b"an image")
    assert await read(store) == b"an image"
    await store.close()


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from calotype.assets.disk import DiskAssets

async def main() -> None:
    async with DiskAssets(Path(sys.argv[1])).stage() as staged:
        await staged.write(b"an image")
        staged.flush()
        staged.sync()
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_process_killed_between_writing_and_naming_leaves_what_is_swept(
    tmp_path: Path,
) -> None:
    root = tmp_path / "assets"
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, root)
    assert await killed.wait() == -signal.SIGKILL
    store = DiskAssets(root)
    assert len(files(root)) == 1
    assert [page async for page in store.walk()] in ([], [[]])
    assert await store.sweep() == 1
    assert files(root) == []
    await store.close()
