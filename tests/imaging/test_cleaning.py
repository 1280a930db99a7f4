"""What comes out of the sieve: the same pixels and colours, and nothing that was said of them."""

import io
import random
import re
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from calotype.domain.errors import ReferenceTooLarge, UnsupportedReferenceType
from calotype.imaging.cleaning import clean_file, cleaner
from calotype.imaging.exif import orientation_in, turned
from calotype.imaging.jpeg import judge_scans
from calotype.imaging.probe import SNIFF_BYTES, probe, sniff
from calotype.imaging.sieve import GATHERED
from imaging.samples import (
    MARK,
    SAMPLES,
    SPOKEN,
    box,
    boxes_of,
    chunk,
    chunks_of,
    cleaned,
    content_type_of,
    encoded,
    exif,
    kind_of,
    pixels,
    profile,
    scan_bomb,
    segment,
    spoken_png,
    spoken_webp,
)

XMP = b"<x:xmpmeta>ours</x:xmpmeta>"


@pytest.mark.parametrize("name", SAMPLES)
def test_an_image_that_says_nothing_of_itself_passes_as_it_came(name: str) -> None:
    content = SAMPLES[name]
    out, sieve = cleaned(content)
    assert sieve.understood
    assert sieve.orientation == 1
    assert out == content


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_that_was_said_is_left_and_pixels_and_profile_stay(name: str) -> None:
    content = SAMPLES[name]
    spoken = SPOKEN[kind_of(content)](content)
    assert MARK in spoken
    out, sieve = cleaned(spoken)
    assert sieve.understood
    assert MARK not in out
    assert MARK[:6] not in out
    assert pixels(out) == pixels(content) == pixels(spoken)
    assert profile(out) == profile(content)
    assert words_in(out) == []


