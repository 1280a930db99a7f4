"""The walk over a PNG: its pixels and colours stay, and nothing else."""

import zlib
from collections.abc import Sequence
from os import SEEK_CUR
from typing import BinaryIO, Final

from calotype.imaging.exif import UPRIGHT, orientation_in, turned
from calotype.imaging.sieve import Fate, NotUnderstood, Piece

_SIGNATURE: Final = 8
_HEAD: Final = 8
_FRAME: Final = 12
"""Bytes of a chunk besides its data: length, type and checksum."""
_LARGEST: Final = 2**31 - 1
PROFILE_BYTES: Final = 16 * 1024 * 1024
"""Of a colour profile that is unpacked; the largest that a JPEG holds."""
_KEPT: Final = {
    b"IHDR": 13,
    b"PLTE": 768,
    b"tRNS": 256,
    b"iCCP": _LARGEST,
    b"sRGB": 1,
    b"cICP": 4,
    b"gAMA": 4,
    b"cHRM": 32,
    b"sBIT": 4,
    b"pHYs": 9,
    b"bKGD": 6,
    b"mDCV": 24,
    b"cLLI": 8,
    b"acTL": 8,
    b"fcTL": 26,
    b"fdAT": _LARGEST,
}
"""Types of chunks → the most data that one holds; those of the pixels aside."""
_MANY: Final = frozenset({b"fcTL", b"fdAT"})
_XMP: Final = b"XML:com.adobe.xmp\x00"


def packed_profile(file: BinaryIO) -> bytes | None:
    """The colour profile of a PNG that a walk understood and ``probe`` took, if it has one."""
    file.seek(_SIGNATURE)
    while len(head := file.read(_HEAD)) == _HEAD and head[4:] not in {b"IDAT", b"IEND"}:
        length = int.from_bytes(head[:4])
        if head[4:] == b"iCCP":
            return file.read(length)
        file.seek(length + 4, SEEK_CUR)
    return None


def unpacks(content: bytes) -> bool:
    """Whether a colour profile can be unpacked, which takes a hostile one some 50 ms.

    Where it cannot, or has over ``PROFILE_BYTES``, many decoders refuse the whole image.
    """
    name, _, packed = content.partition(b"\0")
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed[1:], PROFILE_BYTES)
    except zlib.error:
        return False
    return bool(name) and packed[:1] == b"\0" and not unpacking.unconsumed_tail


class PngWalk:
    """Walks over one PNG.

    Args:
        xmp: the packet that it gets.
        whole: what it says of itself stays, and the packet is put in only where there is none.

    """

    def __init__(self, xmp: bytes | None = None, *, whole: bool = False) -> None:
        self.orientation = UPRIGHT
        self.finished = False
        self._xmp = None if xmp is None else _chunk(b"iTXt", _XMP + bytes(4) + xmp)
        self._whole = whole
        self._begun = False
        self._seen: set[bytes] = set()

    def piece(self, data: bytes, at: int) -> Piece | None:
        """Go on by a chunk."""
        if self.finished:
            return Piece(len(data) - at, Fate.DROP)
        if not self._begun:
            self._begun = True
            return Piece(_SIGNATURE)
        return self._chunk(data, at) if len(data) - at >= _HEAD else None

    def _chunk(self, data: bytes, at: int) -> Piece | None:
        kind = data[at + 4 : at + _HEAD]
        length = int.from_bytes(data[at : at + 4])
        if length > _LARGEST:
            raise NotUnderstood
        if kind == b"IDAT":
            return Piece(_FRAME + length, before=b"" if self._whole else self._mark())
        if kind == b"IEND":
            if length:
                raise NotUnderstood
            self.finished = True
            return Piece(_FRAME, before=self._mark())
        most = _KEPT.get(kind)
        if most is None:
            return self._dropped(data, at, kind, length)
        if length > most or kind in self._seen:  # decoders differ on what to make of it
            raise NotUnderstood
        if kind not in _MANY:
            self._seen.add(kind)
        return Piece(_FRAME + length)

    def _dropped(self, data: bytes, at: int, kind: bytes, length: int) -> Piece | None:
        if not (kind.isalpha() and kind.isascii()):
            raise NotUnderstood
        if kind == b"eXIf" and kind not in self._seen:
            self._seen.add(kind)
            return Piece(_FRAME + length, Fate.REPLACE)
        if kind == b"iTXt" and self._whole:
            keyword = data[at + _HEAD : at + _HEAD + min(length, len(_XMP))]
            if len(keyword) < min(length, len(_XMP)):
                return None
            if keyword == _XMP:
                self._xmp = None
        return Piece(_FRAME + length, Fate.DROP)

    def _mark(self) -> bytes:
        mark, self._xmp = self._xmp, None
        return mark or b""

    def replaced(self, gathered: bytes) -> bytes:
        """A chunk of EXIF that only tells how the image is turned, if it is."""
        self.orientation = orientation_in(gathered[_HEAD:])
        if self.orientation == UPRIGHT:
            return b""
        return _chunk(b"eXIf", turned(self.orientation))

    def last(self, size: int) -> tuple[bytes, Sequence[tuple[int, bytes]]]:
        """Nothing: all was in its place."""
        del size
        return b"", ()


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return len(content).to_bytes(4) + kind + content + checksum.to_bytes(4)
