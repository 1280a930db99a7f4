"""Rows to records and back, for every database: columns come in the order named here.

JSON columns hold msgspec's encoding of the domain's own types.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from calotype.domain.errors import Failure
from calotype.domain.health import Health
from calotype.domain.keys import ApiKey
from calotype.domain.limits import DAY_MS, Meter
from calotype.domain.money import Balance
from calotype.domain.task import (
    ArrivedImage,
    Asset,
    Attempt,
    AttemptState,
    BillingStatus,
    NewTask,
    Reference,
    Request,
    ResultImage,
    State,
    Task,
    result_image,
)
from calotype.store.port import Account, ChannelEvent, LoggedEvent, Standing

encode = msgspec.json.Encoder().encode
_request = msgspec.json.Decoder(Request).decode
_references = msgspec.json.Decoder(tuple[Reference, ...]).decode
_result = msgspec.json.Decoder(tuple[ResultImage, ...]).decode
_arrived = msgspec.json.Decoder(tuple[ArrivedImage, ...]).decode
_failure = msgspec.json.Decoder(Failure).decode
_models = msgspec.json.Decoder(tuple[str, ...]).decode
_channels = msgspec.json.Decoder(tuple[int, ...]).decode
_metadata = msgspec.json.Decoder(dict[str, str]).decode
_STATES: Final = {str(state): state for state in State}
_BILLING: Final = {str(status): status for status in BillingStatus}

TASK: Final = (
    "id, account_id, request_id, state, progress, request, refs, channel_id, claim, seq, "
    "billing, reserved, actual, released, result, error, deadline_at, abandon_at, "
    "created_at, updated_at, completed_at, metadata, cancel_at, cancel_free, arrived, has_webhook, "
    "deleted_at, expires_at"
)
STANDING: Final = "claim, completed_at, cancel_at"
ATTEMPT: Final = (
    "number, channel_id, state, upstream_id, started_at, finished_at, detail, cost_micro_usdc, "
    "code, fault, resolved_at, resolution"
)
ASSET: Final = "id, account_id, key, content_type, bytes, width, height, created_at, expires_at"
KEY: Final = (
    "api_keys.id, api_keys.account_id, accounts.name, api_keys.name, api_keys.prefix, "
    "api_keys.created_at, api_keys.expires_at, api_keys.revoked_at, api_keys.models, "
    "api_keys.channels, day_limit, month_limit, per_minute, key_meters.max_tasks, "
    "api_keys.last_used_at"
)
METER: Final = (
    "key_id, day_limit, month_limit, per_minute, key_meters.max_tasks, day, day_spent, month, "
    "month_spent, free_at, CASE WHEN key_meters.max_tasks IS NULL THEN 0 ELSE ("
    "SELECT COUNT(*) FROM tasks WHERE tasks.account_id = "
    "(SELECT of_key.account_id FROM api_keys of_key WHERE of_key.id = key_meters.key_id) "
    "AND tasks.completed_at IS NULL AND tasks.key_id = key_meters.key_id AND tasks.metered = 1) END"
)
"""Unfinished tasks are counted, and only where they are limited.

