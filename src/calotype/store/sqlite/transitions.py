"""Moving tasks: each is judged by the state that it may leave and its worker's claim, then moved.

A move is made within one transaction, so what it reads of its task holds until it has written.
The states left and entered are those of ``domain.task.TRANSITIONS``. Whatever only adds rows, and
the money, goes by ``postings`` into the same transaction.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from calotype.domain.errors import CANCELLED, Failure
from calotype.domain.limits import DAY_MS
from calotype.domain.money import EntryKind
from calotype.domain.task import (
    FINAL,
    TRANSITIONS,
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
from calotype.store.port import AttemptEnd, Begin, Fenced, Taken
from calotype.store.sqlite import webhooks
from calotype.store.sqlite.postings import Postings
from calotype.store.statements import kept_ms

_TASK: Final = f"SELECT {rows.TASK} FROM tasks WHERE id = ?"
_TAKE: Final = "UPDATE tasks SET state = ?, claim = ?, seq = ?, updated_at = ? WHERE id = ?"
_NOW: Final = (
    "SELECT state, claim, seq, progress, cancel_at, "
    "(SELECT MAX(number) FROM attempts WHERE task_id = tasks.id), "
    "(SELECT result_days FROM accounts WHERE accounts.id = tasks.account_id) "
    "FROM tasks WHERE id = ?"
)
_MOVE: Final = "UPDATE tasks SET state = ?, progress = ?, seq = ?, updated_at = ? WHERE id = ?"
_ARRIVED: Final = (
    "UPDATE tasks SET state = ?, progress = ?, seq = ?, updated_at = ?, arrived = ? WHERE id = ?"
)
_MARK: Final = (
    f"UPDATE tasks SET cancel_free = state <> '{State.GENERATING}', cancel_at = ?1, seq = ?2, "
    "updated_at = ?1 WHERE id = ?3"
)
_COMPLETED: Final = (
    "UPDATE tasks SET state = ?1, progress = 100, seq = ?2, updated_at = ?3, completed_at = ?3, "
    "billing = ?4, actual = ?5, released = reserved - ?5, has_webhook = ?6, result = ?7, "
    "arrived = NULL, expires_at = ?8 WHERE id = ?9"
)
_FAILED: Final = (
    "UPDATE tasks SET state = ?1, seq = ?2, updated_at = ?3, completed_at = ?3, "
    "billing = ?4, actual = ?5, released = reserved - ?5, has_webhook = ?6, error = ?7 "
    "WHERE id = ?8"
)
_REFERENCES: Final = (
    "UPDATE tasks SET refs = ?1 WHERE id = ?2 AND claim = ?3 AND completed_at IS NULL "
    f"RETURNING abandon_at + {kept_ms('reference_days', '?4')}"
)
_OUTLIVE: Final = (
    "UPDATE assets SET expires_at = ?1 WHERE task_id = ?2 "
    "AND id IN (SELECT value FROM json_each(?3))"
)
_ATTEMPT: Final = (
    "INSERT INTO attempts (task_id, number, channel_id, state, started_at) VALUES (?, ?, ?, ?, ?)"
)
_CLOSE: Final = (
    "UPDATE attempts SET state = ?1, detail = ?2, cost_micro_usdc = ?3, finished_at = ?4, "
    "code = ?5, fault = ?6 WHERE task_id = ?7 AND number = ?8 AND finished_at IS NULL"
)
_ATTEMPTS: Final = f"SELECT {rows.ATTEMPT} FROM attempts WHERE task_id = ? ORDER BY number"
_ACCEPT: Final = (
    "UPDATE attempts SET state = ?1, upstream_id = ?2 WHERE task_id = ?3 AND number = ?4 "
    "AND state = ?5 AND EXISTS "
    "(SELECT 1 FROM tasks WHERE id = ?3 AND claim = ?6 AND completed_at IS NULL)"
)
_REROUTE: Final = (
    "UPDATE tasks SET channel_id = ?1, updated_at = ?2 "
    "WHERE id = ?3 AND claim = ?4 AND completed_at IS NULL AND NOT EXISTS "
    "(SELECT 1 FROM attempts WHERE task_id = ?3 AND finished_at IS NULL)"
)
_ENTERS: Final = {
    event: {str(left): str(entered) for left, entered in transition.enters.items()}
    for event, transition in TRANSITIONS.items()
}
"""``TRANSITIONS`` in plain words, which SQLite takes as they are."""


class _Now(NamedTuple):
    """A task as it is, for whoever may move it."""

    state: str
    """That it enters."""
    seq: int
    """Of the event that tells of it."""
    progress: int
    cancel_at: int | None
    attempts: int
    result_days: int | None
    """Of its account."""

    def kept_until(self, at: int, days: int) -> int | None:
        """Until when results are kept that are kept from ``at`` on; None: for ever."""
        kept = days if self.result_days is None else self.result_days
        return at + kept * DAY_MS if kept else None


def take(
    postings: Postings, task_id: int, now: int, choose: Callable[[Task], Begin | None]
) -> Taken | None:
    """Take a task up under a new claim, or None when it is final or unknown."""
    execute = postings.connection.execute
    found = execute(_TASK, (task_id,)).fetchone()
    if found is None or (before := rows.task(found)).state in FINAL:
        return None
    task = _entering(postings, before, Event.TAKE, now=now, claim=before.claim + 1)
    if task.claim > 1:
        execute(_TAKE, (str(task.state), task.claim, task.seq, now, task_id))
        attempts = execute(_ATTEMPTS, (task_id,)).fetchall()
        return Taken(task, tuple([rows.attempt(row) for row in attempts]))
    begin = choose(task)  # nobody can have begun one
    if begin is not None:
        task = _entering(postings, task, begin.event, now=now, claim=task.claim)
        execute(_ATTEMPT, (task_id, 1, begin.channel_id, str(AttemptState.SENDING), now))
    execute(_TAKE, (str(task.state), task.claim, task.seq, now, task_id))
    return Taken(task, (), begun=None if begin is None else 1)


def keep_references(
    postings: Postings,
    task: Task,
    references: Sequence[Reference],
    assets: Sequence[Asset],
    *,
    days: int,
) -> None:
    """Write down which stored images the task's references are."""
    values = (rows.encode(references), task.id, task.claim, days)
    kept = postings.connection.execute(_REFERENCES, values).fetchall()
    _expect(len(kept))
    postings.keep(task, assets, kind="reference", expires_at=kept[0][0])


