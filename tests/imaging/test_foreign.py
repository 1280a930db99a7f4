"""GIF, AVIF and HEIC: judged by their headers, converted by decoders that are kept apart."""

import io
import random
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from PIL import Image

from calotype.assets.disk import DiskAssets
from calotype.domain.clock import system_clock
from calotype.domain.errors import InvalidRequest, ReferenceTooLarge, UnsupportedReferenceType
from calotype.domain.ids import IdSource
from calotype.domain.task import Asset
from calotype.imaging.colours import matrix_profile
from calotype.imaging.foreign import converted_types, judge_foreign, sniff_foreign
from calotype.services.assets import Assets

pillow_heif.register_heif_opener()
KINDS = ("GIF", "AVIF", "HEIF")
P3 = matrix_profile(0.45455, (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06))


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (64, 48), **save: Any) -> bytes:
    colour: Any = (200, 40, 40) if mode == "RGB" else (200, 40, 40, 0)
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, kind, **save)
    return out.getvalue()


class Shelf:
    """Takes images in."""

    def __init__(self, root: Path) -> None:
        self.disk = DiskAssets(root)
        self.assets = Assets(
            *(self.disk,),
            secret=b"secret",
            url_seconds=60,
            ids=IdSource(system_clock),
            clock=system_clock,
        )

    async def keep(self, data: bytes, **how: Any) -> Asset:
        async def chunks() -> AsyncIterator[bytes]:
            for at in range(0, len(data), 10_000):
                yield data[at : at + 10_000]

        asked: dict[str, Any] = {"kind": "reference", "max_bytes": 10_000_000} | how
        kept = await self.assets.keep(chunks(), account_id=1, **asked)
        return kept.asset

    def image(self, asset: Asset) -> Image.Image:
        path = self.disk.path(asset.key)
        assert path.stat().st_size == asset.bytes
        with Image.open(path) as image:
            image.load()
            assert image.size == (asset.width, asset.height)
            assert Image.MIME[image.format or ""] == asset.content_type
            return image

    def files(self) -> list[Path]:
        return [
            path for path in self.disk.path("").rglob("*") if path.is_file() and path.name != "lock"
        ]


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    made = Shelf(tmp_path / "assets")
    yield made
    await made.assets.converter.close()
    await made.disk.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_reference_of_another_type_becomes_a_jpeg(shelf: Shelf, kind: str) -> None:
    asset = await shelf.keep(encoded(kind))
    assert (asset.content_type, asset.key[-4:]) == ("image/jpeg", ".jpg")
    image = shelf.image(asset)
    assert image.size == (64, 48)
    pixel = image.getpixel((9, 9))
    assert isinstance(pixel, tuple)
    assert all(abs(a - b) < 12 for a, b in zip(pixel, (200, 40, 40), strict=True))
    assert len(shelf.files()) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_one_that_can_be_seen_through_becomes_a_png(shelf: Shelf, kind: str) -> None:
    image = shelf.image(await shelf.keep(encoded(kind, "RGBA")))
    assert image.format == "PNG"
    assert image.convert("RGBA").getchannel("A").getextrema() == (0, 0)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
