"""Opening a database file, and bringing its schema up to date."""

import re
import sqlite3
from pathlib import Path
from typing import Final

from calotype.store.port import StoreError

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_NAME: Final = re.compile(r"(\d{4})_\w+\.sql\Z")
BUSY_SECONDS: Final = 10
"""How long a write waits for another process, such as the command line, to finish its own."""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode; a writing one syncs each commit to disk.

    Its ``lowered`` is SQLite's ``lower`` for the letters of every script.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )
    if not read_only:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # What a savepoint may have to undo: above 64 KB it would be a file, made in the event loop.
        connection.execute("PRAGMA temp_store = MEMORY")
    connection.create_function("lowered", 1, str.lower, deterministic=True)
    connection.execute("PRAGMA cache_size = -16384")  # 16 MiB
    return connection


def migrate(path: Path) -> int:
    """Apply every migration that is missing, all or nothing; returns the schema's version.

    Raises:
        StoreError: the file is no database of ours, or a newer Calotype wrote it.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = connect(path)
    except sqlite3.Error as error:
        raise StoreError(
            f"{path}: cannot be opened as a SQLite database ({error}); "
            "check the path and its permissions."
        ) from error
    try:
        return _apply(connection, path)
    finally:
        connection.close()


def _apply(connection: sqlite3.Connection, path: Path) -> int:
    migrations = {
        int(match[1]): file
        for file in sorted(_MIGRATIONS.iterdir())
        if (match := _NAME.match(file.name))
    }
    newest = max(migrations)
    connection.execute("BEGIN IMMEDIATE")  # a second process that starts now waits here
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > newest:
        connection.execute("ROLLBACK")
        raise StoreError(
            f"{path}: the schema has version {version}, this Calotype knows {newest}; "
            "start the newer Calotype that wrote it, or restore a backup."
        )
    for number, file in migrations.items():
        if number > version:
            for statement in _statements(file.read_text(encoding="utf-8")):
                _migrate_by(connection, statement)
            connection.execute(f"PRAGMA user_version = {number}")
    connection.execute("COMMIT")
    return newest


def _migrate_by(connection: sqlite3.Connection, statement: str) -> None:
    """Run a statement of a migration.

    Apple's SQLite lets nobody change the text of the schema. What is changed there says the same
    as before, only with less work for each row, so it is left.
    """
    try:
        connection.execute(statement)
    except sqlite3.OperationalError as error:
        if str(error) != "table sqlite_master may not be modified":
            raise


def _statements(script: str) -> list[str]:
    """The statements of a script; ``executescript`` would commit before the first of them."""
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
