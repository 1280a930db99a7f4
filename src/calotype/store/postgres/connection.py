"""Connections to PostgreSQL, and bringing its schema up to date."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import asyncpg
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.queries import Queries

from calotype.domain.errors import Unavailable
from calotype.store.port import StoreError

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_NAME: Final = re.compile(r"(\d{4})_\w+\.sql\Z")
_LOCK: Final = 0x63616C6F  # 'calo': one migration at a time
POOL: Final = 8
"""Connections of one process for reads and transitions; submissions have one of their own."""
COMMAND_SECONDS: Final = 20.0

Connection: TypeAlias = "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]"

OUTAGES: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""What says that the database cannot be used right now, and may be soon."""


@asynccontextmanager
async def outages_told() -> AsyncIterator[None]:
    """Turn every outage into ``Unavailable``."""
    try:
        yield
    except OUTAGES as error:
        raise Unavailable("The database does not answer right now.", retry_after=2) from error


async def migrate(url: str) -> int:
    """Apply every migration that is missing, ours and the queue's, all or nothing.

    Raises:
        StoreError: the database cannot be reached, or a newer Calotype wrote it.

    """
    try:
        connection = await asyncpg.connect(url, command_timeout=None)
    except (*OUTAGES, asyncpg.PostgresError, ValueError) as error:
        raise StoreError(
            f"CALOTYPE_DATABASE_URL: cannot connect ({error}); check host, port, name and password."
        ) from error
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            return await _apply(connection)
    finally:
        await connection.close()


async def version(connection: Connection) -> int:
    """The schema's version, 0 for none."""
    if await connection.fetchval("SELECT to_regclass('calotype_schema')") is None:
        return 0
    return int(await connection.fetchval("SELECT MAX(version) FROM calotype_schema") or 0)


def newest() -> int:
    """The version of the schema that this Calotype works with."""
    return max(_migrations())


def _migrations() -> dict[int, Path]:
    return {
        int(match[1]): file
        for file in sorted(_MIGRATIONS.iterdir())
        if (match := _NAME.match(file.name))
    }


async def _apply(connection: "asyncpg.Connection[Any]") -> int:
    found = await version(connection)
    if found > newest():
        raise StoreError(
            f"The database's schema has version {found}, this Calotype knows {newest()}; "
            "start the newer Calotype that wrote it, or restore a backup."
        )
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS calotype_schema "
        "(version BIGINT PRIMARY KEY, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())"
    )
    for number, file in _migrations().items():
        if number > found:
            await connection.execute(file.read_text(encoding="utf-8"))
            await connection.execute("INSERT INTO calotype_schema (version) VALUES ($1)", number)
    queue = Queries(AsyncpgDriver(connection))
    if await queue.has_table(queue.qbe.settings.queue_table):
        await queue.upgrade()
    else:
        await queue.install()
    return newest()
