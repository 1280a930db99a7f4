"""Which task is next, for every process on one database: PgQueuer's table and statements.

A job only says 'look at task X'; the task row is the truth. So a job may be lost or come twice:
lost ones are found again by reconciliation, and whoever comes second finds the task taken under
another claim. Each channel is an entrypoint of its own, so that its limit holds over all processes.
"""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from pgqueuer.domain.models import Job
from pgqueuer.domain.settings import db_settings
from pgqueuer.domain.types import Channel as Topic
from pgqueuer.domain.types import JobId, QueueEntrypoint, QueueManagerId
from pgqueuer.ports import RepositoryPort
from pgqueuer.ports.repository import EntrypointExecutionParameter

from calotype.domain.channel import Channel
from calotype.domain.errors import Unavailable
from calotype.domain.ids import encode
from calotype.queue import RETRY_SECONDS, TIDYING_SECONDS, Run

BATCH: Final = 64
"""Jobs taken from the queue at a time."""
GLANCES: Final = 6
"""How often in a lease a worker looks for tasks that nobody told it of, as those of the lost."""
BEATS: Final = 2
"""How often in a lease it says that it lives; what goes astray is said at the next glance."""
RACE_SECONDS: Final = 0.1
"""Pause where jobs wait and none was to be had: another worker may have taken the room for it."""
_MARGIN: Final = 0.05
"""Seconds; a job that was put back is looked for that much later, by another clock."""

log = logging.getLogger(__name__)


def entrypoint(channel_id: int) -> str:
    """The queue's name for a channel; the store on PostgreSQL spells it the same in SQL."""
    return f"channel-{channel_id}"


