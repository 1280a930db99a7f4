"""How long images are kept in a SQLite database; see ``store.lifetimes.LifetimeStore``."""

from collections.abc import Mapping, Sequence
from typing import Final

from calotype.domain.task import Asset
from calotype.store import lifetimes as sql
from calotype.store import rows
from calotype.store.lifetimes import FIRST, Expired, Place
from calotype.store.sqlite.gallery import Reading

_MARK: Final = (
    "UPDATE assets SET deleted_at = ?1 WHERE id IN (SELECT value FROM json_each(?2)) "
    f"AND expires_at <= ?1 AND deleted_at IS NULL AND {sql.FREE} RETURNING {rows.ASSET}"
)
"""Looks again at what was found while others may have written."""
_STORED: Final = (
    f"SELECT {rows.ASSET} FROM assets WHERE id > ? AND deleted_at IS NULL ORDER BY id LIMIT ?"
)
_KEYS: Final = "SELECT id, key FROM assets WHERE id IN (SELECT value FROM json_each(?))"


class SqliteLifetimes:
    """What is kept of lifetimes in a SQLite file.

    Args:
        write: does a piece of work in the next transaction.
        reading: does a piece of work with a connection of its own, in a thread.

    """

    def __init__(self, *, write: Reading, reading: Reading) -> None:
        self._write = write
        self._reading = reading

    async def set_days(
        self, account_id: int, *, results: int | None, references: int | None
    ) -> bool:
        """Say how many days an account's images are kept that come from now on."""
        values = (account_id, results, references)
        return bool(await self._write(lambda db: db.execute(sql.SET_DAYS, values).fetchall()))

    async def expire(self, *, now: int, after: Place = FIRST, limit: int) -> Expired:
        """Mark images whose time is over as deleted."""
        values = (now, *after, limit)
        due = await self._reading(lambda db: db.execute(sql.OVER, values).fetchall())
        if not due:
            return Expired((), None)  # the writer is not kept from its work for nothing
        chosen = (now, rows.encode([id_ for _, id_ in due]).decode())
        marked = await self._write(lambda db: db.execute(_MARK, chosen).fetchall())
        return Expired([rows.asset(row) for row in marked], due[-1])

    async def stored(self, *, after: int = 0, limit: int) -> Sequence[Asset]:
        """The images that are not marked as deleted, by id."""
        found = await self._reading(lambda db: db.execute(_STORED, (after, limit)).fetchall())
        return [rows.asset(row) for row in found]

    async def keys(self, asset_ids: Sequence[int]) -> Mapping[int, str]:
        """The names of those that have a row."""
        ids = rows.encode(asset_ids).decode()
        return dict(await self._reading(lambda db: db.execute(_KEYS, (ids,)).fetchall()))
