"""One thread that writes: many requests, one transaction, one fsync.

Whatever is waiting when the thread comes round is one batch. Each piece of work runs in a
savepoint of its own, so that one that fails takes nobody with it; results are handed out only
after the commit, that is, after the fsync.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeVar

from calotype.domain.errors import Unavailable
from calotype.store.sqlite.log import NEWEST

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]
Bulk = Callable[[sqlite3.Connection, Sequence[Any]], Sequence[Any]]
"""Writes many items at once; gives, for each, its result or the exception it deserves."""

MAX_BATCH: Final = 512
"""Pieces of work in one transaction: bounds how long the first of them waits."""

log = logging.getLogger(__name__)


class _Op:
    __slots__ = ("future", "item", "work")

    def __init__(self, work: Work | None, item: Any, future: asyncio.Future[Any]) -> None:
        self.work = work
        self.item = item
        self.future = future


class Writer:
    """The writing side of a SQLite database.

    Args:
        connect: opens the connection; called in the writer's own thread.
        bulk: how items given to ``add`` are written together.
        watchers: called in the event loop after a transaction that added events.

    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        bulk: Bulk,
        *,
        watchers: Collection[Callable[[], None]] = (),
    ) -> None:
        self._connect = connect
        self._bulk = bulk
        self._watchers = watchers
        self._newest_event: int | None = None
        self._waiting: queue.SimpleQueue[_Op | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._closed = False
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do a piece of work in the next transaction and return its result once durable."""
        result: T = await self._put(work, None)
        return result

    async def add(self, item: Any) -> Any:
        """Write an item together with others of its kind, by ``bulk``."""
        return await self._put(None, item)

    async def close(self) -> None:
        """Write what is waiting, then end the thread."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
            await asyncio.to_thread(self._thread.join)

    def _put(self, work: Work | None, item: Any) -> asyncio.Future[Any]:
        if self._closed:
            raise Unavailable("The database is closing; try again in a moment.", retry_after=1)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.put(_Op(work, item, future))
        return future

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while (ops := self._next_batch()) is not None:
            before = self._newest_event
            try:
                connection = connection or self._connect()
                results = self._commit(connection, ops)
            except Exception as error:  # whatever it is, the thread goes on
                log.exception("the database refused a batch of %d writes", len(ops))
                connection = _rolled_back(connection)
                results = [_unavailable(error) for _ in ops]
                self._newest_event = before
            self._loop.call_soon_threadsafe(_deliver, ops, results)
            if self._newest_event != before:
                self._loop.call_soon_threadsafe(self._tell_watchers)
        if connection is not None:
            connection.close()

    def _next_batch(self) -> list[_Op] | None:
        op = self._waiting.get()
        if op is None:
            return None
        ops = [op]
        while len(ops) < MAX_BATCH:
            try:
                op = self._waiting.get_nowait()
            except queue.Empty:
                break
            if op is None:
                self._waiting.put(None)  # finish this batch, then end
                break
            ops.append(op)
        return ops

    def _commit(self, connection: sqlite3.Connection, ops: list[_Op]) -> list[Any]:
        connection.execute("BEGIN IMMEDIATE")
        results: list[Any] = [None] * len(ops)
        places = [place for place, op in enumerate(ops) if op.work is None]
        if places:
            written = self._bulk(connection, [ops[place].item for place in places])
            for place, result in zip(places, written, strict=True):
                results[place] = result
        for place, op in enumerate(ops):
            if op.work is not None:
                results[place] = in_savepoint(connection, op.work)
        if self._watchers:
            ((self._newest_event,),) = connection.execute(NEWEST)
        connection.execute("COMMIT")
        return results

    def _tell_watchers(self) -> None:
        for watcher in tuple(self._watchers):
            self._loop.call_soon(watcher)  # one that breaks is told of, and disturbs nobody


def in_savepoint(connection: sqlite3.Connection, work: Work) -> Any:
    """The result of a piece of work, or its exception with all that it wrote undone.

    Raises:
        sqlite3.Error: the whole transaction is gone, and everyone in it must be told.

    """
    connection.execute("SAVEPOINT op")
    try:
        result = work(connection)
    except Exception as error:  # it belongs to the one who asked for this work
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO op")
        connection.execute("RELEASE op")
        return _unavailable(error) if isinstance(error, sqlite3.OperationalError) else error
    connection.execute("RELEASE op")
    return result


def _rolled_back(connection: sqlite3.Connection | None) -> sqlite3.Connection | None:
    """The connection with nothing under way, or None where only a new one will do."""
    if connection is None:
        return None
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        connection.close()
        return None
    return connection


def _unavailable(error: Exception) -> Unavailable:
    fault = Unavailable("The database cannot be written right now.", retry_after=2)
    fault.__cause__ = error
    return fault


def _deliver(ops: list[_Op], results: Sequence[Any]) -> None:
    for op, result in zip(ops, results, strict=True):
        if op.future.done():
            continue
        if isinstance(result, Exception):
            op.future.set_exception(result)
        else:
            op.future.set_result(result)
