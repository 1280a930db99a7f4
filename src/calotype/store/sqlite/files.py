"""The files of a SQLite database; see ``store.files.FileStore``."""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from calotype.domain.task import Asset, NewTask
from calotype.store import rows
from calotype.store.files import IS_FILE, NO_TASK, NewFile, alive, check_named
from calotype.store.port import EVER
from calotype.store.statements import kept_ms

T = TypeVar("T")

_ADD: Final = f"""
INSERT INTO assets (
    id, account_id, task_id, kind, key, content_type, bytes, width, height, created_at, digest,
    expires_at
) SELECT ?1, ?2, {NO_TASK}, 'reference', ?3, ?4, ?5, ?6, ?7, ?8, ?9,
    ?10 + {kept_ms("reference_days", "?11", account="?2")}
WHERE true  -- else SQLite takes the next line for the condition of a join
ON CONFLICT (account_id, digest) WHERE digest IS NOT NULL AND deleted_at IS NULL
DO UPDATE SET expires_at = MAX(expires_at, excluded.expires_at)
RETURNING {rows.ASSET}
"""
_OWN: Final = f"id = ? AND account_id = ? AND {alive('?')}"
_FIND: Final = f"SELECT {rows.ASSET} FROM assets WHERE {_OWN}"
_PAGE: Final = (
    f"SELECT {rows.ASSET} FROM assets INDEXED BY assets_files_of_account "
    f"WHERE account_id = ? AND {alive('?')} AND id < ? ORDER BY id DESC LIMIT ?"
)
_MARK: Final = f"UPDATE assets SET deleted_at = ? WHERE {_OWN} RETURNING {rows.ASSET}"
_NAMED: Final = (
    f"SELECT id, COALESCE(expires_at, {EVER}) FROM assets "
    "WHERE id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL"
)
_MOVE_ON: Final = f"""
UPDATE assets SET expires_at = MAX(
    expires_at, ?2 + {kept_ms("reference_days", "?3", account="assets.account_id")}
)
WHERE id IN (SELECT value FROM json_each(?1)) AND {IS_FILE}
"""


class Writing(Protocol):
    """Does a piece of work in the next transaction."""

    async def __call__(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What comes of it."""
        ...


class SqliteFiles:
    """Files in a SQLite file.

    Args:
        write: does a piece of work in the next transaction.
        read: the rows of a statement, at once.

    """

    def __init__(self, *, write: Writing, read: Callable[..., list[Any]]) -> None:
        self._write = write
        self._read = read

    async def add(self, new: NewFile, *, now: int) -> Asset:
        """Keep a file, or find the one of the same digest."""
        return await self._write(partial(_add, new=new, now=now))

    async def find(self, file_id: int, *, account_id: int, now: int) -> Asset | None:
        """An account's file."""
        found = self._read(_FIND, file_id, account_id, now)
        return rows.asset(found[0]) if found else None

    async def page(
        self, account_id: int, *, before: int | None = None, limit: int, now: int
    ) -> Sequence[Asset]:
        """An account's files, newest first."""
        found = self._read(_PAGE, account_id, now, EVER if before is None else before, limit)
        return [rows.asset(row) for row in found]

    async def mark(self, file_id: int, *, account_id: int, now: int) -> Asset | None:
        """Mark an account's file as deleted."""
        values = (now, file_id, account_id, now)
        found = await self._write(lambda db: db.execute(_MARK, values).fetchall())
        return rows.asset(found[0]) if found else None


def _add(connection: sqlite3.Connection, *, new: NewFile, now: int) -> Asset:
    asset = new.asset
    values = (
        asset.id,
        asset.account_id,
        asset.key,
        asset.content_type,
        asset.bytes,
        asset.width,
        asset.height,
        asset.created_at,
        new.digest,
        now,
        new.reference_days,
    )
    return rows.asset(connection.execute(_ADD, values).fetchall()[0])


def hold_named(connection: sqlite3.Connection, new: NewTask) -> None:
    """See that the images are there that a new task names, and keep files for longer.

    Raises:
        errors.InvalidParameter: one of them is not.

    """
    ids = rows.encode(sorted(new.named)).decode()
    check_named(new, dict(connection.execute(_NAMED, (ids,)).fetchall()))
    connection.execute(_MOVE_ON, (ids, new.abandon_at, new.reference_days))
