"""What a store keeps of what was used: a port of its own, and the SQL that the stores share.

Days are UTC days since 1970. A day's rows are written as tasks end, by the database itself.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from calotype.domain.limits import Meter
from calotype.domain.money import EFFECTS, EntryKind

By = Literal["day", "model", "key_id", "channel_id", "account_id"]


class Tally(msgspec.Struct, frozen=True):
    """Tasks that ended, and what they came to; money is micro-USDC."""

    succeeded: int = 0
    failed: int = 0
    images: int = 0
    spent: int = 0
    """What clients paid."""
    cost: int = 0
    """What upstreams said that they charged."""


class UsageRow(Tally, frozen=True, kw_only=True):
    """What one key had of one model over one channel in one day."""

    account_id: int
    day: int
    key_id: int
    model: str
    channel_id: int


class EntryCursor(msgspec.Struct, frozen=True):
    """Where an account's ledger goes on."""

    id: int
    """Of the last entry that was read."""
    available: int
    """What was available before it."""


class LedgerLine(msgspec.Struct, frozen=True):
    """One entry of the ledger."""

    id: int
    kind: EntryKind
    amount: int
    task_id: int | None
    note: str
    created_at: int
    available: int
    """What could be spent after it."""

    @property
    def change(self) -> int:
        """What it did to what could be spent."""
        effect = EFFECTS[self.kind]
        return (effect.balance - effect.reserved) * self.amount

    @property
    def cursor(self) -> EntryCursor:
        """What the next page goes on from."""
        return EntryCursor(self.id, self.available - self.change)


TALLY: Final = "succeeded, failed, images, spent, cost"
ENTRY: Final = "id, kind, amount, task_id, note, created_at"
AVAILABLE: Final = "SELECT balance - reserved FROM accounts WHERE id = ?1"


def days(account_id: int | None) -> str:
    """The statement of usage rows: of the days from ``?1`` to ``?2``, of the account ``?3``."""
    return (
        f"SELECT {TALLY}, account_id, day, key_id, model, channel_id FROM usage_days "
        f"WHERE {_whose(account_id)} ORDER BY day, account_id, key_id, model, channel_id"
    )


def totals(by: By | Literal["day, model"], account_id: int | None) -> str:
    """The statement of tallies by a column, with the parameters of ``days``."""
    sums = ", ".join(f"CAST(SUM({each}) AS BIGINT)" for each in TALLY.split(", "))
    return (
        f"SELECT {by}, {sums} FROM usage_days WHERE {_whose(account_id)} "
        f"GROUP BY {by} ORDER BY {by}"
    )


def _whose(account_id: int | None) -> str:
    days = "day >= ?1 AND day <= ?2"
    return days if account_id is None else f"{days} AND account_id = ?3"


def values(account_id: int | None, first_day: int, last_day: int) -> list[int]:
    """What ``days`` and ``totals`` take."""
    return [first_day, last_day, *([] if account_id is None else [account_id])]


def usage_row(row: Sequence[Any]) -> UsageRow:
    """A row of ``days``."""
    *tally, account_id, day, key_id, model, channel_id = row
    return UsageRow(
        *tally, account_id=account_id, day=day, key_id=key_id, model=model, channel_id=channel_id
    )


def ledger_lines(found: Sequence[Sequence[Any]], available: int) -> list[LedgerLine]:
    """Rows of ``ENTRY`` columns, newest first, with what was available after each of them."""
    lines = []
    for id_, kind, amount, task_id, note, created_at in found:
        line = LedgerLine(id_, EntryKind(kind), amount, task_id, note, created_at, available)
        lines.append(line)
        available -= line.change
    return lines


class UsageStore(Protocol):
    """What one database knows of what was used."""

    async def days(
        self, *, account_id: int | None, first_day: int, last_day: int
    ) -> Sequence[UsageRow]:
        """What an account or all of them had from one day to another, both with them, by day."""
        ...

    async def totals(
        self, by: By, *, account_id: int | None, first_day: int, last_day: int
    ) -> Sequence[tuple[int | str, Tally]]:
        """The same summed up by one column, in its order."""
        ...

    async def models_by_day(
        self, *, account_id: int | None, first_day: int, last_day: int
    ) -> Sequence[tuple[int, str, Tally]]:
        """The same summed up by day and model, in this order."""
        ...

    async def meters(self, account_id: int) -> Sequence[Meter]:
        """The limits of an account's keys, and what was used of them; no order."""
        ...

    async def entries(
        self, account_id: int, *, before: EntryCursor | None = None, limit: int
    ) -> Sequence[LedgerLine]:
        """A page of an account's ledger, newest first."""
        ...
