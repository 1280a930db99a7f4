"""Small copies are made once, upright, no larger than their image, and never half."""

import asyncio
import io
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import ExifTags, Image, ImageCms

from calotype.assets.disk import DiskAssets
from calotype.domain.clock import system_clock
from calotype.domain.errors import AssetNotFound, Unavailable
from calotype.domain.ids import IdSource
from calotype.domain.task import Asset
from calotype.imaging.conversion import Converter
from calotype.services.assets import Assets
from calotype.services.thumbnails import WIDTHS, Thumbnails, thumbnail_keys
from harness import until


@pytest.fixture
def disk(tmp_path: Path) -> DiskAssets:
    return DiskAssets(tmp_path / "assets")


@pytest.fixture
async def thumbnails(disk: DiskAssets) -> AsyncIterator[Thumbnails]:
    made = Thumbnails(disk)
    yield made
    await made.close()
    await made.converter.close()
    await disk.close()


def encoded(image: Image.Image, kind: str, **save: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **save)
    return out.getvalue()


def halves(size: tuple[int, int] = (1600, 400)) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, "red")
    image.paste("blue", (size[0] // 2, 0, *size))
    return image


def colour(image: Image.Image, x: int) -> str:
    """What colour a place near the top is, by and large."""
    pixel = image.getpixel((x, 1))
    assert isinstance(pixel, tuple)
    low, high = 60, 180
    bright = [
        name for name, value in zip(("red", "green", "blue"), pixel, strict=False) if value > high
    ]
    assert all(value > high or value < low for value in pixel[:3]), pixel
    return " ".join(bright)


async def stored(disk: DiskAssets, data: bytes) -> Asset:
    """An image as the server keeps it."""

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    assets = Assets(
        disk, secret=b"secret", url_seconds=60, ids=IdSource(system_clock), clock=system_clock
    )
    kept = await assets.keep(chunks(), account_id=1, kind="result", max_bytes=len(data))
    return kept.asset


async def path_of(thumbnails: Thumbnails, asset: Asset, width: int) -> Path:
    """The file of a copy, made if need be."""
    path = thumbnails._store.path(await thumbnails.key_of(asset, width))
    assert path is not None
    return path


def files(disk: DiskAssets) -> list[Path]:
    """Every copy that is kept, and whatever is staged."""
    found = [*disk.path("thumbnails").rglob("*"), *disk.path("incoming").rglob("*")]
    return [path for path in found if path.is_file() and path.name != "lock"]


@pytest.mark.parametrize("width", WIDTHS)
async def test_a_copy_is_a_webp_of_the_width_asked_for(
    disk: DiskAssets, thumbnails: Thumbnails, width: int
) -> None:
    asset = await stored(disk, encoded(halves(), "PNG"))
    path = await path_of(thumbnails, asset, width)
    with Image.open(path) as small:
        assert (small.format, small.size) == ("WEBP", (width, width // 4))
        assert colour(small, 1) == "red"
        assert colour(small, width - 2) == "blue"


async def test_a_copy_is_never_larger_than_its_image(
    disk: DiskAssets, thumbnails: Thumbnails
) -> None:
    asset = await stored(disk, encoded(halves((200, 300)), "JPEG"))
    for width, expected in ((160, (160, 240)), (320, (200, 300)), (1280, (200, 300))):
        with Image.open(await path_of(thumbnails, asset, width)) as small:
            assert small.size == expected


async def test_twenty_who_ask_at_once_get_one_copy_that_was_made_once(
    disk: DiskAssets, thumbnails: Thumbnails
) -> None:
    asset = await stored(disk, encoded(halves(), "PNG"))
    asking = [asyncio.create_task(path_of(thumbnails, asset, 320)) for _ in range(20)]
    await until(lambda: len(thumbnails._making) == 1)
    asking.pop().cancel()  # who goes away stops it for nobody
    paths = set(await asyncio.gather(*asking))
    assert len(paths) == 1
    (path,) = paths
    made_at = path.stat().st_mtime_ns
    assert await path_of(thumbnails, asset, 320) == path
    assert path.stat().st_mtime_ns == made_at
    assert files(disk) == [path]


@pytest.mark.parametrize(
    ("kind", "orientation"), [*(("JPEG", each) for each in range(1, 9)), ("WEBP", 6), ("PNG", 5)]
)
async def test_a_copy_is_upright_and_tells_nothing_of_where_it_was_taken(
    disk: DiskAssets, thumbnails: Thumbnails, kind: str, orientation: int
) -> None:
    upright = halves((800, 200))
    undone = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "ada"
    lying = upright if undone is None else upright.transpose(undone)
    asset = await stored(disk, encoded(lying, kind, exif=exif))
    with Image.open(await path_of(thumbnails, asset, 160)) as small:
        assert small.size == (160, 40)
        assert colour(small, 1) == "red"
        assert not small.getexif()
        assert set(small.info) <= {"loop", "background", "timestamp", "duration"}


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16"])
async def test_every_kind_of_picture_has_a_copy(
    disk: DiskAssets, thumbnails: Thumbnails, mode: str
) -> None:
    if mode == "I;16":
        image = Image.new(mode, (640, 320), 65_000)
    else:
        image = Image.new("RGBA", (640, 320), (255, 255, 255, 255)).convert(mode)
    asset = await stored(disk, encoded(image, "PNG"))
    with Image.open(await path_of(thumbnails, asset, 160)) as small:
        assert small.size == (160, 80)
        grey = small.convert("L").getpixel((80, 40))
        assert grey == pytest.approx(255, abs=5)


async def test_what_can_be_seen_through_stays_so(disk: DiskAssets, thumbnails: Thumbnails) -> None:
    asset = await stored(disk, encoded(Image.new("RGBA", (640, 320), (0, 0, 0, 0)), "PNG"))
    with Image.open(await path_of(thumbnails, asset, 160)) as small:
        assert small.getpixel((80, 40)) == (0, 0, 0, 0)


async def test_a_colour_profile_is_worked_in_and_a_broken_one_left_alone(
    disk: DiskAssets, thumbnails: Thumbnails
) -> None:
    image = Image.new("RGB", (640, 320), (200, 30, 30))
    sound = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (sound, b"no profile at all" * 10):
        asset = await stored(disk, encoded(image, "JPEG", icc_profile=profile))
        with Image.open(await path_of(thumbnails, asset, 160)) as small:
            assert "icc_profile" not in small.info
            assert colour(small, 80) == "red"


async def test_a_damaged_image_has_none_and_leaves_nothing_behind(
    disk: DiskAssets, thumbnails: Thumbnails
) -> None:
    asset = await stored(disk, encoded(halves(), "PNG"))
    disk.path(asset.key).write_bytes(encoded(halves(), "PNG")[:400])
    asking = (path_of(thumbnails, asset, 160) for _ in range(5))
    for outcome in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(outcome, AssetNotFound)
        assert "damaged" in outcome.message
    assert files(disk) == []


class Counting(Converter):
    """Counts what it is asked for; the first ``broken`` of them cannot be written."""

    def __init__(self, *, broken: int = 0) -> None:
        super().__init__()
        self.asked = 0
        self._broken = broken

    async def shrink(self, source: Path, target: Path, width: int, *, account_id: int) -> None:
        self.asked += 1
        nowhere = target / "nowhere" if self.asked <= self._broken else target
        await super().shrink(source, nowhere, width, account_id=account_id)


async def test_a_damaged_image_is_tried_once(disk: DiskAssets, thumbnails: Thumbnails) -> None:
    asset = await stored(disk, encoded(halves(), "PNG"))
    disk.path(asset.key).write_bytes(encoded(halves(), "PNG")[:400])
    thumbnails.converter = counting = Counting()
    for width in (160, 160, 320):
        with pytest.raises(AssetNotFound, match="damaged"):
            await path_of(thumbnails, asset, width)
    assert counting.asked == 1
    await disk.delete([asset.key])
    with pytest.raises(AssetNotFound, match="no longer stored"):
        await path_of(thumbnails, asset, 160)


async def test_few_damaged_images_are_remembered(
    disk: DiskAssets, thumbnails: Thumbnails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.services.thumbnails._DAMAGED_KEPT", 1)
    thumbnails.converter = counting = Counting()
    one, other = [await stored(disk, encoded(halves(), "PNG")) for _ in range(2)]
    for asset in (one, other):
        disk.path(asset.key).write_bytes(b"")
    for asset in (one, other, other, one):
        with pytest.raises(AssetNotFound, match="damaged"):
            await path_of(thumbnails, asset, 160)
    assert counting.asked == 3


async def test_what_could_not_be_written_is_tried_again(
    disk: DiskAssets, thumbnails: Thumbnails
) -> None:
    asset = await stored(disk, encoded(halves(), "PNG"))
    thumbnails.converter = counting = Counting(broken=1)
    with pytest.raises(Unavailable):
        await path_of(thumbnails, asset, 160)
    assert (await path_of(thumbnails, asset, 160)).is_file()
    assert counting.asked == 2


@pytest.mark.parametrize("orientation", [1, 6])
async def test_a_copy_is_never_higher_than_its_format_can_be(
    disk: DiskAssets, thumbnails: Thumbnails, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    lying = (20_000, 100) if orientation == 6 else (100, 20_000)
    asset = await stored(disk, encoded(Image.new("RGB", lying), "PNG", exif=exif))
    with Image.open(await path_of(thumbnails, asset, 320)) as small:
        assert small.size == (82, 16_383)


async def test_an_account_with_many_to_make_keeps_no_other_waiting_for_all_of_them(
    disk: DiskAssets, thumbnails: Thumbnails
) -> None:
    data = encoded(halves(), "PNG")
    images = [await stored(disk, data) for _ in range(12)]
    theirs = msgspec.structs.replace(await stored(disk, data), account_id=2)
    asking = [asyncio.create_task(path_of(thumbnails, asset, 160)) for asset in images]
    await until(lambda: bool(files(disk)))
    await path_of(thumbnails, theirs, 160)
    assert not all(task.done() for task in asking)
    await asyncio.gather(*asking)


async def test_only_the_widths_that_there_are_can_be_asked_for(
    disk: DiskAssets, thumbnails: Thumbnails
) -> None:
    asset = await stored(disk, encoded(halves(), "PNG"))
    with pytest.raises(AssetNotFound, match="160, 320, 640, 1280"):
        await path_of(thumbnails, asset, 161)


async def test_an_image_that_goes_while_its_copy_is_made_takes_the_copy_with_it(
    disk: DiskAssets, thumbnails: Thumbnails
) -> None:
    asset = await stored(disk, encoded(halves((8000, 6000)), "JPEG"))
    asking = asyncio.create_task(path_of(thumbnails, asset, 160))
    await until(lambda: bool(files(disk)))  # it is staged: its process is about to begin
    await disk.delete([asset.key])
    await disk.delete(thumbnail_keys(asset))
    with pytest.raises(AssetNotFound, match="no longer stored"):
        await asking
    assert files(disk) == []


_KILLED = """
import asyncio, os, sys
from pathlib import Path
from calotype.assets.disk import DiskAssets
from calotype.domain.task import Asset
from calotype.imaging.conversion import Converter
from calotype.services.thumbnails import Thumbnails

class Dying(Converter):
    async def shrink(self, source, target, width, *, account_id):
        target.write_bytes(b"half of it")
        os.kill(os.getpid(), 9)

async def main(root, *asset):
    thumbnails = Thumbnails(DiskAssets(Path(root)))
    thumbnails.converter = Dying()
    await thumbnails.key_of(Asset(int(asset[0]), 1, asset[1], "image/png", 1, 1, 1, 1), 160)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_process_that_is_killed_in_between_leaves_nothing_half(
    disk: DiskAssets, thumbnails: Thumbnails
) -> None:
    asset = await stored(disk, encoded(halves(), "PNG"))
    root = disk.path("")
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _KILLED, str(root), str(asset.id), asset.key
    )
    assert await killed.wait() == -9
    assert [path.read_bytes() for path in files(disk)] == [b"half of it"]
    assert not any(disk.path(key).exists() for key in thumbnail_keys(asset))
    assert await disk.sweep() == 1
    with Image.open(await path_of(thumbnails, asset, 160)) as small:
        assert small.size == (160, 40)
    assert len(files(disk)) == 1
