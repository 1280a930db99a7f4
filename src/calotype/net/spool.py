"""Images on their way from an answer to the asset store: in files that have no name."""

import asyncio
import os
import tempfile
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from calotype.domain.outcomes import SourceError

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
            CannotKeep: it cannot be written.

        """
        if self._waiting:
            pieces, self._waiting = self._waiting, []
            try:
                # The bound method keeps the file open under the thread, should nobody else.
                await asyncio.to_thread(self._write, pieces)
            except OSError as error:
                raise CannotKeep(error.strerror) from error

    def _write(self, pieces: list[bytes]) -> None:
        if self._descriptor is None:
            with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
                self._descriptor = os.dup(file.fileno())
            self._closing = weakref.finalize(self, _close, self._descriptor)
        left = memoryview(b"".join(pieces))
        while left:
            left = left[os.write(self._descriptor, left) :]

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


def _close(descriptor: int) -> None:
    """Close the file in a thread: with it go its blocks, which takes a disk's time."""
    try:
        asyncio.get_running_loop().run_in_executor(None, os.close, descriptor)
    except RuntimeError:
        os.close(descriptor)
