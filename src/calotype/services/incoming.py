"""An image on its way in: measured, told by its first bytes, and cleaned as it passes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from calotype.assets.port import Staged
from calotype.domain.errors import ReferenceTooLarge, UnsupportedReferenceType
from calotype.imaging.cleaning import cleaner, mend
from calotype.imaging.exif import UPRIGHT
from calotype.imaging.foreign import FOREIGN, converted_types, judge_foreign, sniff_foreign
from calotype.imaging.jpeg import judge_scans
from calotype.imaging.png import packed_profile, unpacks
from calotype.imaging.probe import SNIFF_BYTES, ImageFacts, measure, sniff
from calotype.imaging.sieve import Sieve

if TYPE_CHECKING:
    import hashlib

EXTENSIONS: Final[dict[str, str]] = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}
"""The types of images that are stored, and what their files end with."""
_OPAQUE: Final = ("image/jpeg", "image/png", "image/webp")
"""What an image of a type that is not stored becomes: the first of these that is taken."""
_CLEAR: Final = ("image/png", "image/webp", "image/jpeg")
"""The same for one that can be seen through."""


class Arrived(msgspec.Struct, frozen=True):
    """An image that came to its end and was judged."""

    content_type: str
    facts: ImageFacts | None
    """As it is staged; None where it is of a type that is not stored."""
    clean: bool
    """It is of a type that is stored, and says nothing of itself but how it is turned."""
    presentable: bool
    """It is clean and upright, of a type that is stored, and can be given out as it is."""


async def take_in(
    chunks: AsyncIterator[bytes],
    staged: Staged,
    *,
    max_bytes: int,
    content_types: Sequence[str],
    xmp: bytes | None,
    whole: bool,
    digest: "hashlib._Hash | None" = None,
) -> Arrived:
    """Stage an image, clean of what it says of itself.

    Args:
        chunks: its bytes.
        staged: where it goes.
        max_bytes: most bytes of it.
        content_types: what it may be, besides what is converted to one of them.
        xmp: what is written into it.
        whole: leave in it what it says of itself.
        digest: is given the bytes as they come.

    Raises:
        errors.ReferenceTooLarge: over ``max_bytes``, or a pixel bomb.
        errors.UnsupportedReferenceType: no image, damaged, or of another type.

    """
    size, head = 0, b""
    found: str | None = None
    sieve: Sieve | None = None
    async for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        if digest is not None:
            digest.update(chunk)
        coming = chunk
        if found is None:
            head += chunk
            if len(head) < SNIFF_BYTES:
                continue
            coming, found = head, _judged_type(head, content_types)
            native = sniff(head)
            sieve = None if native is None else cleaner(native, xmp=xmp, whole=whole)
        if clean := sieve.feed(coming) if sieve else coming:
            await staged.write(clean)
    if found is None:
        raise UnsupportedReferenceType(
            f"The file has {size} bytes, which is no image; send {sendable(content_types)}."
        )
    if sieve is None:
        path = await staged.finish()
        await asyncio.to_thread(judge_foreign, str(path), found)
        return Arrived(found, None, clean=False, presentable=False)
    await staged.write(sieve.end())
    facts, profile = await staged.look(partial(_judge, found=found, sieve=sieve))
    # Every decoder is to take what it says of its colours.
    sound = profile is None or await asyncio.to_thread(unpacks, profile)
    upright = sieve.understood and sieve.orientation == UPRIGHT
    return Arrived(found, facts, clean=sieve.understood, presentable=upright and sound)


def stored_as(found: str, content_types: Sequence[str]) -> tuple[str, str]:
    """What an image of a type becomes when it is converted: opaque, and one that is clear."""
    if found in EXTENSIONS:
        return found, found
    opaque = next((each for each in _OPAQUE if each in content_types), _OPAQUE[0])
    return opaque, next((each for each in _CLEAR if each in content_types), _CLEAR[0])


def sendable(content_types: Sequence[str]) -> str:
    """The types that may be sent, for people."""
    return listed((*content_types, *(each for each in converted_types() if each in FOREIGN)))


def listed(content_types: Sequence[str]) -> str:
    """Types of images, for people."""
    return ", ".join(kind.removeprefix("image/").upper() for kind in content_types)


def _judge(file: BinaryIO, found: str, sieve: Sieve) -> tuple[ImageFacts, bytes | None]:
    """What the image is, once mended, and a colour profile that is still to be judged."""
    mend(file, sieve.mends)
    if found == "image/jpeg" and not sieve.understood:
        judge_scans(file)
    facts = measure(file)
    return facts, packed_profile(file) if found == "image/png" and sieve.understood else None


def _judged_type(head: bytes, content_types: Sequence[str]) -> str:
    native, foreign = sniff(head), sniff_foreign(head)
    if native is not None and native in content_types:
        return native
    if foreign is not None and foreign in converted_types():
        return foreign
    found = native or foreign
    what = f"The file is {found}" if found else "The file is no image that we know"
    if foreign:
        what += ", which this server cannot read"
    raise UnsupportedReferenceType(f"{what}; send {sendable(content_types)}.")


def _too_large(max_bytes: int) -> ReferenceTooLarge:
    return ReferenceTooLarge(
        f"The file has more than {max_bytes} bytes ({max_bytes // (1024 * 1024)} MiB); "
        "send a smaller one."
    )
