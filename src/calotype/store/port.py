"""The store as everything above it sees it: narrow verbs, each one transaction.

Every verb is durable when it returns. A worker's verbs carry the claim under which it works and
are guarded by the state they leave; when the guard matches nothing, somebody else has moved the
task on and the verb raises ``Fenced``. All times are milliseconds since 1970, all money is
micro-USDC. Faults of the database itself are raised as ``errors.Unavailable``.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

from calotype.domain.errors import CalotypeError, Failure
from calotype.domain.health import Health
from calotype.domain.keys import ApiKey
from calotype.domain.limits import Allowance, Meter
from calotype.domain.money import Balance, EntryKind
from calotype.domain.task import (
    ArrivedImage,
    Asset,
    Attempt,
    AttemptState,
    Event,
    NewTask,
    Reference,
    ResultImage,
    State,
    Task,
)
from calotype.store.files import FileStore
from calotype.store.gallery import NOTHING, GalleryStore
from calotype.store.lifetimes import LifetimeStore
from calotype.store.operating import OperatingStore
from calotype.store.usage import UsageStore
from calotype.store.webhooks import WebhookStore

FORGOTTEN_AT_ONCE: Final = 1000
"""Rows dropped in one transaction, so that nobody waits long behind it."""
MINUTE_MS: Final = 60_000
"""The window of a channel's rate."""
EVER: Final = 2**63 - 1
"""Later than any time, and the highest that a database takes."""


class Fenced(Exception):
    """The task is final, or another worker took it: what was to be written no longer holds."""


class IdTaken(Exception):
    """Another process drew the same id; draw again."""


class StoreError(Exception):
    """The database cannot be used as configured; the message says what to do."""


class Submitted(msgspec.Struct, frozen=True):
    """What became of a submission."""

    task_id: int
    request_id: str
    created_at: int
    replayed: bool
    """True when the idempotency key named a task that was there already."""
    backlog: int = 0
    """How many unfinished tasks of the account stood before this one."""
    allowance: Allowance | None = None
    """What is left of the account's rate; None where it has none, and for a replay."""


class Keyed(msgspec.Struct, frozen=True):
    """An idempotency key, and how its task stands."""

    key: str
    state: State
    completed_at: int | None


class Unfinished(msgspec.Struct, frozen=True):
    """What the queue needs to know of a task."""

    task_id: int
    account_id: int
    channel_id: int
    created_at: int


class Begin(msgspec.Struct, frozen=True):
    """An attempt that is begun in the moment in which its task is taken up."""

    channel_id: int
    event: Event


class Taken(msgspec.Struct, frozen=True):
    """A task under a fresh claim, with every attempt of earlier ones, oldest first."""

    task: Task
    attempts: tuple[Attempt, ...]
    begun: int | None = None
    """The number of an attempt that was begun with it."""


class Standing(msgspec.Struct, frozen=True):
    """Whose a task is, and whether anybody still wants it."""

    claim: int
    completed_at: int | None
    cancel_at: int | None


class AttemptEnd(msgspec.Struct, frozen=True):
    """How an attempt ended, where its task succeeded with fewer images than it asked for."""

    state: AttemptState = AttemptState.DONE
    detail: str | None = None
    """For the operator."""
    code: str | None = None
    """One of ``errors.FAILURES``."""
    fault: str | None = None
    """An ``outcomes.Fault``."""


IN_FULL: Final = AttemptEnd()
"""Every image came."""


class Account(msgspec.Struct, frozen=True):
    """An account and what it has."""

    id: int
    name: str
    balance: Balance
    result_days: int | None = None
    """How long its results are kept; None: as the model or the settings say; 0: for ever."""
    reference_days: int | None = None
    """The same of its reference images."""
    max_tasks: int | None = None
    """Most unfinished tasks; None: as the settings say; 0: no limit."""
    per_minute: int | None = None
    """Tasks that it may submit at once, and that many more with every minute; None and 0 alike."""


