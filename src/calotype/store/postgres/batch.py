"""Accepting many requests of a client in one transaction, each judged on its own.

Idempotency keys, accounts, the meters of API keys and files are locked first, in this order as
everywhere and each kind in one order, so that nobody waits in a circle; after that nothing can
change under the judgement.
"""

from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from calotype.domain.errors import CalotypeError
from calotype.domain.limits import AccountMeter, Meter
from calotype.domain.task import NewTask
from calotype.store.files import check_named
from calotype.store.limits import AccountSql, accepted
from calotype.store.port import IdTaken, Submitted
from calotype.store.postgres import keys, submission
from calotype.store.postgres.connection import OUTAGES, Connection, unavailable
from calotype.store.postgres.files import keep_named, lock_named
from calotype.store.postgres.submission import accept, latest
from calotype.store.refusals import cannot_pay, key_conflict
from calotype.store.rows import meter, meter_state, on_meter

_Key = tuple[int, str | None]
"""An account and one of its idempotency keys."""
_Judged = NewTask | Submitted | CalotypeError
"""What becomes of a request: a task of its own, an older one, or nothing."""

_LOCK_KEYS: Final = """
INSERT INTO idempotency_keys (account_id, key, fingerprint, task_id, created_at)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[])
ON CONFLICT DO NOTHING RETURNING account_id, key
"""
_KNOWN_KEYS: Final = """
SELECT k.account_id, k.key, k.fingerprint, k.task_id, t.request_id, t.created_at
FROM unnest($1::bigint[], $2::text[]) AS asked (account_id, key)
JOIN idempotency_keys k ON k.account_id = asked.account_id AND k.key = asked.key
JOIN tasks t ON t.id = k.task_id
"""
_STANDING: Final = AccountSql(
    tasks="$2::bigint", per_minute="$3::bigint", now="", number=""
).standing
_LOCK_ACCOUNTS: Final = (
    f"SELECT id, {_STANDING} FROM accounts WHERE id = ANY($1) ORDER BY id FOR UPDATE"
)
_GIVE_KEYS: Final = """
UPDATE idempotency_keys k SET fingerprint = given.fingerprint, task_id = given.task_id,
    created_at = given.created_at
FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[])
    AS given (account_id, key, fingerprint, task_id, created_at)
WHERE k.account_id = given.account_id AND k.key = given.key
"""
_DROP_KEYS: Final = """
DELETE FROM idempotency_keys k USING unnest($1::bigint[], $2::text[]) AS dropped (account_id, key)
WHERE k.account_id = dropped.account_id AND k.key = dropped.key
"""


async def submit_all(
    connection: Connection, tasks: Sequence[NewTask]
) -> list[Submitted | Exception]:
    """Accept each task or say why not: those that count against limits are judged in a batch."""
    metered = [new for new in tasks if new.metered]
    if not metered:
        return await submission.submit_all(connection, tasks)
    plain = [new for new in tasks if not new.metered]
    results: dict[int, Submitted | Exception] = {}
    for new, result in zip(plain, await submission.submit_all(connection, plain), strict=True):
        results[id(new)] = result
    for new, result in zip(metered, await _submit_metered(connection, metered), strict=True):
        results[id(new)] = result
    return [results[id(new)] for new in tasks]


async def _submit_metered(
    connection: Connection, tasks: Sequence[NewTask]
) -> Sequence[Submitted | Exception]:
    """The same of these alone: others of the batch are committed, and no error of these is theirs.

    What breaks them together is found by taking them one by one.
    """
    try:
        return await submit_batch(connection, tasks)
    except OUTAGES as error:
        return [unavailable(error)] * len(tasks)
    except Exception as error:  # noqa: BLE001 -- it belongs to one of them
        if len(tasks) == 1:
            return [error]
    return [(await _submit_metered(connection, [new]))[0] for new in tasks]


async def submit_batch(
    connection: Connection, tasks: Sequence[NewTask]
) -> list[Submitted | CalotypeError]:
    """Judge each in order, then write those that are accepted in one statement.

    Raises:
        IdTaken: an id is there already; nothing was written.

    """
    if not tasks:
        return []
    async with connection.transaction():
        ours = await _lock_keys(connection, tasks)
        limits, now = tasks[0].limits, latest(tasks)
        found = await connection.fetch(
            _LOCK_ACCOUNTS,
            sorted({new.account_id for new in tasks}),
            limits.tasks,
            limits.per_minute,
        )
        available = {row[0]: row[1] for row in found}
        accounts = {row[0]: AccountMeter(*row[2:]) for row in found}
        meters = await _lock_meters(connection, tasks)
        ends = await lock_named(connection, tasks)
        known = await _known_keys(connection, tasks, ours)
        charged = dict(meters)
        left = _Left(available, accounts, charged, ends, now)
        judged, owners = _judge(tasks, known, left)
        await _keep_meters(
            connection, [each for each in charged.values() if each != meters[each.key_id]]
        )
        await _settle_keys(connection, ours, owners)
        own = [one for one in judged if isinstance(one, NewTask)]
        await keep_named(connection, own)
        try:
            rooms = await accept(connection, own, now=now) if own else {}
        except asyncpg.UniqueViolationError:
            raise IdTaken from None
    return [accepted(one, rooms[one.id]) if isinstance(one, NewTask) else one for one in judged]


