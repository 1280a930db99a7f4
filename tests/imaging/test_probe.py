import io
import random
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from calotype.domain.errors import ReferenceTooLarge, UnsupportedReferenceType
from calotype.imaging.probe import SNIFF_BYTES, ImageFacts, probe, sniff


def picture(
    kind: str, *, mode: str = "RGB", size: tuple[int, int] = (61, 37), **save: Any
) -> bytes:
    image = Image.radial_gradient("L").resize(size).convert(mode)
    out = io.BytesIO()
    image.save(out, kind, **save)
    return out.getvalue()


def film() -> bytes:
    frames = [Image.new("RGB", (61, 37), colour) for colour in ("red", "green", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    return out.getvalue()


def exif_with_thumbnail() -> bytes:
    """An EXIF segment that ends in a whole JPEG of its own, end marker and all."""
    return b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00" + picture("JPEG", size=(16, 16))


SAMPLES = {
    "jpeg": picture("JPEG"),
    "jpeg progressive": picture("JPEG", progressive=True),
    "jpeg grey": picture("JPEG", mode="L"),
    "jpeg cmyk": picture("JPEG", mode="CMYK"),
    "jpeg with thumbnail": picture("JPEG", exif=exif_with_thumbnail()),
    "jpeg with long exif": picture("JPEG", exif=b"Exif\x00\x00" + b"\xff\xc0" * 32_000),
    "jpeg with long profile": picture("JPEG", icc_profile=b"\xff\xc0\x00\x0b" * 150_000),
    "png": picture("PNG"),
    "png palette": picture("PNG", mode="P"),
    "png alpha": picture("PNG", mode="RGBA"),
    "png sixteen bit": picture("PNG", mode="I;16"),
    "webp": picture("WEBP"),
    "webp lossless": picture("WEBP", lossless=True),
    "webp alpha": picture("WEBP", mode="RGBA"),
    "webp with profile": picture("WEBP", icc_profile=b"p" * 70_001),
    "webp lossless with profile": picture("WEBP", lossless=True, icc_profile=b"p" * 999),
    "webp film": film(),
}


def png(width: int, height: int) -> bytes:
    """The frame of a PNG: header, no pixels in their place, end."""
    header = b"IHDR" + width.to_bytes(4) + height.to_bytes(4) + b"\x08\x02\x00\x00\x00"
    return (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"
        + header
        + zlib.crc32(header).to_bytes(4)
        + b"\x00\x00\x00\x00IDAT"
        + zlib.crc32(b"IDAT").to_bytes(4)
        + b"\x00\x00\x00\x00IEND\xae\x42\x60\x82"
    )


def jpeg(width: int, height: int) -> bytes:
    """The frame of a JPEG: frame header, a scan of no pixels, end."""
    return b"\xff\xd8" + jpeg_frame(width, height) + b"\xff\xda\x00\x02\xff\xd9"


def jpeg_frame(width: int, height: int) -> bytes:
    sides = height.to_bytes(2) + width.to_bytes(2)
    return b"\xff\xc0\x00\x0b\x08" + sides + b"\x01\x01\x11\x00"


def webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(
        chunk[:4] + (len(chunk) - 4).to_bytes(4, "little") + chunk[4:] + b"\x00" * (len(chunk) % 2)
        for chunk in chunks
    )
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def vp8l(width: int, height: int, version: int = 0) -> bytes:
    bits = width - 1 | height - 1 << 14 | version << 29
    return b"VP8L\x2f" + bits.to_bytes(4, "little")


def vp8(width: int, height: int) -> bytes:
    sides = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return b"VP8 \x10\x00\x00\x9d\x01\x2a" + sides


def vp8x(width: int, height: int) -> bytes:
    return (
        b"VP8X" + bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    )


def facts(content: bytes) -> ImageFacts:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return probe(file.name)


def refused(content: bytes) -> str:
    with pytest.raises(UnsupportedReferenceType) as caught:
        facts(content)
    return caught.value.message


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sound_image_is_measured(name: str) -> None:
    content_type = f"image/{name.partition(' ')[0]}"
    found = facts(SAMPLES[name])
    assert (found.content_type, found.width, found.height) == (content_type, 61, 37)
    assert sniff(SAMPLES[name][:SNIFF_BYTES]) == content_type


@pytest.mark.parametrize(
    "head",
    [
        *(b"", b"\xff", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WEBP"),
        *(b"GIF89a" + bytes(10), b"BM" + bytes(14), b"\x00\x00\x00\x1cftypavif" + bytes(4)),
        *(b"<svg xmlns='http://www", b"<?xml version='1.0'?>", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"),
        *(b"\x89PNG\n\x1a\n\x00\x00\x00\x00\x0dIHDR", b"\x89PNG\r\n\x1a\n\x00\x00\x00\x04CgBI"),
        *(b"RIFF\x00\x00\x00\x00WAVEVP8 ", b"RIFX\x00\x00\x00\x00WEBPVP8 ", b" \xff\xd8\xff\xe0"),
        b"RIFF\x00\x00\x00\x00WEBPVP9 ",
    ],
)
def test_what_is_no_jpeg_png_or_webp_is_refused(head: bytes) -> None:
    assert sniff(head) is None
    assert "no JPEG, PNG or WebP" in refused(head)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_that_was_cut_short_is_refused(name: str) -> None:
    whole = SAMPLES[name]
    cuts = {*range(16, min(len(whole), 700)), len(whole) // 2, len(whole) - 1}
    for cut in sorted(cuts - {len(whole)}):
        assert "cut short" in refused(whole[:cut]), cut


@pytest.mark.parametrize("name", ["jpeg", "jpeg with thumbnail", "png", "webp", "webp alpha"])
@pytest.mark.parametrize("size", [1, 100_000, 3_000_000])
def test_what_a_phone_appends_to_a_picture_does_no_harm(name: str, size: int) -> None:
    assert facts(SAMPLES[name] + b"film" * size).width == 61


def test_a_little_junk_and_fill_before_a_jpeg_marker_is_skipped() -> None:
    whole = jpeg(61, 37)
    assert (
        facts(whole[:2] + b"\xff\xe0\x00\x04ab" + b"\x00\x07\xff\x00\xff\xff" + whole[2:]).width
        == 61
    )


def test_a_jpeg_with_thousands_of_segments_is_given_up() -> None:
    whole = jpeg(61, 37)
    assert "damaged" in refused(whole[:2] + b"\xff\xe1\x00\x02" * 5000 + whole[2:])


@pytest.mark.parametrize(
    "content",
    [
        *(png(0, 5), png(5, 0), jpeg(0, 5), jpeg(5, 0), webp(vp8(0, 5)), webp(vp8(5, 0))),
        SAMPLES["png"][:20] + b"\x01" + SAMPLES["png"][21:],
        b"\xff\xd8\xff\xda\x00\x08" + bytes(40) + b"\xff\xd9",
        b"\xff\xd8\xff\xd9" + bytes(40),
        # Two headers: which one is believed hangs on the decoder.
        png(5, 5)[:33] + png(60_000, 60_000)[8:],
        jpeg(5, 5)[:2] + jpeg_frame(65_535, 65_535) + jpeg(5, 5)[2:],
        jpeg(5, 5)[:15] + jpeg_frame(65_535, 65_535) + jpeg(5, 5)[15:],
        # No pixels at all.
        png(5, 5)[:33] + png(5, 5)[-12:],
        png(5, 5)[:33] + b"\x00\x00\x00\x00tEXtcrc!" * 5000 + png(5, 5)[33:],
        jpeg(5, 5)[:15] + b"\xff\xd9",
        b"\xff\xd8\xff" + b"\x00" * 5000,
        webp(vp8l(5, 5, version=1)),
        webp(b"VP8L\x2e" + bytes(8)),
        webp(b"VP8L\x2f"),
        webp(b"VP8 \x11\x00\x00\x9d\x01\x2a\x05\x00\x05\x00"),
        webp(b"VP8 \x10\x00\x00\x9d\x01\x2b\x05\x00\x05\x00"),
        webp(b"VP8 \x10"),
        webp(vp8x(5, 5), vp8(5, 6)),
        webp(vp8x(1, 1), vp8l(16_000, 16_000)),
        webp(vp8x(5, 5), vp8x(5, 5), *[b"JUNK"] * 100),
    ],
)
def test_a_damaged_header_is_refused(content: bytes) -> None:
    assert "damaged" in refused(content)


def test_a_webp_without_an_image_is_refused() -> None:
    assert "cut short" in refused(webp(vp8x(5, 5), b"EXIFabc"))


@pytest.mark.parametrize("content", [png(10_000, 10_000), jpeg(30_000, 3_333), webp(vp8(16, 9))])
def test_an_image_at_the_limit_is_taken(content: bytes) -> None:
    assert facts(content).width > 0


@pytest.mark.parametrize(
    "content",
    [
        *(png(10_000, 10_001), png(30_001, 1), png(1, 30_001), png(2**31 - 1, 2**31 - 1)),
        *(png(2**32 - 1, 2**32 - 1), jpeg(65_535, 65_535), jpeg(30_001, 1), jpeg(1, 30_001)),
        *(webp(vp8(16_383, 16_383)), webp(vp8l(16_384, 16_384))),
        *(webp(vp8x(2**24, 2**24), vp8(5, 5)), webp(vp8x(30_001, 1), b"ANMF" + bytes(16))),
    ],
)
def test_a_pixel_bomb_is_refused_by_its_header(content: bytes) -> None:
    with pytest.raises(ReferenceTooLarge, match="pixels"):
        facts(content)


def survives(content: bytes) -> None:
    try:
        found = facts(content)
    except (ReferenceTooLarge, UnsupportedReferenceType):
        return
    assert found.content_type == sniff(content)
    assert 0 < found.width * found.height <= 100_000_000


STARTS = [
    b"",
    b"\xff\xd8\xff",
    SAMPLES["png"][:16],
    SAMPLES["webp"][:16],
    SAMPLES["webp alpha"][:30],
]


@given(st.sampled_from(STARTS), st.binary(max_size=600))
@example(b"RIFF\xff\xff\xff\xffWEBPVP8X", b"")
def test_no_bytes_bring_out_another_error(start: bytes, rest: bytes) -> None:
    survives(start + rest)


@pytest.mark.parametrize("name", [name for name in SAMPLES if len(SAMPLES[name]) < 20_000])
def test_no_mutation_of_a_sound_image_brings_out_another_error(name: str) -> None:
    chance = random.Random(f"calotype {name}")  # noqa: S311 -- repeatable on purpose
    edges = [0x00, 0x01, 0x7F, 0x80, 0xC0, 0xD8, 0xD9, 0xDA, 0xFE, 0xFF]
    for _ in range(300):
        content = bytearray(SAMPLES[name])
        for _ in range(chance.randint(1, 8)):
            place = min(int(chance.expovariate(1 / 40)), len(content) - 1)
            match chance.randrange(4):
                case 0:
                    content[place] = chance.choice(edges)
                case 1:
                    content[place] ^= 1 << chance.randrange(8)
                case 2:
                    del content[place : place + chance.randint(1, 8)]
                case _:
                    content[place:place] = chance.randbytes(chance.randint(1, 8))
        survives(bytes(content))


def test_a_missing_file_is_our_fault_and_not_the_users(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        probe(str(tmp_path / "absent"))
