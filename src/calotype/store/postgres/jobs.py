"""PgQueuer's tables over connections that mend themselves.

PgQueuer ends its loop at the first error of the database. A worker must outlive a restart of
PostgreSQL, so an outage here is an empty queue for a moment, and a lost listener is replaced.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

import asyncpg
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.models import Job, TracebackRecord
from pgqueuer.domain.types import JOB_STATUS, JobId
from pgqueuer.ports.driver import NotifyCallback

from calotype.store.postgres.connection import COMMAND_SECONDS, OUTAGES, Connection
from calotype.store.postgres.database import as_it_is
from calotype.store.postgres.listening import Listener

CONNECTIONS: Final = 4
PAUSE_SECONDS: Final = 1.0

_SESSION: Final = "SET synchronous_commit = off; SET jit = off"
"""A job says nothing that its task does not say, so nobody waits until a disk has it.

The log of a database has one order: whatever a task's taking has made durable, its job's taking
came before that. A job whose end is lost in a crash comes once more, and finds its task ended.
"""
_END: Final = """
DELETE FROM pgqueuer q USING unnest($1::bigint[], $2::uuid[]) AS mine (id, manager)
WHERE q.id = mine.id AND q.queue_manager_id = mine.manager
"""
"""PgQueuer's own would write each end into a history as well; the events tell more."""
_PUT_BACK: Final = """
UPDATE pgqueuer q SET status = 'queued', execute_after = now() + $3::interval,
    attempts = attempts + 1, updated = now(), queue_manager_id = NULL, slot = NULL
FROM unnest($1::bigint[], $2::uuid[]) AS mine (id, manager)
WHERE q.id = mine.id AND q.queue_manager_id = mine.manager
"""

Ended: TypeAlias = tuple[Job, JOB_STATUS, TracebackRecord | None]
P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


class Jobs(Queries):
    """PgQueuer's queries, for a worker that outlives outages and writes only what it owns."""

    def __init__(self, pool: "asyncpg.Pool[Any]", url: str) -> None:
        super().__init__(_Driver(pool, url))
        self._pool = pool
        self._writing = asyncio.Lock()  # two that change many jobs would wait in a circle
        self._outage = Outage(time.monotonic)
        self._late = set[JobId]()
        self._unwritten: list[Ended] = []

    async def close(self) -> None:
        """Let go of the connections."""
        await self._pool.close()

    async def dequeue(self, *arguments: Any, **options: Any) -> list[Job]:
        """Jobs to run; none while the database does not answer."""
        try:
            await self._catch_up()
            lease = self._outage.lengthened(options["heartbeat_timeout"])
            options = {**options, "heartbeat_timeout": lease}
            found = await super().dequeue(*arguments, **options)
        except OUTAGES as error:
            self._outage.begin()
            log.warning("the queue does not answer: %s", type(error).__name__)
            await asyncio.sleep(PAUSE_SECONDS)
            return []
        self._outage.end()
        return found

    async def _catch_up(self) -> None:
        """Write what could not be written during an outage."""
        late, self._late = self._late, set()
        try:
            if late:
                await self._beat(list(late))
        except OUTAGES:
            self._late |= late
            raise
        if self._unwritten:
            await self._end(self._unwritten)
            self._unwritten = []

    async def eligible_queued_work(self, entrypoints: list[Any]) -> int:
        """How many jobs wait; none while the database does not answer."""
        return await _or(0, super().eligible_queued_work, entrypoints)

    async def next_deferred_eta(self, entrypoints: list[Any]) -> timedelta | None:
        """When the next delayed job is due; nobody knows while the database does not answer."""
        return await _or(None, super().next_deferred_eta, entrypoints)

    async def queued_work(self, entrypoints: list[Any]) -> int:
        """How many jobs there are; none while the database does not answer."""
        return await _or(0, super().queued_work, entrypoints)

    async def update_heartbeat(self, job_ids: list[JobId]) -> None:
        """Say that we live, as soon as the database answers."""
        try:
            await self._beat(job_ids)
        except OUTAGES:
            self._late.update(job_ids)

    async def _beat(self, job_ids: list[JobId]) -> None:
        async with self._writing:
            await super().update_heartbeat(job_ids)

    async def retry_job(
        self,
        job: Job,
        delay: timedelta,
        traceback_record: TracebackRecord | None,  # noqa: ARG002 -- our own log tells it
    ) -> None:
        """Put a job back, however long the database takes to come back itself."""
        while True:
            try:
                return await self._put_back([job], delay)
            except OUTAGES:
                await asyncio.sleep(PAUSE_SECONDS)

    async def log_jobs(self, job_status: list[Ended]) -> None:
        """End jobs, or do so before the next ones are taken when the database does not answer."""
        try:
            await self._end(job_status)
        except OUTAGES:
            self._unwritten += job_status

    async def _end(self, ended: Sequence[Ended]) -> None:
        """End jobs, but for those that another worker has taken over; those cut off go back."""
        async with self._writing:
            await self._put_back([job for job, status, _ in ended if status == "canceled"])
            await self.driver.execute(_END, *_owners([job for job, _, _ in ended]))

    async def _put_back(self, jobs: Sequence[Job], delay: timedelta = timedelta(0)) -> None:
        if jobs:
            await self.driver.execute(_PUT_BACK, *_owners(jobs), delay)


def _owners(jobs: Sequence[Job]) -> tuple[list[Any], list[Any]]:
    return [job.id for job in jobs], [job.queue_manager_id for job in jobs]


class Outage:
    """While the database was away nobody's heartbeat came: that time is held against no one.

    Args:
        clock: seconds.

    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began: float | None = None
        self._ended: float | None = None

    def begin(self) -> None:
        """The database does not answer."""
        if self._began is None:
            self._began = self._clock()
        self._ended = None

    def end(self) -> None:
        """It answers, perhaps again."""
        if self._began is not None and self._ended is None:
            self._ended = self._clock()

    def lengthened(self, lease: timedelta) -> timedelta:
        """How long a worker may have been silent; half a lease after the outage it is as ever."""
        if self._began is None:
            return lease
        now = self._clock()
        if self._ended is not None and now - self._ended > lease.total_seconds() / 2:
            self._began = self._ended = None
            return lease
        return lease + timedelta(seconds=now - self._began)


class _Driver(AsyncpgPoolDriver):
    """A pool, and a connection of its own to listen on, which is replaced when it is lost."""

    def __init__(self, pool: "asyncpg.Pool[Any]", url: str) -> None:
        super().__init__(pool)
        self._url = url
        self._listeners: list[Listener] = []

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Listen from now on."""
        self._listeners.append(Listener(self._url, channel, callback))

    async def __aexit__(self, *_: object) -> None:
        """Stop listening; the pool stays, for what is written after this."""
        for listener in self._listeners:
            await listener.close()


async def open_jobs(url: str) -> Jobs:
    """The queue's tables, by a pool of their own."""
    pool = await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=CONNECTIONS,
        command_timeout=COMMAND_SECONDS,
        init=_set_up,
        reset=as_it_is,
    )
    return Jobs(pool, url)


async def _set_up(connection: Connection) -> None:
    await connection.execute(_SESSION)


async def _or(
    nothing: T, ask: Callable[P, Awaitable[T]], *arguments: P.args, **options: P.kwargs
) -> T:
    try:
        return await ask(*arguments, **options)
    except OUTAGES as error:
        log.warning("the queue does not answer: %s", type(error).__name__)
        await asyncio.sleep(PAUSE_SECONDS)
        return nothing