class _Left(msgspec.Struct):
    """What tasks are judged by, less what was accepted so far."""

    available: dict[int, int]
    """By account, micro-USDC."""
    accounts: dict[int, AccountMeter]
    meters: dict[int, Meter]
    """By API key."""
    ends: dict[int, int]
    """When the images expire that are named, by id."""
    now: int
    """By which accounts are judged: the statement that writes judges them once more, together."""


def _judge(
    tasks: Sequence[NewTask], known: dict[_Key, tuple[bytes, Submitted]], left: _Left
) -> tuple[list[_Judged], dict[_Key, NewTask]]:
    """What becomes of each, and whose each key is; what is accepted counts at once."""
    judged: list[_Judged] = []
    owners: dict[_Key, NewTask] = {}
    for new in tasks:
        key = (new.account_id, new.idempotency_key)
        if (there := known.get(key)) is not None:
            fingerprint, submitted = there
            judged.append(submitted if fingerprint == new.fingerprint else key_conflict())
            continue
        try:
            counted = _counted(new, left)
        except CalotypeError as error:
            judged.append(error)
            continue
        judged.append(counted)
        if new.idempotency_key is not None:
            owners[key] = counted
            replay = Submitted(new.id, new.request_id, counted.created_at, replayed=True)
            known[key] = (new.fingerprint, replay)
    return judged, owners


def _counted(new: NewTask, left: _Left) -> NewTask:
    """Take the price of a task from what its account and its key have left, or say why not."""
    available, meters, charged = left.available, left.meters, None
    check_named(new, left.ends)
    if new.metered:
        charged = meters[new.key_id].charged(new.price, now=new.created_at)
    account = left.accounts[new.account_id].charged(now=left.now)
    if new.price > available[new.account_id]:
        raise cannot_pay(new.price, available[new.account_id])
    available[new.account_id] -= new.price
    left.accounts[new.account_id] = account
    if charged is None:
        return new
    meters[new.key_id] = charged
    return on_meter(new, charged)


async def _lock_meters(connection: Connection, tasks: Sequence[NewTask]) -> dict[int, Meter]:
    """Those of the API keys that have limits."""
    metered = {new.key_id for new in tasks if new.metered}
    found = await connection.fetch(keys.LOCK_METERS, metered) if metered else []
    return {row[0]: meter(row) for row in found}


async def _keep_meters(connection: Connection, meters: Sequence[Meter]) -> None:
    if meters:
        await connection.executemany(keys.KEEP_METER, [meter_state(each) for each in meters])


async def _lock_keys(connection: Connection, tasks: Sequence[NewTask]) -> dict[_Key, NewTask]:
    """The keys that were free, with the first request of each."""
    first: dict[_Key, NewTask] = {}
    for new in tasks:
        if new.idempotency_key is not None:
            first.setdefault((new.account_id, new.idempotency_key), new)
    if not first:
        return {}
    ordered = dict(sorted(first.items()))
    found = await connection.fetch(_LOCK_KEYS, *_key_columns(ordered))
    return {(row[0], row[1]): ordered[row[0], row[1]] for row in found}


async def _known_keys(
    connection: Connection, tasks: Sequence[NewTask], ours: dict[_Key, NewTask]
) -> dict[_Key, tuple[bytes, Submitted]]:
    """Fingerprint and task of each key that was there already."""
    asked = {(new.account_id, new.idempotency_key) for new in tasks if new.idempotency_key}
    taken = sorted(asked - ours.keys())
    if not taken:
        return {}
    columns = ([account for account, _ in taken], [key for _, key in taken])
    return {
        (row[0], row[1]): (row[2], Submitted(row[3], row[4], row[5], replayed=True))
        for row in await connection.fetch(_KNOWN_KEYS, *columns)
    }


async def _settle_keys(
    connection: Connection, ours: dict[_Key, NewTask], owners: dict[_Key, NewTask]
) -> None:
    """Let each key name the request that was accepted under it, and forget those of none."""
    given = {key: owner for key, owner in owners.items() if ours.get(key) is not owner}
    if given:
        await connection.execute(_GIVE_KEYS, *_key_columns(given))
    if dropped := ours.keys() - owners.keys():
        columns = ([account for account, _ in dropped], [key for _, key in dropped])
        await connection.execute(_DROP_KEYS, *columns)


def _key_columns(owners: dict[_Key, NewTask]) -> list[list[object]]:
    return [
        [account for account, _ in owners],
        [key for _, key in owners],
        [new.fingerprint for new in owners.values()],
        [new.id for new in owners.values()],
        [new.created_at for new in owners.values()],
    ]
