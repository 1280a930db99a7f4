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
from calotype.store.postgres import log

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_NAME: Final = re.compile(r"(\d{4})_\w+\.sql\Z")
_WORKS_FROM: Final = re.compile(r"-- works from: (\d+)\n")
"""A migration's first line: the oldest schema whose code can work with the new one."""
_LOCK: Final = 0x63616C6F  # 'calo': one migration at a time
POOL: Final = 4
"""Connections of one process for all but what is done for every task."""
HOT: Final = 4
"""Its connections for what is: batches of submissions, of reads by id and of transitions."""
HOT_SESSION: Final = (
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; "
    "SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"
)
"""Their statements find each row by a key, so they are planned once, and for tables of any size.

Left to itself, PostgreSQL would plan most of them anew every time, and keep what was best for a
table that has grown since.
"""
COMMAND_SECONDS: Final = 20.0
CONNECT_SECONDS: Final = 3.0
"""A database that does not even take a connection for so long is not there."""
ACQUIRE_SECONDS: Final = 5.0
"""How long a request waits for a free connection before it is answered with 503."""

Connection: TypeAlias = "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]"

OUTAGES: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a pool says of a connection lost in the midst of a query
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
        raise unavailable(error) from error


def unavailable(error: BaseException) -> Unavailable:
    """What an outage is to those above."""
    told = Unavailable("The database does not answer right now.", retry_after=2)
    told.__cause__ = error
    return told


async def migrate(url: str) -> int:
    """Apply every migration that is missing, ours and the queue's, all or nothing.

    Raises:
        StoreError: the database cannot be reached, or a newer Calotype wrote it.

    """
    connection = await _connect(url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            return await _apply(connection)
    finally:
        await connection.close()


async def check(url: str) -> None:
    """Judge the schema of a shared database, which only ``calotype migrate`` changes.

    A newer schema is fine where it says that this code can work with it, so that processes can
    be replaced one by one.

    Raises:
        StoreError: it cannot be reached, is too old, or too new.

    """
    connection = await _connect(url)
    try:
        found, works_from = await version(connection)
        ahead = found >= newest() and await log.is_ahead(connection)
    finally:
        await connection.close()
    if found < newest():
        raise StoreError(
            f"The database's schema has version {found}, this Calotype works with {newest()}; "
            "run calotype migrate."
        )
    if works_from > newest():
        raise _too_new(found)
    if ahead:
        raise StoreError(
            "The database was restored from a copy, so its events would not go on where they "
            "ended; run calotype migrate."
        )


async def version(connection: Connection) -> tuple[int, int]:
    """The schema's version, and the oldest one whose code works with it; 0 for none."""
    if await connection.fetchval("SELECT to_regclass('calotype_schema')") is None:
        return 0, 0
    row = await connection.fetchrow(
        "SELECT version, works_from FROM calotype_schema ORDER BY version DESC LIMIT 1"
    )
    return (row[0], row[1]) if row else (0, 0)


async def _connect(url: str) -> "asyncpg.Connection[Any]":
    try:
        return await asyncpg.connect(url)
    except ValueError:  # its message may hold a part of the password
        raise StoreError(
            "CALOTYPE_DATABASE_URL: cannot be parsed; percent-encode special characters in the "
            "password, such as / as %2F and # as %23."
        ) from None
    except (*OUTAGES, asyncpg.PostgresError) as error:
        raise StoreError(
            f"CALOTYPE_DATABASE_URL: cannot connect ({error}); check host, port, name and password."
        ) from error


def _too_new(found: int) -> StoreError:
    return StoreError(
        f"The database's schema has version {found}, this Calotype knows {newest()}; "
        "start the newer Calotype that wrote it, or restore a backup."
    )


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
    found, _ = await version(connection)
    if found > newest():
        raise _too_new(found)
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS calotype_schema "
        "(version BIGINT PRIMARY KEY, works_from BIGINT NOT NULL, "
        "applied_at TIMESTAMPTZ NOT NULL DEFAULT now())"
    )
    for number, file in _migrations().items():
        if number > found:
            script = file.read_text(encoding="utf-8")
            works_from = _WORKS_FROM.match(script)
            await connection.execute(script)
            await connection.execute(
                "INSERT INTO calotype_schema (version, works_from) VALUES ($1, $2)",
                number,
                int(works_from[1]) if works_from else number,
            )
    if await log.is_ahead(connection):
        await log.move_on(connection)
    queue = Queries(AsyncpgDriver(connection))
    if await queue.has_table(queue.qbe.settings.queue_table):
        await queue.upgrade()
    else:
        await queue.install()
    return newest()
