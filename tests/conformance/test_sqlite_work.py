"""What SQLite is made to do, counted in its own programs."""

import re
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from calotype.store import statements
from calotype.store.sqlite import connection, postings, submission, transitions

HOT = {
    "a submission's task": submission._INSERT_TASK,
    "a submission's event": submission._INSERT_EVENT,
    "a submission's ledger entry": submission._INSERT_ENTRY,
    "a settlement's ledger entry": postings.ENTRY,
    "taking a task up": transitions._TAKE,
    "moving a task on": transitions._MOVE,
    "completing a task": transitions._COMPLETED,
    "failing a task": transitions._FAILED,
}


def opened(path: Path, sql: str) -> list[str]:
    """The tables that SQLite fills for itself alone while it runs a statement."""
    with closing(connection.connect(path)) as database:
        values = [None] * (max(map(int, re.findall(r"\?(\d+)", sql)), default=0) or sql.count("?"))
        program = database.execute(f"EXPLAIN {sql}", values).fetchall()
    return [row[5] for row in program if row[1] == "OpenEphemeral"]


@pytest.mark.parametrize("sql", HOT.values(), ids=HOT)
def test_no_table_is_filled_to_check_a_row(tmp_path: Path, sql: str) -> None:
    connection.migrate(tmp_path / "c.db")
    assert len(opened(tmp_path / "c.db", sql)) == ("RETURNING" in sql)


def test_a_keys_unfinished_tasks_are_counted_without_a_look_at_those_of_others(
    tmp_path: Path,
) -> None:
    connection.migrate(tmp_path / "c.db")
    with closing(connection.connect(tmp_path / "c.db")) as database:
        plan = database.execute(f"EXPLAIN QUERY PLAN {statements.METER}", [1]).fetchall()
    looks = [step[3] for step in plan if " tasks " in step[3]]
    assert looks == ["SEARCH tasks USING INDEX tasks_of_key (key_id=?)"]


def make(path: Path, *, version: int) -> None:
    """A database as an older Calotype left it."""
    with closing(connection.connect(path)) as database:
        folder = Path(connection.__file__).parent / "migrations"
        for script in sorted(folder.glob("*.sql"))[:version]:
            database.executescript(script.read_text(encoding="utf-8"))
        database.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize("version", [1, 3, 6])
def test_a_database_of_before_gets_the_checks_of_a_new_one(tmp_path: Path, version: int) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    make(old, version=version)
    connection.migrate(old)
    connection.migrate(new)
    assert schema(old) == schema(new)
    with closing(connection.connect(old)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for kind in ("gift", "Reserve", ""):
            with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
                database.execute(
                    "INSERT INTO ledger (account_id, kind, amount, created_at) VALUES (1, ?, 1, 1)",
                    (kind,),
                )


def test_a_connection_that_was_open_meanwhile_goes_by_the_new_schema(tmp_path: Path) -> None:
    make(tmp_path / "c.db", version=6)
    with closing(connection.connect(tmp_path / "c.db")) as database:
        assert database.execute("SELECT * FROM ledger").fetchall() == []
        connection.migrate(tmp_path / "c.db")
        database.execute("ALTER TABLE ledger ADD COLUMN more INTEGER")  # is put in by place
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


class Defensive(sqlite3.Connection):
    """As Apple builds SQLite: asked to let the schema be written, it does nothing."""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        return super().execute("" if "writable_schema" in sql else sql, *values)


def test_a_database_is_made_where_nobody_may_change_the_text_of_its_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Defensive))
    assert connection.migrate(tmp_path / "c.db") == connection.migrate(tmp_path / "c.db")
    with closing(connection.connect(tmp_path / "c.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def schema(path: Path) -> list[tuple[str]]:
    """Every statement that makes up a database."""
    with closing(connection.connect(path)) as database:
        return database.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
