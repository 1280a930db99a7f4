"""Making an image the format or the size that was asked for, in a few processes of our own.

A conversion of a large image costs as much processor time as thousands of submissions, so it
stays away from the event loop and from its process.
"""

import asyncio
from pathlib import Path
from typing import Final, Literal
from weakref import WeakValueDictionary

import msgspec

from calotype.domain.fitting import Limits
from calotype.imaging.processes import Processes, ProcessGone
from calotype.imaging.signature import Sign

PROCESSES: Final = 2
"""Conversions at a time, where nothing else is set."""
LONGEST_SECONDS: Final = 120.0
MEMORY: Final = 4 * 1024**3
"""Bytes of address space that a process may have."""
GRACE_SECONDS: Final = 10.0
"""After so long over that, a process ends itself: nobody may be left to end it."""
CONTENT_TYPES: Final = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
"""The catalog's names of formats → content types."""
_MODULE: Final = "calotype.imaging.converting"


class NotConvertible(Exception):
    """The image cannot be decoded, or cannot be what was asked for; the message is for people."""


class ConversionBroke(NotConvertible):
    """It came to nothing this time, for want of room, or because it was killed."""


class Convert(msgspec.Struct, frozen=True, tag=True):
    """Make an image another format, upright, its colours kept."""

    source: str
    target: str
    opaque: str
    """Content type of an image that cannot be seen through."""
    clear: str
    """Content type of one that can."""


class Shrink(msgspec.Struct, frozen=True, tag=True):
    """Make a small WebP for a page."""

    source: str
    target: str
    width: int


class Fit(msgspec.Struct, frozen=True, tag=True):
    """Make a copy that is within an upstream's limits."""

    source: str
    target: str
    limits: Limits


Order = Convert | Shrink | Fit | Sign


class Reply(msgspec.Struct, frozen=True):
    """What became of an order."""

    fault: Literal["", "image", "system"] = ""
    """Who is to blame where it came to nothing."""
    message: str = ""
    content_type: str = ""


class Converter:
    """Converts images, a few at a time; each account waits for its own.

    Args:
        processes: how many at a time.

    """

    def __init__(self, processes: int = PROCESSES) -> None:
        self._share = max(1, processes - 1)  # no account has them all
        self._processes = Processes(_MODULE, most=processes)
        self._turns: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    async def convert(
        self,
        source: Path,
        target: Path,
        content_type: str,
        *,
        account_id: int,
        clear: str | None = None,
    ) -> str:
        """Write the image in ``source`` to ``target`` in another format; returns which.

        Of an animation, that is its first picture. It is upright, and nothing is left of what it
        says of itself but its colour profile.

        Args:
            source: file with the image.
            target: file to write.
            content_type: what it is to be.
            account_id: whose turn it takes.
            clear: what it is to be if it can be seen through; None: the same.

        Raises:
            ConversionBroke: it may be done another time.
            NotConvertible: it cannot be decoded, or not be of this format, or it takes too much.

        """
        order = Convert(str(source), str(target), content_type, clear or content_type)
        return (await self._run(order, account_id)).content_type

    async def shrink(self, source: Path, target: Path, width: int, *, account_id: int) -> None:
        """Write the image in ``source`` to ``target`` as a WebP at most so many pixels wide.

        It is turned upright, its colours are sRGB, and nothing is left of what it says of itself.
        One that is so high that no WebP were is made narrower yet.

        Raises:
            ConversionBroke: it may be done another time.
            NotConvertible: it cannot be decoded.

        """
        await self._run(Shrink(str(source), str(target), width), account_id)

    async def fit(self, source: Path, target: Path, limits: Limits, *, account_id: int) -> None:
        """Write a copy of the image in ``source`` to ``target`` that is within the limits.

        Raises:
            ConversionBroke: it may be done another time.
            NotConvertible: it cannot be decoded, or nothing of it is small enough.

        """
        await self._run(Fit(str(source), str(target), limits), account_id)

    async def sign(self, order: Sign, *, account_id: int) -> None:
        """Write an image with a C2PA manifest.

        Raises:
            ConversionBroke: it may be done another time.
            NotConvertible: it cannot be signed.

        """
        await self._run(order, account_id)

    async def close(self) -> None:
        """End the processes."""
        await self._processes.close()

    async def _run(self, order: Order, account_id: int) -> Reply:
        turns = self._turns.setdefault(account_id, asyncio.Semaphore(self._share))
        async with turns:
            try:
                reply = await self._ask(order)
            except ProcessGone:  # another process's end, perhaps; this image is tried once more
                try:
                    reply = await self._ask(order)
                except ProcessGone as error:
                    raise ConversionBroke("The conversion broke off.") from error
        if reply.fault == "system":
            raise ConversionBroke(reply.message)
        if reply.fault == "image":
            raise NotConvertible(reply.message)
        return reply

    async def _ask(self, order: Order) -> Reply:
        try:
            async with self._processes.turn() as process, asyncio.timeout(LONGEST_SECONDS):
                return await process.ask(order, Reply)
        except TimeoutError as error:
            raise NotConvertible("The image takes too long to convert.") from error
