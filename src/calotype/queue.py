"""PgQueuer, embedded: the process that accepts tasks runs them too.

A job only says 'look at task X'; the task row is the truth. So a job may be lost with the
process: at the next start every unfinished task is enqueued again. Within one process a task is
enqueued once at a time. Each channel is an entrypoint of its own, with its own limit.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

from pgqueuer.adapters.inmemory import InMemoryDriver, InMemoryQueries
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.errors import RetryRequested
from pgqueuer.domain.models import Job

from calotype.domain.channel import Channel
from calotype.domain.ids import encode

BATCH: Final = 64
"""Jobs taken from the queue at a time."""
RETRY: Final = timedelta(seconds=5)
"""Pause after something of ours broke while a task was running."""
HOUSEKEEPING_SECONDS: Final = 10.0

log = logging.getLogger(__name__)


class EmbeddedQueue:
    """Hands tasks to ``run``, at most ``channel.concurrency`` of each channel at a time."""

    def __init__(
        self, run: Callable[[int], Awaitable[None]], *, channels: Sequence[Channel]
    ) -> None:
        self._run = run
        self._channels = channels
        self._queries = InMemoryQueries(InMemoryDriver())
        self._manager = QueueManager(self._queries)
        self._known: set[int] = set()
        self._pending: list[tuple[int, int, int]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to hand out tasks."""
        for channel in self._channels:
            self._manager.entrypoint(
                _entrypoint(channel.id), concurrency_limit=channel.concurrency
            )(self._handle)
        forever = timedelta(days=365)  # a heartbeat outlives nothing: the jobs die with us
        manager = asyncio.create_task(
            self._manager.run(
                batch_size=BATCH,
                heartbeat_timeout=forever,
                log_aggregation_interval=timedelta(0),
            )
        )
        manager.add_done_callback(_tell)
        self._tasks = [manager, asyncio.create_task(self._keep_house())]

    @property
    def alive(self) -> bool:
        """Whether tasks are being handed out."""
        return bool(self._tasks) and not self._tasks[0].done()

    def put(self, task_id: int, channel_id: int, priority: int) -> None:
        """Enqueue a task that is not enqueued yet; the higher ``priority`` is, the sooner.

        Those put within one turn of the loop are enqueued together.
        """
        if task_id in self._known:
            return
        self._known.add(task_id)
        self._pending.append((task_id, channel_id, priority))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())

    async def stop(self, limit_seconds: float) -> int:
        """Hand out nothing more and wait for what runs; returns how many had to be cut off."""
        self._manager.shutdown.set()
        if not self._tasks:
            return 0
        manager, housekeeper = self._tasks
        housekeeper.cancel()
        await asyncio.wait([manager], timeout=limit_seconds)
        cut_off = len(self._manager.job_context) if not manager.done() else 0
        manager.cancel()
        await asyncio.wait([manager])
        return cut_off

    async def _flush(self) -> None:
        self._flushing = None
        pending, self._pending = self._pending, []
        await self._queries.enqueue(
            [_entrypoint(channel_id) for _, channel_id, _ in pending],
            [str(task_id).encode() for task_id, _, _ in pending],
            [priority for _, _, priority in pending],
        )

    async def _handle(self, job: Job) -> None:
        task_id = int(job.payload or b"0")
        try:
            await self._run(task_id)
        except Exception as error:
            log.exception("%s broke; it is tried again", encode("task", task_id))
            raise RetryRequested(RETRY, reason=type(error).__name__) from error
        self._known.discard(task_id)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            await self._queries.clear_queue_log()  # it would grow by three rows for each task


def _tell(manager: asyncio.Task[None]) -> None:
    if not manager.cancelled() and (error := manager.exception()) is not None:
        log.critical("the queue has stopped; restart the server", exc_info=error)


def _entrypoint(channel_id: int) -> str:
    return f"channel-{channel_id}"
