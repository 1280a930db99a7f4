"""Images of every form that encoders make, and ways to put words of their own into them."""

import io
import warnings
import zlib
from typing import Any

from PIL import Image

from calotype.imaging.cleaning import cleaner
from calotype.imaging.probe import SNIFF_BYTES, ContentType, sniff
from calotype.imaging.sieve import Sieve

MARK = b"SECRET-PLACE-48.8584N"
"""What nothing that was cleaned holds any more."""
SIZE = (61, 37)


def encoded(kind: str, mode: str = "RGB", *, size: tuple[int, int] = SIZE, **save: Any) -> bytes:
    """A picture with some detail."""
    image = Image.merge(
        "RGB",
        [
            Image.radial_gradient("L").resize(size),
            Image.linear_gradient("L").resize(size),
            Image.linear_gradient("L").rotate(90).resize(size),
        ],
    )
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(size))
    out = io.BytesIO()
    image.convert(mode).save(out, kind, **save)
    return out.getvalue()


def film(kind: str) -> bytes:
    frames = [Image.new("RGBA", SIZE, colour) for colour in ("red", "#00ff0080", "blue")]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=40)
    return out.getvalue()


def transparent_palette() -> bytes:
    return encoded("PNG", "P", transparency=3)


PROFILE = b"a colour profile " * 5_000
SAMPLES = {
    "png": encoded("PNG"),
    "png of many IDAT": encoded("PNG", size=(400, 500), compress_level=0),
    "png palette": encoded("PNG", "P"),
    "png palette with transparency": transparent_palette(),
    "png bits": encoded("PNG", "1"),
    "png grey": encoded("PNG", "L"),
    "png grey and alpha": encoded("PNG", "LA"),
    "png alpha": encoded("PNG", "RGBA"),
    "png sixteen bits": encoded("PNG", "I;16"),
    "png with a profile and density": encoded("PNG", icc_profile=PROFILE, dpi=(72, 72)),
    "png film": film("PNG"),
    "jpeg": encoded("JPEG"),
    "jpeg progressive": encoded("JPEG", progressive=True, size=(300, 200)),
    "jpeg with restarts": encoded("JPEG", size=(300, 200), restart_marker_blocks=1),
    "jpeg without subsampling": encoded("JPEG", quality=100, subsampling=0, size=(300, 200)),
    "jpeg grey": encoded("JPEG", "L"),
    "jpeg cmyk": encoded("JPEG", "CMYK"),
    "jpeg rgb": encoded("JPEG", keep_rgb=True),
    "jpeg optimised": encoded("JPEG", optimize=True),
    "jpeg with a long profile": encoded("JPEG", icc_profile=PROFILE),
    "webp": encoded("WEBP"),
    "webp lossless": encoded("WEBP", lossless=True),
    "webp lossless alpha": encoded("WEBP", "RGBA", lossless=True),
    "webp alpha": encoded("WEBP", "RGBA"),
    "webp with a profile": encoded("WEBP", icc_profile=PROFILE),
    "webp tiny": encoded("WEBP", size=(1, 1), lossless=True),
    "webp film": film("WEBP"),
}


def kind_of(content: bytes) -> str:
    return content_type_of(content).removeprefix("image/")


def content_type_of(content: bytes) -> ContentType:
    found = sniff(content[:SNIFF_BYTES])
    assert found is not None
    return found


def exif(orientation: int = 1, *, little: bool = False) -> bytes:
    """An EXIF block with an orientation and a place, without a leading ``Exif``."""
    tags = Image.Exif()
    tags[0x010E] = MARK.decode()
    tags[0x0112] = orientation
    tags.get_ifd(0x8825)[0x001B] = MARK
    if little:
        tags.endian = "<"
    return tags.tobytes().removeprefix(b"Exif\x00\x00")


def pixels(content: bytes) -> list[tuple[str, tuple[int, int], bytes]]:
    """Every frame as Pillow decodes it, with its transparency."""
    with warnings.catch_warnings():  # Pillow tells of a list of films that is none
        warnings.simplefilter("ignore", UserWarning)
        opened = Image.open(io.BytesIO(content))
    with opened as image:
        frames = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            shown = image.convert("RGBA") if image.mode == "P" else image
            frames.append((shown.mode, shown.size, shown.tobytes()))
        return frames


def profile(content: bytes) -> bytes | None:
    with Image.open(io.BytesIO(content)) as image:
        found = image.info.get("icc_profile")
        assert found is None or isinstance(found, bytes)
        return found or None


