"""The gallery of a SQLite database; see ``store.walking.Engine``."""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from calotype.domain.task import FINAL, Asset, Task
from calotype.store import rows
from calotype.store.gallery import Deletion
from calotype.store.searching import FAILED, SUCCEEDED, Search, Shelf
from calotype.store.sqlite import search as searches
from calotype.store.walking import LOOK

T = TypeVar("T")


def _models(shelf: Shelf) -> str:
    own = f"FROM tasks AS t INDEXED BY {shelf.index} WHERE account_id = ?1 AND {shelf.holds}"
    return f"""
SELECT model FROM (
    WITH RECURSIVE models (model) AS (
        SELECT MIN(t.model) {own}
        UNION ALL
        SELECT (SELECT MIN(t.model) {own} AND t.model > models.model)
        FROM models WHERE models.model IS NOT NULL
    )
    SELECT model FROM models WHERE model IS NOT NULL
)
"""


_MODELS: Final = f"{_models(SUCCEEDED)} UNION {_models(FAILED)}"
_READ: Final = f"SELECT {rows.TASK} FROM tasks WHERE id IN (SELECT value FROM json_each(?))"
_OWN: Final = f"SELECT {rows.TASK} FROM tasks WHERE id = ? AND account_id = ?"
_MARK: Final = "UPDATE tasks SET deleted_at = ? WHERE id = ? AND deleted_at IS NULL"
_DOOM: Final = (
    "UPDATE assets SET deleted_at = COALESCE(deleted_at, ?1) "
    "WHERE task_id = ?2 AND id IN (SELECT value FROM json_each(?3)) "
    f"RETURNING {rows.ASSET}"
)
_DOOMED: Final = (
    f"SELECT {rows.ASSET} FROM assets INDEXED BY assets_deleted "
    "WHERE deleted_at IS NOT NULL AND id > ? ORDER BY id LIMIT ?"
)
_BURY: Final = (
    "DELETE FROM assets WHERE id IN (SELECT value FROM json_each(?)) AND deleted_at IS NOT NULL"
)


class Reading(Protocol):
    """Does a piece of work with a connection, in a thread."""

    async def __call__(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What comes of it."""
        ...


class SqliteGallery:
    """What a gallery needs of a SQLite file.

    Args:
        write: does a piece of work in the next transaction.
        reading: does one with a connection of its own.

    """

    def __init__(self, *, write: Reading, reading: Reading) -> None:
        self._write = write
        self._reading = reading

    async def look(self, search: Search) -> Sequence[rows.Row]:
        """The ``LOOK`` columns of a page of tasks."""
        return await self._reading(partial(searches.look, search=search, columns=LOOK))

    async def models(self, account_id: int) -> Sequence[str]:
        """Those of an account's final tasks."""
        found = await self._reading(lambda db: db.execute(_MODELS, (account_id,)).fetchall())
        return [row[0] for row in found]

    async def read(self, task_ids: Sequence[int]) -> Sequence[Task]:
        """These tasks, in any order."""
        ids = rows.encode(task_ids).decode()
        found = await self._reading(lambda db: db.execute(_READ, (ids,)).fetchall())
        return [rows.task(row) for row in found]

    async def delete(self, task_id: int, *, account_id: int, now: int) -> Deletion | None:
        """Mark a final task of an account and its images as deleted."""
        return await self._write(partial(_delete, task_id=task_id, account_id=account_id, now=now))

    async def doomed(self, *, after: int = 0, limit: int) -> Sequence[Asset]:
        """Images that are marked and may still have files."""
        found = await self._reading(lambda db: db.execute(_DOOMED, (after, limit)).fetchall())
        return [rows.asset(row) for row in found]

    async def bury(self, asset_ids: Sequence[int]) -> None:
        """Forget marked images."""
        ids = rows.encode(asset_ids).decode()
        await self._write(lambda db: db.execute(_BURY, (ids,)).rowcount)


def _delete(
    connection: sqlite3.Connection, *, task_id: int, account_id: int, now: int
) -> Deletion | None:
    found = connection.execute(_OWN, (task_id, account_id)).fetchall()
    if not found:
        return None
    task = rows.task(found[0])
    if task.state not in FINAL:
        return Deletion(task, ())
    connection.execute(_MARK, (now, task_id))
    ids = rows.encode(task.asset_ids).decode()
    images = connection.execute(_DOOM, (now, task_id, ids)).fetchall()
    found = connection.execute(_OWN, (task_id, account_id)).fetchall()
    return Deletion(rows.task(found[0]), [rows.asset(row) for row in images])
