"""Moves of tasks that are made together, and what they add to tables that only grow.

A move reads the task, judges by itself whether it may be made, and changes the task's own rows at
once. Events, ledger entries, images and what an account pays are gathered, and written at the end
of the group: one statement for each table, and one change for each account.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from calotype.domain.money import EFFECTS, EntryKind
from calotype.domain.task import Asset, Event, Task
from calotype.store.port import Fenced
from calotype.store.sqlite.assets import INSERT_ASSET, asset_values
from calotype.store.sqlite.writer import in_savepoint

_EVENT: Final = (
    "INSERT INTO events (account_id, task_id, seq, at, event, state, progress) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
ENTRY: Final = (
    "INSERT INTO ledger (account_id, task_id, kind, amount, created_at) VALUES (?, ?, ?, ?, ?)"
)
_SETTLE: Final = (
    "UPDATE accounts SET balance = balance + ?, reserved = reserved + ?, "
    "unfinished = unfinished - ? WHERE id = ?"
)


class Postings:
    """Rows that a group of moves adds, and what the moves do to accounts.

    Args:
        connection: in whose transaction they are made.

    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._events: list[tuple[Any, ...]] = []
        self._entries: list[tuple[Any, ...]] = []
        self._images: list[tuple[Any, ...]] = []
        self._accounts: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0])

    def tell(
        self, task: Task, event: Event, *, seq: int, at: int, state: str, progress: int
    ) -> None:
        """Add an event to the log."""
        self._events.append((task.account_id, task.id, seq, at, str(event), state, progress))

    def keep(
        self, task: Task, images: Sequence[Asset], *, kind: str, expires_at: int | None
    ) -> None:
        """Add images that lie in the asset store already."""
        self._images += asset_values(images, task_id=task.id, kind=kind, expires_at=expires_at)

    def settle(self, task: Task, entries: Sequence[tuple[EntryKind, int]], *, now: int) -> None:
        """Add a task's last ledger entries; they work on the account as ``money.EFFECTS`` says."""
        account = self._accounts[task.account_id]
        account[2] += 1
        for kind, amount in entries:
            self._entries.append((task.account_id, task.id, str(kind), amount, now))
            account[0] += EFFECTS[kind].balance * amount
            account[1] += EFFECTS[kind].reserved * amount

    def write(self) -> None:
        """Write all of it."""
        for statement, values in (
            (_EVENT, self._events),
            (INSERT_ASSET, self._images),
            (ENTRY, self._entries),
            (_SETTLE, [(*sums, account_id) for account_id, sums in self._accounts.items()]),
        ):
            if values:
                self.connection.executemany(statement, values)


Move = Callable[[Postings], Any]
"""Moves one task; raises ``Fenced`` before it has written anything."""


def make_all(connection: sqlite3.Connection, moves: Sequence[Move]) -> list[Any]:
    """Make each move, or say why not; what breaks a group is found by making them one by one."""
    made = in_savepoint(connection, partial(_make, moves=moves))
    if not isinstance(made, Exception):
        results: list[Any] = made
        return results
    if len(moves) == 1:
        return [made]
    return [make_all(connection, [move])[0] for move in moves]


def _make(connection: sqlite3.Connection, moves: Sequence[Move]) -> list[Any]:
    postings, results = Postings(connection), list[Any]()
    for move in moves:
        try:
            results.append(move(postings))
        except Fenced as fenced:
            results.append(fenced)
    postings.write()
    return results
