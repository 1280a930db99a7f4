"""How long images are kept in a PostgreSQL database; see ``store.lifetimes.LifetimeStore``."""

from collections.abc import Mapping, Sequence
from typing import Final

from calotype.domain.task import Asset
from calotype.store import lifetimes as sql
from calotype.store import rows
from calotype.store.lifetimes import FIRST, Expired, Place
from calotype.store.postgres.database import Database

_SET_DAYS: Final = sql.SET_DAYS.replace("?", "$")
_OVER: Final = sql.OVER.replace("?", "$")
_MARK: Final = f"""
WITH free AS (
    SELECT id FROM assets
    WHERE id = ANY($2) AND expires_at <= $1 AND deleted_at IS NULL AND {sql.FREE}
    FOR UPDATE SKIP LOCKED
)
UPDATE assets SET deleted_at = $1 WHERE id IN (SELECT id FROM free) RETURNING {rows.ASSET}
"""
"""Whoever uses a file meanwhile holds its row, or has moved its time on.

Which tasks live is looked up here once more, by the statement that marks.
"""
_STORED: Final = (
    f"SELECT {rows.ASSET} FROM assets WHERE id > $1 AND deleted_at IS NULL ORDER BY id LIMIT $2"
)
_KEYS: Final = "SELECT id, key FROM assets WHERE id = ANY($1)"


class PostgresLifetimes:
    """What is kept of lifetimes in a PostgreSQL database."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def set_days(
        self, account_id: int, *, results: int | None, references: int | None
    ) -> bool:
        """Say how many days an account's images are kept that come from now on."""
        return bool(await self._db.fetch(_SET_DAYS, account_id, results, references))

    async def expire(self, *, now: int, after: Place = FIRST, limit: int) -> Expired:
        """Mark images whose time is over as deleted."""
        due = await self._db.fetch(_OVER, now, *after, limit)
        if not due:
            return Expired((), None)
        marked = await self._db.fetch(_MARK, now, [row[1] for row in due])
        return Expired([rows.asset(row) for row in marked], (due[-1][0], due[-1][1]))

    async def stored(self, *, after: int = 0, limit: int) -> Sequence[Asset]:
        """The images that are not marked as deleted, by id."""
        return [rows.asset(row) for row in await self._db.fetch(_STORED, after, limit)]

    async def keys(self, asset_ids: Sequence[int]) -> Mapping[int, str]:
        """The names of those that have a row."""
        return {row[0]: row[1] for row in await self._db.fetch(_KEYS, asset_ids)}