class SharedQueue:
    """Hands tasks to ``run``, at most ``channel.concurrency`` of each channel over all processes.

    Jobs are enqueued by the store, in the submission's own transaction.

    Args:
        jobs: PgQueuer's tables, by a connection that mends itself.
        lease: a worker that has not been heard of for so long has lost its tasks.
        limit: most tasks at a time in this process; None is no limit.

    """

    def __init__(
        self,
        run: Run,
        *,
        channels: Sequence[Channel],
        jobs: RepositoryPort,
        lease: timedelta,
        limit: int | None = None,
    ) -> None:
        self._run = run
        self._jobs = jobs
        self._lease = lease
        self._limit = limit
        self._name = QueueManagerId(uuid.uuid4())
        self._lanes: dict[QueueEntrypoint, EntrypointExecutionParameter] = {}
        self._runs: dict[JobId, asyncio.Task[None]] = {}
        self._active: dict[int, asyncio.Task[None]] = {}
        """By task: two jobs may name the same one."""
        self._left: list[tuple[Job, float | None]] = []
        """Jobs whose run has ended, and after how many seconds they are to come again."""
        self._leaving = asyncio.Event()
        self._last = False
        """No more of them come."""
        self._fresh = asyncio.Event()
        """There may be jobs to take."""
        self._stopping = False
        self._over = asyncio.Event()
        self._managing: asyncio.Task[None] | None = None
        self.serve(channels)

    def start(self) -> None:
        """Begin to hand out tasks."""
        self._managing = asyncio.create_task(self._manage())
        self._managing.add_done_callback(_tell)

    @property
    def alive(self) -> bool:
        """Whether tasks are being handed out."""
        return self._managing is not None and not self._managing.done()

    @property
    def running(self) -> int:
        """How many tasks are being run."""
        return len(self._active)

    async def stop(self, limit_seconds: float) -> int:
        """Hand out nothing more and wait for what runs; returns how many had to be cut off."""
        if self._managing is None:
            return 0
        self._stopping = True
        self._fresh.set()
        if self._runs:
            await asyncio.wait(self._runs.values(), timeout=limit_seconds)
        cut_off, left = self.running, list(self._runs.values())
        for run in left:
            run.cancel()
        if left:
            await asyncio.wait(left, timeout=TIDYING_SECONDS)
        self._over.set()
        await asyncio.wait([self._managing], timeout=TIDYING_SECONDS)
        self._managing.cancel()
        await asyncio.wait([self._managing])
        return cut_off

    def serve(self, channels: Sequence[Channel]) -> None:
        """Hand out the tasks of these channels from now on, within their limits of this moment.

        Channels that were served before go on being served, by the limits they had.
        """
        for channel in channels:
            lane = EntrypointExecutionParameter(channel.concurrency)
            self._lanes[QueueEntrypoint(entrypoint(channel.id))] = lane
        self._fresh.set()

    @property
    def _limited(self) -> bool:
        """Whether the end of a task may make room for another."""
        return self._limit is not None or any(
            lane.concurrency_limit for lane in self._lanes.values()
        )

    async def _manage(self) -> None:
        """Take jobs, say that their worker lives, and write their ends, until all is over."""
        async with self._jobs.driver, asyncio.TaskGroup() as together:
            await self._jobs.driver.add_listener(Topic(db_settings().channel), self._hear)
            beating = together.create_task(self._beat())
            together.create_task(self._keep_writing())
            await self._take()
            await self._over.wait()
            beating.cancel()
            self._last = True
            self._leaving.set()

    def _hear(self, told: str | bytes | bytearray) -> None:
        """Look for jobs: PgQueuer's trigger tells that there are more of them, or fewer."""
        if self._limited or '"delete"' not in str(told):
            self._fresh.set()

    async def _take(self) -> None:
        batch = BATCH if self._limit is None else max(1, min(BATCH, self._limit // 2))
        while not self._stopping:
            self._fresh.clear()
            jobs = await self._jobs.dequeue(
                batch, self._lanes, self._name, self._limit, heartbeat_timeout=self._lease
            )
            for job in jobs:
                self._begin(job)
            if jobs and (self._limited or len(jobs) == batch):
                continue
            pause = self._lease.total_seconds() / GLANCES
            if self._limited and await self._jobs.eligible_queued_work(list(self._lanes)):
                pause = min(pause, RACE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._fresh.wait()

    def _begin(self, job: Job) -> None:
        if self._stopping:
            self._leave(job, 0.0)
        elif job.id not in self._runs:  # a late sign of life makes our own job look lost
            self._runs[job.id] = asyncio.create_task(self._handle(job))

    async def _handle(self, job: Job) -> None:
        """Run the task of a job; a second job for a task that runs here waits for its end.

        It may be the job by which the first one passed the task on to another channel.
        """
        task_id = int(job.payload or b"0")
        again: float | None = 0.0  # where it is cut off
        try:
            while (active := self._active.get(task_id)) is not None:
                await asyncio.wait([active])
            self._active[task_id] = self._runs[job.id]
            try:
                again = await self._run(task_id)
            finally:
                del self._active[task_id]
            if self._stopping and again is None:  # final or parked: whoever looks next finds out
                again = 0.0
        except Unavailable as error:
            log.warning("%s is tried again: %s", encode("task", task_id), error.message)
            again = RETRY_SECONDS
        except Exception:
            log.exception("%s broke; it is tried again", encode("task", task_id))
            again = RETRY_SECONDS
        finally:
            del self._runs[job.id]
            self._leave(job, again)

    def _leave(self, job: Job, again: float | None) -> None:
        self._left.append((job, again))
        self._leaving.set()

    async def _keep_writing(self) -> None:
        """Never cut off between two writes: nobody else knows of these ends."""
        while self._left or not self._last:
            await self._leaving.wait()
            self._leaving.clear()
            await self._write()

    async def _write(self) -> None:
        """End jobs, all that wait for it together, and put those back that are to come again."""
        left, self._left = self._left, []
        ended = [job for job, again in left if again is None]
        if ended:
            await self._jobs.log_jobs([(job, "successful", None) for job in ended])
        for job, again in left:
            if again is not None:
                await self._jobs.retry_job(job, timedelta(seconds=again), None)
                asyncio.get_running_loop().call_later(again + _MARGIN, self._fresh.set)
        if self._limited:
            self._fresh.set()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / BEATS)
            if self._runs:
                await self._jobs.update_heartbeat(list(self._runs))


def _tell(manager: asyncio.Task[None]) -> None:
    if not manager.cancelled() and (error := manager.exception()) is not None:
        log.critical("the queue has stopped; restart the server", exc_info=error)
