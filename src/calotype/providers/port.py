"""What the worker asks of an upstream, whatever its protocol."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from calotype.domain.catalog import Model
from calotype.domain.outcomes import PollOutcome, SubmitOutcome
from calotype.domain.task import Request


class SourceError(Exception):
    """A finished image could not be read from the upstream; asking again may help."""


class ReferenceImage(msgspec.Struct, frozen=True):
    """A reference image, stored and judged."""

    content_type: str
    width: int
    height: int
    size: int
    """Bytes."""
    open: Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
    """Opens it as a stream of chunks."""


class Job(msgspec.Struct, frozen=True):
    """One attempt at one task, with all that an upstream may need to know."""

    task: str
    """The public id of the task."""
    attempt: int
    """Counts from 1."""
    model: Model
    upstream_model: str
    """What the upstream calls the model."""
    request: Request
    references: tuple[ReferenceImage, ...]


class Provider(Protocol):
    """One protocol, spoken to one channel.

    Neither verb raises for anything that the upstream does: it returns an outcome. What it does
    raise is a bug of ours.
    """

    free: bool
    """Sending twice costs nothing, unless the channel says otherwise."""
    synchronous: bool
    """``submit`` itself waits for the image, so the job is under way while it does."""

    async def submit(self, job: Job) -> SubmitOutcome:
        """Send the job once, with no retry of any kind below this call."""
        ...

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        """Ask how an accepted job is doing; may be asked by another process than the sender."""
        ...

    async def close(self) -> None:
        """Let go of connections and processes."""
        ...
