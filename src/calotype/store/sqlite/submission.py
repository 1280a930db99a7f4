"""Accepting tasks: reservation, task, first event and ledger entry in one transaction."""

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Final

from calotype.domain.errors import CalotypeError, Unavailable
from calotype.domain.limits import DAY_MS
from calotype.domain.money import EntryKind
from calotype.domain.task import BillingStatus, NewTask, State
from calotype.store import rows, statements
from calotype.store.limits import AccountSql, Room, accepted, left_of, why_refused
from calotype.store.port import IdTaken, Submitted
from calotype.store.refusals import key_conflict
from calotype.store.rows import encode, encode_metadata
from calotype.store.sqlite.assets import insert_assets
from calotype.store.sqlite.files import hold_named
from calotype.store.sqlite.writer import in_savepoint

REPLAYED: Final = (
    "SELECT k.fingerprint, k.task_id, t.request_id, t.created_at "
    "FROM idempotency_keys k JOIN tasks t ON t.id = k.task_id "
    "WHERE k.account_id = ? AND k.key = ?"
)
"""Fingerprint of an idempotency key's request, and its task."""
KEYED: Final = (
    "SELECT named.key, tasks.state, tasks.completed_at "
    "FROM idempotency_keys AS named JOIN tasks ON tasks.id = named.task_id "
    "WHERE named.account_id = ? AND named.key BETWEEN ? AND ? ORDER BY named.key DESC LIMIT ?"
)

_LIMITS: Final = AccountSql(tasks="?4", per_minute="?5", now="?6", number="?2")
_RESERVE: Final = (
    "UPDATE accounts SET reserved = reserved + ?1, unfinished = unfinished + ?2, "
    f"rate_free_at = {_LIMITS.free_at} "
    f"WHERE id = ?3 AND balance - reserved >= ?1 AND {_LIMITS.has_room}"
)
_STANDING: Final = AccountSql(tasks="?2", per_minute="?3", now="", number="")
_RESERVED: Final = (
    f"SELECT unfinished, reference_days, {_STANDING.rate}, rate_free_at FROM accounts WHERE id = ?1"
)
_REFUSED: Final = f"SELECT {_STANDING.standing} FROM accounts WHERE id = ?1"
_INSERT_TASK = (
    "INSERT INTO tasks (id, account_id, key_id, request_id, state, progress, request, refs, "
    "channel_id, claim, seq, billing, reserved, actual, released, deadline_at, abandon_at, "
    "created_at, updated_at, metadata, metered) VALUES "
    f"(?, ?, ?, ?, '{State.WAITING}', 0, ?, ?, ?, 0, 1, '{BillingStatus.RESERVED}', ?, 0, 0, "
    "?, ?, ?, ?, ?, ?)"
)
_INSERT_EVENT = (
    "INSERT INTO events (account_id, task_id, seq, at, event, state, progress) "
    f"VALUES (?, ?, 1, ?, 'submit', '{State.WAITING}', 0)"
)
_INSERT_ENTRY = (
    "INSERT INTO ledger (account_id, task_id, kind, amount, created_at) "
    f"VALUES (?, ?, '{EntryKind.RESERVE}', ?, ?)"
)
_INSERT_METADATA = "INSERT INTO task_metadata (account_id, key, value, task_id) VALUES (?, ?, ?, ?)"


def submit_all(
    connection: sqlite3.Connection, tasks: Sequence[NewTask]
) -> list[Submitted | Exception]:
    """Accept each task or say why not.

    Tasks of one account are reserved by their sum. Where the account has no room for all of them,
    where a key must be looked up or has limits, where images are named by id, or where an id
    clashes, they are taken one by one, in order.
    """
    results: dict[int, Submitted | Exception] = {}
    together: dict[int, list[NewTask]] = {}
    one_by_one: list[NewTask] = []
    for new in tasks:
        if new.idempotency_key is None and not new.metered and not new.named:
            together.setdefault(new.account_id, []).append(new)
        else:
            one_by_one.append(new)
    for group in together.values():
        outcome = in_savepoint(connection, partial(_accept, group=group))
        refused = isinstance(outcome, CalotypeError) and not isinstance(outcome, Unavailable)
        if (refused or isinstance(outcome, sqlite3.IntegrityError)) and len(group) > 1:
            one_by_one.extend(group)
        else:
            for place, new in enumerate(group):
                results[id(new)] = _result(new, outcome, place)
    for new in one_by_one:
        results[id(new)] = in_savepoint(connection, partial(_submit_one, new=new))
    return [results[id(new)] for new in tasks]


