"""Moving tasks: every statement is guarded by the states it may leave and the worker's claim.

The guards and the states entered are generated from ``domain.task.TRANSITIONS``, and the money
moves in the same transaction, by ``_settle``.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from calotype.domain.errors import CANCELLED, Failure
from calotype.domain.money import EFFECTS, EntryKind
from calotype.domain.task import (
    FINAL,
    ArrivedImage,
    Asset,
    AttemptState,
    BillingStatus,
    Event,
    Reference,
    ResultImage,
    State,
    Task,
)
from calotype.store import rows
from calotype.store.port import AttemptEnd, Fenced, Taken
from calotype.store.sqlite import webhooks
from calotype.store.sqlite.assets import insert_assets
from calotype.store.statements import CANCELLED_ERROR, enters, kept_ms, leaves

_TAKE: Final = (
    f"UPDATE tasks SET state = {enters(Event.TAKE)}, claim = claim + 1, seq = seq + 1, "
    f"updated_at = ?1 WHERE id = ?2 AND {leaves(Event.TAKE)} RETURNING {rows.TASK}"
)
_MOVE: Final = {
    event: (
        f"UPDATE tasks SET state = {enters(event)}, progress = MAX(progress, MIN(?1, 99)), "
        f"seq = seq + 1, updated_at = ?2 WHERE id = ?3 AND claim = ?4 AND {leaves(event)} "
        "RETURNING seq, state, progress"
    )
    for event in (Event.QUEUE, Event.RUN)
}
_BEGIN: Final = {
    event: statement.replace(" RETURNING", " AND cancel_at IS NULL RETURNING")
    for event, statement in _MOVE.items()
}
_ARRIVED: Final = (
    f"UPDATE tasks SET state = {enters(Event.RUN)}, progress = MAX(progress, MIN(?1, 99)), "
    "arrived = ?2, seq = seq + 1, updated_at = ?3 "
    f"WHERE id = ?4 AND claim = ?5 AND {leaves(Event.RUN)} AND cancel_at IS NULL "
    f"RETURNING seq, state, progress, abandon_at + {kept_ms('result_days', '?6')}"
)
_MARK: Final = (
    f"UPDATE tasks SET cancel_free = state <> '{State.GENERATING}', cancel_at = ?1, "
    f"state = {enters(Event.CANCEL)}, seq = seq + 1, updated_at = ?1 "
    f"WHERE id = ?2 AND {leaves(Event.CANCEL)} RETURNING seq, state, progress"
)
_FAILED: Final = (
    "result = ?4, error = CASE WHEN cancel_at IS NULL THEN ?5 "
    f"ELSE CAST({CANCELLED_ERROR} AS BLOB) END"
)
_ENDED: Final = {
    Event.COMPLETE: (
        "result = ?4, error = ?5, arrived = NULL, "
        f"expires_at = ?6 + {kept_ms('result_days', '?10')}"
    ),
    Event.FAIL: _FAILED,
}
_MAY_END: Final = {
    Event.COMPLETE: f"{leaves(Event.COMPLETE)} AND cancel_at IS NULL",
    Event.FAIL: leaves(Event.FAIL),
}
_FINISH: Final = {
    event: (
        f"UPDATE tasks SET state = {enters(event)}, progress = MAX(progress, ?1), "
        f"billing = ?2, actual = ?3, released = reserved - ?3, {ended}, "
        "seq = seq + 1, updated_at = ?6, completed_at = ?6, has_webhook = ?9 "
        f"WHERE id = ?7 AND claim = ?8 AND {_MAY_END[event]} "
        "RETURNING seq, state, progress, account_id, actual, released, expires_at"
    )
    for event, ended in _ENDED.items()
}
_REFERENCES: Final = (
    "UPDATE tasks SET refs = ?1 WHERE id = ?2 AND claim = ?3 AND completed_at IS NULL "
    f"RETURNING abandon_at + {kept_ms('reference_days', '?4')}"
)
_OUTLIVE: Final = (
    "UPDATE assets SET expires_at = ?1 WHERE task_id = ?2 "
    "AND id IN (SELECT value FROM json_each(?3))"
)
_EVENT: Final = (
    "INSERT INTO events (account_id, task_id, seq, at, event, state, progress) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_ENTRY: Final = (
    "INSERT INTO ledger (account_id, task_id, kind, amount, created_at) VALUES (?, ?, ?, ?, ?)"
)
_SETTLE: Final = (
    "UPDATE accounts SET balance = balance + ?, reserved = reserved + ?, "
    "unfinished = unfinished - 1 WHERE id = ?"
)
_CLOSE: Final = (
    "UPDATE attempts SET state = ?1, detail = ?2, cost_micro_usdc = ?3, finished_at = ?4, "
    "code = ?5, fault = ?6 WHERE task_id = ?7 AND number = ?8 AND finished_at IS NULL "
    "AND EXISTS (SELECT 1 FROM tasks WHERE id = ?7 AND claim = ?9 AND completed_at IS NULL)"
)


def take(connection: sqlite3.Connection, task_id: int, now: int) -> Taken | None:
    """Take a task up under a new claim, or None when it is final or unknown."""
    found = connection.execute(_TAKE, (now, task_id)).fetchall()
    if not found:
        return None
    task = rows.task(found[0])
    _tell(connection, task, Event.TAKE, (task.seq, now, task.state, task.progress))
    attempts = connection.execute(
        f"SELECT {rows.ATTEMPT} FROM attempts WHERE task_id = ? ORDER BY number",
        (task_id,),
    ).fetchall()
    return Taken(task, tuple(rows.attempt(row) for row in attempts))


def keep_references(
    connection: sqlite3.Connection,
    task: Task,
    references: Sequence[Reference],
    assets: Sequence[Asset],
    *,
    days: int,
) -> None:
    """Write down which stored images the task's references are."""
    values = (rows.encode(references), task.id, task.claim, days)
    kept = connection.execute(_REFERENCES, values).fetchall()
    _expect(len(kept))
    insert_assets(connection, assets, task_id=task.id, kind="reference", expires_at=kept[0][0])


