"""One process's way to a database: a pool whose connections are opened as they are needed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from calotype.store import rows
from calotype.store.postgres.connection import (
    ACQUIRE_SECONDS,
    COMMAND_SECONDS,
    CONNECT_SECONDS,
    POOL,
    Connection,
    outages_told,
)


class Database:
    """Runs statements; whatever is wrong with the database itself becomes ``Unavailable``.

    Args:
        url: the database.
        connections: how many at most.
        session: how a new connection is set up, for good: it is not reset after each use.

    """

    def __init__(self, url: str, *, connections: int = POOL, session: str = "") -> None:
        self.url = url
        self._connections = connections
        self._session = session
        self._opening = asyncio.Lock()
        self._pool: asyncpg.Pool[Any] | None = None

    @asynccontextmanager
    async def connection(self, *, patient: bool = False) -> AsyncIterator[Connection]:
        """A connection; who is ``patient`` waits in line for one however long the line is."""
        async with outages_told():
            async with self._opening:
                if self._pool is None:
                    self._pool = await asyncpg.create_pool(
                        self.url,
                        min_size=0,
                        max_size=self._connections,
                        command_timeout=COMMAND_SECONDS,
                        timeout=CONNECT_SECONDS,
                        init=self._set_up if self._session else None,
                        reset=as_it_is if self._session else None,
                    )
            async with self._pool.acquire(timeout=None if patient else ACQUIRE_SECONDS) as db:
                yield db

    async def fetch(self, statement: str, *values: Any, patient: bool = False) -> list[rows.Row]:
        """The rows of a statement."""
        async with self.connection(patient=patient) as db:
            return await db.fetch(statement, *values)

    async def execute(self, statement: str, *values: Any) -> int:
        """Run a statement; returns how many rows it changed."""
        async with self.connection() as db:
            done = await db.execute(statement, *values)
        return int(done.rpartition(" ")[2])

    async def _set_up(self, connection: Connection) -> None:
        await connection.execute(self._session)

    async def close(self) -> None:
        """Let go of the connections."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None


async def as_it_is(_connection: Connection) -> None:
    """Give a connection back without the round trip of a reset; asyncpg ends its transaction."""
