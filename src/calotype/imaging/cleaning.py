"""Cleaning an image of what it says of itself: as a stream, or a file as a whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from calotype.imaging.jpeg import JpegWalk
from calotype.imaging.png import PngWalk
from calotype.imaging.probe import ContentType
from calotype.imaging.sieve import Sieve, Walk
from calotype.imaging.webp import WebpWalk

_BLOCK: Final = 256 * 1024


class _Format(Protocol):
    def __call__(self, xmp: bytes | None = None, *, whole: bool = False) -> Walk: ...


_WALKS: Final[dict[ContentType, _Format]] = {
    "image/jpeg": JpegWalk,
    "image/png": PngWalk,
    "image/webp": WebpWalk,
}


def cleaner(content_type: ContentType, *, xmp: bytes | None = None, whole: bool = False) -> Sieve:
    """What cleans one image while it streams by.

    Args:
        content_type: what ``probe.sniff`` says of its first bytes.
        xmp: the XMP packet that it gets instead.
        whole: leave what it says of itself, and add the packet only where there is none.

    """
    return Sieve(_WALKS[content_type](xmp, whole=whole), whole=whole)


def clean_file(source: Path, target: Path, sieve: Sieve) -> None:
    """Write the image in ``source`` to ``target`` clean; it blocks on the disk."""
    with source.open("rb") as coming, target.open("wb") as going:
        for block in iter(lambda: coming.read(_BLOCK), b""):
            going.write(sieve.feed(block))
        going.write(sieve.end())
        mend(going, sieve.mends)


def mend(file: BinaryIO, mends: Sequence[tuple[int, bytes]]) -> None:
    """Write over what a sieve gave out too early to know it."""
    for offset, content in mends:
        file.seek(offset)
        file.write(content)
