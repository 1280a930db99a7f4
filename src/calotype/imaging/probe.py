"""What an image file says of itself in its headers, read without decoding a pixel.

Written for hostile files: the work is bounded whatever the bytes say, and nothing but the two
errors of the user's making comes out. It is no proof that the image decodes; it keeps out what
is no image, what was cut short on its way, and what would blow up in memory when decoded.

An own reader rather than ``imagesize``, which hunts for JPEG markers byte by byte through the
whole file, or Pillow's: neither tells a file that was cut short.
"""

import re
import zlib
from collections.abc import Callable
from typing import BinaryIO, Final, Literal

import msgspec

from calotype.domain.errors import ReferenceTooLarge, UnsupportedReferenceType

ContentType = Literal["image/jpeg", "image/png", "image/webp"]

SNIFF_BYTES: Final = 16
"""How much of a file ``sniff`` needs to see."""
MAX_PIXELS: Final = 100_000_000
MAX_SIDE: Final = 30_000

_PNG_HEAD: Final = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
_PNG_HEADER_BYTES: Final = 33
_PNG_END: Final = b"\x00\x00\x00\x00IEND\xae\x42\x60\x82"
_PNG_TAIL: Final = 4 * 1024
# Before the pixels; sound files have a dozen, and some texts.
_PNG_MAX_CHUNKS: Final = 4096

_JPEG_MARKER: Final = re.compile(rb"\xff+([\x01-\xfe])")
_JPEG_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN: Final = 0xDA
_JPEG_PIXELS: Final = frozenset({0xD9, _JPEG_SCAN})
_JPEG_END: Final = b"\xff\xd9"
_JPEG_TAIL: Final = 64 * 1024
# A colour profile has at most 255 segments; extended metadata may have some hundreds.
_JPEG_MAX_SEGMENTS: Final = 4096
_JPEG_WINDOW: Final = 256
_JPEG_FRAME_BYTES: Final = 8

_WEBP_STARTS: Final = frozenset({b"WEBPVP8 ", b"WEBPVP8L", b"WEBPVP8X"})
_WEBP_MAX_CHUNKS: Final = 64
_VP8_HEADER_BYTES: Final = 10
_VP8L_HEADER_BYTES: Final = 5
_VP8L_SIGNATURE: Final = 0x2F
_BLOCK: Final = 1024 * 1024


class ImageFacts(msgspec.Struct, frozen=True):
    """What the headers of an image file say."""

    content_type: ContentType
    width: int
    """Pixels as stored, before any EXIF rotation."""
    height: int
    """Pixels as stored, before any EXIF rotation."""
    size: int
    """Bytes of the file."""


def sniff(head: bytes) -> ContentType | None:
    """The type that a file's first ``SNIFF_BYTES`` bytes (or more) show, None if no image."""
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(_PNG_HEAD):
        return "image/png"
    if head.startswith(b"RIFF") and head[8:16] in _WEBP_STARTS:
        return "image/webp"
    return None


def probe(path: str) -> ImageFacts:
    """Type and size of the image file at ``path``.

    It blocks on the disk: a few reads for a sound file, one pass over the file at worst.

    Raises:
        UnsupportedReferenceType: it is no JPEG, PNG or WebP image, or not a whole one.
        ReferenceTooLarge: it has more pixels than ``MAX_PIXELS``, or a side over ``MAX_SIDE``.
        OSError: the file cannot be read.

    """
    with open(path, "rb") as file:  # noqa: PTH123 -- a Path would be built only to be opened
        return measure(file)


def measure(file: BinaryIO) -> ImageFacts:
    """Type and size of an image that is open, as ``probe`` tells and refuses it."""
    size = file.seek(0, 2)
    content_type = sniff(_read(file, 0, SNIFF_BYTES))
    if content_type is None:
        raise UnsupportedReferenceType("The reference is no JPEG, PNG or WebP image.")
    width, height = _PROBES[content_type](file, size)
    return ImageFacts(content_type, width, height, size)


def _probe_png(file: BinaryIO, size: int) -> tuple[int, int]:
    header = _read(file, 0, _PNG_HEADER_BYTES)
    if len(header) < _PNG_HEADER_BYTES:
        raise _cut_short("PNG")
    if zlib.crc32(header[12:29]) != int.from_bytes(header[29:33]):
        raise _damaged("PNG")
    sides = _sane(int.from_bytes(header[16:20]), int.from_bytes(header[20:24]), "PNG")
    pixels = _find_png_pixels(file, size)
    if not _holds(file, _PNG_END, start=pixels, size=size, tail=_PNG_TAIL):
        raise _cut_short("PNG")
    return sides


def _find_png_pixels(file: BinaryIO, size: int) -> int:
    """Where the first chunk of pixels begins.

    A second header before it, which some decoders would believe, says other sides than we judged.
    """
    position = _PNG_HEADER_BYTES
    for _ in range(_PNG_MAX_CHUNKS):
        chunk = _read(file, position, 8)
        if len(chunk) < 8:  # noqa: PLR2004 -- a length and a kind
            raise _cut_short("PNG")
        match chunk[4:]:
            case b"IDAT":
                return position
            case b"IHDR" | b"IEND":
                break
        position += 12 + int.from_bytes(chunk[:4])
        if position > size:
            raise _cut_short("PNG")
    raise _damaged("PNG")