def submit_batch(
    connection: sqlite3.Connection, tasks: Sequence[NewTask]
) -> list[Submitted | CalotypeError]:
    """Judge each task on its own, in order; whatever is not a client's to know ends them all."""
    results: list[Submitted | CalotypeError] = []
    for new in tasks:
        result = in_savepoint(connection, partial(_submit_one, new=new))
        if isinstance(result, Unavailable) or not isinstance(result, Submitted | CalotypeError):
            raise result
        results.append(result)
    return results


def _submit_one(connection: sqlite3.Connection, new: NewTask) -> Submitted | Exception:
    if new.idempotency_key is not None:
        known = connection.execute(REPLAYED, (new.account_id, new.idempotency_key)).fetchone()
        if known is not None:
            fingerprint, task_id, request_id, created_at = known
            if fingerprint != new.fingerprint:
                raise key_conflict()
            return Submitted(task_id, request_id, created_at, replayed=True)
    if new.metered:
        new = _counted(connection, new)
    if new.named:
        hold_named(connection, new)
    try:
        room = _accept(connection, [new])
    except sqlite3.IntegrityError as error:
        raise IdTaken from error
    if new.idempotency_key is not None:
        connection.execute(
            "INSERT INTO idempotency_keys (account_id, key, fingerprint, task_id, created_at) "
            "VALUES (?, ?, ?, ?, ?)",
            (new.account_id, new.idempotency_key, new.fingerprint, new.id, new.created_at),
        )
    return accepted(new, room)


def _counted(connection: sqlite3.Connection, new: NewTask) -> NewTask:
    """Count a task against the limits of its key."""
    found = connection.execute(statements.METER, (new.key_id,)).fetchone()
    charged = rows.meter(found).charged(new.price, now=new.created_at)
    connection.execute(statements.KEEP_METER, rows.meter_state(charged))
    return rows.on_meter(new, charged)


def _accept(connection: sqlite3.Connection, group: Sequence[NewTask]) -> Room:
    """Reserve and write tasks of one account, all of them or none.

    Returns how many unfinished tasks the account had before, and what its rate has left.
    """
    account_id, limits = group[0].account_id, group[0].limits
    total, now = sum(new.price for new in group), max(new.created_at for new in group)
    values = (total, len(group), account_id, limits.tasks, limits.per_minute, now * 1000)
    account = (account_id, limits.tasks, limits.per_minute)
    if not connection.execute(_RESERVE, values).rowcount:
        raise why_refused(group[0], connection.execute(_REFUSED, account).fetchone())
    unfinished, own_days, rate, free_at = connection.execute(_RESERVED, account).fetchone()
    connection.executemany(_INSERT_TASK, [_task_values(new) for new in group])
    connection.executemany(_INSERT_EVENT, [(account_id, new.id, new.created_at) for new in group])
    connection.executemany(
        _INSERT_ENTRY, [(account_id, new.id, new.price, new.created_at) for new in group]
    )
    for new in group:
        if new.uploads:
            insert_assets(
                connection,
                new.uploads,
                task_id=new.id,
                kind="reference",
                expires_at=_expiry(new, own_days=own_days),
            )
        if new.metadata:
            pairs = [(account_id, *pair, new.id) for pair in new.metadata.items()]
            connection.executemany(_INSERT_METADATA, pairs)
    return unfinished - len(group), left_of(rate, free_at, now=now)


def _expiry(new: NewTask, *, own_days: int | None) -> int | None:
    """Until when its uploads are kept; ``own_days`` is what their account says."""
    days = new.reference_days if own_days is None else own_days
    return new.abandon_at + days * DAY_MS if days else None


def _task_values(new: NewTask) -> tuple[object, ...]:
    return (
        new.id,
        new.account_id,
        new.key_id,
        new.request_id,
        encode(new.request),
        encode(new.references),
        new.channel_id,
        new.price,
        new.deadline_at,
        new.abandon_at,
        new.created_at,
        new.created_at,
        encode_metadata(new.metadata),
        new.metered,
    )


def _result(new: NewTask, outcome: Room | Exception, place: int) -> Submitted | Exception:
    if isinstance(outcome, sqlite3.IntegrityError):
        return IdTaken()
    return outcome if isinstance(outcome, Exception) else accepted(new, outcome, place)
