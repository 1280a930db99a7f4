"""What an upstream can answer, whatever its protocol: the vocabulary of the provider port.

Providers judge by status and code, never by prose, and never raise an upstream's error upward:
they return one of these. What may follow is decided by the kind alone: only ``TryLater`` and
``Refused`` say for certain that nothing was accepted, so only they allow another send.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec


class ImageSource(Protocol):
    """A finished image that can be read once, as a stream."""

    def open(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes in chunks; whatever the stream holds is freed on exit."""
        ...


class Accepted(msgspec.Struct, frozen=True):
    """The upstream has the job and named it; from here on it is only polled."""

    upstream_id: str
    poll_after: float = 1.0
    """Seconds until the first poll makes sense."""


class Running(msgspec.Struct, frozen=True):
    """The upstream is at it."""

    progress: int | None = None
    """Percent, where the upstream tells."""
    queued: bool = False
    """True while the upstream has not begun."""
    poll_after: float = 1.0


class Done(msgspec.Struct, frozen=True):
    """The upstream made what was asked."""

    images: tuple[ImageSource, ...]
    cost_micro_usdc: int | None = None
    """What the upstream says that it charged, where it does."""


class Refused(msgspec.Struct, frozen=True):
    """Not accepted, not billed, and the same request would be refused again."""

    code: str
    """One of ``errors.FAILURES``."""
    message: str


class TryLater(msgspec.Struct, frozen=True):
    """Not accepted and not billed, or a poll that told nothing: ask again after a while."""

    code: str
    message: str
    retry_after: float | None = None
    """Seconds, where the upstream tells."""


class Failed(msgspec.Struct, frozen=True):
    """Accepted, and ended without an image."""

    code: str
    message: str


class Unknown(msgspec.Struct, frozen=True):
    """It may have been accepted, and billed: never send again unless that is free."""

    message: str


SubmitOutcome = Accepted | Done | Refused | TryLater | Failed | Unknown
PollOutcome = Running | Done | TryLater | Failed | Unknown
