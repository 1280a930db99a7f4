"""What a store keeps for its operator: a port of its own; ``operating_sql`` has the SQL of it.

All times are milliseconds since 1970, all amounts micro-USDC.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

import msgspec

from calotype.domain.money import Balance
from calotype.domain.task import Attempt, State, Task

BEGUN: Final = "begun"
"""The outcome of an action that is under way, or that its process did not outlive."""
DONE: Final = "done"
LINKS_KEPT_MS: Final = 24 * 3600 * 1000
"""A spent link is remembered so long after it has expired, whoever's clock is behind."""
CUTOFFS_KEPT_MS: Final = 8 * 24 * 3600 * 1000
"""An end of sessions is remembered for longer than any session lasts."""


FIGURED: Final = 500
"""Attempts of a channel, the newest ones, that its figures are made of."""
COUNTED: Final = 10_000
WALKED: Final = 5_000
"""Tasks that one page looks at where no index leads to those that are asked for."""

Resolution = Literal["billed", "free"]
"""What the operator found out of an attempt whose outcome was unknown."""


class ChannelFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How a channel has done lately; at most its newest ``FIGURED`` attempts."""

    channel_id: int
    attempts: int
    done: int
    refused: int
    failed: int
    unknown: int
    costed: int
    """Attempts of which it is known what the upstream charged."""
    cost: int
    """What it charged for those."""
    paid: int
    """What clients paid for the tasks that ended with those."""
    milliseconds: tuple[int, ...]
    """How long each of the done ones took, ascending."""

    @property
    def uncosted(self) -> int:
        """Those of which nobody has said what they cost; what was refused cost nothing."""
        return max(0, self.done + self.failed + self.unknown - self.costed)

    @property
    def success_rate(self) -> float | None:
        """The share of done ones among those that have ended; None where none has."""
        ended = self.done + self.refused + self.failed + self.unknown
        return self.done / ended if ended else None

    def percentile(self, share: float) -> int | None:
        """Milliseconds within which that share of the done ones was done; None without any."""
        if not self.milliseconds:
            return None
        return self.milliseconds[max(0, math.ceil(share * len(self.milliseconds)) - 1)]


class QueueDepth(msgspec.Struct, frozen=True):
    """The tasks whose turn it is at a channel."""

    channel_id: int
    waiting: int
    queuing: int
    generating: int
    oldest_at: int
    """When the oldest of them was accepted."""


class AttemptCursor(msgspec.Struct, frozen=True):
    """Where a list of attempts goes on: what the last one shown says of itself."""

    finished_at: int
    task_id: int
    number: int


class SentAttempt(msgspec.Struct, frozen=True):
    """An attempt, with what is to be known of its task."""

    task_id: int
    account_id: int
    model: str
    paid: int
    """What the client paid for the task; 0 where it went on to another attempt."""
    attempt: Attempt


class UnknownAttempt(msgspec.Struct, frozen=True):
    """An attempt that may have been billed although no image came of it."""

    task_id: int
    account_id: int
    account: str
    """Its name."""
    model: str
    paid: int
    """What the client has paid for the task."""
    released: int
    """What the client was given back."""
    attempt: Attempt

    @property
    def cursor(self) -> AttemptCursor:
        """What leads to the attempts after it."""
        return AttemptCursor(self.attempt.finished_at or 0, self.task_id, self.attempt.number)


class RetriedWebhooks(msgspec.Struct, frozen=True):
    """Webhooks that were tried, and will be again; at most ``FIGURED`` are counted."""

    deliveries: int
    receivers: int


class Totals(msgspec.Struct, frozen=True):
    """What the whole database comes to; at most ``COUNTED`` of what is counted."""

    balance: int
    """Of all accounts."""
    reserved: int
    unknown: int
    """Attempts of unknown outcome that nobody has settled."""
    webhooks: int
    """That are to be delivered."""


class TaskPage(msgspec.Struct, frozen=True):
    """Tasks that were found, newest first."""

    tasks: tuple[Task, ...]
    go_on: int | None
    """The id before which to look on; None at the end. There may be more behind an empty page."""


class AccountRow(msgspec.Struct, frozen=True):
    """An account as its operator sees it."""

    id: int
    name: str
    balance: Balance
    unfinished: int
    created_at: int
    keys: int
    """Those that are not revoked."""
    last_used_at: int | None


class Switch(msgspec.Struct, frozen=True):
    """A channel that was switched by hand, whatever the configuration says."""

    channel_id: int
    enabled: bool
    at: int
    by: str


class AuditEntry(msgspec.Struct, frozen=True):
    """One action of an operator, or of a user on keys."""

    id: int
    at: int
    actor: str
    action: str
    """Such as ``key.create``."""
    subject: str
    detail: str
    outcome: str
    """``begun``, ``done``, or why it was refused."""


class OperatingStore(Protocol):
    """The operator's side of one database."""

    # What is going on

    async def figures(self, *, since: int) -> Sequence[ChannelFigures]:
        """How channels have done with attempts that began since then, by channel."""
        ...

    async def counts(self, *, since: int) -> Mapping[int, int]:
        """How many attempts have begun since then, by channel; in a short time, it counts all."""
        ...

    async def sent(self, channel_id: int, *, since: int) -> Sequence[SentAttempt]:
        """The attempts that a channel's figures are made of, newest first."""
        ...

    async def retried_webhooks(self) -> RetriedWebhooks:
        """How many webhooks have not been taken yet, among those that wait longest."""
        ...

    async def totals(self) -> Totals:
        """What the whole database comes to."""
        ...

    async def depth(self) -> Sequence[QueueDepth]:
        """The tasks that are not final, by the channel whose turn it is."""
        ...

    async def tasks(
        self,
        *,
        account_id: int | None = None,
        state: State | None = None,
        model: str | None = None,
        channel_id: int | None = None,
        before: int | None = None,
        limit: int,
    ) -> TaskPage:
        """Everyone's tasks, newest first, with an id below ``before``.

        Where no index leads to what is asked for, a page looks at ``WALKED`` tasks at most, so
        that none takes long; it then may be short, or empty, although there is more to ``go_on``
        to.
        """
        ...

    async def accounts(
        self, *, after: str = "", text: str = "", limit: int
    ) -> Sequence[AccountRow]:
        """Accounts by name: those after a name, with a text in it, whatever its case.

        PostgreSQL knows the case of the letters that the database's locale has: of all of them,
        or under the locale ``C`` of a to z.
        """
        ...

    async def account(self, account_id: int) -> AccountRow | None:
        """One of them by its id; None where there is none."""
        ...

    # Attempts that may have been billed

    async def unknown(
        self, *, resolved: bool = False, before: AttemptCursor | None = None, limit: int
    ) -> Sequence[UnknownAttempt]:
        """Attempts whose outcome is unknown, settled by the operator or not, last ended first."""
        ...

    async def resolve(
        self, task_id: int, number: int, *, resolution: Resolution, cost: int | None, now: int
    ) -> bool:
        """Settle an attempt whose outcome is unknown, once; False where there is none to settle.

        A ``cost`` is what the upstream charged; it counts in the usage of the task's day, too.
        """
        ...

    # Channels switched by hand

    async def switch(self, channel_id: int, *, enabled: bool | None, by: str, now: int) -> None:
        """Switch a channel on or off, whatever the configuration says; None: as that says."""
        ...

    async def switches(self) -> Sequence[Switch]:
        """The channels that were switched, by id."""
        ...

    # What was done, by whom

    async def begin_action(
        self, *, actor: str, action: str, subject: str, detail: str, now: int
    ) -> int:
        """Write down that something is about to be done; returns the entry's id."""
        ...

    async def end_action(self, entry_id: int, *, outcome: str, detail: str) -> None:
        """Write down what came of it."""
        ...

    async def actions(
        self, *, before: int | None = None, limit: int, action: str | None = None
    ) -> Sequence[AuditEntry]:
        """The audit, newest first: entries with an id below ``before``, of one kind if asked."""
        ...

    async def kinds_of_actions(self) -> Sequence[str]:
        """Every action that the audit tells of, once, by name."""
        ...

    # Sessions

    async def cut_off(self, subject: str, *, now: int) -> None:
        """End every session of a subject that began before now.

        A subject is ``admin``, ``account:<id>``, or ``session:<id>`` for one alone.
        """
        ...

    async def cutoff(self, subject: str, alone: str = "") -> int | None:
        """The time before which sessions of a subject, or the one alone, are over.

        None where none was ended so while one that began before it could last.
        """
        ...

    async def spend_link(self, nonce: str, *, expires_at: int, now: int) -> bool:
        """Use up a one-time link; False when it was used already."""
        ...
