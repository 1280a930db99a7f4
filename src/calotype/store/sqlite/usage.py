"""What was used, in a SQLite database; see ``store.usage.UsageStore``."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from calotype.domain.limits import Meter
from calotype.store import rows, statements, usage
from calotype.store.port import EVER
from calotype.store.sqlite.gallery import Reading
from calotype.store.usage import By, EntryCursor, LedgerLine, Tally, UsageRow

_ENTRIES: Final = (
    f"SELECT {usage.ENTRY} FROM ledger INDEXED BY ledger_of_account "
    "WHERE account_id = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"
)


class SqliteUsage:
    """What was used, as one SQLite file has it.

    Args:
        reading: does a piece of work with a connection of its own.

    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def days(
        self, *, account_id: int | None, first_day: int, last_day: int
    ) -> Sequence[UsageRow]:
        """What an account or all of them had."""
        values = usage.values(account_id, first_day, last_day)
        return [usage.usage_row(row) for row in await self._fetch(usage.days(account_id), values)]

    async def totals(
        self, by: By, *, account_id: int | None, first_day: int, last_day: int
    ) -> Sequence[tuple[int | str, Tally]]:
        """The same summed up by one column."""
        values = usage.values(account_id, first_day, last_day)
        found = await self._fetch(usage.totals(by, account_id), values)
        return [(row[0], Tally(*row[1:])) for row in found]

    async def models_by_day(
        self, *, account_id: int | None, first_day: int, last_day: int
    ) -> Sequence[tuple[int, str, Tally]]:
        """The same summed up by day and model."""
        values = usage.values(account_id, first_day, last_day)
        found = await self._fetch(usage.totals("day, model", account_id), values)
        return [(row[0], row[1], Tally(*row[2:])) for row in found]

    async def meters(self, account_id: int) -> Sequence[Meter]:
        """The limits of an account's keys."""
        return [
            rows.meter(row) for row in await self._fetch(statements.METERS_OF_ACCOUNT, [account_id])
        ]

    async def entries(
        self, account_id: int, *, before: EntryCursor | None = None, limit: int
    ) -> Sequence[LedgerLine]:
        """A page of an account's ledger."""

        def read(db: sqlite3.Connection) -> Sequence[LedgerLine]:
            db.execute("BEGIN")  # both from one moment
            try:
                if before is None:
                    ((available,),) = db.execute(usage.AVAILABLE, (account_id,))
                    found = db.execute(_ENTRIES, (account_id, EVER, limit))
                else:
                    available = before.available
                    found = db.execute(_ENTRIES, (account_id, before.id, limit))
                return usage.ledger_lines(found.fetchall(), available)
            finally:
                db.execute("COMMIT")

        return await self._reading(read)

    async def _fetch(self, statement: str, values: Sequence[int]) -> list[rows.Row]:
        return await self._reading(lambda db: db.execute(statement, values).fetchall())
