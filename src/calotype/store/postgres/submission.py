"""Accepting tasks: reservation, task, event, ledger entry and job, many in one statement."""

from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from calotype.domain.limits import DAY_MS
from calotype.domain.money import EntryKind
from calotype.domain.task import BillingStatus, NewTask, State
from calotype.store.files import check_named
from calotype.store.limits import AccountSql, Room, accepted, left_of, why_refused
from calotype.store.port import IdTaken, Submitted
from calotype.store.postgres.connection import OUTAGES, Connection, unavailable
from calotype.store.postgres.enqueue import ENQUEUE
from calotype.store.postgres.files import keep_named, lock_named
from calotype.store.postgres.moves import stored_as
from calotype.store.refusals import key_conflict
from calotype.store.rows import encode, encode_metadata

_PAIRS: Final = """, new_metadata AS (
    INSERT INTO task_metadata (account_id, key, value, task_id)
    SELECT accepted.account_id, m.key, m.value, m.task_id
    FROM unnest($26::bigint[], $27::text[], $28::text[]) AS m (task_id, key, value)
    JOIN accepted ON accepted.id = m.task_id
)"""


_LIMITS: Final = AccountSql(
    tasks="$22::bigint", per_minute="$23::bigint", now="$24::bigint", number="number"
)


def _statement(*, with_metadata: bool) -> str:
    """Two texts, because what is hardly ever needed would cost every submission."""
    array, name, pairs = (", $25::bytea[]", ", metadata", _PAIRS) if with_metadata else ("", "", "")
    return f"""
WITH input AS (
    SELECT * FROM unnest(
        $1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::bytea[], $6::bytea[],
        $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[],
        $12::smallint[]{array}
    ) WITH ORDINALITY AS i (
        id, account_id, key_id, request_id, request, refs,
        channel_id, price, deadline_at, abandon_at, created_at, metered{name}, place
    )
), locked AS (  -- in the same order everywhere, so that two batches never wait for each other
    SELECT id FROM accounts WHERE id IN (SELECT account_id FROM input) ORDER BY id FOR UPDATE
), sums AS (
    SELECT account_id, SUM(price)::bigint AS total, COUNT(*) AS number
    FROM input JOIN locked ON locked.id = account_id GROUP BY account_id
), paid AS (
    UPDATE accounts a SET reserved = reserved + total, unfinished = unfinished + number,
        rate_free_at = {_LIMITS.free_at}
    FROM sums WHERE a.id = account_id AND balance - reserved >= total AND {_LIMITS.has_room}
    RETURNING a.id, unfinished - number AS backlog, a.reference_days AS own_days,
        {_LIMITS.rate} AS rate, rate_free_at
), accepted AS (
    SELECT input.*, own_days, rate, rate_free_at,
        backlog - 1 + ROW_NUMBER() OVER (PARTITION BY account_id ORDER BY place) AS backlog
    FROM input JOIN paid ON paid.id = account_id
), new_tasks AS (
    INSERT INTO tasks (
        id, account_id, key_id, request_id, state, progress, request, refs, channel_id, claim,
        seq, billing, reserved, actual, released, deadline_at, abandon_at, created_at,
        updated_at, metered{name}
    )
    SELECT id, account_id, key_id, request_id, '{State.WAITING}', 0, request, refs, channel_id, 0,
        1, '{BillingStatus.RESERVED}', price, 0, 0, deadline_at, abandon_at, created_at,
        created_at, metered{name}
    FROM accepted
), new_events AS (
    INSERT INTO events (account_id, task_id, seq, at, event, state, progress)
    SELECT account_id, id, 1, created_at, 'submit', '{State.WAITING}', 0 FROM accepted
), new_entries AS (
    INSERT INTO ledger (account_id, task_id, kind, amount, created_at)
    SELECT account_id, id, '{EntryKind.RESERVE}', price, created_at FROM accepted
), new_jobs AS (
    {ENQUEUE}
    FROM accepted
), new_assets AS (
    INSERT INTO assets (
        id, task_id, account_id, kind, key, content_type, bytes, width, height, created_at,
        expires_at
    )
    SELECT u.id, u.task_id, accepted.account_id, 'reference', u.key, u.content_type, u.bytes,
        u.width, u.height, u.created_at,
        accepted.abandon_at + NULLIF(COALESCE(own_days, u.days), 0) * {DAY_MS}
    FROM unnest(
        $13::bigint[], $14::bigint[], $15::text[], $16::text[], $17::bigint[], $18::bigint[],
        $19::bigint[], $20::bigint[], $21::bigint[]
    ) AS u (id, task_id, key, content_type, bytes, width, height, created_at, days)
    JOIN accepted ON accepted.id = u.task_id
){pairs}
SELECT id, backlog, rate, rate_free_at FROM accepted
"""


