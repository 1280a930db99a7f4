"""The gallery of a PostgreSQL database; see ``store.walking.Engine``."""

from collections.abc import Sequence
from typing import Final

from calotype.domain.task import Task
from calotype.store import rows
from calotype.store.postgres import search as searches
from calotype.store.postgres.database import Database
from calotype.store.searching import FAILED, SUCCEEDED, Search, Shelf
from calotype.store.walking import LOOK


def _models(shelf: Shelf) -> str:
    own = f"FROM tasks WHERE account_id = $1 AND {shelf.holds}"
    return f"""
SELECT model FROM (
    WITH RECURSIVE models (model) AS (
        (SELECT task_model(request) {own} ORDER BY task_model(request) LIMIT 1)
        UNION ALL
        SELECT (
            SELECT task_model(request) {own} AND task_model(request) > models.model
            ORDER BY task_model(request) LIMIT 1
        ) FROM models WHERE models.model IS NOT NULL
    )
    SELECT model FROM models WHERE model IS NOT NULL
) AS of_{shelf.index}
"""


_MODELS: Final = f"{_models(SUCCEEDED)} UNION {_models(FAILED)}"
_READ: Final = f"SELECT {rows.TASK} FROM tasks WHERE id = ANY($1)"


class PostgresGallery:
    """What a gallery needs of a PostgreSQL database."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def look(self, search: Search) -> Sequence[rows.Row]:
        """The ``LOOK`` columns of a page of tasks."""
        return await searches.look(self._db, search, columns=LOOK)

    async def models(self, account_id: int) -> Sequence[str]:
        """Those of an account's final tasks."""
        return [row[0] for row in await self._db.fetch(_MODELS, account_id)]

    async def read(self, task_ids: Sequence[int]) -> Sequence[Task]:
        """These tasks, in any order."""
        return [rows.task(row) for row in await self._db.fetch(_READ, task_ids)]
