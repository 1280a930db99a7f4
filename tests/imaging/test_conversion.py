"""Colours, alpha and orientation of an image are what they were, whatever format it becomes."""

import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from calotype.imaging.colours import matrix_profile
from calotype.imaging.conversion import Converter, NotConvertible

PNG, JPEG, WEBP = "image/png", "image/jpeg", "image/webp"
P3_POINTS = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


class Bench:
    """Converts one image at a time."""

    def __init__(self, folder: Path, converter: Converter) -> None:
        self._source, self._target = folder / "source", folder / "target"
        self.converter = converter

    async def converted(
        self, data: "bytes | Image.Image", content_type: str, kind: str = "PNG", **save: Any
    ) -> Image.Image:
        if isinstance(data, bytes):
            self._source.write_bytes(data)
        else:
            data.save(self._source, kind, **save)
        made = await self.converter.convert(self._source, self._target, content_type, account_id=1)
        assert made == content_type
        with Image.open(self._target) as image:
            assert Image.MIME[image.format or ""] == content_type
            image.load()
            return image


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    converter = Converter(1)
    yield Bench(tmp_path, converter)
    await converter.close()


def near(pixel: Any, expected: tuple[int, ...], within: int = 4) -> bool:
    """Whether a pixel is by and large what it should be."""
    assert isinstance(pixel, tuple)
    return all(abs(a - b) <= within for a, b in zip(pixel, expected, strict=True))


def seen(image: Image.Image) -> Any:
    """The first pixel of an image as a screen of sRGB shows it."""
    profile = image.info.get("icc_profile")
    if profile:
        own = ImageCms.getOpenProfile(_file(profile))
        srgb = ImageCms.createProfile("sRGB")
        turned = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
        assert turned is not None
        return turned.getpixel((0, 0))
    return image.convert("RGB").getpixel((0, 0))


def _file(data: bytes) -> Any:
    import io

    return io.BytesIO(data)


