"""Uploads that become files, or find the file of the same bytes, while something goes wrong."""

import asyncio

import pytest

from calotype.domain.errors import Unavailable
from calotype.domain.task import Asset
from calotype.services.assets import Kept
from calotype.services.deleting import Deleting
from calotype.services.files import Files
from calotype.store.files import NewFile
from services.bench import Bench
from services.test_running import upload


def files_of(bench: Bench) -> Files:
    deleting = Deleting(bench.store, bench.disk, clock=bench.clock)
    return Files(bench.store, bench.assets, deleting=deleting, reference_days=2, clock=bench.clock)


async def test_a_file_keeps_its_bytes_when_its_upload_is_cut_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, add = await upload(bench), bench.store.files.add

    async def cut_off(new: NewFile, *, now: int) -> Asset:
        await add(new, now=now)
        raise asyncio.CancelledError

    monkeypatch.setattr(bench.store.files, "add", cut_off)
    with pytest.raises(asyncio.CancelledError):
        await files_of(bench).add(Kept(image, b"digest"))
    assert await bench.disk.holds(image.key)


async def test_nothing_stays_of_an_upload_when_the_older_file_cannot_be_looked_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, holds = files_of(bench), bench.disk.holds
    await files.add(Kept(await upload(bench), b"digest"))
    again = await upload(bench)

    async def away(key: str) -> bool:
        raise Unavailable(key)

    monkeypatch.setattr(bench.disk, "holds", away)
    with pytest.raises(Unavailable):
        await files.add(Kept(again, b"digest"))
    assert not await holds(again.key)


async def test_of_two_uploads_that_find_the_file_without_its_bytes_both_get_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(bench)
    lost = (await files.add(Kept(await upload(bench), b"digest"))).file

    async def not_there(key: str) -> bool:
        """The other upload sees it first."""
        assert key == lost.key
        await bench.store.files.mark(lost.id, account_id=lost.account_id, now=bench.clock.now)
        return False

    monkeypatch.setattr(bench.disk, "holds", not_there)
    uploaded = await files.add(Kept(await upload(bench), b"digest"))
    assert uploaded.is_new
    assert uploaded.file.id != lost.id
