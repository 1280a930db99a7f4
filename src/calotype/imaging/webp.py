"""The walk over a WebP: pixels, frames and the colour profile stay, and nothing else."""

from collections.abc import Sequence
from typing import Final

from calotype.imaging.exif import UPRIGHT, orientation_in, turned
from calotype.imaging.sieve import Fate, NotUnderstood, Piece

_RIFF: Final = 12
_HEAD: Final = 8
_EXTENDED: Final = b"VP8X"
_EXTENDED_BYTES: Final = 10
_PICTURES: Final = {b"VP8 ": 10, b"VP8L": 5}
"""Chunks of pixels → their first bytes, which tell the sides."""
_IN_FRAMES: Final = frozenset({b"ALPH", *_PICTURES})
_FRAME_HEAD: Final = 16
_FILM_BYTES: Final = 6
_PROFILE, _ALPHA, _EXIF, _XMP, _ANIMATED = 0x20, 0x10, 0x08, 0x04, 0x02


class WebpWalk:
    """Walks over one WebP.

    Args:
        xmp: the packet that it gets.
        whole: what it says of itself stays, and the packet is put in only where there is none.

    """

    def __init__(self, xmp: bytes | None = None, *, whole: bool = False) -> None:
        self.orientation = UPRIGHT
        self.finished = False
        self._xmp = xmp
        self._whole = whole
        self._at = 0
        """Where in the file the next piece begins."""
        self._end = 0
        """Where the file says that it ends."""
        self._frame_end = 0
        self._blank = 0
        self._flags: int | None = None
        """What the extended head says; None in a file without one."""
        self._holds = 0
        """The flags of what was found and is kept."""
        self._lead = b""
        """The extended head that the file gets."""
        self._seen: set[bytes] = set()

    def piece(self, data: bytes, at: int) -> Piece | None:
        """Go on by a chunk, or by a part of a frame."""
        if self.finished:
            return Piece(len(data) - at, Fate.DROP)
        piece = self._chunk(data, at) if self._end else self._begin(data, at)
        if piece is not None:
            self._at += piece.size
            if self._at > max(self._end, _RIFF):
                raise NotUnderstood
            self.finished = self._at == self._end
        return piece

    def _begin(self, data: bytes, at: int) -> Piece | None:
        """Read the head of the file, and of its first chunk."""
        first = data[at + _RIFF : at + _RIFF + _HEAD + _EXTENDED_BYTES]
        kind, content = first[:4], first[_HEAD:]
        if len(content) < _PICTURES.get(kind, _EXTENDED_BYTES):
            return None
        self._end = _HEAD + int.from_bytes(data[at + 4 : at + 8], "little")
        if kind == _EXTENDED:
            if int.from_bytes(first[4:_HEAD], "little") != _EXTENDED_BYTES:
                raise NotUnderstood
            self._flags = content[0]
            return Piece(_RIFF + _HEAD + _EXTENDED_BYTES)
        if self._xmp is not None:
            self._lead = _extended(kind, content)
        return Piece(_RIFF)

    def _chunk(self, data: bytes, at: int) -> Piece | None:
        within = self._at < self._frame_end
        end = self._frame_end if within else self._end
        if self._blank or end - self._at < _HEAD:  # of a frame too, whose length is out already
            size, self._blank = self._blank or end - self._at, 0
            return Piece(size, Fate.BLANK if within else Fate.DROP)
        head = data[at : at + _HEAD]
        if len(head) < _HEAD:
            return None
        kind, length = head[:4], int.from_bytes(head[4:], "little")
        size = _HEAD + length + length % 2
        if self._at + size > end:
            raise NotUnderstood
        if not within:
            return self._outer(kind, length, size)
        if kind in _IN_FRAMES:
            return Piece(size)
        self._blank = size - _HEAD
        return Piece(_HEAD)

    def _outer(self, kind: bytes, length: int, size: int) -> Piece:
        """Judge a chunk that stands in no frame."""
        flags = self._flags or 0
        first = kind not in self._seen
        self._seen.add(kind)
        if kind == b"ANMF" and flags & _ANIMATED:
            if length < _FRAME_HEAD:
                raise NotUnderstood
            self._frame_end = self._at + size
            return Piece(_HEAD + _FRAME_HEAD)
        if kind == b"XMP " and flags & _XMP and self._whole:
            self._xmp = None
        if not first:
            return Piece(size, Fate.DROP)
        if kind == b"ANIM" and flags & _ANIMATED and length != _FILM_BYTES:
            raise NotUnderstood  # without it nothing shows the film
        if kind in _PICTURES:
            return self._picture(size)
        if kind == b"EXIF" and flags & _EXIF:
            return Piece(size, Fate.REPLACE)
        if kind == b"ICCP" and flags & _PROFILE:
            self._holds |= _PROFILE
            return Piece(size)
        film = kind == b"ANIM" and flags & _ANIMATED and length == _FILM_BYTES
        still = self._flags is not None and not flags & _ANIMATED
        alpha = kind == b"ALPH" and still and self._seen.isdisjoint(_PICTURES)
        return Piece(size, Fate.KEEP if film or alpha else Fate.DROP)

    def _picture(self, size: int) -> Piece:
        if (self._flags or 0) & _ANIMATED:
            raise NotUnderstood
        self._seen.update(_PICTURES)
        lead, self._lead = self._lead, b""
        if lead:
            self._flags = lead[_HEAD]
        return Piece(size, before=lead)

    def replaced(self, gathered: bytes) -> bytes:
        """A chunk of EXIF that only tells how the image is turned, if it is."""
        self.orientation = orientation_in(gathered[_HEAD:])
        if self.orientation == UPRIGHT:
            return b""
        self._holds |= _EXIF
        return _made(b"EXIF", turned(self.orientation))

    def last(self, size: int) -> tuple[bytes, Sequence[tuple[int, bytes]]]:
        """The packet, and the head as it is by now."""
        packet = b""
        if self._xmp is not None:
            packet = _made(b"XMP ", self._xmp)
            self._holds |= _XMP
        mends = [(4, (size + len(packet) - _HEAD).to_bytes(4, "little"))]
        if self._flags is not None:
            stay = 0xFF if self._whole else _ALPHA | _ANIMATED
            flags = self._flags & stay | self._holds
            mends.append((_RIFF + _HEAD, bytes((flags, 0, 0, 0))))
        return packet, mends


def _extended(kind: bytes, content: bytes) -> bytes:
    """The extended head of a picture that stood alone."""
    flags = 0
    if kind == b"VP8 ":
        width = int.from_bytes(content[6:8], "little") & 0x3FFF
        height = int.from_bytes(content[8:10], "little") & 0x3FFF
    else:
        bits = int.from_bytes(content[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        flags = _ALPHA if bits >> 28 & 1 else 0
    if not (width and height):
        raise NotUnderstood
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return _made(_EXTENDED, bytes((flags, 0, 0, 0)) + sides)


def _made(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)
