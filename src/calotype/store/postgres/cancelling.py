"""Cancelling: one transaction that holds the task while it looks whether an attempt is open."""

from typing import Final

from calotype.domain.errors import CANCELLED
from calotype.domain.task import FINAL, Task
from calotype.store import rows
from calotype.store.postgres import transitions
from calotype.store.postgres.connection import Connection
from calotype.store.postgres.moves import Step

_TASK: Final = f"SELECT {rows.TASK} FROM tasks WHERE id = $1 AND account_id = $2 FOR UPDATE"
_OPEN: Final = "SELECT 1 FROM attempts WHERE task_id = $1 AND finished_at IS NULL"


async def cancel(connection: Connection, task_id: int, *, account_id: int, now: int) -> Task | None:
    """End a task that nobody develops, or mark one that somebody does; within a transaction.

    Attempts are looked for by a statement of its own: one that had to wait for the task's row
    would not see the attempt that was begun meanwhile.
    """
    found = await connection.fetch(_TASK, task_id, account_id)
    if not found:
        return None
    task = rows.task(found[0])
    if task.state in FINAL:
        return task
    if not await connection.fetch(_OPEN, task_id):
        why = (CANCELLED.message, CANCELLED.code, None, None)
        error = rows.encode(CANCELLED)
        to = transitions.webhook_columns(task)
        values = (task_id, task.claim, error, now, None, None, *why, 0, *to)
        await transitions.FAIL.make(connection, [Step(values)])
    elif task.cancel_at is None:
        await connection.fetch(transitions.MARK, task_id, now)
    return rows.task((await connection.fetch(_TASK, task_id, account_id))[0])
