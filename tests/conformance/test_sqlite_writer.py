"""One writer for everybody: how much it does at once, and what becomes of the log it writes."""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from calotype.domain.errors import Unavailable
from calotype.store.sqlite import SqliteStore, checkpoints, connection
from calotype.store.sqlite import writer as writer_module
from calotype.store.sqlite.checkpoints import Checkpoints, leave_to_others
from calotype.store.sqlite.writer import MAX_BATCH, MAX_BULK, Writer
from conformance.tasks import PRICE, funded, submitted

PAGE = 4096


@pytest.mark.parametrize(("seconds", "together"), [(60, MAX_BATCH), (0, MAX_BULK)])
async def test_the_event_loop_is_never_held_by_more_than_a_batch_or_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, together: int
) -> None:
    monkeypatch.setattr(writer_module, "TURN_SECONDS", seconds)
    connection.migrate(tmp_path / "c.db")
    batches = [0]

    def opened() -> sqlite3.Connection:
        database = connection.connect(tmp_path / "c.db")
        database.set_trace_callback(lambda sql: batches.append(0) if sql == "COMMIT" else None)
        return database

    def bulk(_: sqlite3.Connection, items: Sequence[Any]) -> Sequence[Any]:
        batches[-1] += len(items)
        return items

    writer = Writer(opened)
    await writer.run(lambda _: None)
    found = await asyncio.gather(*[writer.add(bulk, number) for number in range(5 * MAX_BATCH)])
    assert found == list(range(5 * MAX_BATCH))
    assert max(batches) == together
    await writer.close()


async def test_what_may_take_long_is_done_beside_the_event_loop_and_in_turn(
    tmp_path: Path,
) -> None:
    connection.migrate(tmp_path / "c.db")
    writer = Writer(partial(connection.connect, tmp_path / "c.db"))
    done: list[tuple[str, bool]] = []

    def note(name: str, _: sqlite3.Connection) -> None:
        done.append((name, threading.current_thread() is threading.main_thread()))

    await writer.run(partial(note, "opens the connection"))
    await asyncio.gather(
        writer.run(partial(note, "before")),
        writer.run(partial(note, "long"), long=True),
        writer.run(partial(note, "after")),
    )
    assert done[1:] == [("before", True), ("long", False), ("after", True)]
    await writer.close()


def echo(_: sqlite3.Connection, items: Sequence[Any]) -> Sequence[Any]:
    """Writes nothing, and tells what it was given."""
    return items


@asynccontextmanager
async def a_writer(
    path: Path, watchers: Mapping[str, Callable[[], None]] = MappingProxyType({})
) -> AsyncIterator[Writer]:
    """A writer whose connection is open."""
    connection.migrate(path)
    writer = Writer(partial(connection.connect, path), watchers=watchers.values())
    await writer.run(lambda _: None)
    yield writer
    await writer.close()


@contextmanager
def another_process_writing(path: Path) -> Iterator[None]:
    """While entered, nobody else can write."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_all_who_wait_for_another_process_are_told_when_patience_ends_and_not_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "BUSY_SECONDS", 0.2)
    path = tmp_path / "c.db"
    async with a_writer(path) as writer:
        with another_process_writing(path):
            waiting = [writer.add(echo, 1), asyncio.ensure_future(writer.run(id, long=True))]
            waiting += [writer.add(echo, 2), asyncio.ensure_future(writer.run(id, long=True))]
            _, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
            assert all(one.done() for one in left)
            for one in waiting:
                with pytest.raises(Unavailable):
                    await one
        assert await writer.add(echo, "goes on") == "goes on"


async def test_what_waits_for_another_process_is_written_in_order_and_the_loop_goes_on(
    tmp_path: Path,
) -> None:
    path, done = tmp_path / "c.db", list[int]()

    def note(number: int, _: sqlite3.Connection) -> None:
        done.append(number)

    async with a_writer(path) as writer:
        with another_process_writing(path):
            works = [
                asyncio.ensure_future(writer.run(partial(note, n), long=n % 3 == 0))
                for n in range(12)
            ]
            for _ in range(1000):
                await asyncio.sleep(0)
            assert done == []
        await asyncio.gather(*works)
    assert done == list(range(12))


async def test_who_begins_to_watch_before_a_transaction_ends_is_told_of_it(tmp_path: Path) -> None:
    path, told = tmp_path / "c.db", asyncio.Event()
    watchers: dict[str, Callable[[], None]] = {}
    async with a_writer(path, watchers) as writer:

        def add_event(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO events (account_id, task_id, seq, at, event, state, progress) "
                "VALUES (1, 1, 1, 1, 'submit', 'waiting', 0)"
            )
            # After the statements of this batch, and before it is known that it was committed.
            asyncio.get_running_loop().call_soon(watchers.update, {"late": told.set})

        await writer.run(add_event)
        await asyncio.sleep(0)
        assert told.is_set()


async def test_the_log_stays_bounded_while_submissions_never_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "LOG_PAGES", 100)
    monkeypatch.setattr(checkpoints, "EVERY_COMMITS", 4)
    path = tmp_path / "c.db"
    store = SqliteStore(path)
    await store.migrate()
    account_id = await funded(store, credit=10_000 * PRICE)
    left = iter(range(3000))

    async def client() -> None:
        for _ in left:
            await submitted(store, account_id)

    await asyncio.gather(*[client() for _ in range(16)])
    assert (tmp_path / "c.db-wal").stat().st_size < 400 * PAGE  # left alone: some 3 400
    assert await store.prove() == []
    await store.close()


def test_a_checkpoint_that_fails_is_told_and_the_next_one_makes_up_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.db"
    connection.migrate(path)
    faults, asked = [sqlite3.OperationalError("database or disk is full")], threading.Semaphore(0)

    def opened() -> sqlite3.Connection:
        asked.release()
        if faults:
            raise faults.pop()
        return connection.connect(path)

    with closing(connection.connect(path)) as writer, caplog.at_level(logging.ERROR):
        leave_to_others(writer)
        works = Checkpoints(opened)
        writer.execute("INSERT INTO accounts (name, created_at) VALUES ('brought in', 1)")
        assert b"brought in" not in path.read_bytes()
        for _ in range(2):
            while not asked.acquire(timeout=0.01):  # what comes due during a checkpoint is let pass
                for _ in range(checkpoints.EVERY_COMMITS):
                    works.count_commit()
        works.close()
        assert b"brought in" in path.read_bytes()
    assert "could not be brought in" in caplog.text
