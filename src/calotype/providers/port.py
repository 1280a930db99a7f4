"""What the worker asks of an upstream, whatever its protocol."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, runtime_checkable

import msgspec

from calotype.domain.catalog import Model
from calotype.domain.outcomes import PollOutcome, RecoverOutcome, SubmitOutcome
from calotype.domain.task import Request


class ReferenceImage(msgspec.Struct, frozen=True):
    """A reference image, stored and judged."""

    content_type: str
    width: int
    height: int
    size: int
    """Bytes."""
    open: Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
    """Opens it as a stream of chunks, as often as wanted."""
    url: str | None = None
    """Our own signed URL of it, where the world can reach us."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one task, with all that an upstream may need to know."""

    task: str
    """The public id of the task."""
    attempt: int
    """Counts from 1."""
    reference: str = ""
    """A UUID, the same for every send of one purchase: for upstreams that take the caller's id."""
    model: Model
    upstream_model: str
    """What the upstream calls the model (the id for edits when there are references)."""
    request: Request
    references: tuple[ReferenceImage, ...] = ()
    fields: dict[str, Any] = {}
    """The parameters as this upstream writes them, made by ``domain.wire``; prompt, model id and
    references apart. Not to be changed: copy it."""
    callback_url: str | None = None
    """Where the upstream may tell that the job ended; None when it is not to."""
    report: Callable[[int], None] = lambda _percent: None
    """Tells how far a job is while ``submit`` itself waits for the image."""


class Provider(Protocol):
    """One protocol, spoken to one channel.

    No verb raises for anything that the upstream does: it returns an outcome. What it does
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

    async def recover(self, job: Job) -> RecoverOutcome:
        """Ask by our own reference what became of a send whose answer was lost.

        ``Unknown`` where the protocol has no such question.
        """
        ...

    async def cancel(self, job: Job, upstream_id: str) -> bool:
        """Ask for an accepted job to be stopped; whether the upstream says that it will be.

        What became of the job is told by polling. A synchronous provider may be asked with an
        empty id while ``submit`` waits; what became of that job ``submit`` tells.
        """
        ...

    def callback(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """The upstream's id of the job that a callback tells of; None when it is forged or stale.

        It only says that polling makes sense now: nothing else in it is believed. ``headers``
        have names in lower case.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and processes."""
        ...


@runtime_checkable
class Resident(Protocol):
    """A provider that keeps something large at hand, for the workers of its channel alone."""

    def start(self) -> None:
        """Begin to get it ready: a worker works for the channel."""
        ...

    def retire(self) -> None:
        """Let it go when the jobs at hand have ended: the channel is another one by now."""
        ...

    def check(self) -> None:
        """Raise ``Unavailable`` while it is got ready for the first time."""
        ...
