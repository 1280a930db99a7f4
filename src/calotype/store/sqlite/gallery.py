"""The gallery of a SQLite database; see ``store.walking.Engine``."""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from calotype.domain.task import Task
from calotype.store import rows
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


class Reading(Protocol):
    """Does a piece of work with a connection of its own, in a thread."""

    async def __call__(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What comes of it."""
        ...


class SqliteGallery:
    """What a gallery needs of a SQLite file."""

    def __init__(self, reading: Reading) -> None:
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
