"""The files of a PostgreSQL database; see ``store.files.FileStore``."""

from collections.abc import Sequence
from typing import Final

from calotype.domain.task import Asset, NewTask
from calotype.store import rows
from calotype.store.files import IS_FILE, NO_TASK, NewFile, alive
from calotype.store.port import EVER
from calotype.store.postgres.connection import Connection
from calotype.store.postgres.database import Database
from calotype.store.statements import kept_ms


def _later(one: str, other: str) -> str:
    """The later of two times, NULL being never."""
    return f"CASE WHEN {one} IS NOT NULL AND {other} IS NOT NULL THEN GREATEST({one}, {other}) END"


_ADD: Final = f"""
INSERT INTO assets (
    id, account_id, task_id, kind, key, content_type, bytes, width, height, created_at, digest,
    expires_at
) SELECT $1, $2, {NO_TASK}, 'reference', $3, $4, $5, $6, $7, $8, $9,
    $10 + {kept_ms("reference_days", "$11", account="$2")}
ON CONFLICT (account_id, digest) WHERE digest IS NOT NULL AND deleted_at IS NULL
DO UPDATE SET expires_at = {_later("assets.expires_at", "excluded.expires_at")}
RETURNING {rows.ASSET}
"""
_OWN: Final = f"id = $1 AND account_id = $2 AND {alive('$3')}"
_FIND: Final = f"SELECT {rows.ASSET} FROM assets WHERE {_OWN}"
_PAGE: Final = (
    f"SELECT {rows.ASSET} FROM assets WHERE account_id = $1 AND {alive('$2')} "
    "AND id < $3 ORDER BY id DESC LIMIT $4"
)
_MARK: Final = f"UPDATE assets SET deleted_at = $3 WHERE {_OWN} RETURNING {rows.ASSET}"
_LOCK_NAMED: Final = f"""
WITH files AS (  -- in one order, so that two batches never wait for each other
    SELECT id, COALESCE(expires_at, {EVER}) AS ends FROM assets
    WHERE id = ANY($1) AND {IS_FILE} ORDER BY id FOR UPDATE
)
SELECT id, ends FROM files
UNION ALL
SELECT id, COALESCE(expires_at, {EVER}) FROM assets
WHERE id = ANY($1) AND task_id <> {NO_TASK} AND deleted_at IS NULL
"""
_NEEDED_UNTIL: Final = f"$2 + {kept_ms('reference_days', '$3', account='assets.account_id')}"
_MOVE_ON: Final = f"""
UPDATE assets SET expires_at = {_later("expires_at", _NEEDED_UNTIL)}
WHERE id = ANY($1) AND {IS_FILE}
"""


class PostgresFiles:
    """Files in a PostgreSQL database."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, new: NewFile, *, now: int) -> Asset:
        """Keep a file, or find the one of the same digest."""
        asset = new.asset
        found = await self._db.fetch(
            _ADD,
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
        return rows.asset(found[0])

    async def find(self, file_id: int, *, account_id: int, now: int) -> Asset | None:
        """An account's file."""
        found = await self._db.fetch(_FIND, file_id, account_id, now)
        return rows.asset(found[0]) if found else None

    async def page(
        self, account_id: int, *, before: int | None = None, limit: int, now: int
    ) -> Sequence[Asset]:
        """An account's files, newest first."""
        last = EVER if before is None else before
        return [
            rows.asset(row) for row in await self._db.fetch(_PAGE, account_id, now, last, limit)
        ]

    async def mark(self, file_id: int, *, account_id: int, now: int) -> Asset | None:
        """Mark an account's file as deleted."""
        found = await self._db.fetch(_MARK, file_id, account_id, now)
        return rows.asset(found[0]) if found else None


async def lock_named(connection: Connection, tasks: Sequence[NewTask]) -> dict[int, int]:
    """When the images expire that tasks name, by id; files stay as they are until the commit.

    Accounts are locked before files, here as everywhere.
    """
    ids = sorted(frozenset[int]().union(*[new.named for new in tasks]))
    found = await connection.fetch(_LOCK_NAMED, ids) if ids else []
    return {row[0]: row[1] for row in found}


async def keep_named(connection: Connection, tasks: Sequence[NewTask]) -> None:
    """Keep the files for longer that these tasks name."""
    for new in tasks:
        if new.named:
            await connection.execute(_MOVE_ON, list(new.named), new.abandon_at, new.reference_days)
