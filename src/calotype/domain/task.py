"""A task's life: states, the events that move it, and the records that tell of it.

```
            take                 send / run               complete
 waiting ─────────▶ queuing ─────────────────▶ generating ─────────▶ success
    └──────────────────┴──────────── fail ─────────┴───────────────▶ fail
```

States only go forward, ``success`` and ``fail`` are final. ``TRANSITIONS`` is the one table:
the store repeats it in every statement (``… WHERE state IN (…)``), and moves the money that goes
with an event in the same transaction. All times are milliseconds since 1970.

A client may cancel. With no attempt open that is the end (``fail``); with one open it is a mark
(``cancel``): nothing new is sent from then on, and whoever ends the task ends it as cancelled.
"""

from enum import StrEnum
from typing import Final

import msgspec

from calotype.domain.errors import Failure
from calotype.domain.fitting import FittedCopy, Limits
from calotype.domain.limits import NO_LIMITS, AccountLimits
from calotype.domain.money import EntryKind


class State(StrEnum):
    """What a client sees of a task."""

    WAITING = "waiting"
    """Accepted and durable; entered by submission, left when a worker takes the task."""
    QUEUING = "queuing"
    """With a worker, or in the upstream's own queue."""
    GENERATING = "generating"
    """The upstream is at it."""
    SUCCESS = "success"
    """Final: the images are stored and paid."""
    FAIL = "fail"
    """Final: there is no result, and nothing was charged but what cancelling may cost."""


FINAL: Final = frozenset({State.SUCCESS, State.FAIL})


class Event(StrEnum):
    """Why a task changes."""

    TAKE = "take"
    """A worker takes the task up, again and again after a crash."""
    QUEUE = "queue"
    """The upstream accepted it and has not begun."""
    RUN = "run"
    """The upstream is at it, or gets a little further."""
    CANCEL = "cancel"
    """The client wants it stopped while an upstream has it."""
    COMPLETE = "complete"
    """Every image is stored."""
    FAIL = "fail"
    """It ends without an image."""


class Transition(msgspec.Struct, frozen=True):
    """One row of the table.

    Args:
        leaves: the states in which the event may happen.
        enters: the state after it by the state before it.
        settles: the ledger entry that ends the reservation, where the event is final.

    """

    enters: dict[State, State]
    settles: EntryKind | None = None

    @property
    def leaves(self) -> frozenset[State]:
        """The states in which the event may happen."""
        return frozenset(self.enters)


_WAITING, _QUEUING, _GENERATING = State.WAITING, State.QUEUING, State.GENERATING

TRANSITIONS: Final[dict[Event, Transition]] = {
    Event.TAKE: Transition(
        {_WAITING: _QUEUING, _QUEUING: _QUEUING, _GENERATING: _GENERATING},
    ),
    Event.QUEUE: Transition({_QUEUING: _QUEUING, _GENERATING: _GENERATING}),
    Event.RUN: Transition({_QUEUING: _GENERATING, _GENERATING: _GENERATING}),
    Event.CANCEL: Transition({_QUEUING: _QUEUING, _GENERATING: _GENERATING}),
    Event.COMPLETE: Transition(
        {_QUEUING: State.SUCCESS, _GENERATING: State.SUCCESS},
        settles=EntryKind.COMMIT,
    ),
    Event.FAIL: Transition(
        {_WAITING: State.FAIL, _QUEUING: State.FAIL, _GENERATING: State.FAIL},
        settles=EntryKind.RELEASE,
    ),
}


class BillingStatus(StrEnum):
    """Where the money of a task stands."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    RELEASED = "released"


class AttemptState(StrEnum):
    """How far one purchase at an upstream has come."""

    SENDING = "sending"
    """Written before a byte goes out: from here on it may have been bought."""
    ACCEPTED = "accepted"
    """The upstream's id is known: only polled from here on."""
    DONE = "done"
    """Ended with images."""
    REFUSED = "refused"
    """Known not to have been accepted; another send is safe."""
    FAILED = "failed"
    """Accepted, and ended without an image."""
    UNKNOWN = "unknown"
    """May have been accepted and billed; the operator looks into it."""


OPEN_ATTEMPT: Final = frozenset({AttemptState.SENDING, AttemptState.ACCEPTED})


class Attempt(msgspec.Struct, frozen=True):
    """One purchase at an upstream."""

    number: int
    channel_id: int
    state: AttemptState
    upstream_id: str | None
    started_at: int
    finished_at: int | None = None
    detail: str | None = None
    """For the operator: why it ended as it did."""
    cost_micro_usdc: int | None = None
    code: str | None = None
    """The reason for machines, one of ``errors.FAILURES``."""
    fault: str | None = None
    """Where the reason lies, an ``outcomes.Fault``."""
    resolved_at: int | None = None
    """When the operator settled what was unknown."""
    resolution: str | None = None
    """And how: ``billed`` or ``free``."""


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reference image of a task, in the order in which it came.

    ``url`` is what the client gave (None for an upload), ``asset_id`` what we hold of it (None
    until it was fetched). With ``asset://…`` the id is there from the beginning.
    """

    url: str | None = None
    asset_id: int | None = None
    fitted: tuple[FittedCopy, ...] = ()
    """Copies for upstreams that do not take it as it is."""

    def copy_for(self, limits: Limits) -> FittedCopy | None:
        """The copy that was made for these limits."""
        return next((each for each in self.fitted if each.limits == limits), None)


class ResultImage(msgspec.Struct, frozen=True):
    """One stored image of a task."""

    asset_id: int
    content_type: str
    width: int
    height: int
    bytes: int


class ArrivedImage(ResultImage, frozen=True):
    """One that was stored while others were still to come."""

    place: int
    """Which of the upstream's images it is; counts from 0."""

    @property
    def image(self) -> ResultImage:
        """As the finished task names it."""
        return ResultImage(self.asset_id, self.content_type, self.width, self.height, self.bytes)


