"""What was used, in a PostgreSQL database; see ``store.usage.UsageStore``."""

from collections.abc import Sequence
from typing import Final

from calotype.domain.limits import Meter
from calotype.store import rows, statements, usage
from calotype.store.port import EVER
from calotype.store.postgres.database import Database
from calotype.store.usage import By, EntryCursor, LedgerLine, Tally, UsageRow

_ENTRIES: Final = (
    f"SELECT {usage.ENTRY} FROM ledger WHERE account_id = $1 AND (id + 0) < $2 "
    "ORDER BY (id + 0) DESC LIMIT $3"
)
"""``(id + 0)``: the planner is to walk one account's entries, not everybody's."""
_AVAILABLE: Final = usage.AVAILABLE.replace("?", "$")
_METERS: Final = statements.METERS_OF_ACCOUNT.replace("?", "$")


class PostgresUsage:
    """What was used, as a PostgreSQL database has it."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def days(
        self, *, account_id: int | None, first_day: int, last_day: int
    ) -> Sequence[UsageRow]:
        """What an account or all of them had."""
        statement = usage.days(account_id).replace("?", "$")
        found = await self._db.fetch(statement, *usage.values(account_id, first_day, last_day))
        return [usage.usage_row(row) for row in found]

    async def totals(
        self, by: By, *, account_id: int | None, first_day: int, last_day: int
    ) -> Sequence[tuple[int | str, Tally]]:
        """The same summed up by one column."""
        statement = usage.totals(by, account_id).replace("?", "$")
        found = await self._db.fetch(statement, *usage.values(account_id, first_day, last_day))
        return [(row[0], Tally(*row[1:])) for row in found]

    async def models_by_day(
        self, *, account_id: int | None, first_day: int, last_day: int
    ) -> Sequence[tuple[int, str, Tally]]:
        """The same summed up by day and model."""
        statement = usage.totals("day, model", account_id).replace("?", "$")
        found = await self._db.fetch(statement, *usage.values(account_id, first_day, last_day))
        return [(row[0], row[1], Tally(*row[2:])) for row in found]

    async def meters(self, account_id: int) -> Sequence[Meter]:
        """The limits of an account's keys."""
        return [rows.meter(row) for row in await self._db.fetch(_METERS, account_id)]

    async def entries(
        self, account_id: int, *, before: EntryCursor | None = None, limit: int
    ) -> Sequence[LedgerLine]:
        """A page of an account's ledger."""
        if before is not None:
            found = await self._db.fetch(_ENTRIES, account_id, before.id, limit)
            return usage.ledger_lines(found, before.available)
        async with (
            self._db.connection() as db,
            db.transaction(isolation="repeatable_read", readonly=True),  # both from one moment
        ):
            available = await db.fetchval(_AVAILABLE, account_id)
            found = await db.fetch(_ENTRIES, account_id, EVER, limit)
        return usage.ledger_lines(found, available)
