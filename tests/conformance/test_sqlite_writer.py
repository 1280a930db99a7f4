"""One writer for everybody: how much it does at once, and what becomes of the log it writes."""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from calotype.store.sqlite import SqliteStore, checkpoints, connection
from calotype.store.sqlite.checkpoints import Checkpoints, leave_to_others
from calotype.store.sqlite.writer import MAX_BATCH, Writer
from conformance.tasks import PRICE, funded, submitted

PAGE = 4096


async def test_the_event_loop_is_never_held_by_more_than_a_batch(tmp_path: Path) -> None:
    connection.migrate(tmp_path / "c.db")
    batches: list[int] = []

    def bulk(_: sqlite3.Connection, items: Sequence[Any]) -> Sequence[Any]:
        batches.append(len(items))
        return items

    writer = Writer(partial(connection.connect, tmp_path / "c.db"), bulk)
    found = await asyncio.gather(*[writer.add(number) for number in range(5 * MAX_BATCH)])
    assert found == list(range(5 * MAX_BATCH))
    assert max(batches) == MAX_BATCH
    await writer.close()


async def test_what_may_take_long_is_done_beside_the_event_loop_and_in_turn(
    tmp_path: Path,
) -> None:
    connection.migrate(tmp_path / "c.db")
    writer = Writer(partial(connection.connect, tmp_path / "c.db"), lambda _, items: items)
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