def words_in(content: bytes) -> list[str]:
    """Keys under which Pillow finds words in an image."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert not image.getexif()
        words = {"exif", "xmp", "comment", "photoshop", "XML:com.adobe.xmp", "mp", "Location"}
        return sorted(words & image.info.keys())


@pytest.mark.parametrize("name", SAMPLES)
def test_where_the_stream_is_cut_makes_no_difference(name: str) -> None:
    content = SPOKEN[kind_of(SAMPLES[name])](SAMPLES[name])
    whole, _ = cleaned(content, step=len(content), xmp=XMP)
    chance = random.Random(7)  # noqa: S311 -- repeatable on purpose
    for step in (*(chance.randrange(2, 5_000) for _ in range(5)), 7, 1_000):
        assert cleaned(content, step=step, xmp=XMP)[0] == whole
    if len(content) < 100_000:
        assert cleaned(content, step=1, xmp=XMP)[0] == whole


@pytest.mark.parametrize("name", SAMPLES)
def test_a_packet_is_put_in_and_pillow_finds_it(name: str) -> None:
    content = SPOKEN[kind_of(SAMPLES[name])](SAMPLES[name])
    out, sieve = cleaned(content, xmp=XMP)
    assert sieve.understood
    assert pixels(out) == pixels(content)
    assert profile(out) == profile(SAMPLES[name])
    with Image.open(io.BytesIO(out)) as image:
        found = image.info.get("xmp", image.info.get("XML:com.adobe.xmp"))
    assert found in {XMP, XMP.decode()}
    assert out.count(XMP) == 1


@pytest.mark.parametrize("name", SAMPLES)
def test_cleaning_twice_changes_nothing(name: str) -> None:
    once, _ = cleaned(SPOKEN[kind_of(SAMPLES[name])](SAMPLES[name]))
    twice, _ = cleaned(once)
    assert twice == once


@pytest.mark.parametrize("name", SAMPLES)
def test_an_image_that_was_cut_short_is_never_taken_for_whole(tmp_path: Path, name: str) -> None:
    content = SAMPLES[name]
    for cut in {*range(SNIFF_BYTES, min(len(content), 300)), len(content) // 2, len(content) - 1}:
        if cut >= len(content):
            continue
        out, sieve = cleaned(content[:cut], xmp=XMP)
        assert not sieve.understood
        (tmp_path / "image").write_bytes(out)
        with pytest.raises(UnsupportedReferenceType):
            probe(str(tmp_path / "image"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_how_an_image_is_turned_is_read_and_is_all_that_stays_of_its_exif(
    kind: str, orientation: int, *, little: bool
) -> None:
    content = encoded(kind, exif=b"Exif\x00\x00" + exif(orientation, little=little))
    out, sieve = cleaned(content, step=100)
    assert sieve.understood
    assert sieve.orientation == orientation
    assert MARK not in out
    assert pixels(out) == pixels(content)
    with Image.open(io.BytesIO(out)) as image:
        left = dict(image.getexif())
    assert left == ({} if orientation == 1 else {0x0112: orientation})


@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_exif_of_one_entry_is_read_as_it_was_written(orientation: int) -> None:
    assert orientation_in(turned(orientation)) == orientation
    assert orientation_in(b"Exif\x00\x00" + turned(orientation)) == orientation


@given(st.binary(max_size=200))
def test_whatever_an_exif_block_holds_it_names_an_orientation(block: bytes) -> None:
    assert 1 <= orientation_in(block) <= 8
    assert 1 <= orientation_in(b"II*\x00" + block) <= 8
    assert 1 <= orientation_in(b"MM\x00*" + block) <= 8


def test_an_orientation_that_makes_no_sense_turns_nothing() -> None:
    sound = turned(6)
    assert orientation_in(sound.replace(b"\x00\x06", b"\x00\x09")) == 1
    assert orientation_in(sound.replace(b"\x00\x06", b"\x00\x00")) == 1
    assert orientation_in(sound.replace(b"\x00\x03", b"\x00\x02", 1)) == 1
    assert orientation_in(sound[:20]) == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_what_is_left_as_it_is_gets_a_packet_only_where_it_has_none(kind: str) -> None:
    said = encoded(kind, exif=b"Exif\x00\x00" + exif(6))
    out, sieve = cleaned(said, xmp=XMP, whole=True)
    assert sieve.understood
    assert sieve.orientation == 1
    assert MARK in out
    assert XMP in out
    assert pixels(out) == pixels(said)
    with Image.open(io.BytesIO(out)) as image:
        assert image.getexif()[0x0112] == 6
        assert image.info.get("xmp", XMP) == XMP
    again, _ = cleaned(out, xmp=b"another", whole=True)
    assert again == out


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_left_as_it_is_loses_nothing(name: str) -> None:
    content = SPOKEN[kind_of(SAMPLES[name])](SAMPLES[name])
    out, sieve = cleaned(content, whole=True)
    assert sieve.understood
    assert content.startswith(out[: len(content) - 3_000][40:], 40)
    assert pixels(out) == pixels(SAMPLES[name])
    assert MARK in out


def test_a_long_block_is_skipped_and_not_gathered() -> None:
    block = exif(6) + bytes(20 * GATHERED)
    content = encoded("PNG")
    content = content[:33] + chunk(b"eXIf", block) + content[33:]
    sieve = cleaner("image/png")
    most = 0
    for start in range(0, len(content), 1_000):
        sieve.feed(content[start : start + 1_000])
        most = max(most, len(sieve._gathered))
    sieve.end()
    assert most <= GATHERED
    assert sieve.orientation == 6


@pytest.mark.parametrize(
    "small",
    [
        *(chunk(b"teXt", b""), chunk(b"IDAT", b""), segment(0xFE, b"")),
        *(segment(0xE1, b"Exif\x00\x00"), box(b"unkn", b"")),
    ],
)
def test_a_file_cut_into_countless_pieces_is_not_gone_through(small: bytes) -> None:
    name = {b"\xff": "jpeg", b"\x00": "png"}.get(small[:1], "webp with a profile")
    content = SAMPLES[name]
    start = {"jpeg": 2, "png": 33}.get(name, 30)
    long = content[:start] + small * 20_000
    if start == 30:
        long = long[:4] + len(long).to_bytes(4, "little") + long[8:]
    assert not cleaned(long)[1].understood


def test_a_jpeg_filled_up_with_marks_takes_no_longer_than_another() -> None:
    content = SAMPLES["jpeg"]
    out, sieve = cleaned(content[:2] + b"\xff" * 10_000_000 + content[2:])
    assert sieve.understood
    assert out == content


@pytest.mark.parametrize(
    "strange",
    [
        chunk(b"tRNS", bytes(300)),
        chunk(b"gAMA", MARK),
        chunk(b"IHDR", bytes(13)),
        chunk(b"gAMA", bytes(4)) * 2,
        chunk(b"te t", MARK),
        b"\x80\x00\x00\x00tEXt",
        chunk(b"IEND", MARK),
    ],
)
def test_a_png_that_is_not_understood_is_said_to_be_so(strange: bytes) -> None:
    content = encoded("PNG")
    _, sieve = cleaned(content[:33] + strange + content[33:], step=50)
    assert not sieve.understood


@pytest.mark.parametrize(
    "strange",
    [segment(0x02, MARK), segment(0xF7, MARK), segment(0xC8, MARK), b"\xff\xd8", b"\xff\xfe\0\1"],
)
def test_a_jpeg_that_is_not_understood_is_said_to_be_so(strange: bytes) -> None:
    content = encoded("JPEG")
    _, sieve = cleaned(content[:20] + strange + content[20:], step=50)
    assert not sieve.understood


def riff(*boxes: bytes) -> bytes:
    body = b"WEBP" + b"".join(boxes)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def test_a_webp_that_is_not_understood_is_said_to_be_so() -> None:
    picture = encoded("WEBP")
    pixel = box(*boxes_of(picture)[0])
    sides = (60).to_bytes(3, "little") + (36).to_bytes(3, "little")
    extended = box(b"VP8X", b"\x02\0\0\0" + sides)
    for strange in (
        riff(box(b"VP8X", b"\0\0\0\0" + sides + b"more"), pixel),
        riff(extended, box(b"ANMF", MARK[:8])),
        riff(extended, box(b"ANMF", bytes(16) + b"ALPH\xff\xff\x00\x00")),
        riff(extended, pixel),
        riff(pixel, b"unkn\xff\x00\x00\x00short"),
    ):
        assert not cleaned(strange, step=50)[1].understood


def test_junk_and_filling_between_the_segments_of_a_jpeg_are_left_out() -> None:
    content = encoded("JPEG")
    filled = content[:20] + MARK + b"\xff\x00" + MARK + b"\xff" * 40 + content[20:]
    for step in (1, 7, 4_096):
        out, sieve = cleaned(filled, step=step)
        assert sieve.understood
        assert out == content


def test_words_between_the_scans_of_a_progressive_jpeg_are_left_out() -> None:
    content = SAMPLES["jpeg progressive"]
    scans = [found.start() for found in re.finditer(rb"\xff\xda", content)]
    assert len(scans) > 3
    spoken = b""
    for start, stop in zip([0, *scans], [*scans, len(content)], strict=True):
        spoken += content[start:stop] + segment(0xFE, MARK) * (stop < len(content))
    out, sieve = cleaned(spoken, step=99)
    assert sieve.understood
    assert out == content


def test_the_colour_transform_of_a_cmyk_jpeg_stays() -> None:
    content = encoded("JPEG", "CMYK")
    long = content.replace(segment(0xEE, b"Adobe\x00d\x00\x00\x00\x00\x00"), b"")
    assert long != content
    assert cleaned(content)[0].count(b"Adobe") == 1
    spoken = content.replace(b"\xff\xee\x00\x0eAdobe", b"\xff\xee\x00\x23Adobe")
    marked = spoken.replace(
        b"\xff\xee\x00\x23Adobe" + content.partition(b"Adobe")[2][:7],
        b"\xff\xee\x00\x23Adobe" + content.partition(b"Adobe")[2][:7] + MARK,
    )
    out, sieve = cleaned(marked)
    assert sieve.understood
    assert out == content


def test_the_flags_of_a_webp_say_what_is_in_it() -> None:
    spoken = spoken_webp(SAMPLES["webp with a profile"])
    (kind, head), *_ = boxes_of(cleaned(spoken)[0])
    assert (kind, head[0]) == (b"VP8X", 0x20)
    assert boxes_of(cleaned(spoken, xmp=XMP)[0])[0][1][0] == 0x24
    assert boxes_of(cleaned(SAMPLES["webp lossless alpha"], xmp=XMP)[0])[0][1][0] == 0x14
    assert boxes_of(cleaned(SAMPLES["webp film"])[0])[0][1][0] & 0x2C == 0


def test_a_webp_whose_head_claims_a_profile_that_is_not_there_is_mended() -> None:
    spoken = spoken_webp(SAMPLES["webp"])
    claiming = spoken[:20] + bytes((spoken[20] | 0x20,)) + MARK[:3] + spoken[24:]
    out, sieve = cleaned(claiming)
    assert sieve.understood
    assert out[20:24] == bytes(4)
    assert pixels(out) == pixels(SAMPLES["webp"])


def test_a_png_keeps_each_kind_of_chunk_that_says_how_it_looks() -> None:
    content = encoded("PNG")
    looks = {
        b"gAMA": 4,
        b"cHRM": 32,
        b"sRGB": 1,
        b"cICP": 4,
        b"sBIT": 3,
        b"bKGD": 6,
        b"pHYs": 9,
        b"mDCV": 24,
        b"cLLI": 8,
    }
    told = b"".join(chunk(kind, bytes(size)) for kind, size in looks.items())
    out, _ = cleaned(spoken_png(content[:33] + told + content[33:]))
    kinds = [kind for kind, _ in chunks_of(out)]
    assert sorted(kinds) == sorted([b"IHDR", *looks, b"IDAT", b"IEND"])


def test_a_file_is_cleaned_as_a_stream_is(tmp_path: Path) -> None:
    for content in (spoken_png(SAMPLES["png film"]), spoken_webp(SAMPLES["webp film"])):
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(content)
        clean_file(source, target, cleaner(content_type_of(content), xmp=XMP))
        assert target.read_bytes() == cleaned(content, xmp=XMP)[0]


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The same file with some bytes changed, taken out or doubled."""
    damaged = bytearray(content)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(SNIFF_BYTES, len(damaged))
        match chance.randrange(4):
            case 0:
                damaged[at] = chance.randrange(256)
            case 1:
                del damaged[at : at + chance.randrange(1, 40)]
            case 2:
                damaged[at:at] = damaged[at : at + chance.randrange(1, 40)]
            case _:
                damaged[at : at + 4] = chance.randbytes(4)
        if len(damaged) <= SNIFF_BYTES + 1:
            break
    return bytes(damaged)


