"""The asset store as the services see it.

An image is staged first: written under a temporary name while it is judged. Publishing makes it
durable under its key; whatever is not published is gone when the staging ends.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol


class Staged(Protocol):
    """An image on its way in."""

    async def write(self, chunk: bytes) -> None:
        """Append to it."""
        ...

    async def finish(self) -> Path:
        """End the writing; the file at the path returned holds all that was written."""
        ...

    async def publish(self, key: str) -> None:
        """Make it durable under its key: synced, then renamed, then the folder synced."""
        ...


class AssetStore(Protocol):
    """Keeps images by key."""

    def stage(self) -> AbstractAsyncContextManager[Staged]:
        """Begin to take an image in."""
        ...

    def open(self, key: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes of an image, in chunks."""
        ...

    def path(self, key: str) -> Path:
        """The file of an image, to be sent by the operating system."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove images; one that is not there is no error."""
        ...

    async def ping(self) -> None:
        """Prove that images can be written; ``Unavailable`` when not."""
        ...

    async def sweep(self) -> int:
        """Remove what an earlier process left staged; returns how many files."""
        ...
