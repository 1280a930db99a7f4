"""Images on their way in: files in a folder of this machine, judged there before they are kept."""

import asyncio
import fcntl
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, Final

from calotype.domain.errors import AssetNotFound, Unavailable

CHUNK: Final = 256 * 1024
"""Bytes read, and bytes gathered for one write: each is a trip to a thread."""
_LOCK: Final = "lock"


class Staging:
    """Where one process stages, in a folder of its own under ``root``.

    It holds a lock there, so that another process knows what was left behind and what is still
    being written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / secrets.token_hex(8)
        self._lock: IO[str] | None = None
        self._holding = threading.Lock()

    def path(self) -> Path:
        """A path for a new file; the folder is made and locked by the first one."""
        with self._holding:
            if self._lock is None or not self._folder.exists():
                self.release()
                self._folder, self._lock = _hold(self._root)
        return self._folder / secrets.token_hex(8)

    def release(self) -> None:
        """Let go of the folder, which is empty by now."""
        if self._lock is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._lock.close()
            self._lock = None

    async def sweep(self) -> int:
        """Remove what a process that is gone left; returns how many files."""
        return await asyncio.to_thread(_sweep, self._root)


class StagedFile:
    """A file that is being written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: BinaryIO = path.open("wb", buffering=0)
        self._gathered: list[bytes] = []
        self._size = 0

    async def write(self, chunk: bytes) -> None:
        """Append to it."""
        self._gathered.append(chunk)
        self._size += len(chunk)
        if self._size >= CHUNK:
            await self.flush()

    async def finish(self) -> Path:
        """End the writing; the file at the path returned holds all that was written."""
        await self.flush()
        return self.path

    async def flush(self) -> None:
        """Hand what was gathered to the system."""
        gathered, self._gathered, self._size = self._gathered, [], 0
        if gathered:
            with faults_told():
                await asyncio.to_thread(self._write_all, b"".join(gathered))

    def discard(self) -> None:
        """Remove what was not published."""
        self.file.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # an unbuffered write may take less than it was given
            view = view[self.file.write(view) :]


@contextmanager
def faults_told() -> Iterator[None]:
    """Turn what the system refuses into ``Unavailable``."""
    try:
        yield
    except OSError as error:
        raise unavailable() from error


def unavailable() -> Unavailable:
    """What is told while images cannot be stored or read."""
    return Unavailable("Images cannot be stored or read right now.", retry_after=5)


def not_there() -> AssetNotFound:
    """What is told of an image that is gone."""
    return AssetNotFound("This image is no longer stored.")


def _hold(parent: Path) -> tuple[Path, IO[str]]:
    """Make a staging folder and lock it; another one where a sweep was quicker than the lock."""
    while True:
        folder = parent / secrets.token_hex(8)
        folder.mkdir(parents=True)
        lock = (folder / _LOCK).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        except BaseException:
            lock.close()
            raise
        if (folder / _LOCK).exists():
            return folder, lock
        lock.close()


def _sweep(staging: Path) -> int:
    """Remove the folders whose lock nobody holds."""
    removed = 0
    for folder in staging.iterdir() if staging.is_dir() else ():
        try:
            with (folder / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                removed += len(list(folder.iterdir())) - 1
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # held by its process, just begun, or just removed
            continue
    return removed