def begin_attempt(
    connection: sqlite3.Connection, task: Task, *, channel_id: int, event: Event, now: int
) -> int:
    """Write down that something is about to be sent."""
    _move(connection, task, event, _BEGIN[event], progress=0, now=now)
    (number,) = connection.execute(
        "INSERT INTO attempts (task_id, number, channel_id, state, started_at) "
        "SELECT ?1, COALESCE(MAX(number), 0) + 1, ?2, ?3, ?4 FROM attempts WHERE task_id = ?1 "
        "RETURNING number",
        (task.id, channel_id, AttemptState.SENDING, now),
    ).fetchall()[0]
    return int(number)


def accept_attempt(
    connection: sqlite3.Connection, task: Task, number: int, upstream_id: str
) -> None:
    """Keep the upstream's id."""
    _expect(
        connection.execute(
            "UPDATE attempts SET state = ?1, upstream_id = ?2 "
            "WHERE task_id = ?3 AND number = ?4 AND state = ?5 "
            "AND EXISTS (SELECT 1 FROM tasks WHERE id = ?3 AND claim = ?6 "
            "AND completed_at IS NULL)",
            (
                AttemptState.ACCEPTED,
                upstream_id,
                task.id,
                number,
                AttemptState.SENDING,
                task.claim,
            ),
        ).rowcount
    )


def close_attempt(
    connection: sqlite3.Connection,
    task: Task,
    number: int,
    *,
    state: AttemptState,
    detail: str | None,
    now: int,
    code: str | None = None,
    fault: str | None = None,
    cost: int | None = None,
) -> None:
    """End an attempt."""
    values = (state, detail, cost, now, code, fault, task.id, number, task.claim)
    _expect(connection.execute(_CLOSE, values).rowcount)


def reroute(connection: sqlite3.Connection, task: Task, channel_id: int, now: int) -> None:
    """Pass a task on to another channel."""
    _expect(
        connection.execute(
            "UPDATE tasks SET channel_id = ?1, updated_at = ?2 "
            "WHERE id = ?3 AND claim = ?4 AND completed_at IS NULL AND NOT EXISTS "
            "(SELECT 1 FROM attempts WHERE task_id = ?3 AND finished_at IS NULL)",
            (channel_id, now, task.id, task.claim),
        ).rowcount
    )


def move(
    connection: sqlite3.Connection, task: Task, *, event: Event, progress: int, now: int
) -> None:
    """Move a task that stays unfinished."""
    _move(connection, task, event, _MOVE[event], progress=progress, now=now)


def _move(
    connection: sqlite3.Connection,
    task: Task,
    event: Event,
    statement: str,
    *,
    progress: int,
    now: int,
) -> None:
    moved = connection.execute(statement, (progress, now, task.id, task.claim)).fetchall()
    _expect(len(moved))
    seq, state, reached = moved[0]
    _tell(connection, task, event, (seq, now, state, reached))


def keep_arrived(
    connection: sqlite3.Connection,
    task: Task,
    arrived: Sequence[ArrivedImage],
    *,
    images: Sequence[Asset],
    progress: int,
    now: int,
    days: int,
) -> None:
    """Write down images that came before the others; the same again changes nothing."""
    written = rows.encode(arrived)
    ((before,),) = connection.execute("SELECT arrived FROM tasks WHERE id = ?", (task.id,))
    if before == written:
        _expect_wanted(connection, task)
        return
    values = (progress, written, now, task.id, task.claim, days)
    moved = connection.execute(_ARRIVED, values).fetchall()
    _expect(len(moved))
    seq, state, reached, until = moved[0]
    _tell(connection, task, Event.RUN, (seq, now, state, reached))
    insert_assets(connection, images, task_id=task.id, kind="result", expires_at=until)


