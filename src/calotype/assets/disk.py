"""Images in a folder.

Writing goes through obstore, as it will for cloud stores; obstore's local store cannot sync, so
the file and its folder are synced here before anyone is told that the image is kept.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import obstore
from obstore.store import LocalStore

from calotype.domain.errors import Unavailable

_CHUNK: Final = 256 * 1024
_BUFFER: Final = 1024 * 1024
"""Bytes that the writer holds back before it writes them out."""
_STAGING: Final = "incoming"


class DiskAssets:
    """An asset store in the folder ``root``, made when it is not there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / _STAGING).mkdir(parents=True, exist_ok=True)
        self._store = LocalStore(root)

    @asynccontextmanager
    async def stage(self) -> AsyncIterator["_StagedFile"]:
        """Begin to take an image in."""
        staged = _StagedFile(self._root, self._store)
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
        name = f"{_STAGING}/ping-{secrets.token_hex(8)}"
        try:
            await obstore.put_async(self._store, name, b"ping")
            await obstore.delete_async(self._store, name)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise Unavailable("The asset store cannot be written.", retry_after=5) from error

    async def sweep(self) -> int:
        """Remove what an earlier process left staged."""

        def remove() -> int:
            left = list((self._root / _STAGING).iterdir())
            for file in left:
                file.unlink(missing_ok=True)
            return len(left)

        return await asyncio.to_thread(remove)


class _StagedFile:
    def __init__(self, root: Path, store: LocalStore) -> None:
        self._root = root
        self._name = f"{_STAGING}/{secrets.token_hex(16)}"
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
        await asyncio.to_thread(_publish, self._root / self._name, self._root / key)

    async def discard(self) -> None:
        """Remove what was not published."""
        with suppress(OSError, obstore.exceptions.BaseError):
            await self._close()
        (self._root / self._name).unlink(missing_ok=True)

    async def _close(self) -> None:
        if self._open:
            self._open = False
            await self._writer.close()


def _publish(staged: Path, final: Path) -> None:
    _sync(staged)
    if not final.parent.exists():
        final.parent.mkdir(parents=True, exist_ok=True)
        _sync(final.parent.parent)
    staged.rename(final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
