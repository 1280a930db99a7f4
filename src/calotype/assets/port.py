"""The asset store as the services see it.

An image is staged first: it is judged while it is in memory or in a file on this machine.
Publishing makes it durable under its key; whatever is not published is gone when the staging ends.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import msgspec

T = TypeVar("T")


class Misconfigured(Exception):
    """The store cannot be used as it is configured; the message names the cause and the cure."""


class Stored(msgspec.Struct, frozen=True):
    """One image as the store lists it."""

    key: str
    size: int
    """Bytes."""
    modified_at: int
    """Milliseconds since 1970."""


class Staged(Protocol):
    """An image on its way in."""

    async def write(self, chunk: bytes) -> None:
        """Append to it."""
        ...

    async def finish(self) -> Path:
        """End the writing; the file at the path returned holds all that was written."""
        ...

    async def look(self, judge: Callable[[BinaryIO], T]) -> T:
        """What ``judge`` finds in all that was written; it may write over some of it.

        It runs in the event loop where the image is small, and so must be quick.
        """
        ...

    async def publish(self, key: str, *, content_type: str) -> None:
        """Make it durable under its key, whole or not at all.

        Raises:
            errors.Unavailable: the store cannot take it right now.

        """
        ...


class AssetStore(Protocol):
    """Keeps images by key: ``<folder>/<folder>/<name>.<extension>``."""

    def stage(self) -> AbstractAsyncContextManager[Staged]:
        """Begin to take an image in."""
        ...

    def open(
        self, key: str, *, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes of an image from ``start`` up to ``stop``, in chunks.

        Raises:
            errors.AssetNotFound: there is none of this key.
            errors.Unavailable: the store cannot be read right now.

        """
        ...

    def file(self, key: str) -> AbstractAsyncContextManager[Path]:
        """A file on this machine that holds the image while entered; it is only to be read.

        Raises:
            errors.AssetNotFound: there is none of this key.
            errors.Unavailable: the store cannot be read right now.

        """
        ...

    def path(self, key: str) -> Path | None:
        """Where the operating system can send the image from; None: it lies on no disk of ours."""
        ...

    async def signed_url(self, key: str, *, seconds: int) -> str | None:
        """A URL of the store's own, good for so long; None: it makes none."""
        ...

    async def holds(self, key: str) -> bool:
        """Whether there is an image of this key."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove images; one that is not there is no error."""
        ...

    def walk(self) -> AsyncIterator[Sequence[Stored]]:
        """Every stored image, some at a time, in no order; what is staged is none."""
        ...

    async def prepare(self) -> None:
        """Look at start whether the store can be used at all.

        Raises:
            Misconfigured: it cannot, and waiting will not help.

        """
        ...

    async def ping(self) -> None:
        """Prove that images can be written; ``Unavailable`` when not."""
        ...

    async def sweep(self) -> int:
        """Remove what an earlier process left staged; returns how many files."""
        ...

    async def close(self) -> None:
        """Let go of what is held."""
        ...