def begin_attempt(
    postings: Postings,
    task: Task,
    *,
    channel_id: int,
    event: Event,
    now: int,
) -> int:
    """Write down that something is about to be sent."""
    is_now = _now(postings, task, event, wanted=True)
    _go_on(postings, task, event, is_now, progress=is_now.progress, now=now)
    number = is_now.attempts + 1
    postings.connection.execute(
        _ATTEMPT, (task.id, number, channel_id, str(AttemptState.SENDING), now)
    )
    return number


def accept_attempt(postings: Postings, task: Task, number: int, upstream_id: str) -> None:
    """Keep the upstream's id."""
    values = (AttemptState.ACCEPTED, upstream_id, task.id, number, AttemptState.SENDING, task.claim)
    _expect(postings.connection.execute(_ACCEPT, values).rowcount)


def close_attempt(
    postings: Postings,
    task: Task,
    number: int,
    *,
    state: AttemptState,
    detail: str | None,
    now: int,
    code: str | None = None,
    fault: str | None = None,
) -> None:
    """End an attempt."""
    _now(postings, task, Event.FAIL)  # which any task may that is not final
    values = (str(state), detail, None, now, code, fault, task.id, number)
    _expect(postings.connection.execute(_CLOSE, values).rowcount)


def reroute(postings: Postings, task: Task, channel_id: int, now: int) -> None:
    """Pass a task on to another channel."""
    _expect(postings.connection.execute(_REROUTE, (channel_id, now, task.id, task.claim)).rowcount)


def move(postings: Postings, task: Task, *, event: Event, progress: int, now: int) -> None:
    """Move a task that stays unfinished."""
    is_now = _now(postings, task, event)
    reached = max(is_now.progress, min(progress, 99))
    _go_on(postings, task, event, is_now, progress=reached, now=now)


def keep_arrived(
    postings: Postings,
    task: Task,
    arrived: Sequence[ArrivedImage],
    *,
    images: Sequence[Asset],
    progress: int,
    now: int,
    days: int,
) -> None:
    """Write down images that came before the others; the same again changes nothing."""
    is_now = _now(postings, task, Event.RUN, wanted=True)
    written = rows.encode(arrived)
    ((before,),) = postings.connection.execute("SELECT arrived FROM tasks WHERE id = ?", (task.id,))
    if before == written:
        return
    reached = max(is_now.progress, min(progress, 99))
    postings.connection.execute(
        _ARRIVED, (is_now.state, reached, is_now.seq, now, written, task.id)
    )
    postings.tell(task, Event.RUN, seq=is_now.seq, at=now, state=is_now.state, progress=reached)
    until = is_now.kept_until(task.abandon_at, days)
    postings.keep(task, images, kind="result", expires_at=until)


