"""The gallery of a PostgreSQL database; see ``store.walking.Engine``."""

from collections.abc import Sequence
from typing import Final

from calotype.domain.task import FINAL, Asset, Task
from calotype.store import rows
from calotype.store.gallery import Deletion
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
_OWN: Final = f"SELECT {rows.TASK} FROM tasks WHERE id = $1 AND account_id = $2 FOR UPDATE"
_MARK: Final = (
    f"UPDATE tasks SET deleted_at = COALESCE(deleted_at, $2) WHERE id = $1 RETURNING {rows.TASK}"
)
_DOOM: Final = (
    "UPDATE assets SET deleted_at = COALESCE(deleted_at, $1) "
    f"WHERE task_id = $2 AND id = ANY($3) RETURNING {rows.ASSET}"
)
_DOOMED: Final = (
    f"SELECT {rows.ASSET} FROM assets WHERE deleted_at IS NOT NULL AND id > $1 ORDER BY id LIMIT $2"
)
_BURY: Final = "DELETE FROM assets WHERE id = ANY($1) AND deleted_at IS NOT NULL"


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

    async def delete(self, task_id: int, *, account_id: int, now: int) -> Deletion | None:
        """Mark a final task of an account and its images as deleted."""
        async with self._db.connection() as db, db.transaction():
            found = await db.fetch(_OWN, task_id, account_id)
            if not found:
                return None
            task = rows.task(found[0])
            if task.state not in FINAL:
                return Deletion(task, ())
            marked = await db.fetch(_MARK, task_id, now)
            images = await db.fetch(_DOOM, now, task_id, task.asset_ids)
        return Deletion(rows.task(marked[0]), [rows.asset(row) for row in images])

    async def doomed(self, *, after: int = 0, limit: int) -> Sequence[Asset]:
        """Images that are marked and may still have files."""
        return [rows.asset(row) for row in await self._db.fetch(_DOOMED, after, limit)]

    async def bury(self, asset_ids: Sequence[int]) -> None:
        """Forget marked images."""
        await self._db.execute(_BURY, asset_ids)