class ChannelEvent(msgspec.Struct, frozen=True):
    """What happened to the breaker of a channel, or of one of its models."""

    channel_id: int
    model: str
    """Empty for the whole channel."""
    event: Literal["opened", "half-open", "closed"]
    fault: str
    """What it opened for."""
    detail: str
    at: int


class LoggedEvent(msgspec.Struct, frozen=True):
    """One event of one task, and its place in the log of all of them."""

    cursor: str
    """Where to read on; higher for each later event of this database."""
    task_id: int
    account_id: int
    seq: int
    """Its number among the task's own, from 1."""
    at: int
    event: str
    """``submit`` or a ``task.Event``."""
    state: State
    """The task's state after it."""
    progress: int


class Sight(NamedTuple):
    """A task as it was read."""

    task: Task | None
    mark: int | None
    """Of what was read, to ask later whether that has changed; None where nothing can tell."""


class Store(Protocol):
    """One database."""

    @property
    def gallery(self) -> GalleryStore:
        """What it shows of pictures."""
        ...

    @property
    def usage(self) -> UsageStore:
        """What it knows of what was used."""
        ...

    @property
    def lifetimes(self) -> LifetimeStore:
        """What it knows of how long images are kept."""
        ...

    @property
    def files(self) -> FileStore:
        """What was uploaded once for many tasks."""
        ...

    @property
    def webhooks(self) -> WebhookStore:
        """What it keeps of webhooks."""
        ...

    @property
    def operating(self) -> OperatingStore:
        """What it keeps for its operator."""
        ...

    async def migrate(self) -> int:
        """Bring the schema up to date and return its version; a newer one is refused."""
        ...

    async def prepare(self) -> None:
        """Make ready to work: an embedded database is migrated, a shared one must have been.

        Raises:
            StoreError: the database cannot be used as it is.

        """
        ...

    async def ping(self) -> None:
        """Prove that the database can be read and written; ``Unavailable`` when not."""
        ...

    async def close(self) -> None:
        """Finish what is under way and let go of the database."""
        ...

    # Accounts, keys, money

    async def open_account(self, name: str, *, now: int) -> Account:
        """The account of this name, made when there is none."""
        ...

    async def accounts(self) -> Sequence[Account]:
        """Every account, by name."""
        ...

    async def account(self, account_id: int) -> Account | None:
        """An account by its id."""
        ...

    async def set_limits(
        self, account_id: int, *, tasks: int | None, per_minute: int | None
    ) -> bool:
        """Give an account limits of its own: see ``Account``. False: there is no such account."""
        ...

    async def balance(self, account_id: int) -> Balance:
        """What an account has."""
        ...

    async def book(
        self, account_id: int, kind: EntryKind, amount: int, *, note: str, now: int
    ) -> Balance:
        """Write a ``credit`` or an ``adjust`` and return the balance after it.

        Raises:
            errors.InsufficientBalance: what is available would fall below zero.

        """
        ...

    async def add_key(self, key: ApiKey, *, digest: bytes) -> None:
        """Keep a key by the hash of it, and its limits."""
        ...

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """The key with this hash, expired and revoked ones too."""
        ...

    def known_key(self, digest: bytes) -> ApiKey | None:
        """The same at once, where it is in memory and known to be what the database has."""
        ...

    async def key(self, key_id: int) -> ApiKey | None:
        """A key by its id, expired and revoked ones too, as it stands now."""
        ...

    async def keys(self, *, account_id: int | None = None) -> Sequence[ApiKey]:
        """Every key, or every one of an account, newest first."""
        ...

    async def meter(self, key_id: int) -> Meter | None:
        """The limits of a key, and what was used of them; None where it has none."""
        ...

    async def note_used(self, used: Mapping[int, int]) -> None:
        """Keep when keys, by their ids, were last used."""
        ...

    async def revoke_key(self, key_id: int, *, now: int) -> bool:
        """Revoke a key; False when it was revoked already or never was."""
        ...

    # Submission and reading

    async def submit(self, new: NewTask) -> Submitted:
        """Reserve the price and write the task, or find the task of the idempotency key.

        Raises:
            errors.InsufficientBalance: the account cannot pay; nothing was written.
            errors.SpendLimitReached, errors.RateLimitReached, errors.QueueFull: a limit of the key
                or the account; likewise.
            errors.IdempotencyConflict: the key was used with another request.
            errors.InvalidParameter: an image that it names is not there any more.
            IdTaken: draw another id.

        """
        ...

    async def submit_batch(self, news: Sequence[NewTask]) -> Sequence[Submitted | CalotypeError]:
        """Submit many in one transaction: each is judged on its own, in order, as by ``submit``.

        What ``submit`` would raise to a client stands in that request's place:
        ``InsufficientBalance``, ``IdempotencyConflict``, a limit of the key, or an image that is
        not there any more.

        Raises:
            IdTaken: of one or more of them; nothing was written, draw other ids for all.

        """
        ...

    async def replayed(
        self, account_id: int, idempotency_key: str, *, fingerprint: bytes
    ) -> Submitted | None:
        """The task of an idempotency key that was used with the same request, without a write."""
        ...

    async def keyed(
        self, account_id: int, *, lowest: str, highest: str, limit: int
    ) -> Sequence[Keyed]:
        """The last of an account's idempotency keys between two of ours, last first.

        Both, and all that lie between, are ASCII letters and digits of one length.
        """
        ...

    async def task(self, task_id: int) -> Task | None:
        """A task, whoever owns it."""
        ...

    def version(self) -> int | None:
        """Of the whole database: another after each commit, whoever made it.

        None where that takes a round trip.
        """
        ...

    async def task_since(self, task_id: int, mark: int | None) -> Sight | None:
        """A task, whoever owns it; None while all that its owner is shown is as at ``mark``."""
        ...

    async def standing(self, task_id: int) -> Standing | None:
        """As much of a task as whoever develops it looks at again and again."""
        ...

    async def tasks(
        self, *, account_id: int | None = None, state: State | None = None, limit: int = 20
    ) -> Sequence[Task]:
        """The newest tasks, newest first."""
        ...

    async def search(
        self,
        account_id: int,
        *,
        state: State | None = None,
        model: str | None = None,
        since: int | None = None,
        metadata: Mapping[str, str] = NOTHING,
        before: int | None = None,
        limit: int,
    ) -> Sequence[Task]:
        """An account's tasks, newest first, by id.

        Args:
            account_id: whose tasks.
            state: only those in this state.
            model: only those of this model.
            since: only those created at this time or later.
            metadata: only those that carry all of these pairs.
            before: only those with an id below this one: the last of the page before.
            limit: how many at most.

        """
        ...

    async def attempts(self, task_id: int) -> Sequence[Attempt]:
        """Every attempt of a task, oldest first."""
        ...

    async def cancel(self, task_id: int, *, account_id: int, now: int) -> Task | None:
        """Stop an account's task as far as that can be done here; None when it has no such task.

        With no attempt open the task fails at once, as ``errors.CANCELLED``, and costs nothing.
        With one open it is marked, once: no other attempt can begin, and it can only ``fail``,
        as ``errors.CANCELLED`` whatever the worker says. A final task stays as it is.
        """
        ...

    async def asset(self, asset_id: int) -> Asset | None:
        """A stored image, whoever owns it."""
        ...

    async def assets(self, asset_ids: Sequence[int]) -> Sequence[Asset]:
        """Those of many that are stored, in any order, whoever owns them."""
        ...

    # Running a task

    async def unfinished(self, *, after: int, limit: int) -> Sequence[Unfinished]:
        """Tasks that are not final, those with an id above ``after``, by id."""
        ...

    async def unfinished_channels(self) -> Sequence[int]:
        """The channels whose turn it is in tasks that are not final, by id."""
        ...

    async def take(
        self, task_id: int, *, now: int, choose: Callable[[Task], Begin | None] | None = None
    ) -> Taken | None:
        """Take a task up under a new claim; None when it is final or unknown.

        ``choose`` says of one that nobody had before which attempt is begun with it, if any. It is
        called in the event loop, perhaps more than once, and changes nothing.
        """
        ...

    async def keep_references(
        self,
        task: Task,
        references: Sequence[Reference],
        assets: Sequence[Asset],
        *,
        days: int,
    ) -> None:
        """Write down references that were fetched, or copied to fit.

        They are kept for so many ``days`` after the task's ``abandon_at``, unless the account
        says otherwise; 0: until they are deleted.
        """
        ...

    async def begin_attempt(self, task: Task, *, channel_id: int, event: Event, now: int) -> int:
        """Write down that something is about to be sent; returns the attempt's number.

        Fenced, too, when the client has asked for the task to be stopped.
        """
        ...

    async def accept_attempt(self, task: Task, number: int, *, upstream_id: str) -> None:
        """Keep the upstream's id of an attempt."""
        ...

    async def close_attempt(
        self,
        task: Task,
        number: int,
        *,
        state: AttemptState,
        detail: str,
        now: int,
        code: str | None = None,
        fault: str | None = None,
    ) -> None:
        """End an attempt; the task itself goes on.

        ``code`` is one of ``errors.FAILURES``, ``fault`` an ``outcomes.Fault``.
        """
        ...

    async def reroute(self, task: Task, channel_id: int, *, now: int) -> None:
        """Pass a task on to another channel, whose queue it joins at its old place.

        Where the queue is this database's, the task's job is replaced in the same transaction;
        otherwise the caller enqueues it. Fenced, too, while an attempt is open.
        """
        ...

    async def advance(self, task: Task, event: Event, *, progress: int, now: int) -> None:
        """Move a task on; progress never falls and stays below 100."""
        ...

    async def keep_arrived(
        self,
        task: Task,
        arrived: Sequence[ArrivedImage],
        *,
        images: Sequence[Asset],
        progress: int,
        now: int,
        days: int = 0,
    ) -> None:
        """Write down images that came before the others, as an event of the task.

        Fenced, too, when the client has asked for the task to be stopped. Writing the same again
        changes nothing.

        Args:
            task: the task.
            arrived: all that have come so far, by their place.
            images: those among them that are new.
            progress: how far the task is by them.
            now: the time.
            days: how long they are kept after the task's ``abandon_at`` if it never ends, unless
                the account says otherwise; 0: until they are deleted.

        """
        ...

    async def complete(
        self,
        task: Task,
        number: int | None,
        *,
        images: Sequence[Asset],
        actual: int,
        cost: int | None,
        now: int,
        result: Sequence[ResultImage] | None = None,
        end: AttemptEnd = IN_FULL,
        days: int = 0,
    ) -> None:
        """Success: keep the images, commit ``actual``, release the rest, close the attempt.

        Fenced, too, when the client has asked for the task to be stopped.

        Args:
            task: the task.
            number: of the attempt that is open; None when there is none.
            images: those that are not written down yet.
            actual: what is charged.
            cost: what the upstream charged, where that is known.
            now: the time.
            result: every image in its order, where some had arrived before.
            end: how the attempt ended.
            days: how long all its images are kept from now, unless the account says otherwise;
                0: until they are deleted.

        """
        ...

    async def fail(
        self,
        task: Task,
        failure: Failure,
        *,
        attempt: tuple[int, AttemptState] | None = None,
        now: int,
        fault: str | None = None,
        detail: str | None = None,
        cost: int | None = None,
        charge: int = 0,
    ) -> None:
        """Failure: release the reservation and close the attempt, where one is open.

        The attempt keeps the failure's code, ``detail`` (without one, the failure's message),
        ``fault`` (an ``outcomes.Fault``) and ``cost``, what the upstream charged all the same.
        ``charge`` of the reservation is committed: what cancelling costs.
        """
        ...

    # Channels

    async def next_slot(
        self, channel_id: int, *, per_minute: int, now: int, before: int | None = None
    ) -> int:
        """Reserve a time at which one send may go out, and return it; never before ``now``.

        Over all processes no 60 seconds hold more than ``per_minute`` (at least 1) reserved
        times, whatever their clocks and whenever the rate changes. A time later than ``before``
        is returned without being reserved: ask again then.
        """
        ...

    async def note_health(self, health: Health) -> None:
        """Tell every process that a breaker is open; what was written later than this stays.

        It is an event of the channel when the breaker was not open, its hold was over, or the
        fault is another: ``opened``, or ``half-open`` for a hold that is over already.
        """
        ...

    async def clear_health(self, channel_id: int, model: str, *, now: int) -> None:
        """Tell every process that all is well; ``closed``, where the breaker was open."""
        ...

    async def health(self) -> Sequence[Health]:
        """Every breaker that is open or half-open, by channel and model."""
        ...

    async def channel_events(self, *, since: int, limit: int) -> Sequence[ChannelEvent]:
        """What happened to breakers at ``since`` or later, newest first."""
        ...

    # Events

    async def events(
        self,
        *,
        after: str,
        limit: int,
        account_id: int | None = None,
        task_id: int | None = None,
    ) -> Sequence[LoggedEvent]:
        """What happened after a cursor, oldest first: of all tasks, one account's or one task's.

        Whoever reads on from the last cursor misses nothing, whichever transaction ends first;
        what is committed may be held back for as long as an older transaction is open.

        Args:
            after: the cursor of the last event that was read; empty for the beginning.
            limit: how many at most; the event loop waits for them.
            account_id: only this account's.
            task_id: only this task's.

        Raises:
            ValueError: ``after`` is no cursor.

        """
        ...

    async def events_end(self) -> str:
        """The cursor of now: all that is committed from now on comes after it."""
        ...

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have it called in the event loop soon after this process has committed events.

        One call may stand for many events. A shared store calls for the events of other processes
        too, as far as it hears of them: look at its log by the clock as well. Call it in the event
        loop.

        Returns:
            What ends it.

        """
        ...

    # Keeping house

    async def forget_channel_events(self, *, before: int) -> int:
        """Drop a batch of channel events older than ``before``; returns how many."""
        ...

    async def forget_idempotency_keys(self, *, before: int) -> int:
        """Drop a batch of idempotency keys older than ``before``; returns how many."""
        ...

    async def prove(self) -> Sequence[str]:
        """Prove the books: one sentence for each thing that does not hold."""
        ...


class Reconciled(msgspec.Struct, frozen=True):
    """How many of each were set right."""

    enqueued: int
    dropped: int
    ended: int

    @property
    def anything(self) -> bool:
        """Whether there was anything to do."""
        return bool(self.enqueued or self.dropped or self.ended)


@runtime_checkable
class SharedStore(Store, Protocol):
    """A store that many processes share, and the queue with it."""

    async def open_jobs(self) -> Any:
        """PgQueuer's tables in this database, for a worker (a ``RepositoryPort``)."""
        ...

    async def reconcile(
        self, *, now: int, price: Callable[[Task, int], int], days: Callable[[str], int]
    ) -> Reconciled | None:
        """Set right what no worker will; None while another process is at it.

        ``price`` says what a task costs that ends with so many of its images.
        """
        ...

    async def publish(self, topic: str, payload: str) -> None:
        """Tell every process that listens.

        Args:
            topic: a short name of lower-case letters, digits, ``.``, ``_`` and ``-``.
            payload: at most 4 KB of UTF-8, without NUL.

        Raises:
            ValueError: one of them is not that.

        """
        ...

    async def listen(self, callback: Callable[[str, str], None]) -> Callable[[], Awaitable[None]]:
        """Hear what is published from now on, as ``(topic, payload)``; returns how to end it.

        One connection of its own, which is replaced when it is lost; what is published meanwhile
        is not heard. So it may make things happen sooner, and nothing may depend on it. Call it
        once in a process; the callback runs in the event loop and must not block.
        """
        ...