SUBMIT: Final = _statement(with_metadata=False)
SUBMIT_WITH_METADATA: Final = _statement(with_metadata=True)
REPLAYED: Final = """
SELECT k.fingerprint, k.task_id, t.request_id, t.created_at
FROM idempotency_keys k JOIN tasks t ON t.id = k.task_id
WHERE k.account_id = $1 AND k.key = $2
"""
"""Fingerprint of an idempotency key's request, and its task."""
KEYED: Final = """
SELECT named.key, tasks.state, tasks.completed_at
FROM idempotency_keys AS named JOIN tasks ON tasks.id = named.task_id
WHERE named.account_id = $1 AND named.key BETWEEN $2 AND $3 ORDER BY named.key DESC LIMIT $4
"""
_STANDING: Final = f"""
SELECT {AccountSql(tasks="$2::bigint", per_minute="$3::bigint", now="", number="").standing}
FROM accounts WHERE id = $1
"""
_REMEMBER: Final = """
INSERT INTO idempotency_keys (account_id, key, fingerprint, task_id, created_at)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING key
"""


async def submit_all(
    connection: Connection, tasks: Sequence[NewTask]
) -> list[Submitted | Exception]:
    """Accept each task or say why not.

    Those without an idempotency key go together, unless they name images by id. Where an account
    has no room for all of its own, or an id clashes, the ones concerned are taken one by one, in
    order.
    """
    results: dict[int, Submitted | Exception] = {}
    together = [new for new in tasks if new.idempotency_key is None and not new.named]
    if together:
        try:
            rooms = await accept(connection, together, now=latest(together))
        except asyncpg.UniqueViolationError:
            rooms = {}
        for new in together:
            if new.id in rooms:
                results[id(new)] = accepted(new, rooms[new.id])
    for new in tasks:
        if id(new) not in results:
            results[id(new)] = await _submit_one(connection, new)
    return [results[id(new)] for new in tasks]


async def _submit_one(connection: Connection, new: NewTask) -> Submitted | Exception:
    try:
        if new.idempotency_key is None and not new.named:
            return await _accept_one(connection, new)
        async with connection.transaction():
            if new.idempotency_key is not None:
                remembered = await connection.fetchval(
                    _REMEMBER,
                    new.account_id,
                    new.idempotency_key,
                    new.fingerprint,
                    new.id,
                    new.created_at,
                )
                if remembered is None:
                    return await _replay(connection, new)
            submitted = await _accept_one(connection, new)
            if new.named:
                check_named(new, await lock_named(connection, [new]))
                await keep_named(connection, [new])
            return submitted
    except asyncpg.UniqueViolationError:
        return IdTaken()
    except Exception as error:  # noqa: BLE001 -- others of the batch are committed: it is its own
        return unavailable(error) if isinstance(error, OUTAGES) else error


async def _replay(connection: Connection, new: NewTask) -> Submitted:
    known = await connection.fetchrow(REPLAYED, new.account_id, new.idempotency_key)
    if known is None or known[0] != new.fingerprint:
        raise key_conflict()
    return Submitted(known[1], known[2], known[3], replayed=True)


async def _accept_one(connection: Connection, new: NewTask) -> Submitted:
    rooms = await accept(connection, [new], now=new.created_at)
    if new.id not in rooms:
        limits = new.limits
        standing = await connection.fetchrow(
            _STANDING, new.account_id, limits.tasks, limits.per_minute
        )
        raise why_refused(new, standing or ())
    return accepted(new, rooms[new.id])


def latest(tasks: Sequence[NewTask]) -> int:
    """By whose time tasks that go together are judged."""
    return max(new.created_at for new in tasks)


async def accept(connection: Connection, tasks: Sequence[NewTask], *, now: int) -> dict[int, Room]:
    """Accept those tasks whose accounts have room for all of theirs, by their ids."""
    limits = tasks[0].limits
    values: list[Any] = [*_task_columns(tasks), *_upload_columns(tasks)]
    values += [limits.tasks, limits.per_minute, now * 1000]
    if any(new.metadata for new in tasks):
        values += _metadata_columns(tasks)
        rows = await connection.fetch(SUBMIT_WITH_METADATA, *values)
    else:
        rows = await connection.fetch(SUBMIT, *values)
    return {row[0]: (row[1], left_of(row[2], row[3], now=now)) for row in rows}


def _task_columns(tasks: Sequence[NewTask]) -> list[list[Any]]:
    return [
        [new.id for new in tasks],
        [new.account_id for new in tasks],
        [new.key_id for new in tasks],
        [new.request_id for new in tasks],
        [encode(new.request) for new in tasks],
        [encode(new.references) for new in tasks],
        [new.channel_id for new in tasks],
        [new.price for new in tasks],
        [new.deadline_at for new in tasks],
        [new.abandon_at for new in tasks],
        [new.created_at for new in tasks],
        [int(new.metered) for new in tasks],
    ]


def _upload_columns(tasks: Sequence[NewTask]) -> list[list[Any]]:
    uploads = [(new, upload) for new in tasks for upload in new.uploads]
    return [
        [upload.id for _, upload in uploads],
        [new.id for new, _ in uploads],
        *stored_as([upload for _, upload in uploads]),
        [new.reference_days for new, _ in uploads],
    ]


def _metadata_columns(tasks: Sequence[NewTask]) -> list[list[Any]]:
    pairs = [(new.id, *pair) for new in tasks for pair in new.metadata.items()]
    return [
        [encode_metadata(new.metadata) for new in tasks],
        [task_id for task_id, _, _ in pairs],
        [key for _, key, _ in pairs],
        [value for _, _, value in pairs],
    ]
