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
from calotype.assets.publishing import Publisher
from calotype.assets.staging import CHUNK, StagedFile, Staging, faults_told, not_there

_STAGING: Final = "incoming"


class DiskAssets:
    """An asset store in the folder ``root``, made when it is not there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._staging = Staging(root / _STAGING)
        self._publisher = Publisher(root)
        (root / _STAGING).mkdir(parents=True, exist_ok=True)

    async def prepare(self) -> None:
        """Nothing can be wrong with a folder for good."""

    async def close(self) -> None:
        """Let go of the staging folder, which is empty by now."""
        self._staging.release()

    @asynccontextmanager
    async def stage(self) -> AsyncIterator["_StagedFile"]:
        """Begin to take an image in."""
        staged = _StagedFile(self._staging, self._publisher)
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
            path, file = self._staging.open()
            with file:
                file.write(b"ping")
            path.unlink()

        with faults_told():
            await asyncio.to_thread(write)

    async def sweep(self) -> int:
        """Remove what a process that is gone left staged."""
        return await self._staging.sweep()


class _StagedFile(StagedFile):
    def __init__(self, staging: Staging, publisher: Publisher) -> None:
        super().__init__(staging)
        self._publisher = publisher

    async def publish(self, key: str, *, content_type: str) -> None:
        del content_type  # its ending tells
        if self._file is not None:  # large: it holds nobody else up
            await self.trip(self.sync)
        with faults_told():
            await self._publisher.publish(self, key)


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
