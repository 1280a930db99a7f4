"""The walk over a JPEG: what decodes it and its colour profile stay, and nothing else."""

import re
from collections.abc import Sequence
from typing import BinaryIO, Final

from calotype.domain.errors import UnsupportedReferenceType
from calotype.imaging.exif import UPRIGHT, orientation_in, turned
from calotype.imaging.sieve import Fate, NotUnderstood, Piece

_MARKER: Final = re.compile(rb"\xff[\x01-\xfe]")
"""Without the marks that may fill up before it: hunting for those costs the square of them."""
_AFTER_SCAN: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""What ends the pixels of a scan: neither a stuffed byte nor a restart."""
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_END: Final = 0xD9
_SCAN: Final = 0xDA
_CODING: Final = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xE0)}) - {0xC8}
_APP0, _APP1, _APP2, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
_JFIF: Final = b"JFIF\x00"
_JFIF_BYTES: Final = 14
_EXIF: Final = b"Exif\x00\x00"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\x00"
_PROFILE: Final = b"ICC_PROFILE\x00"
_ADOBE: Final = b"Adobe"
_ADOBE_BYTES: Final = 12
_TOLD_BY: Final = len(_XMP)
"""Bytes of a segment by which it is told from all others."""
MAX_SCANS: Final = 100
"""Encoders make about ten. Each costs a pass over all pixels, however few bytes it has."""
_BLOCK: Final = 1024 * 1024


def judge_scans(file: BinaryIO) -> None:
    """Count whatever looks like a scan in a JPEG that no walk understood.

    Raises:
        UnsupportedReferenceType: there are too many to decode it.

    """
    scans, last = 0, b""
    file.seek(0)
    for block in iter(lambda: file.read(_BLOCK), b""):
        scans += (last + block).count(b"\xff\xda")
        last = block[-1:]
    if scans > MAX_SCANS:
        raise _too_many_scans()


class JpegWalk:
    """Walks over one JPEG.

    Args:
        xmp: the packet that it gets.
        whole: what it says of itself stays, and the packet is put in only where there is none.

    """

    def __init__(self, xmp: bytes | None = None, *, whole: bool = False) -> None:
        self.orientation = UPRIGHT
        self.finished = False
        self._xmp = None if xmp is None else _segment(_APP1, _XMP + xmp)
        self._whole = whole
        self._begun = False
        self._in_scan = False
        self._scans = 0
        self._seen: set[bytes] = set()

    def piece(self, data: bytes, at: int) -> Piece | None:
        """Go on by a segment, or by the pixels of a scan as far as they are there."""
        if self.finished:
            return Piece(len(data) - at, Fate.DROP)
        if not self._begun:
            self._begun = True
            return Piece(2)
        if self._in_scan:
            return self._scan(data, at)
        found = _MARKER.search(data, at)
        # Decoders skip junk before a marker, and marks that fill up: so they can be left out.
        junk = (len(data) - 1 if found is None else found.start()) - at
        if junk:
            return Piece(junk, Fate.DROP)
        return None if found is None else self._segment(data, at, data[at + 1])

    def _scan(self, data: bytes, at: int) -> Piece | None:
        found = _AFTER_SCAN.search(data, at)
        if found is None:
            pixels = len(data) - data.endswith(b"\xff") - at
            return Piece(pixels) if pixels else None
        self._in_scan = False
        return Piece(found.start() - at)

    def _segment(self, data: bytes, at: int, marker: int) -> Piece | None:
        if marker in _ALONE:
            return Piece(2, Fate.DROP)
        if marker == _END:
            self.finished = True
            return Piece(2)
        if len(data) - at < 4:  # noqa: PLR2004 -- the marker and the length
            return None
        length = int.from_bytes(data[at + 2 : at + 4])
        content = data[at + 4 : at + 2 + min(length, _TOLD_BY + 2)]
        if length < 2:  # noqa: PLR2004 -- it counts itself
            raise NotUnderstood
        if marker in _CODING:
            self._in_scan = marker == _SCAN
            self._scans += self._in_scan
            if self._scans > MAX_SCANS:
                raise _too_many_scans()
            return Piece(2 + length, before=self._mark())
        if not (self._whole or _APP0 <= marker <= _APP15 or marker == _COMMENT):
            raise NotUnderstood
        if len(content) < min(length - 2, _TOLD_BY):
            return None
        return Piece(2 + length, self._fate(marker, content))

    def _fate(self, marker: int, content: bytes) -> Fate:
        """What becomes of a segment that decodes nothing."""
        if marker == _APP2 and content.startswith(_PROFILE):
            return self._next_of_profile(content[len(_PROFILE) :])
        if marker == _APP14 and content.startswith(_ADOBE) and len(content) >= _ADOBE_BYTES:
            return Fate.REPLACE
        if marker == _APP0 and content.startswith(_JFIF) and len(content) >= _JFIF_BYTES:
            return self._first(_JFIF)
        if marker == _APP1 and content.startswith(_EXIF):
            return self._first(_EXIF)
        if marker == _APP1 and content.startswith(_XMP) and self._whole:
            self._xmp = None
        return Fate.DROP

    def _next_of_profile(self, numbers: bytes) -> Fate:
        """A part of the profile stays once: so there are 255 at most, of 64 KiB."""
        number, of = numbers[:1], numbers[1:2]
        return self._once(_PROFILE + number) if b"\0" < number <= of else Fate.DROP

    def _once(self, part: bytes) -> Fate:
        fate = Fate.DROP if part in self._seen else Fate.KEEP
        self._seen.add(part)
        return fate

    def _first(self, kind: bytes) -> Fate:
        if kind in self._seen:
            return Fate.DROP
        self._seen.add(kind)
        return Fate.REPLACE

    def _mark(self) -> bytes:
        mark, self._xmp = self._xmp, None
        return mark or b""

    def replaced(self, gathered: bytes) -> bytes:
        """The segment without a thumbnail, and without anything that decodes nothing."""
        content = gathered[4:]
        if content.startswith(_ADOBE):
            return _segment(_APP14, content[:_ADOBE_BYTES])
        if content.startswith(_JFIF):
            return _segment(_APP0, content[: _JFIF_BYTES - 2] + bytes(2))
        self.orientation = orientation_in(content)
        if self.orientation == UPRIGHT:
            return b""
        return _segment(_APP1, _EXIF + turned(self.orientation))

    def last(self, size: int) -> tuple[bytes, Sequence[tuple[int, bytes]]]:
        """Nothing: all was in its place."""
        del size
        return b"", ()


def _too_many_scans() -> UnsupportedReferenceType:
    return UnsupportedReferenceType(
        f"The image is a JPEG of more than {MAX_SCANS} scans; save it anew with fewer."
    )


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2) + content
