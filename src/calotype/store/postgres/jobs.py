"""PgQueuer's tables over connections that mend themselves.

PgQueuer ends its loop at the first error of the database. A worker must outlive a restart of
PostgreSQL, so an outage here is an empty queue for a moment, and a lost listener is replaced.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, ParamSpec, TypeVar

import asyncpg
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver, Relay
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.models import Job, TracebackRecord
from pgqueuer.domain.types import JOB_STATUS
from pgqueuer.ports.driver import NotifyCallback

from calotype.store.postgres.connection import COMMAND_SECONDS, OUTAGES

CONNECTIONS: Final = 4
PAUSE_SECONDS: Final = 1.0

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


async def open_jobs(url: str) -> "Jobs":
    """The queue's tables, by a pool of their own."""
    pool = await asyncpg.create_pool(
        url, min_size=1, max_size=CONNECTIONS, command_timeout=COMMAND_SECONDS
    )
    return Jobs(_Driver(pool, url))


class Jobs(Queries):
    """PgQueuer's queries, for a worker that outlives outages and writes only what it owns."""

    async def dequeue(self, *arguments: Any, **options: Any) -> list[Job]:
        """Jobs to run; none while the database does not answer."""
        return await _or_nothing(super().dequeue, [], *arguments, **options)

    async def eligible_queued_work(self, entrypoints: list[Any]) -> int:
        """How many jobs wait; none while the database does not answer."""
        return await _or_nothing(super().eligible_queued_work, 0, entrypoints)

    async def next_deferred_eta(self, entrypoints: list[Any]) -> timedelta | None:
        """When the next delayed job is due; nobody knows while the database does not answer."""
        return await _or_nothing(super().next_deferred_eta, None, entrypoints)

    async def queued_work(self, entrypoints: list[Any]) -> int:
        """How many jobs there are; none while the database does not answer."""
        return await _or_nothing(super().queued_work, 0, entrypoints)

    async def retry_job(
        self, job: Job, delay: timedelta, traceback_record: TracebackRecord | None
    ) -> None:
        """Put a job back, however long the database takes to come back itself."""
        while True:
            try:
                return await super().retry_job(job, delay, traceback_record)
            except OUTAGES:
                await asyncio.sleep(PAUSE_SECONDS)

    async def log_jobs(
        self, job_status: list[tuple[Job, JOB_STATUS, TracebackRecord | None]]
    ) -> None:
        """End jobs, but for those that another worker has taken over since."""
        owned = await self.driver.fetch(
            f"SELECT q.id FROM {self.qbq.settings.queue_table} q "
            "JOIN unnest($1::bigint[], $2::uuid[]) AS mine (id, manager) "
            "ON q.id = mine.id AND q.queue_manager_id = mine.manager",
            [job.id for job, _, _ in job_status],
            [job.queue_manager_id for job, _, _ in job_status],
        )
        ids = {row["id"] for row in owned}
        mine = [entry for entry in job_status if entry[0].id in ids]
        if mine:
            await super().log_jobs(mine)


class _Driver(AsyncpgPoolDriver):
    """A pool, and a connection of its own to listen on, which is replaced when it is lost."""

    def __init__(self, pool: "asyncpg.Pool[Any]", url: str) -> None:
        super().__init__(pool)
        self._url = url
        self._callbacks: list[tuple[str, NotifyCallback]] = []
        self._listener: asyncpg.Connection[Any] | None = None
        self._listening: asyncio.Task[None] | None = None

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Listen from now on."""
        self._callbacks.append((channel, callback))
        if self._listening is None:
            self._listening = asyncio.create_task(self._keep_listening())

    async def __aexit__(self, *_: object) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        await self._pool.close()

    async def _keep_listening(self) -> None:
        while True:
            lost = asyncio.Event()
            try:
                connection = await asyncpg.connect(self._url, timeout=COMMAND_SECONDS)
            except OUTAGES:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            try:
                connection.add_termination_listener(lambda _, lost=lost: lost.set())
                for channel, callback in self._callbacks:
                    await connection.add_listener(channel, Relay(callback))
                await lost.wait()
            except OUTAGES:
                log.warning("the queue's listener was lost; another one is set up")
            finally:
                connection.terminate()
            await asyncio.sleep(PAUSE_SECONDS)


async def _or_nothing(
    ask: Callable[P, Awaitable[T]], nothing: T, *arguments: P.args, **options: P.kwargs
) -> T:
    try:
        return await ask(*arguments, **options)
    except OUTAGES as error:
        log.warning("the queue does not answer: %s", type(error).__name__)
        await asyncio.sleep(PAUSE_SECONDS)
        return nothing