def complete(
    postings: Postings,
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
    is_now = _now(postings, task, Event.COMPLETE, wanted=True)
    if number is not None:
        closed = (str(end.state), end.detail, cost, now, end.code, end.fault, task.id, number)
        _expect(postings.connection.execute(_CLOSE, closed).rowcount)
    until = is_now.kept_until(now, days)
    told_to = _announce(postings, task, Event.COMPLETE, now=now)
    shown = rows.encode_result(images, result)
    billing = str(BillingStatus.COMMITTED)
    ended = (is_now.state, is_now.seq, now, billing, actual, told_to, shown, until, task.id)
    postings.connection.execute(_COMPLETED, ended)
    postings.tell(task, Event.COMPLETE, seq=is_now.seq, at=now, state=is_now.state, progress=100)
    postings.keep(task, images, kind="result", expires_at=until)
    if earlier := rows.earlier(images, result):
        postings.connection.execute(_OUTLIVE, (until, task.id, rows.encode(earlier).decode()))
    entries = [(EntryKind.COMMIT, actual)]
    if released := task.reserved - actual:
        entries.append((EntryKind.RELEASE, released))
    postings.settle(task, entries, now=now)


def fail(
    postings: Postings,
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
    is_now = _now(postings, task, Event.FAIL)
    if attempt is not None:
        number, state = attempt
        told = detail or failure.message
        closed = (str(state), told, cost, now, failure.code, fault, task.id, number)
        _expect(postings.connection.execute(_CLOSE, closed).rowcount)
    told_to = _announce(postings, task, Event.FAIL, now=now)
    error = rows.encode(failure if is_now.cancel_at is None else CANCELLED)
    billing = str(BillingStatus.COMMITTED if charge else BillingStatus.RELEASED)
    ended = (is_now.state, is_now.seq, now, billing, charge, told_to, error, task.id)
    postings.connection.execute(_FAILED, ended)
    postings.tell(
        task, Event.FAIL, seq=is_now.seq, at=now, state=is_now.state, progress=is_now.progress
    )
    entries = [(EntryKind.COMMIT, charge)] if charge else []
    if (released := task.reserved - charge) or not entries:
        entries.append((EntryKind.RELEASE, released))
    postings.settle(task, entries, now=now)


def cancel(postings: Postings, *, task_id: int, account_id: int, now: int) -> Task | None:
    """End a task that nobody develops, or mark one that somebody does."""
    found = postings.connection.execute(_TASK, (task_id,)).fetchone()
    if found is None or (task := rows.task(found)).account_id != account_id:
        return None
    if task.state in FINAL:
        return task
    is_open = postings.connection.execute(
        "SELECT 1 FROM attempts WHERE task_id = ? AND finished_at IS NULL", (task_id,)
    ).fetchall()
    if not is_open:
        fail(postings, task, CANCELLED, attempt=None, now=now)
    elif task.cancel_at is None:
        is_now = _now(postings, task, Event.CANCEL)
        postings.connection.execute(_MARK, (now, is_now.seq, task_id))
        postings.tell(
            task,
            Event.CANCEL,
            seq=is_now.seq,
            at=now,
            state=is_now.state,
            progress=is_now.progress,
        )
    return rows.task(postings.connection.execute(_TASK, (task_id,)).fetchone())


def _now(postings: Postings, task: Task, event: Event, *, wanted: bool = False) -> _Now:
    """The task as it is after an event, if that may happen under its claim.

    Raises:
        Fenced: it may not; or the task is to be ``wanted`` and its client has cancelled it.

    """
    found = postings.connection.execute(_NOW, (task.id,)).fetchone()
    if found is None:
        raise Fenced
    state, claim, seq, progress, cancel_at, attempts, result_days = found
    entered = _ENTERS[event].get(state)
    if entered is None or claim != task.claim or (wanted and cancel_at is not None):
        raise Fenced
    return _Now(entered, seq + 1, progress, cancel_at, attempts or 0, result_days)


def _entering(postings: Postings, task: Task, event: Event, *, now: int, claim: int) -> Task:
    """A task as it is after an event, of which the log is told."""
    state, seq = TRANSITIONS[event].enters[task.state], task.seq + 1
    postings.tell(task, event, seq=seq, at=now, state=str(state), progress=task.progress)
    return msgspec.structs.replace(task, state=state, claim=claim, seq=seq, updated_at=now)


def _go_on(
    postings: Postings, task: Task, event: Event, is_now: _Now, *, progress: int, now: int
) -> None:
    postings.connection.execute(_MOVE, (is_now.state, progress, is_now.seq, now, task.id))
    postings.tell(task, event, seq=is_now.seq, at=now, state=is_now.state, progress=progress)


def _announce(postings: Postings, task: Task, event: Event, *, now: int) -> bool:
    """Put the webhook of a task that ends into the outbox, where it has one."""
    told_to = webhooks.destination(postings.connection, task)
    if told_to is not None:
        webhooks.enqueue(postings.connection, task, told_to, event, now=now)
    return told_to is not None


def _expect(count: int) -> None:
    if count != 1:
        raise Fenced