def complete(
    connection: sqlite3.Connection,
    task: Task,
    number: int | None,
    *,
    images: Sequence[Asset],
    actual: int,
    cost: int | None,
    now: int,
    result: Sequence[ResultImage] | None,
    end: AttemptEnd,
    days: int,
) -> None:
    """Success: images, attempt and money in one."""
    if number is not None:
        close_attempt(
            connection,
            task,
            number,
            state=end.state,
            detail=end.detail,
            now=now,
            code=end.code,
            fault=end.fault,
            cost=cost,
        )
    shown = rows.encode_result(images, result)
    finished = (100, BillingStatus.COMMITTED, actual, shown, None, now, task.id, task.claim)
    until = _finish(connection, task, Event.COMPLETE, values=finished, now=now, more=(days,))
    insert_assets(connection, images, task_id=task.id, kind="result", expires_at=until)
    if earlier := rows.earlier(images, result):
        ids = rows.encode(earlier).decode()
        connection.execute(_OUTLIVE, (until, task.id, ids))


def fail(
    connection: sqlite3.Connection,
    task: Task,
    failure: Failure,
    *,
    attempt: tuple[int, AttemptState] | None,
    now: int,
    fault: str | None = None,
    detail: str | None = None,
    cost: int | None = None,
    charge: int = 0,
) -> None:
    """Failure: attempt and money in one."""
    if attempt is not None:
        number, state = attempt
        close_attempt(
            connection,
            task,
            number,
            state=state,
            detail=detail or failure.message,
            now=now,
            code=failure.code,
            fault=fault,
            cost=cost,
        )
    error = rows.encode(failure)
    billing = BillingStatus.COMMITTED if charge else BillingStatus.RELEASED
    finished = (0, billing, charge, None, error, now, task.id, task.claim)
    _finish(connection, task, Event.FAIL, values=finished, now=now)


def cancel(
    connection: sqlite3.Connection, *, task_id: int, account_id: int, now: int
) -> Task | None:
    """End a task that nobody develops, or mark one that somebody does."""
    reading = f"SELECT {rows.TASK} FROM tasks WHERE id = ? AND account_id = ?"
    found = connection.execute(reading, (task_id, account_id)).fetchall()
    if not found:
        return None
    task = rows.task(found[0])
    if task.state in FINAL:
        return task
    is_open = connection.execute(
        "SELECT 1 FROM attempts WHERE task_id = ? AND finished_at IS NULL", (task_id,)
    ).fetchall()
    if not is_open:
        fail(connection, task, CANCELLED, attempt=None, now=now)
    elif task.cancel_at is None:
        marked = connection.execute(_MARK, (now, task_id)).fetchall()
        seq, state, progress = marked[0]
        _tell(connection, task, Event.CANCEL, (seq, now, state, progress))
    return rows.task(connection.execute(reading, (task_id, account_id)).fetchall()[0])


def _finish(
    connection: sqlite3.Connection,
    task: Task,
    event: Event,
    *,
    values: tuple[Any, ...],
    now: int,
    more: tuple[int, ...] = (),
) -> int | None:
    """End a task; returns when its images go. ``more`` is what only ``COMPLETE`` takes."""
    told_to = webhooks.destination(connection, task)
    finished = connection.execute(_FINISH[event], (*values, told_to is not None, *more)).fetchall()
    _expect(len(finished))
    seq, state, progress, account_id, actual, released, expires_at = finished[0]
    _tell(connection, task, event, (seq, now, state, progress))
    if told_to is not None:
        webhooks.enqueue(connection, task, told_to, event, now=now)
    entries: list[tuple[EntryKind, int]] = []
    if event is Event.COMPLETE or actual:
        entries.append((EntryKind.COMMIT, actual))
    if released or not entries:
        entries.append((EntryKind.RELEASE, released))
    _settle(connection, account_id, task.id, entries=entries, now=now)
    until: int | None = expires_at
    return until


def _settle(
    connection: sqlite3.Connection,
    account_id: int,
    task_id: int,
    *,
    entries: Sequence[tuple[EntryKind, int]],
    now: int,
) -> None:
    """Write a task's last ledger entries; they work on the account as ``money.EFFECTS`` says."""
    balance = reserved = 0
    for kind, amount in entries:
        connection.execute(_ENTRY, (account_id, task_id, kind, amount, now))
        balance += EFFECTS[kind].balance * amount
        reserved += EFFECTS[kind].reserved * amount
    connection.execute(_SETTLE, (balance, reserved, account_id))


def _tell(
    connection: sqlite3.Connection, task: Task, event: Event, told: tuple[int, int, str, int]
) -> None:
    seq, at, state, progress = told
    connection.execute(_EVENT, (task.account_id, task.id, seq, at, event, state, progress))


def _expect_wanted(connection: sqlite3.Connection, task: Task) -> None:
    """A task under its claim that the client has not asked to be stopped."""
    wanted = (
        "SELECT 1 FROM tasks WHERE id = ? AND claim = ? AND completed_at IS NULL "
        "AND cancel_at IS NULL"
    )
    _expect(len(connection.execute(wanted, (task.id, task.claim)).fetchall()))


def _expect(count: int) -> None:
    if count != 1:
        raise Fenced
