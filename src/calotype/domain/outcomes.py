"""What an upstream can answer, whatever its protocol: the vocabulary of the provider port.

Providers judge by status and code, never by prose, and never raise an upstream's error upward:
they return one of these. What may follow is decided by the kind alone: only ``TryLater`` and
``Refused`` say for certain that nothing was accepted, so only they allow another send.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Protocol

import msgspec


class Fault(StrEnum):
    """Where the reason lies that a send came to nothing: health and failover go by it."""

    REQUEST = "request"
    """In what was asked: every upstream of the model would say the same."""
    POLICY = "policy"
    """In what was asked, by the upstream's content policy: it is not tried elsewhere."""
    KEY = "key"
    """In the channel's credential."""
    ACCOUNT = "account"
    """In the operator's account there: no credit, no quota, locked."""
    MODEL = "model"
    """In the model: this upstream does not have it (any more)."""
    BUSY = "busy"
    """In the load: a rate limit, or no room."""
    UNREACHABLE = "unreachable"
    """In the way there: no connection was made."""
    UPSTREAM = "upstream"
    """In the upstream, after it may have taken the job."""
    UNFIT = "unfit"
    """In what this one upstream is able to do: another may."""
    OURS = "ours"
    """In ourselves: our disk, our files; it says nothing of the upstream."""


class SourceError(Exception):
    """A finished image could not be read from the upstream.

    Args:
        message: for people; it names no address.
        retryable: reading again, or asking the upstream for the result anew, may help.

    """

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class ImageSource(Protocol):
    """A finished image that can be read, again where ``open`` may be called again, as a stream."""

    def open(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes in chunks; whatever the stream holds is freed on exit.

        Raises:
            SourceError: on entry or on iterating, it cannot be read.

        """
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
    state: str = ""
    """The upstream's own word for it, where we do not know it."""
    poll_after: float = 1.0


class Done(msgspec.Struct, frozen=True):
    """The upstream made what was asked."""

    images: tuple[ImageSource, ...]
    cost_micro_usdc: int | None = None
    """What the upstream says that it charged, where it does."""
    trained: bool = True
    """Whether a trained model made them; what is written into them tells."""


class Refused(msgspec.Struct, frozen=True):
    """Not accepted, not billed, and this upstream would refuse the same request again."""

    code: str
    """One of ``errors.FAILURES``."""
    message: str
    fault: Fault = Fault.REQUEST
    detail: str = ""
    """For the operator: what the upstream said, where ``message`` keeps it from the client."""


class TryLater(msgspec.Struct, frozen=True):
    """Not accepted and not billed, or a poll that told nothing: ask again after a while."""

    code: str
    message: str
    retry_after: float | None = None
    """Seconds, where the upstream tells."""
    fault: Fault = Fault.BUSY


class Failed(msgspec.Struct, frozen=True):
    """Accepted, and ended without an image."""

    code: str
    message: str
    fault: Fault = Fault.UPSTREAM
    cost_micro_usdc: int | None = None
    """What the upstream charged all the same, where it says so."""


class Unknown(msgspec.Struct, frozen=True):
    """It may have been accepted, and billed: never send again unless that is free."""

    message: str
    fault: Fault = Fault.UPSTREAM
    """Whose fault it is that nobody knows."""


RecoverOutcome = Accepted | Done | TryLater | Unknown
"""What became of a send whose answer was lost; ``TryLater``: the upstream knows nothing of it."""
SubmitOutcome = Accepted | Done | Refused | TryLater | Failed | Unknown
PollOutcome = Running | Done | TryLater | Failed | Unknown
