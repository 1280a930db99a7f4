"""Images on their way from an answer to the asset store: in files that have no name."""

import asyncio
import os
import tempfile
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

from calotype.domain.outcomes import SourceError

ROOM: Final = 64 * 1024 * 1024
"""Least bytes free where images are to be kept; of a small disk,"""
SHARE: Final = 20
"""the twentieth part."""
_READ: Final = 256 * 1024


class CannotKeep(Exception):
    """An image cannot be written to disk here; the message is the system's own word for why."""


class Spool:
    """One image as an ``ImageSource``: its bytes in an unlinked temporary file.

    The file is made with the first byte written to it and goes when this is no longer referred
    to. It holds one file descriptor.

    Args:
        folder: where the file is, without a name.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[bytes] = []
        self._descriptor: int | None = None
        self._fault: str | None = "The image was not received to its end."

    def add(self, piece: bytes) -> None:
        """Take in more of the image; it is in memory until ``write``."""
        self._waiting.append(piece)

    def complete(self) -> None:
        """Say that nothing follows and all of it is good."""
        self._fault = None

    def spoil(self, fault: str) -> None:
        """Say that the image is no good: what was kept of it is let go."""
        self._fault = fault
        self._waiting.clear()
        self._let_go()

    async def write(self) -> None:
        """Move what is in memory to the file, in a thread.

        Raises:
            CannotKeep: it cannot be written; nothing is lost, and this may be called again.

        """
        if self._waiting:
            try:
                # The bound method keeps the file open under the thread, should nobody else.
                await asyncio.to_thread(self._write, self._waiting)
            except OSError as error:
                raise CannotKeep(_why(error)) from error

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
        at = 0
        while chunk := await asyncio.to_thread(self._read, at):
            at += len(chunk)
            yield chunk

    def _read(self, at: int) -> bytes:
        return b"" if self._descriptor is None else os.pread(self._descriptor, _READ, at)


def look_for_room(folder: Path) -> None:
    """Prove that images can be kept in the folder, which is made where it is missing; blocks.

    Raises:
        CannotKeep: it cannot be written, or its disk is all but full.

    """
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
