"""Images on their way in: in memory or in a file of this machine, judged before they are kept."""

import asyncio
import fcntl
import io
import itertools
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, Final, TypeVar

from calotype.domain.errors import AssetNotFound, Unavailable

T = TypeVar("T")

CHUNK: Final = 256 * 1024
"""Bytes read at a time, each time by a trip to a thread."""
GATHERED: Final = 512 * 1024
"""Bytes gathered in memory for one write; an image that has no more is written when published."""
_LOCK: Final = "lock"


class Staging:
    """Where one process stages, in a folder of its own under ``root``.

    It holds a lock there, so that another process knows what was left behind and what is still
    being written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root
        self._lock: IO[str] | None = None
        self._holding = threading.Lock()
        self._numbers = itertools.count()

    def open(self) -> tuple[Path, BinaryIO]:
        """A new file; the folder is made and locked by the first one. It blocks on the disk."""
        with self._holding:
            if self._lock is not None:
                with suppress(FileNotFoundError):  # somebody removed the folder
                    return self._new()
                self.release()
            self._folder, self._lock = _hold(self._root)
            return self._new()

    def release(self) -> None:
        """Let go of the folder, which is empty by now."""
        if self._lock is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._lock.close()
            self._lock = None

    async def sweep(self) -> int:
        """Remove what a process that is gone left; returns how many files."""
        return await asyncio.to_thread(_sweep, self._root)

    def _new(self) -> tuple[Path, BinaryIO]:
        path = self._folder / str(next(self._numbers))
        return path, path.open("x+b", buffering=0)


class StagedFile:
    """An image that is being written: in memory as long as it is small and no file is asked for.

    Args:
        staging: where its file will be.

    """

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._gathered: list[bytes] = []
        self._size = 0

    @property
    def held(self) -> bytes | None:
        """The whole image, where it is in memory."""
        return b"".join(self._gathered) if self._file is None else None

    async def write(self, chunk: bytes) -> None:
        """Append to it."""
        self._gathered.append(chunk)
        self._size += len(chunk)
        if self._size > GATHERED:
            await self.trip(self.flush)

    async def finish(self) -> Path:
        """End the writing; the file at the path returned holds all that was written."""
        return await self.trip(self.flush)

    async def look(self, judge: Callable[[BinaryIO], T]) -> T:
        """What ``judge`` finds in all that was written; it may write over some of it."""
        held = self.held
        if held is None:
            return await self.trip(lambda: judge(self._written()))
        file = io.BytesIO(held)
        found = judge(file)
        self._gathered = [file.getvalue()]
        return found

    def flush(self) -> Path:
        """Hand what was gathered to the system; blocks."""
        if self._path is None or self._file is None:
            self._path, self._file = self._staging.open()
        gathered, self._gathered, self._size = self._gathered, [], 0
        view = memoryview(b"".join(gathered))
        while view:  # an unbuffered write may take less than it was given
            view = view[self._file.write(view) :]
        return self._path

    def sync(self) -> None:
        """Have all of it on the disk; blocks."""
        os.fdatasync(self._written().fileno())

    def discard(self) -> None:
        """Remove what was not published."""
        self._gathered = []
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def write_as(self, target: Path) -> None:
        """Write it under its name, where all of it is in memory, else as ever; blocks.

        It has its name before it is whole, so nobody may go by that: an asset counts when the
        database names it. What is found by its name alone, as thumbnails are, comes in files.
        """
        if self._file is None:
            with suppress(FileExistsError):  # an image is replaced at one stroke
                self._file, self._path = target.open("xb", buffering=0), target
        self.flush()

    def rename(self, target: Path) -> None:
        """Give it its place, for good, if it is not there; blocks."""
        path = self.flush()
        if path != target:
            path.rename(target)
        self._path = None
        if self._file is not None:
            self._file.close()

    async def trip(self, work: Callable[[], T]) -> T:
        """Do it in a thread, and never leave it alone there: it has the file in its hands."""
        with faults_told():
            return await to_its_end(asyncio.get_running_loop().run_in_executor(None, work))

    def _written(self) -> BinaryIO:
        self.flush()
        if self._file is None:
            raise ValueError("The image was published.")
        return self._file


async def to_its_end(work: "asyncio.Future[T]") -> T:
    """What the work gives; who is cancelled meanwhile, however often, goes when it has ended."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        raise


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
