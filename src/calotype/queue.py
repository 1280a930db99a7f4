"""PgQueuer, in both its modes: inside one process, or shared by every process on one database.

A job only says 'look at task X'; the task row is the truth. So a job may be lost or come twice:
lost ones are found again (at the next start, or by reconciliation), and whoever comes second
finds the task taken under another claim. Each channel is an entrypoint of its own, so that its
limit holds, over all processes when they share the queue.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from pgqueuer.adapters.inmemory import InMemoryDriver, InMemoryQueries
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.errors import RetryRequested
from pgqueuer.domain.models import Job
from pgqueuer.domain.types import QueueEntrypoint
from pgqueuer.ports import RepositoryPort

from calotype.domain.channel import Channel
from calotype.domain.errors import Unavailable
from calotype.domain.ids import encode

BATCH: Final = 64
"""Jobs taken from the queue at a time."""
RETRY: Final = timedelta(seconds=5)
"""Pause after something of ours broke while a task was running."""
HOUSEKEEPING_SECONDS: Final = 10.0
TIDYING_SECONDS: Final = 10.0
"""Given to tasks that were cut off to put things away."""
GLANCES: Final = 6
"""How often in a lease an idle worker looks for tasks of the lost."""

Run = Callable[[int], Awaitable[float | None]]
"""Runs a task by its id; returns the seconds after which it is to be run again, or None."""

log = logging.getLogger(__name__)


def entrypoint(channel_id: int) -> str:
    """The queue's name for a channel; the store on PostgreSQL spells it the same in SQL."""
    return f"channel-{channel_id}"


class TaskQueue:
    """Hands tasks to ``run``, at most ``channel.concurrency`` of each channel at a time."""

    def __init__(self, run: Run, manager: QueueManager, *, channels: Sequence[Channel]) -> None:
        self._run = run
        self._manager = manager
        self._channels = channels
        self._active: dict[int, asyncio.Task[Any]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def alive(self) -> bool:
        """Whether tasks are being handed out."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    @property
    def running(self) -> int:
        """How many tasks are being run."""
        return len(self._active)

    async def stop(self, limit_seconds: float) -> int:
        """Hand out nothing more and wait for what runs; returns how many had to be cut off."""
        if not self._tasks:
            return 0
        self._manager.shutdown.set()
        manager = self._tasks[0]
        await asyncio.wait([manager], timeout=limit_seconds)
        cut_off = self.running
        for run in self._active.values():
            run.cancel()
        await asyncio.wait([manager], timeout=TIDYING_SECONDS)  # cancelled, it would cancel twice
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        return cut_off

    def serve(self, channels: Sequence[Channel]) -> None:
        """Hand out the tasks of these channels from now on, within their limits of this moment.

        Channels that were served before go on being served, by the limits they had.
        """
        for channel in channels:
            self._manager.entrypoint_registry.pop(QueueEntrypoint(entrypoint(channel.id)), None)
            self._manager.entrypoint(entrypoint(channel.id), concurrency_limit=channel.concurrency)(
                self._handle
            )

    def _begin(self, **options: Any) -> None:
        self.serve(self._channels)
        manager = asyncio.create_task(self._manager.run(**options))
        manager.add_done_callback(_tell)
        self._tasks.append(manager)

    async def _handle(self, job: Job) -> None:
        """Run the task of a job; a second job for a task that runs here waits for its end.

        It may be the job by which the first one passed the task on to another channel.
        """
        task_id = int(job.payload or b"0")
        while (active := self._active.get(task_id)) is not None:
            await asyncio.wait([active])
        if not self._is_current(task_id, job):
            return
        if (active := asyncio.current_task()) is not None:
            self._active[task_id] = active
        later: float | None = None
        try:
            later = await self._run(task_id)
        except Unavailable as error:
            log.warning("%s is tried again: %s", encode("task", task_id), error.message)
            raise RetryRequested(RETRY, reason=type(error).__name__) from error
        except Exception as error:
            log.exception("%s broke; it is tried again", encode("task", task_id))
            raise RetryRequested(RETRY, reason=type(error).__name__) from error
        else:
            if self._manager.shutdown.is_set():  # final or parked: whoever looks next finds out
                raise RetryRequested(reason="stopping")
            if later is not None:
                raise RetryRequested(timedelta(seconds=later), reason="waiting for the channel")
            self._forget(task_id, job)
        finally:
            self._active.pop(task_id, None)

    def _is_current(self, _task_id: int, _job: Job) -> bool:
        """Whether a job still is its task's; the store sees to it where it holds the jobs."""
        return True

    def _forget(self, task_id: int, job: Job) -> None:
        """A task is through with this job."""


class EmbeddedQueue(TaskQueue):
    """The queue in this process's memory: jobs live as long as the process."""

    def __init__(self, run: Run, *, channels: Sequence[Channel]) -> None:
        self._queries = InMemoryQueries(InMemoryDriver())
        super().__init__(run, QueueManager(self._queries), channels=channels)
        self._pending: list[tuple[int, int, int]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._places: dict[int, tuple[int, int]] = {}
        """Channel and priority of every task that is queued or running."""

    def start(self) -> None:
        """Begin to hand out tasks."""
        self._begin(
            batch_size=BATCH,
            heartbeat_timeout=timedelta(days=365),  # the jobs die with us, not before
            log_aggregation_interval=timedelta(0),
        )
        self._tasks.append(asyncio.create_task(self._keep_house()))

    def put(self, task_id: int, channel_id: int, priority: int | None) -> None:
        """Enqueue a task; the higher ``priority`` is, the sooner. One that is here stays as it is.

        Without a priority it is moved to the channel's queue, at the priority that it had. Those
        put within one turn of the loop are enqueued together.
        """
        place = self._places.get(task_id)
        if place is not None and priority is not None:
            return
        if priority is None:
            priority = place[1] if place else 0
        self._places[task_id] = channel_id, priority
        self._pending.append((task_id, channel_id, priority))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        self._flushing = None
        pending, self._pending = self._pending, []
        await self._queries.enqueue(
            [entrypoint(channel_id) for _, channel_id, _ in pending],
            [str(task_id).encode() for task_id, _, _ in pending],
            [priority for _, _, priority in pending],
        )

    def _is_current(self, task_id: int, job: Job) -> bool:
        place = self._places.get(task_id)
        return place is not None and entrypoint(place[0]) == job.entrypoint

    def _forget(self, task_id: int, job: Job) -> None:
        if self._is_current(task_id, job):
            del self._places[task_id]

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            await self._queries.clear_queue_log()  # it would grow by three rows for each task


class SharedQueue(TaskQueue):
    """The queue in PostgreSQL: any number of workers on any number of machines.

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
        super().__init__(run, _SharedManager(jobs), channels=channels)
        self._lease = lease
        self._limit = limit

    def start(self) -> None:
        """Begin to hand out tasks."""
        self._begin(
            batch_size=BATCH if self._limit is None else max(1, min(BATCH, self._limit // 2)),
            dequeue_timeout=self._lease / GLANCES,
            heartbeat_timeout=self._lease,
            max_concurrent_tasks=self._limit,
        )


class _SharedManager(QueueManager):
    async def verify_structure(self) -> None:
        """The store judged the schema; asking again would end a worker that starts in an outage."""


def _tell(manager: asyncio.Task[None]) -> None:
    if not manager.cancelled() and (error := manager.exception()) is not None:
        log.critical("the queue has stopped; restart the server", exc_info=error)