def decodes(content: bytes) -> list[tuple[str, tuple[int, int], bytes]] | None:
    try:
        return pixels(content)
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, Image.DecompressionBombError):
        return None


@pytest.mark.parametrize("name", SAMPLES)
def test_of_a_damaged_image_that_decodes_none_is_made_that_does_not(
    name: str, tmp_path: Path
) -> None:
    chance = random.Random(name)  # noqa: S311 -- repeatable on purpose
    spoken = SPOKEN[kind_of(SAMPLES[name])](SAMPLES[name])
    for _ in range(60):
        content = mutated(spoken, chance)
        if sniff(content[:SNIFF_BYTES]) is None or len(content) > 200_000:
            continue
        out, sieve = cleaned(content, step=chance.randrange(1, 4_000), xmp=XMP)
        if not sieve.understood:
            continue
        (tmp_path / "image").write_bytes(out)
        try:
            probe(str(tmp_path / "image"))
        except (UnsupportedReferenceType, ReferenceTooLarge):
            continue
        before = decodes(content)
        if before is not None:
            assert decodes(out) == before


def test_a_jpeg_of_countless_scans_is_refused(tmp_path: Path) -> None:
    content = scan_bomb(1_000)
    for whole in (False, True):
        with pytest.raises(UnsupportedReferenceType, match="100 scans"):
            cleaned(content, whole=whole)
    assert cleaned(scan_bomb(50))[1].understood
    path = tmp_path / "bomb"
    path.write_bytes(content)
    with pytest.raises(UnsupportedReferenceType, match="100 scans"):
        judge_scans(io.BytesIO(content))


def test_a_jpeg_keeps_each_part_of_its_profile_once_and_no_more_than_there_can_be() -> None:
    content = SAMPLES["jpeg"]
    parts = [(1, 2), (1, 2), (2, 2), (3, 2), (0, 2), (0, 0)]
    said = b"".join(
        segment(0xE2, b"ICC_PROFILE\x00" + bytes(numbers) + b"part") for numbers in parts
    )
    out, sieve = cleaned(content[:2] + said * 100 + content[2:])
    assert sieve.understood
    assert re.findall(rb"ICC_PROFILE\x00(..)part", out, re.DOTALL) == [b"\1\2", b"\2\2"]


def test_what_follows_the_end_goes_even_where_a_jpeg_is_left_as_it_is() -> None:
    content = SAMPLES["jpeg"]
    strange = content[:2] + segment(0x50, b"unknown") + content[2:]
    out, sieve = cleaned(strange + MARK, whole=True)
    assert (out, sieve.understood) == (strange, True)
