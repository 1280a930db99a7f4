"""Cancelling: what a client's wish comes to, and how an upstream learns of it.

The store decides by what is stored (``Store.cancel``): a task of which nothing is under way ends
at once, any other is marked. A mark is what counts: whoever develops the task is told, so that it
looks at once, and looks by itself on every round of polling.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from calotype.domain.clock import Clock
from calotype.domain.errors import CANCELLED, TaskNotFound, Unavailable
from calotype.domain.ids import decode, encode
from calotype.domain.task import FINAL, Task
from calotype.observing import metrics
from calotype.providers.port import Job, Provider
from calotype.services.sending import Bench
from calotype.store.port import Store

TOPIC: Final = "cancel"
"""What the processes of a shared database tell each other under, with the task's number."""
TELL_AGAIN_MS: Final = 5_000
"""Whoever develops a task is told no sooner again, however often its client asks."""
TIMES: Final = 3
"""How often an upstream is asked to stop a job, unless it says that it will."""

log = logging.getLogger(__name__)


class Cancelling:
    """Takes clients' wishes.

    Args:
        tell: has whoever develops a task look at its mark now, by the task's number.

    """

    def __init__(
        self, store: Store, *, tell: Callable[[int], Awaitable[None]], clock: Clock
    ) -> None:
        self._store = store
        self._tell = tell
        self._clock = clock
        self._told: dict[int, int] = {}

    async def cancel(self, task_word: str, *, account_id: int) -> Task:
        """Cancel a task as far as that can be done now; a final one stays as it is.

        Raises:
            errors.TaskNotFound: there is none of this public id, or it is someone else's.

        """
        number, task, now = decode("task", task_word), None, self._clock()
        if number is not None:
            task = await self._store.cancel(number, account_id=account_id, now=now)
        if task is None:
            raise TaskNotFound("There is no task with this id in this account.")
        if task.completed_at == now:  # it ended by this
            metrics.task_ended(task, CANCELLED.code, now=now)
        if task.state not in FINAL and self._is_due(task.id, now):
            try:
                await self._tell(task.id)
            except Unavailable:
                log.info("%s is marked; its worker will see it by itself", task_word)
                self._told.pop(task.id, None)
        return task

    def _is_due(self, task_id: int, now: int) -> bool:
        """Whether to tell of a task; it counts as told then."""
        while self._told and next(iter(self._told.values())) <= now - TELL_AGAIN_MS:
            del self._told[next(iter(self._told))]
        if task_id in self._told:
            return False
        self._told[task_id] = now
        return True


class Stop:
    """Asks an upstream to stop one job."""

    def __init__(self, bench: Bench, job: Job) -> None:
        self._bench = bench
        self._job = job
        self._left = TIMES

    async def ask(self, provider: Provider, upstream_id: str) -> None:
        """Ask, unless the upstream has agreed or was asked often enough; never raises."""
        if self._left == 0:
            return
        self._left -= 1
        try:
            if await provider.cancel(self._job, upstream_id):
                self._left = 0
        except Exception:
            log.exception("channel %s broke while cancelling", self._bench.channel.slug)


class Interrupter:
    """Stops sends that wait for their image, where an upstream can be interrupted in them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: dict[int, tuple[Bench, Job]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    @contextmanager
    def during(self, bench: Bench, job: Job) -> Iterator[None]:
        """While entered, the job is being sent."""
        if bench.provider.synchronous:
            self._under_way[bench.task.id] = bench, job
        try:
            yield
        finally:
            self._under_way.pop(bench.task.id, None)

    def look(self, task_id: int) -> None:
        """See whether a task that is being sent here is to be stopped."""
        if (sent := self._under_way.get(task_id)) is not None:
            asking = asyncio.create_task(self._ask(*sent))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)

    async def _ask(self, bench: Bench, job: Job) -> None:
        try:
            task = await self._store.task(bench.task.id)
        except Unavailable:
            return
        if task is not None and task.cancel_at is not None:
            log.info("%s is to be stopped while it is being sent", encode("task", task.id))
            await Stop(bench, job).ask(bench.provider, "")
