"""Images on their way from an answer to the asset store: in memory, or in files without a name."""

import asyncio
import os
import tempfile
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import IO, Final

from calotype.domain.outcomes import SourceError

ROOM: Final = 64 * 1024 * 1024
"""Least bytes free where images are to be kept; of a small disk,"""
SHARE: Final = 20
"""the twentieth part."""
HELD: Final = 8 * 1024 * 1024
"""Most bytes of an image that stays in memory."""
STEP: Final = 256 * 1024
"""Bytes set aside at a time for an image of unknown size."""
_READ: Final = 256 * 1024
PROOF_SECONDS: Final = 1.0
"""For so long a disk that had room is believed to have it."""


class CannotKeep(Exception):
    """An image cannot be written to disk here; the message is the system's own word for why."""


class Memory:
    """What all images on their way may take of it together, in bytes."""

    def __init__(self, room: int) -> None:
        self._free = room

    def take(self, size: int) -> bool:
        """Set some aside; False where there is not so much."""
        if size > self._free:
            return False
        self._free -= size
        return True

    def give(self, size: int) -> None:
        """Give some back."""
        self._free += size


class Spool:
    """One image as an ``ImageSource``: its bytes in memory or in an unlinked temporary file.

    It stays in memory as long as that is set aside for it, else all of it goes to the file. This
    is made with the first byte written to it and goes, as the memory does, when the image is no
    longer referred to. It holds one file descriptor.

    Args:
        folder: where the file is, without a name.
        memory: what may be set aside; None: nothing.
        expected: bytes that the image may have.

    """

    def __init__(self, folder: Path, memory: Memory | None = None, expected: int = STEP) -> None:
        self._folder = folder
        self._memory = memory or Memory(0)
        self._lent = expected if expected <= HELD and self._memory.take(expected) else 0
        self._pieces: list[bytes] = []
        self._size = 0
        self.held = self._lent > 0
        """Whether it is in memory that was set aside."""
        self._descriptor: int | None = None
        self._fault: str | None = "The image was not received to its end."

    def __del__(self) -> None:
        self._memory.give(self._lent)

    def add(self, piece: bytes) -> int:
        """Take in more of the image; returns how many bytes more wait for ``write`` by that."""
        self._pieces.append(piece)
        self._size += len(piece)
        if not self.held:
            return len(piece)
        while self._size > self._lent and self.held:
            self.held = self._lent + STEP <= HELD and self._memory.take(STEP)
            self._lent += STEP if self.held else 0
        return 0 if self.held else self._size

    def complete(self) -> None:
        """Say that nothing follows and all of it is good."""
        self._fault = None
        if self.held:
            self._give_back(self._lent - self._size)

    def spoil(self, fault: str) -> None:
        """Say that the image is no good: what was kept of it is let go."""
        self._fault = fault
        self._pieces.clear()
        self._give_back(self._lent)
        self._let_go()

    async def write(self) -> None:
        """Move what is in memory, and is not to stay there, to the file, in a thread.

        Raises:
            CannotKeep: it cannot be written; nothing is lost, and this may be called again.

        """
        if self._pieces and not self.held:
            try:
                # The bound method keeps the file open under the thread, should nobody else.
                await asyncio.to_thread(self._write, self._pieces)
            except OSError as error:
                raise CannotKeep(_why(error)) from error
            self._give_back(self._lent)

    def _write(self, pieces: list[bytes]) -> None:
        """Write the pieces and take out of the list what is written, though it be a part."""
        if self._descriptor is None:
            with _new_file(self._folder) as file:
                self._descriptor = os.dup(file.fileno())
            self._closing = weakref.finalize(self, _close, self._descriptor)
        left = memoryview(b"".join(pieces))
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        finally:
            pieces[:] = [left.tobytes()] if left else []

    def _give_back(self, size: int) -> None:
        self._lent -= size
        self._memory.give(size)

    def _let_go(self) -> None:
        if self._descriptor is not None:
            self._descriptor = None
            self._closing()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """The image in chunks.

        Raises:
            SourceError: the upstream sent no valid image data.

        """
        if self._fault is not None:
            raise SourceError(self._fault, retryable=False)
        yield self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        if self.held:
            for piece in self._pieces:
                yield piece
            return
        at = 0
        while chunk := await asyncio.to_thread(self._read, at):
            at += len(chunk)
            yield chunk

    def _read(self, at: int) -> bytes:
        return b"" if self._descriptor is None else os.pread(self._descriptor, _READ, at)


class Room:
    """Whether images can be kept in the folder, which is made where it is missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._until = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    async def prove(self) -> None:
        """Look, in a thread; one look serves all who ask within ``PROOF_SECONDS``.

        Raises:
            CannotKeep: the folder cannot be written, or its disk is all but full.

        """
        if self.proven:
            return
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)

    @property
    def proven(self) -> bool:
        """Whether they can, as far as the last look goes."""
        return monotonic() < self._until

    def doubt(self) -> None:
        """Have the next one look again."""
        self._until = float("-inf")

    async def _look(self) -> None:
        try:
            await asyncio.to_thread(_look_for_room, self._folder)
            self._until = monotonic() + PROOF_SECONDS
        finally:
            self._looking = None


def _look_for_room(folder: Path) -> None:
    try:
        with _new_file(folder) as file:
            file.write(b"?")
        disk = os.statvfs(folder)
    except OSError as error:
        raise CannotKeep(_why(error)) from error
    least = min(ROOM, disk.f_blocks * disk.f_frsize // SHARE)
    if disk.f_bavail * disk.f_frsize < least:
        raise CannotKeep(f"Fewer than {least} bytes are free")


def _new_file(folder: Path) -> IO[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder, buffering=0)


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _close(descriptor: int) -> None:
    """Close the file in a thread: with it go its blocks, which takes a disk's time."""
    try:
        asyncio.get_running_loop().run_in_executor(None, os.close, descriptor)
    except RuntimeError:
        os.close(descriptor)