def _probe_jpeg(file: BinaryIO, size: int) -> tuple[int, int]:
    frame, scan = _find_jpeg_frame(file)
    header = _read(file, frame, _JPEG_FRAME_BYTES)
    if len(header) < _JPEG_FRAME_BYTES:
        raise _cut_short("JPEG")
    sides = _sane(int.from_bytes(header[5:7]), int.from_bytes(header[3:5]), "JPEG")
    # The search begins at the pixels: a thumbnail before them ends in the same marker and says
    # nothing of the image.
    if not _holds(file, _JPEG_END, start=scan, size=size, tail=_JPEG_TAIL):
        raise _cut_short("JPEG")
    return sides


def _find_jpeg_frame(file: BinaryIO) -> tuple[int, int]:
    """Where the frame header and the first scan begin, behind their markers.

    A second header before the scan, which some decoders would believe, says other sides.
    """
    position, frame = 2, 0
    for _ in range(_JPEG_MAX_SEGMENTS):
        window = _read(file, position, _JPEG_WINDOW)
        # Decoders skip a little junk before a marker, so we do.
        found = _JPEG_MARKER.search(window)
        if found is None:
            raise _cut_short("JPEG") if len(window) < _JPEG_WINDOW else _damaged("JPEG")
        marker, position = found[1][0], position + found.end()
        if marker == _JPEG_SCAN and frame:
            return frame, position
        if marker in _JPEG_PIXELS or (marker in _JPEG_FRAMES and frame):
            break
        if marker in _JPEG_FRAMES:
            frame = position
        if marker not in _JPEG_ALONE:
            # A length under two would have the walk stand still; it counts itself.
            position += max(2, int.from_bytes(_read(file, position, 2)))
    raise _damaged("JPEG")


def _probe_webp(file: BinaryIO, size: int) -> tuple[int, int]:
    end = 8 + int.from_bytes(_read(file, 4, 4), "little")
    if end > size:
        raise _cut_short("WebP")
    canvas: tuple[int, int] | None = None
    position = 12
    for _ in range(_WEBP_MAX_CHUNKS):
        chunk = _read(file, position, 18)
        length = int.from_bytes(chunk[4:8], "little")
        kind, payload = chunk[:4], chunk[8 : 8 + length]
        if position + 8 + length > end:
            raise _cut_short("WebP")
        match kind:
            case b"VP8X" if canvas is None:
                canvas = _sane(_uint24(payload, 4) + 1, _uint24(payload, 7) + 1, "WebP")
            case b"ANMF" if canvas is not None:
                return canvas
            case b"VP8 " | b"VP8L":
                sides = _vp8_sides(payload) if kind == b"VP8 " else _vp8l_sides(payload)
                # The canvas is what the size limits were held against.
                if canvas not in {None, sides}:
                    raise _damaged("WebP")
                return _sane(*sides, "WebP")
        position += 8 + length + length % 2
    raise _damaged("WebP")


def _vp8_sides(payload: bytes) -> tuple[int, int]:
    # Bit 0 clear: a key frame; three bytes on, the start code.
    if len(payload) < _VP8_HEADER_BYTES or payload[0] & 1 or payload[3:6] != b"\x9d\x01\x2a":
        raise _damaged("WebP")
    return (
        int.from_bytes(payload[6:8], "little") & 0x3FFF,
        int.from_bytes(payload[8:10], "little") & 0x3FFF,
    )


def _vp8l_sides(payload: bytes) -> tuple[int, int]:
    bits = int.from_bytes(payload[1:5], "little")
    # The top three bits are the version, and there is only version 0.
    if len(payload) < _VP8L_HEADER_BYTES or payload[0] != _VP8L_SIGNATURE or bits >> 29:
        raise _damaged("WebP")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _uint24(payload: bytes, at: int) -> int:
    return int.from_bytes(payload[at : at + 3], "little")


def _sane(width: int, height: int, kind: str) -> tuple[int, int]:
    """The sides, if an image of that size can be worked with."""
    if width < 1 or height < 1:
        raise _damaged(kind)
    if max(width, height) > MAX_SIDE:
        raise ReferenceTooLarge(
            f"The reference has {width} x {height} pixels; a side may have at most {MAX_SIDE}."
        )
    if width * height > MAX_PIXELS:
        raise ReferenceTooLarge(
            f"The reference has {width} x {height} pixels; at most {MAX_PIXELS} are taken."
        )
    return width, height


def _read(file: BinaryIO, position: int, count: int) -> bytes:
    """Up to ``count`` bytes from ``position``; fewer at the end of the file."""
    file.seek(position)
    return file.read(count)


def _holds(file: BinaryIO, mark: bytes, *, start: int, size: int, tail: int) -> bool:
    """Whether ``mark`` stands anywhere from ``start`` on.

    The last ``tail`` bytes are looked at first, where it nearly always is. Only then the rest:
    phones append whole films to a picture, and those pictures are sound.
    """
    if mark in _read(file, max(start, size - tail), tail):
        return True
    overlap = len(mark) - 1
    return any(
        mark in _read(file, position, _BLOCK + overlap) for position in range(start, size, _BLOCK)
    )


def _cut_short(kind: str) -> UnsupportedReferenceType:
    return UnsupportedReferenceType(
        f"The reference is a {kind} image that was cut short; send the whole file."
    )


def _damaged(kind: str) -> UnsupportedReferenceType:
    return UnsupportedReferenceType(f"The reference is a {kind} image with a damaged header.")


_PROBES: Final[dict[ContentType, Callable[[BinaryIO, int], tuple[int, int]]]] = {
    "image/jpeg": _probe_jpeg,
    "image/png": _probe_png,
    "image/webp": _probe_webp,
}