A counter would cost each end of a task a statement, and a node of an older version would not keep
it. The count is exact: whoever submits for the key's account is alone with it.
"""
OF_KEYS: Final = (
    "FROM api_keys JOIN accounts ON accounts.id = api_keys.account_id "
    "LEFT JOIN key_meters ON key_meters.key_id = api_keys.id"
)
KEYS: Final = f"SELECT {KEY} {OF_KEYS}"
"""Every key; to be narrowed by a WHERE."""
ACCOUNT: Final = (
    "id, name, balance, reserved, result_days, reference_days, max_tasks, tasks_per_minute"
)
HEALTH: Final = "channel_id, model, fault, until, strikes, opened_at, updated_at, detail"
EVENT: Final = "place, task_id, account_id, seq, at, event, state, progress"
CHANNEL_EVENT: Final = "channel_id, model, event, fault, detail, at"

Row = Sequence[Any]


def task(row: Row) -> Task:
    """A row of ``TASK`` columns."""
    return Task(
        id=row[0],
        account_id=row[1],
        request_id=row[2],
        state=_STATES[row[3]],
        progress=row[4],
        request=_request(row[5]),
        references=_references(row[6]),
        channel_id=row[7],
        claim=row[8],
        seq=row[9],
        billing=_BILLING[row[10]],
        reserved=row[11],
        actual=row[12],
        released=row[13],
        result=_result(row[14]) if row[14] else (),
        error=_failure(row[15]) if row[15] else None,
        deadline_at=row[16],
        abandon_at=row[17],
        created_at=row[18],
        updated_at=row[19],
        completed_at=row[20],
        metadata=_metadata(row[21]) if row[21] else {},
        cancel_at=row[22],
        cancel_free=bool(row[23]),
        arrived=_arrived(row[24]) if row[24] else (),
        has_webhook=bool(row[25]),
        deleted_at=row[26],
        expires_at=row[27],
    )


def standing(row: Row) -> Standing:
    """A row of ``STANDING`` columns."""
    return Standing(*row)


def attempt(row: Row) -> Attempt:
    """A row of ``ATTEMPT`` columns."""
    number, channel_id, state, *rest = row
    return Attempt(number, channel_id, AttemptState(state), *rest)


def asset(row: Row) -> Asset:
    """A row of ``ASSET`` columns."""
    return Asset(*row)


def key(row: Row) -> ApiKey:
    """A row of ``KEY`` columns."""
    id_, account_id, account, name, prefix, created_at, expires_at, revoked_at, *more = row
    models, channels, day_limit, month_limit, per_minute, max_tasks, last_used_at = more
    return ApiKey(
        id=id_,
        account_id=account_id,
        account=account,
        name=name,
        prefix=prefix,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        models=_models(models) if models else None,
        channels=_channels(channels) if channels else None,
        day_limit=day_limit,
        month_limit=month_limit,
        per_minute=per_minute,
        max_tasks=max_tasks,
        last_used_at=last_used_at,
    )


def key_values(key: ApiKey, digest: bytes) -> tuple[Any, ...]:
    """What ``statements.ADD_KEY`` takes."""
    return (
        key.id,
        key.account_id,
        key.name,
        key.prefix,
        digest,
        key.created_at,
        key.expires_at,
        None if key.models is None else encode(key.models).decode(),
        None if key.channels is None else encode(key.channels).decode(),
    )


def meter_values(key: ApiKey) -> tuple[Any, ...]:
    """What ``statements.ADD_METER`` takes, for a key that is metered."""
    return (key.id, key.day_limit, key.month_limit, key.per_minute, key.max_tasks)


def meter(row: Row) -> Meter:
    """A row of ``METER`` columns."""
    return Meter(*row)


def meter_state(meter: Meter) -> tuple[Any, ...]:
    """What ``statements.KEEP_METER`` takes."""
    return (
        meter.key_id,
        meter.day,
        meter.day_spent,
        meter.month,
        meter.month_spent,
        meter.free_at,
    )


def on_meter(new: NewTask, meter: Meter) -> NewTask:
    """The task as a meter counts it that is in a later day already: created in that day."""
    return msgspec.structs.replace(new, created_at=max(new.created_at, meter.day * DAY_MS))


def account(row: Row) -> Account:
    """A row of ``ACCOUNT`` columns."""
    return Account(
        id=row[0],
        name=row[1],
        balance=Balance(balance=row[2], reserved=row[3]),
        result_days=row[4],
        reference_days=row[5],
        max_tasks=row[6],
        per_minute=row[7],
    )


def health(row: Row) -> Health:
    """A row of ``HEALTH`` columns."""
    return Health(
        channel_id=row[0],
        model=row[1],
        fault=row[2],
        until=row[3],
        strikes=row[4],
        opened_at=row[5],
        updated_at=row[6],
        detail=row[7],
    )


def health_values(health: Health) -> tuple[Any, ...]:
    """What ``statements.NOTE_HEALTH`` takes: the ``HEALTH`` columns and the event to tell."""
    over = health.until <= health.updated_at
    return (
        health.channel_id,
        health.model,
        health.fault,
        health.until,
        health.strikes,
        health.opened_at,
        health.updated_at,
        health.detail,
        "half-open" if over else "opened",
    )


def wellness_values(channel_id: int, model: str, *, now: int) -> tuple[Any, ...]:
    """The same for a breaker that is closed: which fault that ends is known to the database."""
    return (channel_id, model, "", 0, 0, None, now, "", None)


def channel_event(row: Row) -> ChannelEvent:
    """A row of ``CHANNEL_EVENT`` columns."""
    return ChannelEvent(*row)


def logged_event(row: Row, cursor: str) -> LoggedEvent:
    """A row of ``EVENT`` columns, and the cursor of its place."""
    _, task_id, account_id, seq, at, event, state, progress = row
    return LoggedEvent(
        cursor=cursor,
        task_id=task_id,
        account_id=account_id,
        seq=seq,
        at=at,
        event=event,
        state=_STATES[state],
        progress=progress,
    )


def encode_metadata(metadata: Mapping[str, str]) -> bytes | None:
    """What the column ``metadata`` holds."""
    return encode(metadata) if metadata else None


def encode_result(images: Sequence[Asset], result: Sequence[ResultImage] | None) -> bytes:
    """What the column ``result`` holds: ``result``, or just the images that come with it."""
    return encode([result_image(image) for image in images] if result is None else result)


def earlier(images: Sequence[Asset], result: Sequence[ResultImage] | None) -> list[int]:
    """Which images of a ``result`` were written down before those that come with it."""
    fresh = {image.id for image in images}
    return [image.asset_id for image in result or () if image.asset_id not in fresh]
