"""The operator's side of a SQLite database; see ``store.operating.OperatingStore``."""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from calotype.store import operating, rows
from calotype.store.operating import AuditEntry
from calotype.store.port import EVER


class _Read(Protocol):
    def __call__(self, statement: str, *values: Any) -> list[rows.Row]: ...


class _ReadInThread(Protocol):
    async def __call__(self, statement: str, *values: Any) -> list[rows.Row]: ...


class SqliteOperating:
    """The operator's side of one SQLite file.

    Args:
        write: does a piece of work in the next transaction.
        read: what a statement finds, read in the event loop.
        read_in_thread: the same for what nobody bounds.

    """

    def __init__(
        self,
        *,
        write: Callable[[Callable[[sqlite3.Connection], Any]], Awaitable[Any]],
        read: _Read,
        read_in_thread: _ReadInThread,
    ) -> None:
        self._write = write
        self._read = read
        self._read_in_thread = read_in_thread

    async def begin_action(
        self, *, actor: str, action: str, subject: str, detail: str, now: int
    ) -> int:
        """Write down that something is about to be done."""
        values = (now, actor, action, subject, detail)
        return int((await self._change(operating.BEGIN_ACTION, *values))[0][0])

    async def end_action(self, entry_id: int, *, outcome: str, detail: str) -> None:
        """Write down what came of it."""
        await self._change(operating.END_ACTION, entry_id, outcome, detail)

    async def actions(
        self, *, before: int | None = None, limit: int, action: str | None = None
    ) -> Sequence[AuditEntry]:
        """The audit, newest first."""
        values = (EVER if before is None else before, limit)
        if action is None:
            found = await self._read_in_thread(operating.ACTIONS, *values)
        else:
            found = await self._read_in_thread(operating.ACTIONS_CALLED, *values, action)
        return [operating.audit_entry(row) for row in found]

    async def cut_off(self, subject: str, *, now: int) -> None:
        """End every session of someone that began before now."""
        await self._change(operating.CUT_OFF, subject, now)

    async def cutoff(self, subject: str) -> int | None:
        """The time before which its sessions are over."""
        found = self._read(operating.CUTOFF, subject)
        return found[0][0] if found else None

    async def spend_link(self, nonce: str, *, expires_at: int, now: int) -> bool:
        """Use up a one-time link."""

        def work(connection: sqlite3.Connection) -> bool:
            connection.execute(operating.FORGET_LINKS, (now - operating.LINKS_KEPT_MS,))
            return bool(connection.execute(operating.SPEND_LINK, (nonce, expires_at)).fetchall())

        spent: bool = await self._write(work)
        return spent

    async def _change(self, statement: str, *values: Any) -> list[rows.Row]:
        found: list[rows.Row] = await self._write(
            lambda connection: connection.execute(statement, values).fetchall()
        )
        return found
