"""One writer: many requests, one transaction, one fsync.

Whatever waits when the last transaction has ended is one batch. Its statements are run in the event
loop, some 10 µs each; only the commit, which waits for the disk, is left to a thread. A thread that
ran them all would fight the loop for the interpreter's lock, and lose 100 µs with every statement.
Work that may take long, or that has to wait for another process, goes to the thread as a whole.

Each piece of work runs in a savepoint of its own, so that one that fails takes nobody with it, and
what is given to a ``Bulk`` is written by it together, under the same promise. Results are handed
out only after the commit, that is, after the fsync.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from calotype.domain.errors import Unavailable
from calotype.store.sqlite.checkpoints import Checkpoints, leave_to_others
from calotype.store.sqlite.connection import BUSY_SECONDS
from calotype.store.sqlite.log import NEWEST

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]
Bulk = Callable[[sqlite3.Connection, Sequence[Any]], Sequence[Any]]
"""Writes many items at once; gives, for each, its result or the exception it deserves."""

MAX_BATCH: Final = 256
"""Pieces of work in one transaction."""
MAX_BULK: Final = 16
"""Items written together; after each such bulk the time is looked at, as some are large."""
TURN_SECONDS: Final = 0.004
"""Of CPU: after so long in the event loop a batch is committed, whatever else is waiting."""

log = logging.getLogger(__name__)


class _Op:
    """A piece of work; or an item that ``bulk`` writes together with others."""

    __slots__ = ("bulk", "future", "item", "long", "result", "work")

    def __init__(
        self,
        future: asyncio.Future[Any],
        *,
        work: Work | None = None,
        bulk: Bulk | None = None,
        item: Any = None,
        long: bool = False,
    ) -> None:
        self.future = future
        self.work = work
        self.bulk = bulk
        self.item = item
        self.long = long
        self.result: Any = None


class Writer:
    """The writing side of a SQLite database.

    Args:
        connect: opens the connection; called in the writer's own thread.
        watchers: called in the event loop after a transaction that added events.

    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        *,
        watchers: Collection[Callable[[], None]] = (),
    ) -> None:
        self._connect = connect
        self._watchers = watchers
        self._connection: sqlite3.Connection | None = None
        self._newest_event: int | None = None
        self._waiting: deque[_Op] = deque()
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop = asyncio.get_running_loop()
        self._checkpoints = Checkpoints(connect)
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._closed = False
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T], *, long: bool = False) -> T:
        """Do a piece of work in the next transaction and return its result once durable.

        ``long``: it may take more than a few milliseconds.
        """
        op = _Op(self._loop.create_future(), work=work, long=long)
        result: T = await self._put(op)
        return result

    def add(self, bulk: Bulk, item: Any) -> asyncio.Future[Any]:
        """Write an item together with others of its kind, by ``bulk``."""
        return self._put(_Op(self._loop.create_future(), bulk=bulk, item=item))

    async def close(self) -> None:
        """Write what is waiting, then end the thread."""
        if not self._closed:
            self._closed = True
            await self._idle.wait()
            self._orders.put(None)
            await asyncio.to_thread(self._thread.join)

    def _put(self, op: _Op) -> asyncio.Future[Any]:
        if self._closed:
            raise Unavailable("The database is closing; try again in a moment.", retry_after=1)
        self._waiting.append(op)
        if not self._busy:
            self._busy = True
            self._idle.clear()
            self._loop.call_soon(self._turn)
        return op.future

    # In the event loop

    def _turn(self) -> None:
        """One batch: its statements now, its commit in the thread."""
        if self._waiting[0].long or self._connection is None:
            self._orders.put(partial(self._transact, [self._waiting.popleft()]))
            return
        ops: list[_Op] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._take_and_do(self._connection, ops)
            newest = self._newest(self._connection)
        except sqlite3.Error as error:
            if ops:
                self._orders.put(partial(self._refuse, ops, error))
            else:  # another process writes; whoever waits for it must not be the event loop
                self._orders.put(partial(self._transact, [self._waiting.popleft()]))
        except Exception as error:  # noqa: BLE001 -- told to all of them; the writer goes on
            self._orders.put(partial(self._refuse, ops, error))
        else:
            self._orders.put(partial(self._commit, self._connection, ops, newest))

    def _take_and_do(self, connection: sqlite3.Connection, ops: list[_Op]) -> None:
        """Run what is waiting, up to a batch; ``ops`` are those that were begun."""
        until = time.thread_time() + TURN_SECONDS
        gathered: dict[Bulk, list[_Op]] = {}
        while self._waiting and len(ops) < MAX_BATCH and not self._waiting[0].long:
            op = self._waiting.popleft()
            ops.append(op)
            if op.bulk is not None:
                alike = gathered.setdefault(op.bulk, [])
                alike.append(op)
                if len(alike) < MAX_BULK:
                    continue
                del gathered[op.bulk]
                _do_bulk(connection, op.bulk, alike)
            elif op.work is not None:
                op.result = in_savepoint(connection, op.work)
            if time.thread_time() > until:
                break
        for bulk, alike in gathered.items():
            _do_bulk(connection, bulk, alike)

    def _refuse_all(self, ops: Sequence[_Op], error: Exception) -> None:
        """Tell everybody that nothing can be begun: patience is for all of them, not for each."""
        ops = [*ops, *self._waiting]
        self._waiting.clear()
        self._orders.put(partial(self._refuse, ops, error))

    def _ended(self, ops: Sequence[_Op], newest_event: int | None) -> None:
        """Hand out the results of a transaction, and begin the next."""
        for op in ops:
            _deliver(op)
        if newest_event is None or newest_event != self._newest_event:
            self._newest_event = newest_event
            for watcher in tuple(self._watchers):
                self._loop.call_soon(watcher)  # one that breaks is told of, and disturbs nobody
        if self._waiting:
            self._loop.call_soon(self._turn)
        else:
            self._busy = False
            self._idle.set()

    # In the thread

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            order()
        self._checkpoints.close()
        if self._connection is not None:
            self._connection.close()

    def _transact(self, ops: Sequence[_Op]) -> None:
        """A whole transaction, with the patience that another process may ask for."""
        try:
            connection = self._connection = self._connection or self._opened()
            _begin_patiently(connection)
        except Exception as error:  # noqa: BLE001 -- as above
            self._loop.call_soon_threadsafe(self._refuse_all, ops, error)
            return
        try:
            for op in ops:
                if op.bulk is not None:
                    _do_bulk(connection, op.bulk, [op])
                elif op.work is not None:
                    op.result = in_savepoint(connection, op.work)
            newest = self._newest(connection)
        except Exception as error:  # noqa: BLE001 -- as above
            self._refuse(ops, error)
        else:
            self._commit(connection, ops, newest)

    def _opened(self) -> sqlite3.Connection:
        connection = self._connect()
        leave_to_others(connection)
        return connection

    def _newest(self, connection: sqlite3.Connection) -> int | None:
        """The place of the newest event; None where nobody wants to know as yet.

        Who begins to watch before the commit is then told in any case.
        """
        if not self._watchers:
            return None
        ((newest,),) = connection.execute(NEWEST)
        place: int | None = newest
        return place

    def _commit(
        self, connection: sqlite3.Connection, ops: Sequence[_Op], newest: int | None
    ) -> None:
        try:
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 -- as above
            self._refuse(ops, error)
        else:
            self._checkpoints.count_commit()
            self._loop.call_soon_threadsafe(self._ended, ops, newest)

    def _refuse(self, ops: Sequence[_Op], error: Exception) -> None:
        log.error("the database refused a batch of %d writes", len(ops), exc_info=error)
        self._connection = _rolled_back(self._connection)
        for op in ops:
            op.result = _unavailable(error)
        self._loop.call_soon_threadsafe(self._ended, ops, self._newest_event)


def _begin_patiently(connection: sqlite3.Connection) -> None:
    """Begin, once other processes let us; everything else is to fail at once."""
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    try:
        connection.execute("BEGIN IMMEDIATE")
    finally:
        connection.execute("PRAGMA busy_timeout = 0")


def _do_bulk(connection: sqlite3.Connection, bulk: Bulk, ops: Sequence[_Op]) -> None:
    results = bulk(connection, [op.item for op in ops])
    for op, result in zip(ops, results, strict=True):
        op.result = result


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


def _deliver(op: _Op) -> None:
    if op.future.done():
        return
    if isinstance(op.result, Exception):
        op.future.set_exception(op.result)
    else:
        op.future.set_result(op.result)
