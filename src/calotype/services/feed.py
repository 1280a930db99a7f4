"""Waking those who wait for tasks: one reader of the event log for all of them in a process.

A waiter costs a coroutine; none of them asks the database until something has happened to what it
waits for.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Final

from calotype.domain.errors import Unavailable
from calotype.domain.task import FINAL, State, Task
from calotype.store.port import LoggedEvent, SharedStore, Store

TAIL_SECONDS: Final = 0.05
"""Between two looks at a log that other processes write to, if none of them tells of news."""
SETTLING_SECONDS: Final = 0.005
"""After a look at news: what was written meanwhile may have held some of them back."""
FAULT_SECONDS: Final = 1.0
PAGE: Final = 500
MANY: Final = 8
"""Who wait for one task, from which on it is read for them."""

log = logging.getLogger(__name__)


class Wake(asyncio.Event):
    """Set when something has happened to what is waited for, and when the waiting is over."""

    after = 0
    """Of a task's events only those after this one count, and its last."""
    ended: State | None = None
    """The state that the task came to its end in, once that is told."""
    over = False
    """Nobody is to wait any longer."""

    def tell(self, event: LoggedEvent) -> None:
        """Something happened to the task."""
        if event.state in FINAL:
            self.ended = event.state
            self.set()
        elif event.seq > self.after:
            self.set()

    def end(self) -> None:
        """The time is over."""
        self.over = True
        self.set()


class Feed:
    """Tells waiters in this process that something happened; what it was they read themselves."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._shared = isinstance(store, SharedStore)
        self._tasks: dict[int, set[Wake]] = {}
        self._accounts: dict[int, set[Wake]] = {}
        self._shown: dict[int, Task] = {}
        self._reader: asyncio.Task[None] | None = None
        self._reading: asyncio.Future[None] | None = None
        self._fresh = asyncio.Event()
        self._told = False
        self.closing = False
        """True when nobody is to wait any longer."""

    def waking(
        self,
        *,
        task_id: int | None = None,
        account_id: int | None = None,
        seconds: float | None = None,
    ) -> "_Waking":
        """An event that is set when something happens to a task, or to any of an account's.

        It is that of an ``async with``. What happens from entry on is not missed: clear it, read,
        and then wait for it. After so many seconds it is over.
        """
        if task_id is None:
            return _Waking(self._accounts, account_id or 0, self._begin, seconds=seconds)
        return _Waking(self._tasks, task_id, self._begin, self._shown, seconds=seconds)

    async def task(self, task_id: int) -> Task | None:
        """A task, for one who was woken: what many wait for has been read for them."""
        return self._shown.get(task_id) or await self._store.task(task_id)

    def hurry(self) -> None:
        """Let nobody wait any longer: the server stops."""
        self.closing = True
        for waiters in (self._tasks, self._accounts):
            for group in waiters.values():
                for wake in group:
                    wake.end()

    async def close(self) -> None:
        """Stop reading."""
        self.hurry()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])

    async def _begin(self) -> None:
        """Have the log read from no later than now."""
        if self._reader is None or self._reader.done():
            self._reading = asyncio.get_running_loop().create_future()
            self._reader = asyncio.create_task(
                self._read(self._reading),
                context=Context(),  # it is nobody's: what it logs is not of whoever came first
            )
        if self._reading is not None and not self._reading.done():
            await asyncio.shield(self._reading)

    async def _read(self, reading: asyncio.Future[None]) -> None:
        unwatch = self._store.watch(self._fresh.set)
        try:
            cursor = ""
            while not cursor:
                try:
                    cursor = await self._store.events_end()
                except Unavailable as error:
                    if not reading.done():
                        reading.set_exception(error)
                    return
            reading.set_result(None)
            while self._tasks or self._accounts:
                await self._pause()
                cursor = await self._tell(cursor)
        except Exception:
            log.exception("the log of events could not be read; those who wait look for themselves")
            if not reading.done():
                reading.set_result(None)
        finally:
            unwatch()

    async def _pause(self) -> None:
        """Wait for news, but at most until it is time to look without any."""
        longest = FAULT_SECONDS  # so that it ends when nobody waits any more
        if self._shared:
            longest = SETTLING_SECONDS if self._told else TAIL_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await self._fresh.wait()
        self._told = self._fresh.is_set()
        self._fresh.clear()

    async def _tell(self, cursor: str) -> str:
        try:
            while events := await self._store.events(after=cursor, limit=PAGE):
                for event in events:
                    if event.task_id in self._tasks:
                        await self._show(event.task_id)
                        for wake in self._tasks.get(event.task_id, ()):
                            wake.tell(event)
                    for wake in self._accounts.get(event.account_id, ()):
                        wake.set()
                cursor = events[-1].cursor
                if len(events) < PAGE:  # whatever came since tells of itself
                    break
                await asyncio.sleep(0)
        except Unavailable:
            await asyncio.sleep(FAULT_SECONDS)
        return cursor

    async def _show(self, task_id: int) -> None:
        """Read a task once for all who wait for it; a few do so themselves, side by side."""
        self._shown.pop(task_id, None)
        if len(self._tasks.get(task_id, ())) >= MANY and (task := await self._store.task(task_id)):
            self._shown[task_id] = task


class _Waking:
    """The time for which somebody is woken; no generator, as each long-poll has one."""

    __slots__ = ("_begin", "_key", "_seconds", "_shown", "_timer", "_waiters", "_wake")

    def __init__(
        self,
        waiters: dict[int, set[Wake]],
        key: int,
        begin: Callable[[], Awaitable[None]],
        shown: dict[int, Task] | None = None,
        *,
        seconds: float | None = None,
    ) -> None:
        self._waiters = waiters
        self._key = key
        self._begin = begin
        self._shown = shown
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._wake = Wake()

    async def __aenter__(self) -> Wake:
        self._waiters.setdefault(self._key, set()).add(self._wake)
        if self._seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seconds, self._wake.end)
        try:
            await self._begin()
        except BaseException:
            self._leave()
            raise
        return self._wake

    async def __aexit__(self, *_fault: object) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        group = self._waiters[self._key]
        group.discard(self._wake)
        if not group:
            del self._waiters[self._key]
            if self._shown is not None:
                self._shown.pop(self._key, None)