class Asset(msgspec.Struct, frozen=True):
    """A stored image and where it lies."""

    id: int
    account_id: int
    key: str
    """The name in the asset store."""
    content_type: str
    bytes: int
    width: int
    height: int
    created_at: int
    expires_at: int | None = None
    """From then on nobody is shown it; None: it is kept until somebody deletes it."""

    def is_shown(self, *, now: int) -> bool:
        """Whether its time is not over."""
        return self.expires_at is None or now < self.expires_at


def result_image(asset: Asset) -> ResultImage:
    """A stored image as a task names it."""
    return ResultImage(
        asset_id=asset.id,
        content_type=asset.content_type,
        width=asset.width,
        height=asset.height,
        bytes=asset.bytes,
    )


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """The normalised request as accepted, defaults filled in."""

    model: str
    prompt: str
    n: int
    parameters: dict[str, str | int | float | bool]
    channel_id: int | None = None
    """The channel that the client pinned."""
    callback_url: str | None = None
    """Where the client is told of the end."""
    deadline_seconds: int | None = None
    """The client's own limit, as it was asked for."""
    channel_ids: tuple[int, ...] | None = None
    """The channels that the API key may use; None: every one."""
    traceparent: str | None = None
    """The trace that the task goes on with, as W3C's Trace Context names it."""


class NewTask(msgspec.Struct, frozen=True):
    """All that submission writes."""

    id: int
    account_id: int
    key_id: int
    request_id: str
    request: Request
    references: tuple[Reference, ...]
    uploads: tuple[Asset, ...]
    """References that came with the request and are stored already."""
    channel_id: int
    price: int
    """Micro-USDC to reserve."""
    deadline_at: int
    """After this nothing new is sent to an upstream."""
    abandon_at: int
    """After this a job that an upstream accepted is no longer waited for."""
    created_at: int
    idempotency_key: str | None = None
    fingerprint: bytes = b""
    """SHA-256 of what was asked, to tell a replay from a conflict."""
    metadata: dict[str, str] = {}
    """The client's own words about the task, to find it by, within ``options.check_metadata``:
    they are indexed."""
    metered: bool = False
    """The key has limits against which the task counts."""
    reference_days: int = 0
    """Its uploads, and files that it names, are kept so many days after ``abandon_at``, where its
    account says nothing else; 0: for ever."""
    limits: AccountLimits = NO_LIMITS
    """Of its account, where that has none of its own."""

    @property
    def named(self) -> frozenset[int]:
        """The images that were there before it, by id: ``asset://…``."""
        if not self.references:
            return frozenset()
        ids = [one.asset_id for one in self.references if one.url is not None]
        return frozenset([each for each in ids if each is not None])


class Task(msgspec.Struct, frozen=True):
    """A task as stored."""

    id: int
    account_id: int
    request_id: str
    state: State
    progress: int
    request: Request
    references: tuple[Reference, ...]
    channel_id: int
    claim: int
    """How often it was taken up; every write of a worker carries the claim it works under."""
    seq: int
    """Number of the last event."""
    billing: BillingStatus
    reserved: int
    actual: int
    released: int
    result: tuple[ResultImage, ...]
    error: Failure | None
    deadline_at: int
    abandon_at: int
    created_at: int
    updated_at: int
    completed_at: int | None
    metadata: dict[str, str] = {}
    """The client's own words about the task."""
    cancel_at: int | None = None
    """When the client asked for it to be stopped, where that could not be done at once."""
    cancel_free: bool = False
    """It was not generating yet when the client asked: stopping it costs nothing."""
    arrived: tuple[ArrivedImage, ...] = ()
    """Images that were stored before the end, by their place."""
    has_webhook: bool = False
    """A webhook tells of its end."""
    deleted_at: int | None = None
    """When the client wanted its images gone."""
    expires_at: int | None = None
    """From then on its images are gone; None: it has none, or they are kept until deleted."""

    @property
    def model(self) -> str:
        """The public id of the model."""
        return self.request.model

    def has_images(self, *, now: int) -> bool:
        """Whether the images that it made may still be shown."""
        return self.deleted_at is None and (self.expires_at is None or now < self.expires_at)

    @property
    def asset_ids(self) -> list[int]:
        """Every image that is stored for it."""
        images = [image.asset_id for image in (*self.result, *self.arrived)]
        images += [copy.asset_id for one in self.references for copy in one.fitted]
        return images + [one.asset_id for one in self.references if one.asset_id is not None]
