"""A PostgreSQL that counts statements, and does nothing on its own that would be counted."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg

from postgres import fresh_database, running_postgres

_SETTINGS: Final = (
    "shared_preload_libraries=pg_stat_statements",
    "pg_stat_statements.track_planning=off",
    "autovacuum=off",
    "checkpoint_timeout=1d",
    "full_page_writes=off",
    "fsync=off",
    "max_wal_senders=0",
    "wal_level=minimal",
)


@asynccontextmanager
async def counting_database() -> AsyncIterator[str]:
    """The URL of a fresh database with Calotype's schema."""
    with (
        tempfile.TemporaryDirectory(prefix="calotype-pg-") as folder,
        running_postgres(Path(folder), *_SETTINGS) as server,
    ):
        async with fresh_database(server) as url:
            connection = await asyncpg.connect(url)
            await connection.execute("CREATE EXTENSION pg_stat_statements")
            await connection.close()
            yield url