async def test_its_profile_comes_along(shelf: Shelf, kind: str) -> None:
    image = shelf.image(await shelf.keep(encoded(kind, icc_profile=P3)))
    assert image.info["icc_profile"] == P3


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
async def test_it_is_stored_upright_without_what_it_says_of_itself(shelf: Shelf, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "ada"
    asset = await shelf.keep(encoded(kind, exif=exif.tobytes()))
    assert (asset.width, asset.height) == (48, 64)
    assert not shelf.image(asset).getexif()


async def test_the_model_says_what_it_becomes(shelf: Shelf) -> None:
    data = encoded("GIF")
    assert (await shelf.keep(data, content_types=("image/png",))).content_type == "image/png"
    assert (await shelf.keep(data, content_types=("image/webp",))).content_type == "image/webp"
    clear = await shelf.keep(encoded("GIF", "RGBA"), content_types=("image/jpeg", "image/webp"))
    assert clear.content_type == "image/webp"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", ["image/png", "image/jpeg", "image/webp"])
async def test_a_result_of_another_type_becomes_what_was_asked_for(
    shelf: Shelf, kind: str, wanted: str
) -> None:
    asset = await shelf.keep(encoded(kind), kind="result", wanted=wanted)
    assert asset.content_type == wanted
    shelf.image(asset)


async def test_of_an_animation_the_first_picture_is_kept(shelf: Shelf) -> None:
    rest = [Image.new("RGB", (64, 48), colour) for colour in ("lime", "blue")]
    for kind in ("GIF", "AVIF"):
        data = encoded(kind, save_all=True, append_images=rest, duration=100)
        pixel = shelf.image(await shelf.keep(data)).getpixel((5, 5))
        assert isinstance(pixel, tuple)
        assert pixel[0] > 180
        assert pixel[1] < 60


async def test_what_is_stored_has_no_more_bytes_than_the_model_takes(shelf: Shelf) -> None:
    out = io.BytesIO()
    Image.effect_noise((512, 512), 200).save(out, "AVIF", quality=20)
    with pytest.raises(ReferenceTooLarge, match="Made JPEG, as which it is stored"):
        await shelf.keep(out.getvalue(), max_bytes=len(out.getvalue()))
    assert shelf.files() == []


async def test_without_its_library_heic_is_refused_with_what_would_be_right(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert converted_types() == ("image/gif", "image/avif")
    with pytest.raises(UnsupportedReferenceType) as refused:
        await shelf.keep(encoded("HEIF"))
    assert refused.value.message == (
        "The file is image/heic, which this server cannot read; send JPEG, PNG, WEBP, GIF, AVIF."
    )


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def boxed(width: int, height: int, *, brand: bytes = b"avif") -> bytes:
    """The header of an image that says it has these sides."""
    size = box(b"ispe", struct.pack(">III", 0, width, height))
    meta = box(b"meta", bytes(4) + box(b"iprp", box(b"ipco", size)))
    return box(b"ftyp", brand + bytes(4) + brand) + meta


def gif_of(width: int, height: int, *, picture: tuple[int, int] = (1, 1)) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)
    return screen + struct.pack("<BHHHHB", 0x2C, 0, 0, *picture, 0) + b"\x02\x02\x4c\x01\x00;"


@pytest.mark.parametrize(
    "bomb",
    [
        gif_of(65_535, 65_535),
        gif_of(1, 1, picture=(65_535, 65_535)),
        gif_of(20_000, 20_000),
        boxed(65_536, 65_536),
        boxed(20_000, 20_000, brand=b"heic"),
        boxed(30_001, 1, brand=b"mif1"),
    ],
)
async def test_a_bomb_is_refused_before_a_pixel_is_decoded(shelf: Shelf, bomb: bytes) -> None:
    with pytest.raises(ReferenceTooLarge, match="pixels"):
        await shelf.keep(bomb)
    assert not shelf.assets.converter._processes._idle
    assert shelf.files() == []


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a" + bytes(10),
        b"GIF89a" + bytes(7) + b"\x21\xfe" + b"\xffcomment" * 100,
        b"GIF89a" + bytes(7) + b"\x21\xfe" + b"\x01x" * 100_000,
        gif_of(0, 0, picture=(0, 0)),
        boxed(0, 5),
        boxed(5, 5)[:-8],
        box(b"ftyp", b"avif" + bytes(8)),
        box(b"ftyp", b"heic" + bytes(8)) + box(b"free", b"") * 100_000,
        box(b"ftyp", b"heic" + bytes(8)) + struct.pack(">I4sQ", 1, b"meta", 3),
        boxed(64, 48),
        boxed(64, 48, brand=b"heic"),
        encoded("GIF")[:60],
        encoded("AVIF")[:-30],
        encoded("HEIF")[:-30],
    ],
)
async def test_a_damaged_one_is_refused_and_leaves_nothing(shelf: Shelf, data: bytes) -> None:
    with pytest.raises(UnsupportedReferenceType) as refused:
        await shelf.keep(data)
    assert any(word in refused.value.message for word in ("damaged", "cut short"))
    assert shelf.files() == []


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_the_header_says_the_work_is_bounded(kind: str, tmp_path: Path) -> None:
    chance, whole, path = random.Random(7), encoded(kind), tmp_path / "image"  # noqa: S311 -- repeatable on purpose
    for _ in range(500):
        data = bytearray(whole[: chance.randrange(16, len(whole))])
        for _ in range(chance.randrange(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        found = sniff_foreign(bytes(data[:16]))
        if found is not None:
            with suppress(InvalidRequest):
                judge_foreign(str(path), found)
