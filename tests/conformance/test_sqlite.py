"""What only SQLite can get wrong."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from calotype.domain.errors import Unavailable
from calotype.domain.money import EntryKind
from calotype.store.port import StoreError
from calotype.store.sqlite import SqliteStore
from calotype.store.sqlite.connection import connect

NOW = 1_760_000_000_000


async def test_a_database_of_a_newer_calotype_is_refused_with_a_cure(tmp_path: Path) -> None:
    path = tmp_path / "calotype.db"
    store = SqliteStore(path)
    version = await store.migrate()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {version + 1}")
    database.close()
    with pytest.raises(StoreError, match=r"start the newer Calotype"):
        await store.migrate()


async def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "calotype.db")
    assert await store.migrate() == await store.migrate()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calotype.db"
    path.write_bytes(b"this is no database, but it is long enough to be looked at as one" * 20)
    with pytest.raises(StoreError, match="cannot be opened"):
        await SqliteStore(path).migrate()


async def test_what_one_process_writes_another_reads_at_once(tmp_path: Path) -> None:
    server, command = SqliteStore(tmp_path / "c.db"), SqliteStore(tmp_path / "c.db")
    await server.migrate()
    account = await command.open_account("ada", now=NOW)
    assert [found.name for found in await server.accounts()] == ["ada"]
    await asyncio.gather(
        *(
            store.book(account.id, EntryKind.CREDIT, 1, note="", now=NOW)
            for store in (server, command)
            for _ in range(50)
        )
    )
    assert (await server.balance(account.id)).balance == 100
    assert await server.prove() == []
    await server.close()
    await command.close()


async def test_the_ledger_takes_no_change_and_no_deletion(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "c.db")
    await store.migrate()
    account = await store.open_account("ada", now=NOW)
    await store.book(account.id, EntryKind.CREDIT, 5, note="", now=NOW)
    await store.close()
    database = sqlite3.connect(tmp_path / "c.db")
    for statement in ("UPDATE ledger SET amount = 6", "DELETE FROM ledger"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
    database.close()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE accounts SET balance = balance + 1", "shows balance 6"),
        (
            (
                "INSERT INTO ledger (account_id, task_id, kind, amount, created_at) "
                "VALUES (1, 99, 'reserve', 0, 0)"
            ),
            "belongs to no task",
        ),
    ],
)
async def test_the_proof_finds_books_that_do_not_add_up(
    tmp_path: Path, damage: str, told: str
) -> None:
    store = SqliteStore(tmp_path / "c.db")
    await store.migrate()
    account = await store.open_account("ada", now=NOW)
    await store.book(account.id, EntryKind.CREDIT, 5, note="", now=NOW)
    assert await store.prove() == []
    with sqlite3.connect(tmp_path / "c.db") as database:
        database.execute(damage)
    database.close()
    assert told in " ".join(await store.prove())
    await store.close()


async def test_a_closed_store_says_that_it_is_unavailable(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "c.db")
    await store.migrate()
    await store.ping()
    await store.close()
    with pytest.raises(Unavailable):
        await store.ping()


@pytest.mark.parametrize("read_only", [False, True], ids=["writer", "reader"])
async def test_a_connection_keeps_as_many_pages_as_the_page_on_memory_says(
    tmp_path: Path, *, read_only: bool
) -> None:
    path = tmp_path / "calotype.db"
    store = SqliteStore(path)
    await store.migrate()
    await store.close()
    with closing(connect(path, read_only=read_only)) as connection:
        assert connection.execute("PRAGMA cache_size").fetchone() == (-16 * 1024,)  # KiB
