"""Images in a folder: plain files, written under a temporary name, synced, then renamed.

``docs/decisions/0002-disk-assets.md`` tells why not through obstore, as cloud stores will be.
"""

import asyncio
import fcntl
import os
import secrets
import shutil
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, Final

from calotype.assets.port import Stored
from calotype.domain.errors import AssetNotFound, Unavailable

_CHUNK: Final = 256 * 1024
"""Bytes read, and bytes gathered for one write: each is a trip to a thread."""
_STAGING: Final = "incoming"
_LOCK: Final = "lock"


class DiskAssets:
    """An asset store in the folder ``root``, made when it is not there.

    Each process stages in a folder of its own and holds a lock in it, so that another one knows
    what was left behind and what is still being written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._staging = root / _STAGING / secrets.token_hex(8)
        self._lock: IO[str] | None = None
        self._holding = threading.Lock()
        self._synced: set[Path] = set()
        (root / _STAGING).mkdir(parents=True, exist_ok=True)

    async def prepare(self) -> None:
        """Nothing can be wrong with a folder for good."""

    async def close(self) -> None:
        """Let go of the staging folder, which is empty by now."""
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._lock.close()
            self._lock = None

    @asynccontextmanager
    async def stage(self) -> AsyncIterator["_StagedFile"]:
        """Begin to take an image in."""
        with _faults_told():
            staged = _StagedFile(self._root, self._staged_path(), synced=self._synced)
        try:
            yield staged
        finally:
            staged.discard()

    @asynccontextmanager
    async def open(
        self, key: str, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of an image from ``start`` up to ``stop``, in chunks."""
        with _faults_told():
            try:
                file = await asyncio.to_thread(self.path(key).open, "rb", buffering=0)
            except FileNotFoundError:
                raise _not_there() from None

        async def chunks() -> AsyncIterator[bytes]:
            at = start
            while wanted := _CHUNK if stop is None else min(_CHUNK, stop - at):
                with _faults_told():
                    chunk = await asyncio.to_thread(os.pread, file.fileno(), wanted, at)
                if not chunk:
                    break
                at += len(chunk)
                yield chunk

        try:
            yield chunks()
        finally:
            file.close()

    @asynccontextmanager
    async def file(self, key: str) -> AsyncIterator[Path]:
        """The file of an image."""
        if not await self.holds(key):
            raise _not_there()
        yield self.path(key)

    async def signed_url(self, key: str, *, seconds: int) -> str | None:
        """A folder signs nothing."""
        del key, seconds
        return None

    async def holds(self, key: str) -> bool:
        """Whether there is an image of this key."""
        with _faults_told():
            return await asyncio.to_thread(self.path(key).is_file)

    async def walk(self) -> AsyncIterator[Sequence[Stored]]:
        """Every stored image, a folder at a time."""
        folders = os.walk(self._root)
        while (found := await asyncio.to_thread(_next_folder, folders, self._root)) is not None:
            if found:
                yield found

    def path(self, key: str) -> Path:
        """The file of an image."""
        return self._root / key

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove images; one that is not there is no error."""

        def remove() -> None:
            for key in keys:
                self.path(key).unlink(missing_ok=True)

        with _faults_told():
            await asyncio.to_thread(remove)

    async def ping(self) -> None:
        """Write and remove a small file."""

        def write() -> None:
            path = self._staged_path()
            path.write_bytes(b"ping")
            path.unlink()

        with _faults_told():
            await asyncio.to_thread(write)

    async def sweep(self) -> int:
        """Remove what a process that is gone left staged."""
        return await asyncio.to_thread(_sweep, self._root / _STAGING)

    def _staged_path(self) -> Path:
        with self._holding:
            if self._lock is None or not self._staging.exists():
                self._release()
                self._staging, self._lock = _hold(self._root / _STAGING)
        return self._staging / secrets.token_hex(8)


class _StagedFile:
    def __init__(self, root: Path, path: Path, *, synced: set[Path]) -> None:
        self._root = root
        self._path = path
        self._synced = synced
        self._file: BinaryIO = path.open("wb", buffering=0)
        self._gathered: list[bytes] = []
        self._size = 0

    async def write(self, chunk: bytes) -> None:
        self._gathered.append(chunk)
        self._size += len(chunk)
        if self._size >= _CHUNK:
            await self._flush()

    async def finish(self) -> Path:
        await self._flush()
        return self._path

    async def publish(self, key: str, *, content_type: str) -> None:
        del content_type  # its ending tells
        await self._flush()
        with _faults_told():
            try:
                await asyncio.to_thread(self._publish, key)
            except FileNotFoundError:  # somebody removed the folder meanwhile
                self._synced.clear()
                await asyncio.to_thread(self._publish, key)

    def discard(self) -> None:
        """Remove what was not published."""
        self._file.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    async def _flush(self) -> None:
        gathered, self._gathered, self._size = self._gathered, [], 0
        if gathered:
            with _faults_told():
                await asyncio.to_thread(self._write_all, b"".join(gathered))

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # an unbuffered write may take less than it was given
            view = view[self._file.write(view) :]

    def _publish(self, key: str) -> None:
        os.fsync(self._file.fileno())
        folder = self._root
        for name in Path(key).parent.parts:
            parent, folder = folder, folder / name
            if folder not in self._synced:
                folder.mkdir(exist_ok=True)
                _sync(parent)
                self._synced.add(folder)
        self._path.rename(self._root / key)
        _sync(folder)


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


@contextmanager
def _faults_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable("Images cannot be stored or read right now.", retry_after=5) from error


def _not_there() -> AssetNotFound:
    return AssetNotFound("This image is no longer stored.")


def _next_folder(
    folders: Iterator[tuple[str, list[str], list[str]]], root: Path
) -> list[Stored] | None:
    """The images of the next folder; None after the last."""
    for folder, inner, names in folders:
        if Path(folder) == root and _STAGING in inner:
            inner.remove(_STAGING)
        found = []
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):
                facts = path.stat()
                key = str(path.relative_to(root))
                found.append(Stored(key, facts.st_size, facts.st_mtime_ns // 1_000_000))
        return found
    return None


def _sweep(staging: Path) -> int:
    """Remove the folders whose lock nobody holds."""
    removed = 0
    for folder in staging.iterdir():
        try:
            with (folder / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                removed += len(list(folder.iterdir())) - 1
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # held by its process, just begun, or just removed
            continue
    return removed


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
