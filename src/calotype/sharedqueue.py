"""Which task is next, for every process on one database: PgQueuer.

A job only says 'look at task X'; the task row is the truth. So a job may be lost or come twice:
lost ones are found again by reconciliation, and whoever comes second finds the task taken under
another claim. Each channel is an entrypoint of its own, so that its limit holds over all processes.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.errors import RetryRequested
from pgqueuer.domain.models import Job
from pgqueuer.domain.types import QueueEntrypoint
from pgqueuer.ports import RepositoryPort

from calotype.domain.channel import Channel
from calotype.domain.errors import Unavailable
from calotype.domain.ids import encode
from calotype.queue import RETRY_SECONDS, TIDYING_SECONDS, Run

BATCH: Final = 64
"""Jobs taken from the queue at a time."""
RETRY: Final = timedelta(seconds=RETRY_SECONDS)
GLANCES: Final = 6
"""How often in a lease an idle worker looks for tasks of the lost."""

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
        self._manager = _SharedManager(jobs)
        self._channels = channels
        self._lease = lease
        self._limit = limit
        self._active: dict[int, asyncio.Task[Any]] = {}
        self._managing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to hand out tasks."""
        self.serve(self._channels)
        batch = BATCH if self._limit is None else max(1, min(BATCH, self._limit // 2))
        managing = self._manager.run(
            batch_size=batch,
            dequeue_timeout=self._lease / GLANCES,
            heartbeat_timeout=self._lease,
            max_concurrent_tasks=self._limit,
            log_aggregation_interval=timedelta(0),  # nobody reads these statistics
        )
        self._managing = asyncio.create_task(managing)
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
        self._manager.shutdown.set()
        await asyncio.wait([self._managing], timeout=limit_seconds)
        cut_off = self.running
        for run in self._active.values():
            run.cancel()
        # The manager itself is not cancelled before: it would cancel them a second time.
        await asyncio.wait([self._managing], timeout=TIDYING_SECONDS)
        self._managing.cancel()
        await asyncio.wait([self._managing])
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

    async def _handle(self, job: Job) -> None:
        """Run the task of a job; a second job for a task that runs here waits for its end.

        It may be the job by which the first one passed the task on to another channel.
        """
        task_id = int(job.payload or b"0")
        while (active := self._active.get(task_id)) is not None:
            await asyncio.wait([active])
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
        finally:
            self._active.pop(task_id, None)


class _SharedManager(QueueManager):
    async def verify_structure(self) -> None:
        """The store judged the schema; asking again would end a worker that starts in an outage."""


def _tell(manager: asyncio.Task[None]) -> None:
    if not manager.cancelled() and (error := manager.exception()) is not None:
        log.critical("the queue has stopped; restart the server", exc_info=error)
