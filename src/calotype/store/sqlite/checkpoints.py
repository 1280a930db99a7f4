"""Bringing the write-ahead log into the database file, beside the writer."""

import logging
import sqlite3
import threading
from collections.abc import Callable
from typing import Final

EVERY_COMMITS: Final = 64
"""So often the log is brought in: at full load some 4 MB of it, as SQLite by itself would."""
LOG_PAGES: Final = 8192
"""With so many in the log (32 MB) a commit brings in the rest itself, and the log begins anew."""
_KEPT_BYTES: Final = 64 * 1024 * 1024
"""What a log that a long read has let grow is cut to."""

log = logging.getLogger(__name__)


def leave_to_others(connection: sqlite3.Connection) -> None:
    """Have a connection commit without bringing the log in, as long as ``Checkpoints`` keeps up.

    Beside a writer that never pauses it cannot bring in the last page, after which alone the log
    begins anew; so the bound on the log's size is SQLite's own.
    """
    connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_KEPT_BYTES}")


class Checkpoints:
    """A thread and a connection that bring the log in again and again.

    Args:
        connect: opens the connection; called in the thread.

    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._commits = 0
        self._due = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sqlite-checkpoints", daemon=True)
        self._thread.start()

    def count_commit(self) -> None:
        """Take note that the log has grown."""
        self._commits += 1
        if self._commits >= EVERY_COMMITS:
            self._commits = 0
            self._due.set()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while not self._closed:
            self._due.wait()
            try:
                connection = connection or self._connect()
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except sqlite3.Error:  # the log keeps what it has
                log.exception("the database's log could not be brought in; it grows meanwhile")
            # What came due meanwhile is let pass: a commit can bring in the rest only in a pause.
            self._due.clear()
        if connection is not None:
            connection.close()
