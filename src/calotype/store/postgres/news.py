"""Telling that the log of events has grown: at once in this process, by a notification in others.

The notification is a transaction of its own, after the one that wrote: within that one it would
make all that write wait for each other's commit.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from functools import partial
from typing import Final

from calotype.domain.errors import Unavailable
from calotype.store.postgres.database import Database
from calotype.store.postgres.listening import Listener

CHANNEL: Final = "calotype_events"
PAUSE_SECONDS: Final = 0.005
"""Between two notifications: what is written meanwhile is told of by one."""

log = logging.getLogger(__name__)


class News:
    """What one process tells and hears; what is lost is found by who looks now and then."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._name = secrets.token_hex(8)
        self._watchers = set[Callable[[], None]]()
        self._listener: Listener | None = None
        self._untold = False
        self._telling: asyncio.Task[None] | None = None

    def tell(self) -> None:
        """This process has written events."""
        self._call()
        self._untold = True
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell())

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back whenever there may be new events; returns what ends that."""
        if self._listener is None:
            self._listener = Listener(self._db.url, CHANNEL, self._hear)
        self._watchers.add(callback)
        return partial(self._watchers.discard, callback)

    async def close(self) -> None:
        """Tell what is untold, and listen no longer."""
        if self._telling is not None:
            await self._telling
        if self._listener is not None:
            await self._listener.close()
            self._listener = None

    async def _tell(self) -> None:
        while self._untold:
            self._untold = False
            try:
                await self._db.fetch("SELECT pg_notify($1, $2)", CHANNEL, self._name, patient=True)
            except Unavailable:
                break
            except Exception:  # such as a full queue of notifications, which may be read one day
                log.exception("other processes are not told of events now")
                break
            await asyncio.sleep(PAUSE_SECONDS)
        self._telling = None

    def _hear(self, told_by: str) -> None:
        if told_by != self._name:
            self._call()

    def _call(self) -> None:
        loop = asyncio.get_running_loop()
        for watcher in self._watchers:
            loop.call_soon(watcher)  # what breaks there is not the writer's
