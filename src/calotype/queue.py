"""Which task is next, in one process: tasks wait in its memory, and each channel has its limit.

A place in the queue only says 'look at task X'; the task row is the truth. So the queue may lose
everything with the process: what is unfinished is found again at the next start.
"""

import asyncio
import logging
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Final

from calotype.domain.channel import Channel
from calotype.domain.errors import Unavailable
from calotype.domain.ids import encode

RETRY_SECONDS: Final = 5.0
"""Pause after something of ours broke while a task was running."""
TIDYING_SECONDS: Final = 10.0
"""Given to tasks that were cut off to put things away."""

Run = Callable[[int], Awaitable[float | None]]
"""Runs a task by its id; returns the seconds after which it is to be run again, or None."""

log = logging.getLogger(__name__)


class _Lane:
    """One channel's tasks: how many may run, how many do, and which ones wait."""

    __slots__ = ("limit", "running", "waiting")

    def __init__(self) -> None:
        self.limit = 0
        self.running = 0
        self.waiting: list[tuple[int, int, int]] = []
        """A heap: the highest priority first, of equal ones the first, then the task."""


class EmbeddedQueue:
    """Hands tasks to ``run``, at most ``channel.concurrency`` of each channel at a time."""

    def __init__(self, run: Run, *, channels: Sequence[Channel]) -> None:
        self._run = run
        self._lanes: defaultdict[int, _Lane] = defaultdict(_Lane)
        self._places: dict[int, tuple[int, int]] = {}
        """Channel and priority of every task that waits or runs."""
        self._running: dict[int, asyncio.Task[None]] = {}
        self._moved: set[int] = set()
        """Those of them that were moved meanwhile, though it be to where they are."""
        self._order = count()
        self._due: set[int] = set()
        """Channels that may have both a task that waits and room for it."""
        self.alive = False
        self.serve(channels)

    @property
    def running(self) -> int:
        """How many tasks are being run."""
        return len(self._running)

    def start(self) -> None:
        """Begin to hand out tasks."""
        self.alive = True
        for channel_id in list(self._lanes):
            self._look_at(channel_id)

    async def stop(self, limit_seconds: float) -> int:
        """Hand out nothing more and wait for what runs; returns how many had to be cut off."""
        self.alive = False
        if self._running:
            await asyncio.wait(self._running.values(), timeout=limit_seconds)
        left = list(self._running.values())
        for run in left:
            run.cancel()
        if left:
            await asyncio.wait(left, timeout=TIDYING_SECONDS)
        return len(left)

    def serve(self, channels: Sequence[Channel]) -> None:
        """Hand out the tasks of these channels from now on, within their limits of this moment.

        Channels that were served before go on being served, by the limits they had.
        """
        for channel in channels:
            self._lanes[channel.id].limit = channel.concurrency or sys.maxsize
            if self.alive:
                self._look_at(channel.id)

    def put(self, task_id: int, channel_id: int, priority: int | None) -> None:
        """Enqueue a task; the higher ``priority`` is, the sooner. One that is here stays as it is.

        Without a priority it is moved to the channel's queue, at the priority that it had.
        """
        place = self._places.get(task_id)
        if place is not None and priority is not None:
            return
        if priority is None:
            priority = place[1] if place else 0
        self._places[task_id] = channel_id, priority
        if task_id in self._running:
            self._moved.add(task_id)  # it goes there when its run has ended
        else:
            self._wait(task_id)

    def _wait(self, task_id: int) -> None:
        channel_id, priority = self._places[task_id]
        heappush(self._lanes[channel_id].waiting, (-priority, next(self._order), task_id))
        self._look_at(channel_id)

    def _look_at(self, channel_id: int) -> None:
        """See in the next turn of the loop what can run: of one turn's tasks the best first."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._hand_out)
        self._due.add(channel_id)

    def _hand_out(self) -> None:
        due, self._due = self._due, set()
        for channel_id in due:
            lane = self._lanes[channel_id]
            while self.alive and lane.waiting and lane.running < lane.limit:
                *_, task_id = heappop(lane.waiting)
                place = self._places.get(task_id)
                if place is None or place[0] != channel_id or task_id in self._running:
                    continue  # it was put here twice, or has gone elsewhere
                lane.running += 1
                self._running[task_id] = asyncio.create_task(self._handle(task_id, channel_id))

    async def _handle(self, task_id: int, channel_id: int) -> None:
        try:
            pause = await self._run(task_id)
        except Unavailable as error:
            log.warning("%s is tried again: %s", encode("task", task_id), error.message)
            pause = RETRY_SECONDS
        except Exception:
            log.exception("%s broke; it is tried again", encode("task", task_id))
            pause = RETRY_SECONDS
        finally:
            del self._running[task_id]
            moved = task_id in self._moved
            self._moved.discard(task_id)
            self._lanes[channel_id].running -= 1
            self._look_at(channel_id)
        if pause is not None:
            asyncio.get_running_loop().call_later(pause, self._wait, task_id)
        elif moved:
            self._wait(task_id)
        else:
            del self._places[task_id]