def with_chunks(png: Path, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with chunks put in after its header."""
    data = png.read_bytes()
    more = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return data[:33] + more + data[33:]


@pytest.mark.parametrize("target", [JPEG, WEBP])
async def test_a_profile_stays_with_its_image_byte_for_byte(bench: Bench, target: str) -> None:
    profile = matrix_profile(0.45455, P3_POINTS)
    image = await bench.converted(
        Image.new("RGB", (16, 16), (200, 40, 40)), target, icc_profile=profile
    )
    assert image.info["icc_profile"] == profile
    assert near(image.getpixel((0, 0)), (200, 40, 40))


async def test_a_broken_profile_is_dropped_and_the_pixels_stay(bench: Bench) -> None:
    picture = Image.new("RGB", (16, 16), (200, 40, 40))
    image = await bench.converted(picture, JPEG, icc_profile=b"no profile" * 20)
    assert "icc_profile" not in image.info
    assert near(image.getpixel((0, 0)), (200, 40, 40))


@pytest.mark.parametrize("target", [PNG, WEBP])
async def test_cmyk_without_a_profile_becomes_rgb(bench: Bench, target: str) -> None:
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image = await bench.converted(ink, target, "JPEG", quality=100)
    assert image.mode == "RGB"
    assert near(image.getpixel((0, 0)), (255, 0, 0), within=6)


async def test_cmyk_with_the_profile_of_something_else_becomes_rgb_all_the_same(
    bench: Bench,
) -> None:
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image = await bench.converted(ink, PNG, "JPEG", quality=100, icc_profile=SRGB)
    assert "icc_profile" not in image.info
    assert near(image.getpixel((0, 0)), (255, 0, 0), within=6)


@pytest.mark.parametrize("target", [JPEG, WEBP])
@pytest.mark.parametrize(("deep", "shallow"), [(65_535, 255), (32_896, 128), (0, 0), (300, 1)])
async def test_sixteen_bits_of_grey_become_eight(
    bench: Bench, target: str, deep: int, shallow: int
) -> None:
    image = await bench.converted(Image.new("I;16", (16, 16), deep), target)
    grey = image.convert("L").getpixel((0, 0))
    assert grey == pytest.approx(shallow, abs=1)


def deep_png(pixel: tuple[int, ...], kind: int) -> bytes:
    """A PNG of 16 bits and one pixel."""
    row = b"\0" + struct.pack(f">{len(pixel)}H", *pixel)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(row)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


async def test_sixteen_bits_of_colour_become_eight(bench: Bench) -> None:
    image = await bench.converted(deep_png((65_535, 32_896, 0), 2), JPEG)
    assert near(image.getpixel((0, 0)), (255, 128, 0), within=2)
    clear = await bench.converted(deep_png((65_535, 32_896, 0, 32_896), 6), WEBP)
    assert near(clear.getpixel((0, 0)), (255, 128, 0, 128), within=6)


async def test_the_colour_that_is_clear_in_deep_grey_stays_clear(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "deep.png"
    Image.new("I;16", (16, 16), 40_000).save(path)
    data = with_chunks(path, (b"tRNS", struct.pack(">H", 40_000)))
    image = await bench.converted(data, WEBP)
    assert image.mode == "RGBA"
    assert image.getchannel("A").getextrema() == (0, 0)


async def test_what_a_png_says_of_its_colours_without_a_profile_is_still_said(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "plain.png"
    Image.new("RGB", (16, 16), (200, 100, 50)).save(path)
    points = struct.pack(">8I", *(round(each * 100_000) for each in P3_POINTS))
    wide = with_chunks(path, (b"gAMA", struct.pack(">I", 45_455)), (b"cHRM", points))
    image = await bench.converted(wide, JPEG)
    expected = Image.new("RGB", (1, 1), (200, 100, 50))
    expected.info["icc_profile"] = matrix_profile(0.45455, P3_POINTS)
    assert image.info["icc_profile"] == expected.info["icc_profile"]
    assert near(seen(image), seen(expected))
    assert not near(seen(image), (200, 100, 50), within=8)
    linear = await bench.converted(with_chunks(path, (b"gAMA", struct.pack(">I", 100_000))), JPEG)
    assert near(seen(linear), (229, 168, 122), within=5)


async def test_gamma_and_points_of_srgb_need_no_profile_and_impossible_ones_make_none(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "plain.png"
    Image.new("RGB", (16, 16), (200, 100, 50)).save(path)
    srgb = struct.pack(">8I", 31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)
    usual = ((b"gAMA", struct.pack(">I", 45_455)), (b"cHRM", srgb))
    nothing = ((b"gAMA", struct.pack(">I", 1)), (b"cHRM", bytes(32)))
    for chunks in (usual, nothing):
        image = await bench.converted(with_chunks(path, *chunks), JPEG)
        assert "icc_profile" not in image.info
        assert near(image.getpixel((0, 0)), (200, 100, 50))


def test_a_profile_made_of_the_points_of_srgb_is_that_of_srgb() -> None:
    points = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
    own = ImageCms.getOpenProfile(_file(matrix_profile(0.45455, points)))
    srgb = ImageCms.createProfile("sRGB")
    for pixel in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128)):
        image = Image.new("RGB", (1, 1), pixel)
        turned = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
        assert turned is not None
        assert near(turned.getpixel((0, 0)), pixel, within=3)


async def test_grey_with_a_profile_of_colours_keeps_both(bench: Bench) -> None:
    profile = matrix_profile(0.45455, P3_POINTS)
    image = await bench.converted(Image.new("L", (16, 16), 90), JPEG, icc_profile=profile)
    assert (image.mode, image.info["icc_profile"]) == ("RGB", profile)
    assert near(image.getpixel((0, 0)), (90, 90, 90))


async def test_grey_stays_grey_where_there_is_grey(bench: Bench) -> None:
    image = await bench.converted(Image.new("L", (16, 16), 90), JPEG)
    assert (image.mode, image.getpixel((0, 0))) == ("L", 90)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
async def test_what_can_be_seen_through_is_white_in_a_jpeg_and_clear_in_a_webp(
    bench: Bench, mode: str
) -> None:
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0)).convert(mode)
    jpeg = await bench.converted(clear, JPEG)
    assert near(jpeg.convert("RGB").getpixel((0, 0)), (255, 255, 255))
    webp = await bench.converted(clear, WEBP)
    assert webp.getchannel("A").getextrema() == (0, 0)


@pytest.mark.parametrize("mode", ["RGB", "L"])
async def test_a_transparent_colour_is_clear(bench: Bench, mode: str) -> None:
    key: Any = (9, 9, 9) if mode == "RGB" else 9
    image = await bench.converted(Image.new(mode, (16, 16), key), WEBP, transparency=key)
    assert image.getchannel("A").getextrema() == (0, 0)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
async def test_of_an_animation_the_first_picture_is_taken(bench: Bench, kind: str) -> None:
    first, *rest = (Image.new("RGB", (32, 32), each) for each in ("red", "lime", "blue"))
    image = await bench.converted(
        first, JPEG, kind, save_all=True, append_images=rest, duration=100, **_lossless(kind)
    )
    assert near(image.getpixel((0, 0)), (255, 0, 0))


def _lossless(kind: str) -> dict[str, bool]:
    return {"lossless": True} if kind == "WEBP" else {}


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_an_image_is_upright_and_says_nothing_of_its_past(
    bench: Bench, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "ada"
    picture = Image.new("RGB", (32, 16), "white")
    picture.paste("black", (0, 0, 8, 8))
    image = await bench.converted(picture, JPEG, exif=exif, dpi=(300, 300))
    expected = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1)}
    right, below = expected.get(orientation, (0, 1))
    width, height = (16, 32) if orientation > 4 else (32, 16)
    assert image.size == (width, height)
    dark = image.getpixel((2 + right * (width - 4), 2 + below * (height - 4)))
    assert near(dark, (0, 0, 0), within=12)
    assert not image.getexif()
    assert "comment" not in image.info


async def test_a_jpeg_keeps_its_colour_at_full_resolution(bench: Bench) -> None:
    image = await bench.converted(Image.effect_noise((64, 64), 90).convert("RGB"), JPEG)
    assert [layer[1:3] for layer in getattr(image, "layer")] == [(1, 1)] * 3  # noqa: B009 -- not in the stubs


async def test_no_webp_is_larger_than_it_can_be(bench: Bench) -> None:
    with pytest.raises(
        NotConvertible, match=r"16384 x 1 pixels, and no WebP has a side over 16383"
    ):
        await bench.converted(Image.new("RGB", (16_384, 1)), WEBP)
    assert (await bench.converted(Image.new("RGB", (16_383, 1)), WEBP)).size == (16_383, 1)


async def test_an_image_that_was_cut_short_is_refused(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "whole.png"
    Image.effect_noise((256, 256), 90).save(path)
    with pytest.raises(NotConvertible, match="damaged or was cut short"):
        await bench.converted(path.read_bytes()[:20_000], JPEG)


def packed(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"x\0\0" + zlib.compress(profile)


@pytest.mark.parametrize(
    "damaged",
    [
        packed(bytes(50_000_000)),
        (b"iCCP", b"x\0\0" + b"no zlib"),
        (b"iCCP", b"x\0\7" + b"no such method"),
        (b"cHRM", bytes(12)),
        (b"cHRM", bytes(13)),
        (b"gAMA", b"\0"),
        (b"sRGB", b""),
    ],
    ids=lambda each: f"{each[0].decode()} {len(each[1])}",
)
async def test_a_png_whose_colours_are_told_badly_is_converted_without_them(
    bench: Bench, tmp_path: Path, damaged: tuple[bytes, bytes]
) -> None:
    path = tmp_path / "plain.png"
    Image.new("RGB", (16, 16), (200, 40, 40)).save(path)
    image = await bench.converted(with_chunks(path, damaged), JPEG)
    assert "icc_profile" not in image.info
    assert near(image.getpixel((0, 0)), (200, 40, 40))


async def test_a_large_profile_stays_and_what_was_made_with_it_is_read_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = SRGB + bytes(range(256)) * 10_000
    plain = Image.new("RGB", (16, 16), (200, 40, 40))
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 16 * 1024 * 1024)  # only for this reader
    await bench.converted(plain, PNG, "JPEG", icc_profile=profile)
    again = await bench.converted(bench._target.read_bytes(), JPEG)
    assert again.info["icc_profile"] == profile


async def test_sixteen_bits_become_eight_as_it_is_said(bench: Bench) -> None:
    row = b"\0" + b"\x12\xff" * 3 * 4
    deep = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in (
            (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)),
            (b"tRNS", b"\x12\xff" * 3),
            (b"IDAT", zlib.compress(row * 4)),
            (b"IEND", b""),
        )
    )
    image = await bench.converted(deep, PNG)
    assert image.convert("RGBA").getpixel((0, 0)) == (18, 18, 18, 255)
