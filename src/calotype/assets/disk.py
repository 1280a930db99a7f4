"""Images in a folder.

Writing goes through obstore, as it will for cloud stores; obstore's local store cannot sync, so
the file and its folder are synced here before anyone is told that the image is kept.
"""

import asyncio
import fcntl
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Final

import obstore
from obstore.store import LocalStore

from calotype.domain.errors import Unavailable

_CHUNK: Final = 256 * 1024
_BUFFER: Final = 1024 * 1024
"""Bytes that the writer holds back before it writes them out."""
_STAGING: Final = "incoming"
_LOCK: Final = "lock"


class DiskAssets:
    """An asset store in the folder ``root``, made when it is not there.

    Each process stages in a folder of its own and holds a lock in it, so that another one knows
    what was left behind and what is still being written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._staging = f"{_STAGING}/{secrets.token_hex(8)}"
        self._lock: IO[str] | None = None
        self._synced: set[Path] = set()
        (root / _STAGING).mkdir(parents=True, exist_ok=True)
        self._store = LocalStore(root)

    def close(self) -> None:
        """Let go of the staging folder, which is empty by now."""
        if self._lock is not None:
            shutil.rmtree(self._root / self._staging, ignore_errors=True)
            self._lock.close()
            self._lock = None

    def _staged_name(self) -> str:
        if self._lock is None:
            folder = self._root / self._staging
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / _LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return f"{self._staging}/{secrets.token_hex(8)}"

    @asynccontextmanager
    async def stage(self) -> AsyncIterator["_StagedFile"]:
        """Begin to take an image in."""
        staged = _StagedFile(self._root, self._store, self._staged_name(), synced=self._synced)
        try:
            yield staged
        finally:
            await staged.discard()

    @asynccontextmanager
    async def open(self, key: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of an image, in chunks."""
        file = await asyncio.to_thread(self.path(key).open, "rb")

        async def chunks() -> AsyncIterator[bytes]:
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                yield chunk

        try:
            yield chunks()
        finally:
            file.close()

    def path(self, key: str) -> Path:
        """The file of an image."""
        return self._root / key

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove images; one that is not there is no error."""
        if keys:
            with suppress(FileNotFoundError):
                await obstore.delete_async(self._store, list(keys))

    async def ping(self) -> None:
        """Write and remove a small file."""
        name = self._staged_name()
        try:
            await obstore.put_async(self._store, name, b"ping")
            await obstore.delete_async(self._store, name)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise Unavailable("The asset store cannot be written.", retry_after=5) from error

    async def sweep(self) -> int:
        """Remove what a process that is gone left staged."""
        return await asyncio.to_thread(_sweep, self._root / _STAGING)


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


class _StagedFile:
    def __init__(self, root: Path, store: LocalStore, name: str, *, synced: set[Path]) -> None:
        self._root = root
        self._synced = synced
        self._name = name
        self._writer = obstore.open_writer_async(
            store, self._name, buffer_size=_BUFFER, max_concurrency=1
        )
        self._open = True

    async def write(self, chunk: bytes) -> None:
        await self._writer.write(chunk)

    async def finish(self) -> Path:
        await self._close()
        return self._root / self._name

    async def publish(self, key: str) -> None:
        await self._close()
        staged = self._root / self._name
        await asyncio.to_thread(_publish, staged, self._root, key, synced=self._synced)

    async def discard(self) -> None:
        """Remove what was not published."""
        with suppress(OSError, obstore.exceptions.BaseError):
            await self._close()
        (self._root / self._name).unlink(missing_ok=True)

    async def _close(self) -> None:
        if self._open:
            self._open = False
            await self._writer.close()


def _publish(staged: Path, root: Path, key: str, *, synced: set[Path]) -> None:
    """Make a staged file durable under its key.

    ``synced`` holds the folders whose own entries are known to be on disk.
    """
    _sync(staged)
    folder = root
    for name in Path(key).parent.parts:
        parent, folder = folder, folder / name
        if folder not in synced:
            folder.mkdir(exist_ok=True)
            _sync(parent)
            synced.add(folder)
    staged.rename(root / key)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
