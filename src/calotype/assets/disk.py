"""Images in a folder: plain files, written under a temporary name, synced, then renamed.

``docs/decisions/0002-disk-assets.md`` tells why not through obstore, as cloud stores will be.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from calotype.assets.port import Stored
from calotype.assets.staging import CHUNK, StagedFile, Staging, faults_told, not_there

_STAGING: Final = "incoming"


class DiskAssets:
    """An asset store in the folder ``root``, made when it is not there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._staging = Staging(root / _STAGING)
        self._synced: set[Path] = set()
        (root / _STAGING).mkdir(parents=True, exist_ok=True)

    async def prepare(self) -> None:
        """Nothing can be wrong with a folder for good."""

    async def close(self) -> None:
        """Let go of the staging folder, which is empty by now."""
        self._staging.release()

    @asynccontextmanager
    async def stage(self) -> AsyncIterator["_StagedFile"]:
        """Begin to take an image in."""
        with faults_told():
            staged = _StagedFile(self._root, self._staging.path(), synced=self._synced)
        try:
            yield staged
        finally:
            staged.discard()

    @asynccontextmanager
    async def open(
        self, key: str, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of an image from ``start`` up to ``stop``, in chunks."""
        with faults_told():
            try:
                file = await asyncio.to_thread(self.path(key).open, "rb", buffering=0)
            except FileNotFoundError:
                raise not_there() from None

        async def chunks() -> AsyncIterator[bytes]:
            at = start
            while wanted := CHUNK if stop is None else min(CHUNK, stop - at):
                with faults_told():
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
            raise not_there()
        yield self.path(key)

    async def signed_url(self, key: str, *, seconds: int) -> str | None:
        """A folder signs nothing."""
        del key, seconds
        return None

    async def holds(self, key: str) -> bool:
        """Whether there is an image of this key."""
        with faults_told():
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

        with faults_told():
            await asyncio.to_thread(remove)

    async def ping(self) -> None:
        """Write and remove a small file."""

        def write() -> None:
            path = self._staging.path()
            path.write_bytes(b"ping")
            path.unlink()

        with faults_told():
            await asyncio.to_thread(write)

    async def sweep(self) -> int:
        """Remove what a process that is gone left staged."""
        return await self._staging.sweep()


class _StagedFile(StagedFile):
    def __init__(self, root: Path, path: Path, *, synced: set[Path]) -> None:
        super().__init__(path)
        self._root = root
        self._synced = synced

    async def publish(self, key: str, *, content_type: str) -> None:
        del content_type  # its ending tells
        await self.flush()
        with faults_told():
            try:
                await asyncio.to_thread(self._publish, key)
            except FileNotFoundError:  # somebody removed the folder meanwhile
                self._synced.clear()
                await asyncio.to_thread(self._publish, key)

    def _publish(self, key: str) -> None:
        os.fsync(self.file.fileno())
        folder = self._root
        for name in Path(key).parent.parts:
            parent, folder = folder, folder / name
            if folder not in self._synced:
                folder.mkdir(exist_ok=True)
                _sync(parent)
                self._synced.add(folder)
        self.path.rename(self._root / key)
        _sync(folder)


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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
