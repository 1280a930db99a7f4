"""Setting right what no worker will: one process at a time, a batch at a time.

* a task that is not final and has no job gets one;
* a job whose task is final is dropped;
* a task past its time that no worker holds is ended, at once where no upstream has it.
"""

from collections.abc import Callable
from typing import Any, Final

from calotype.domain.errors import failure
from calotype.domain.task import OPEN_ATTEMPT, AttemptState, Task
from calotype.store import rows
from calotype.store.port import Reconciled
from calotype.store.postgres import transitions
from calotype.store.postgres.connection import Connection
from calotype.store.postgres.enqueue import ENQUEUE
from calotype.store.postgres.moves import Step

LEASE: Final = 0x72656373  # 'recs'
BATCH: Final = 500
PATIENCE_MS: Final = 30_000
"""A job may be missing for a moment, and a worker may end an overdue task itself."""
FORSAKEN_MS: Final = 24 * 3600 * 1000
"""How long after its time a job that an upstream may have done still waits for a worker to ask."""

_ENQUEUE: Final = f"""
{ENQUEUE}
FROM (
    SELECT id, channel_id, created_at, 0 AS backlog FROM tasks
    WHERE completed_at IS NULL AND updated_at < $1
        AND NOT EXISTS (SELECT 1 FROM pgqueuer WHERE dedupe_key = tasks.id::text)
    ORDER BY id LIMIT {BATCH}
) missing
ON CONFLICT DO NOTHING
"""
_DROP: Final = f"""
DELETE FROM pgqueuer WHERE id IN (
    SELECT q.id FROM pgqueuer q JOIN tasks ON tasks.id = q.dedupe_key::bigint
    WHERE q.status = 'queued' AND tasks.completed_at IS NOT NULL LIMIT {BATCH}
)
"""
_FORGET: Final = "DELETE FROM pgqueuer_log WHERE created < now() - interval '1 minute'"
"""PgQueuer keeps a row of history for every pick for ever; the events tell more."""
_OVERDUE: Final = f"""
SELECT tasks.id FROM tasks LEFT JOIN pgqueuer q ON q.dedupe_key = tasks.id::text
WHERE completed_at IS NULL
    AND (q.status IS DISTINCT FROM 'picked' OR q.heartbeat < now() - interval '10 minutes')
    AND (abandon_at < $1::bigint - {FORSAKEN_MS} OR (deadline_at < $1 AND NOT EXISTS (
        SELECT 1 FROM attempts WHERE task_id = tasks.id AND finished_at IS NULL
    )))
ORDER BY tasks.id LIMIT {BATCH}
"""


Price = Callable[[Task, int], int]
"""What a task costs that ends with so many of its images."""
Days = Callable[[str], int]
"""How long results of a model are kept, where their account says nothing."""


async def reconcile(
    connection: Connection, *, now: int, price: Price, days: Days
) -> Reconciled | None:
    """One round; None while another process is at it."""
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LEASE):
        return None
    try:
        before = now - PATIENCE_MS
        overdue = await connection.fetch(_OVERDUE, before)
        for row in overdue:
            await _end(connection, row[0], now=now, price=price, days=days)
        await connection.execute(_FORGET)
        return Reconciled(
            enqueued=_count(await connection.execute(_ENQUEUE, before)),
            dropped=_count(await connection.execute(_DROP)),
            ended=len(overdue),
        )
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", LEASE)


async def _end(connection: Connection, task_id: int, *, now: int, price: Price, days: Days) -> None:
    """Take the task, so that nobody else can write it, and end it with what has come of it."""
    found = await transitions.TAKE.make(connection, [Step((task_id, now))])
    if not found:
        return
    task = rows.task(found[0])
    attempts = await connection.fetch(
        f"SELECT {rows.ATTEMPT} FROM attempts WHERE task_id = $1 ORDER BY number", task_id
    )
    last = rows.attempt(attempts[-1]) if attempts else None
    open_attempt = last.number if last is not None and last.state in OPEN_ATTEMPT else None
    why = failure("deadline_exceeded", "No worker came to it in time.")
    state = AttemptState.UNKNOWN if open_attempt is not None else None
    to = transitions.webhook_columns(task)
    if task.arrived and task.cancel_at is None:
        actual = price(task, len(task.arrived))
        result = [each.image for each in task.arrived]
        shown = rows.encode_result((), result)
        end: tuple[Any, ...] = (open_attempt, None, state, why.message, why.code, None)
        values = (task_id, task.claim, actual, shown, now, *end, *to, days(task.model))
        step = Step(values, earlier=rows.earlier((), result))
        await transitions.COMPLETE.make(connection, [step])
        return
    end = (open_attempt, state, why.message, why.code, None, None, 0, *to)
    step = Step((task_id, task.claim, rows.encode(why), now, *end))
    await transitions.FAIL.make(connection, [step])


def _count(done: str) -> int:
    return int(done.rpartition(" ")[2])
