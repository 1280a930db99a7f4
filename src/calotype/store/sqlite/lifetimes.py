"""How long images are kept in a SQLite database; see ``store.lifetimes.LifetimeStore``."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from calotype.domain.task import Asset
from calotype.store import lifetimes as sql
from calotype.store import rows
from calotype.store.lifetimes import FIRST, Expired, Place
from calotype.store.sqlite.gallery import Reading

_OLDEST: Final = (
    "SELECT account_id, MIN(created_at) FROM tasks INDEXED BY tasks_open "
    "WHERE completed_at IS NULL AND account_id IN (SELECT value FROM json_each(?)) "
    "GROUP BY account_id"
)
_MARK: Final = (
    "UPDATE assets SET deleted_at = ?1 WHERE id IN (SELECT value FROM json_each(?2)) "
    f"RETURNING {rows.ASSET}"
)
_STORED: Final = (
    f"SELECT {rows.ASSET} FROM assets WHERE id > ? AND deleted_at IS NULL ORDER BY id LIMIT ?"
)
_KEYS: Final = "SELECT id, key FROM assets WHERE id IN (SELECT value FROM json_each(?))"


class SqliteLifetimes:
    """What is kept of lifetimes in a SQLite file.

    Args:
        write: does a piece of work in the next transaction.
        read: what a statement finds, read in the event loop.
        reading: does a piece of work with a connection of its own, in a thread.

    """

    def __init__(
        self, *, write: Reading, read: Callable[..., list[rows.Row]], reading: Reading
    ) -> None:
        self._write = write
        self._read = read
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
        if not self._read(sql.OVER, now, *after, 1):
            return Expired((), None)  # the writer is not kept from its work for nothing
        return await self._write(partial(_expire, values=values))

    async def stored(self, *, after: int = 0, limit: int) -> Sequence[Asset]:
        """The images that are not marked as deleted, by id."""
        found = await self._reading(lambda db: db.execute(_STORED, (after, limit)).fetchall())
        return [rows.asset(row) for row in found]

    async def keys(self, asset_ids: Sequence[int]) -> Mapping[int, str]:
        """The names of those that have a row."""
        ids = rows.encode(asset_ids).decode()
        return dict(await self._reading(lambda db: db.execute(_KEYS, (ids,)).fetchall()))


def _expire(connection: sqlite3.Connection, *, values: tuple[Any, ...]) -> Expired:
    due = connection.execute(sql.OVER, values).fetchall()
    accounts = rows.encode(sorted({account_id for _, _, account_id in due})).decode()
    oldest = dict(connection.execute(_OLDEST, (accounts,)).fetchall())
    ids, last = sql.takeable(due, oldest)
    marked = connection.execute(_MARK, (values[0], rows.encode(ids).decode())).fetchall()
    return Expired([rows.asset(row) for row in marked], last)
