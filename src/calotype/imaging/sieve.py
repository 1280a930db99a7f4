"""Taking what an image file says of itself out of it while it streams by, without decoding it.

A *walk* knows one format: it tells the next piece of the stream and what becomes of it. The sieve
does it. Pixels pass as they came, chunk by chunk; of what is taken out, nothing is gathered but
the few pieces that have to be read, and of those at most ``GATHERED`` bytes.

Written for hostile files: no chunk takes long, however many pieces are in it, and what is not
understood ends the sieving. The rest then passes as it is, and ``understood`` says so: such a
file is not to be given to anyone, only to a decoder that makes a new one of it.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple, Protocol

GATHERED: Final = 64 * 1024
"""Bytes of a piece that is read; what it has more is not looked at."""
_PIECES: Final = 512
_PIECE_BYTES: Final = 128
"""A chunk holds at most ``_PIECES`` pieces, and one for each so many of its bytes.

An image with more of them is not understood.
"""


class Fate(Enum):
    """What becomes of a piece."""

    KEEP = "keep"
    DROP = "drop"
    BLANK = "blank"
    """Its bytes become zeros, where its length stands in a head that has passed already."""
    REPLACE = "replace"
    """The walk is given its first bytes, and tells what stands in its place."""


class Piece(NamedTuple):
    """The next bytes of a stream that share one fate."""

    size: int
    fate: Fate = Fate.KEEP
    before: bytes = b""
    """What is put in front of it."""


class NotUnderstood(Exception):
    """The walk does not know what comes next."""


class Walk(Protocol):
    """What a format's walk tells; each file has a walk of its own."""

    orientation: int
    """As EXIF counts it, 1 to 8; 1 is upright."""
    finished: bool
    """Whether the end of the image was reached; whatever follows it is dropped."""

    def piece(self, data: bytes, at: int) -> Piece | None:
        """The piece that begins at ``at``; None where more bytes are needed to tell.

        Raises:
            NotUnderstood: it is nothing that an image of this format holds.

        """
        ...

    def replaced(self, gathered: bytes) -> bytes:
        """What stands in the place of the last piece, of which these are the first bytes."""
        ...

    def last(self, size: int) -> tuple[bytes, Sequence[tuple[int, bytes]]]:
        """What is appended to a finished image of so many bytes, and what is mended then.

        Returns:
            The bytes, and ``(offset, bytes)`` to be written over what was given out.

        """
        ...


class Sieve:
    """Cleans one image.

    Args:
        walk: how the image is read.
        whole: leave what it says of itself; what follows its end goes all the same.

    """

    def __init__(self, walk: Walk, *, whole: bool = False) -> None:
        self._walk = walk
        self._whole = whole
        self._held = b""
        self._left = 0
        self._fate = Fate.KEEP
        self._gathered = bytearray()
        self.understood = True
        """Whether what came out is an image without anything that was to be taken out."""
        self.size = 0
        """Bytes given out so far."""
        self.mends: Sequence[tuple[int, bytes]] = ()
        """At the end: offsets, and the bytes to be written there over what was given out."""

    @property
    def orientation(self) -> int:
        """How the image is to be turned, as EXIF counts it; 1 where it is upright or stays."""
        return 1 if self._whole else self._walk.orientation

    def feed(self, chunk: bytes) -> bytes:
        """The next bytes of the image → the next bytes of the clean one, if any.

        Raises:
            UnsupportedReferenceType: they would take a decoder too long.

        """
        if self.understood:
            chunk = self._sieve(self._held + chunk if self._held else chunk)
        self.size += len(chunk)
        return chunk

    def end(self) -> bytes:
        """What comes after the last bytes."""
        rest = self._held
        if self.understood and self._walk.finished and not self._left:
            rest, self.mends = self._walk.last(self.size)
        else:
            self.understood = False
        self._held = b""
        self.size += len(rest)
        return rest

    def _sieve(self, data: bytes) -> bytes:
        out: list[bytes] = []
        at = kept = 0  # data[kept:at] is being kept
        end = len(data)
        pieces = _PIECES + end // _PIECE_BYTES
        while at < end:
            if not self._left:
                pieces -= 1
                if not pieces:  # no encoder cuts so small; a decoder may make something of it
                    self.understood = False
                    at = end
                    break
                piece = self._next(data, at)
                if piece is None:
                    break
                if piece.before:
                    out += (data[kept:at], piece.before)
                    kept = at
                if not self.understood:
                    at = end
                    break
                continue
            step = min(self._left, end - at)
            self._left -= step
            at += step
            if self._fate is not Fate.KEEP:
                out += (data[kept : at - step], self._instead(data, at - step, at))
                kept = at
        self._held = data[at:]
        out.append(data[kept:at])
        return out[0] if len(out) == 1 else b"".join(out)

    def _next(self, data: bytes, at: int) -> Piece | None:
        """Begin the next piece."""
        over = self._walk.finished
        try:
            piece = self._walk.piece(data, at)
        except NotUnderstood:
            self.understood = False
            return Piece(0)
        if piece is not None:
            self._left = piece.size
            self._fate = Fate.KEEP if self._whole and not over else piece.fate
        return piece

    def _instead(self, data: bytes, start: int, stop: int) -> bytes:
        """What stands in the place of ``data[start:stop]``."""
        if self._fate is Fate.BLANK:
            return bytes(stop - start)
        if self._fate is Fate.DROP:
            return b""
        room = GATHERED - len(self._gathered)
        self._gathered += data[start : min(stop, start + room)]
        if self._left:
            return b""
        gathered, self._gathered = bytes(self._gathered), bytearray()
        return self._walk.replaced(gathered)
