"""Proving the books of a SQLite file, and that the file itself is sound."""

import sqlite3
from collections.abc import Iterator

import msgspec

from calotype.domain.limits import month_of
from calotype.store.proof import PROOFS


def prove(connection: sqlite3.Connection) -> list[str]:
    """One sentence for each thing that does not hold, from one snapshot of the database."""
    connection.create_function("month_of", 1, month_of, deterministic=True)
    connection.create_function("number_of_images", 1, _number_of_images, deterministic=True)
    connection.create_function("task_model", 1, _task_model, deterministic=True)
    connection.execute("BEGIN")
    try:
        return list(_faults(connection))
    finally:
        connection.execute("COMMIT")


def _number_of_images(result: bytes | None) -> int:
    """What PostgreSQL's function of this name does."""
    return 0 if result is None else len(msgspec.json.decode(result))


def _task_model(request: bytes) -> str:
    """The same of this one: the model stands first in a request."""
    return request.split(b'"', 4)[3].decode()


def _faults(connection: sqlite3.Connection) -> Iterator[str]:
    (integrity,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if integrity != "ok":
        yield f"The database file is damaged: {integrity}"
    for statement, tell in PROOFS:
        yield from map(tell, connection.execute(statement))