def cleaned(
    content: bytes, *, step: int = 65_536, xmp: bytes | None = None, whole: bool = False
) -> tuple[bytes, Sieve]:
    """The image as it comes out of a sieve that is fed ``step`` bytes at a time."""
    sieve = cleaner(content_type_of(content), xmp=xmp, whole=whole)
    out = bytearray()
    for start in range(0, len(content), step):
        out += sieve.feed(content[start : start + step])
    out += sieve.end()
    assert sieve.size == len(out)
    for offset, mended in sieve.mends:
        out[offset : offset + len(mended)] = mended
    return bytes(out), sieve


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2) + content


def box(kind: bytes, content: bytes) -> bytes:
    """A chunk of a WebP."""
    return kind + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


def chunks_of(content: bytes) -> list[tuple[bytes, bytes]]:
    """Types and contents of a PNG's chunks."""
    found, at = [], 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4])
        body = content[at + 8 : at + 8 + length]
        assert content[at : at + 12 + length] == chunk(content[at + 4 : at + 8], body)
        found.append((content[at + 4 : at + 8], body))
        at += 12 + length
    return found


def boxes_of(content: bytes, at: int = 12) -> list[tuple[bytes, bytes]]:
    """Types and contents of a WebP's chunks; the file is exactly as long as it says."""
    assert at != 12 or int.from_bytes(content[4:8], "little") == len(content) - 8
    found = []
    while at < len(content):
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        found.append((content[at : at + 4], content[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return found


def spoken_png(content: bytes, *extra: bytes) -> bytes:
    """A PNG that says of itself all that a PNG can."""
    said = [
        chunk(b"tEXt", b"Location\x00" + MARK),
        chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(MARK)),
        chunk(b"zTXt", MARK + b"\x00\x00" + zlib.compress(b"key")),
        chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + MARK),
        chunk(b"eXIf", exif()),
        chunk(b"tIME", MARK[:7]),
        chunk(b"caBX", MARK),
        chunk(b"prVt", MARK * 20_000),
        chunk(b"sPLT", MARK),
        *extra,
    ]
    body = content[33:-12]
    # C2PA and times often stand behind the pixels, and anything at all behind the end.
    return content[:33] + b"".join(said) + body + b"".join(said) + content[-12:] + MARK * 100


def spoken_jpeg(content: bytes, *extra: bytes) -> bytes:
    """A JPEG that says of itself all that a JPEG can, thumbnails among it."""
    jfxx = segment(0xE0, b"JFXX\x00\x10" + encoded("JPEG", size=(16, 16), comment=MARK))
    said = [
        segment(0xE1, b"Exif\x00\x00" + exif()),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\x00" + MARK),
        segment(0xE1, b"http://ns.adobe.com/xmp/extension/\x00" + MARK * 3_000),
        segment(0xE2, b"MPF\x00" + MARK),
        segment(0xE2, b"ICC_PROFIL" + MARK),
        segment(0xEB, b"JP" + MARK),
        segment(0xED, b"Photoshop 3.0\x00" + MARK),
        segment(0xEC, MARK),
        segment(0xEF, b""),
        segment(0xFE, MARK),
        segment(0xFE, b"Exif\x00\x00" + MARK),
        jfxx,
        *extra,
    ]
    start = 2
    if content[2:4] == b"\xff\xe0":  # its first segment gets a thumbnail
        start = 20
        said.insert(0, segment(0xE0, content[6:18] + b"\x02\x01" + MARK[:6]))
    return content[:2] + b"".join(said) + content[start:] + MARK * 100 + encoded("JPEG")


def spoken_webp(content: bytes) -> bytes:
    """A WebP that says of itself all that a WebP can."""
    found = boxes_of(content)
    if found[0][0] != b"VP8X":
        with Image.open(io.BytesIO(content)) as image:
            (width, height), alpha = image.size, image.mode == "RGBA"
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        found.insert(0, (b"VP8X", bytes((0x10 * alpha, 0, 0, 0)) + sides))
    found[0] = (b"VP8X", bytes((found[0][1][0] | 0x0C,)) + found[0][1][1:])
    out = b""
    for kind, body in found:
        if kind == b"ANMF":
            out += box(kind, body + box(b"META", MARK))
        else:
            out += box(kind, body) + box(b"unkn", MARK) * (kind != b"ALPH")
    out += box(b"EXIF", exif()) + box(b"XMP ", MARK) + box(b"C2PA", MARK) + box(b"XMP ", MARK)
    return b"RIFF" + (len(out) + 4).to_bytes(4, "little") + b"WEBP" + out + MARK * 50


SPOKEN = {"png": spoken_png, "jpeg": spoken_jpeg, "webp": spoken_webp}


def scan_bomb(scans: int) -> bytes:
    """A progressive JPEG whose pixels are gone over so many times more."""
    plain = encoded("JPEG", "L", progressive=True)
    return plain[:-2] + segment(0xDA, b"\x01\x01\x00\x00\x00\x10") * scans + plain[-2:]
