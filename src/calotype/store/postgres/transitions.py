"""Moving tasks: one statement each, in which all else hangs on the guarded update of the task.

The guards and the states entered are generated from ``domain.task.TRANSITIONS``; what a
settlement does to an account from ``money.EFFECTS``.
"""

from collections.abc import Sequence
from typing import Any, Final

from calotype.domain.money import EFFECTS, EntryKind
from calotype.domain.task import Asset, AttemptState, BillingStatus, Event, State, Task
from calotype.domain.webhooks import EVENTS, receiver_of
from calotype.store import rows
from calotype.store.postgres.enqueue import ENQUEUE_AGAIN
from calotype.store.postgres.webhooks import HAS_WEBHOOK, OUTBOX
from calotype.store.statements import CANCELLED_ERROR, enters, kept_ms, leaves

_TOLD: Final = (
    "told AS (INSERT INTO events (account_id, task_id, seq, at, event, state, progress) "
    "SELECT account_id, id, seq, updated_at, '{event}', state, progress FROM moved)"
)
_ASSETS: Final = """
    INSERT INTO assets (
        id, task_id, account_id, kind, key, content_type, bytes, width, height, created_at,
        expires_at
    )
    SELECT u.id, moved.id, moved.account_id, '{kind}', u.key, u.content_type, u.bytes, u.width,
        u.height, u.created_at, moved.expires_at
    FROM moved, unnest(
        ${first}::bigint[], ${second}::text[], ${third}::text[], ${fourth}::bigint[],
        ${fifth}::bigint[], ${sixth}::bigint[], ${seventh}::bigint[]
    ) AS u (id, key, content_type, bytes, width, height, created_at)
"""


def _assets(kind: str, *, after: int) -> str:
    names = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
    places = {name: after + place for place, name in enumerate(names, start=1)}
    return _ASSETS.format(kind=kind, **places)


def _webhook(event: Event, *, after: int) -> tuple[str, str]:
    """What sets a task's ``has_webhook``, and what writes its webhook; see ``webhook_columns``."""
    places = {"url": f"${after + 1}::text", "receiver": f"${after + 2}::text"}
    return HAS_WEBHOOK.format(**places), OUTBOX.format(event=EVENTS[event], **places)


def _settled(side: str, commit: str, release: str) -> str:
    committed = getattr(EFFECTS[EntryKind.COMMIT], side)
    released = getattr(EFFECTS[EntryKind.RELEASE], side)
    return f"({committed}) * {commit} + ({released}) * {release}"


_WANTED: Final = "cancel_at IS NULL"
"""The client has not asked for the task to be stopped."""

TAKE: Final = f"""
WITH moved AS (
    UPDATE tasks SET state = {enters(Event.TAKE)}, claim = claim + 1, seq = seq + 1, updated_at = $2
    WHERE id = $1 AND {leaves(Event.TAKE)}
    RETURNING {rows.TASK}
), {_TOLD.format(event=Event.TAKE)}
SELECT {rows.TASK} FROM moved
"""

KEEP_REFERENCES: Final = f"""
WITH moved AS (
    UPDATE tasks SET refs = $3 WHERE id = $1 AND claim = $2 AND completed_at IS NULL
    RETURNING id, account_id, abandon_at + {kept_ms("reference_days", "$11::bigint")} AS expires_at
), kept AS ({_assets("reference", after=3)})
SELECT id FROM moved
"""


def _move(event: Event, *, only: str = "true") -> str:
    return (
        f"UPDATE tasks SET state = {enters(event)}, "
        "progress = GREATEST(progress, LEAST($3::bigint, 99)), seq = seq + 1, updated_at = $4 "
        f"WHERE id = $1 AND claim = $2 AND {leaves(event)} AND {only} "
        "RETURNING id, account_id, seq, state, progress, updated_at"
    )


MOVE: Final = {
    event: f"WITH moved AS ({_move(event)}), {_TOLD.format(event=event)} SELECT id FROM moved"
    for event in (Event.QUEUE, Event.RUN)
}

BEGIN_ATTEMPT: Final = {
    event: f"""
WITH moved AS ({_move(event, only=_WANTED)}), {_TOLD.format(event=event)}
INSERT INTO attempts (task_id, number, channel_id, state, started_at)
SELECT id, 1 + COALESCE((SELECT MAX(number) FROM attempts WHERE task_id = $1), 0), $5,
    '{AttemptState.SENDING}', updated_at
FROM moved RETURNING number
"""
    for event in (Event.QUEUE, Event.RUN)
}

_HELD: Final = """held AS (
    SELECT id FROM tasks WHERE id = $1 AND claim = $2 AND completed_at IS NULL FOR UPDATE
)"""

ACCEPT_ATTEMPT: Final = f"""
WITH {_HELD}
UPDATE attempts SET state = '{AttemptState.ACCEPTED}', upstream_id = $4
FROM held WHERE task_id = held.id AND number = $3 AND attempts.state = '{AttemptState.SENDING}'
RETURNING number
"""

CLOSE_ATTEMPT: Final = f"""
WITH {_HELD}
UPDATE attempts SET state = $4, detail = $5, finished_at = $6, code = $7, fault = $8
FROM held WHERE task_id = held.id AND number = $3 AND finished_at IS NULL
RETURNING number
"""

REROUTE: Final = f"""
WITH moved AS (
    UPDATE tasks SET channel_id = $3, updated_at = $4
    WHERE id = $1 AND claim = $2 AND completed_at IS NULL AND NOT EXISTS (
        SELECT 1 FROM attempts WHERE task_id = $1 AND finished_at IS NULL
    )
    RETURNING id, channel_id, created_at
), ended AS (  -- its worker can neither end nor put back what is no longer there
    DELETE FROM pgqueuer USING moved
    WHERE dedupe_key = moved.id::text AND status IN ('queued', 'picked')
    RETURNING priority
), enqueued AS (
    {ENQUEUE_AGAIN}
    FROM (
        SELECT id, channel_id, created_at, 0 AS backlog,
            (SELECT MAX(ended.priority) FROM ended) AS priority
        FROM moved
    ) AS again
    ON CONFLICT DO NOTHING
)
SELECT id FROM moved
"""
"""The old job goes before the new one comes: only one may have the task's key."""

MARK: Final = f"""
WITH moved AS (
    UPDATE tasks SET cancel_at = $2, state = {enters(Event.CANCEL)}, seq = seq + 1,
        cancel_free = CASE WHEN state = '{State.GENERATING}' THEN 0 ELSE 1 END, updated_at = $2
    WHERE id = $1 AND {leaves(Event.CANCEL)}
    RETURNING id, account_id, seq, state, progress, updated_at
), {_TOLD.format(event=Event.CANCEL)}
SELECT id FROM moved
"""

KEEP_ARRIVED: Final = f"""
WITH moved AS (
    UPDATE tasks SET state = {enters(Event.RUN)}, arrived = $4, seq = seq + 1, updated_at = $5,
        progress = GREATEST(progress, LEAST($3::bigint, 99))
    WHERE id = $1 AND claim = $2 AND {leaves(Event.RUN)} AND {_WANTED}
        AND arrived IS DISTINCT FROM $4
    RETURNING id, account_id, seq, state, progress, updated_at,
        abandon_at + {kept_ms("result_days", "$13::bigint")} AS expires_at
), {_TOLD.format(event=Event.RUN)}, kept AS ({_assets("result", after=5)})
SELECT id FROM moved
"""
ARRIVED: Final = (
    "SELECT 1 FROM tasks WHERE id = $1 AND claim = $2 AND completed_at IS NULL "
    f"AND {_WANTED} AND arrived = $3"
)

_HAS_WEBHOOK, _OUTBOX = _webhook(Event.COMPLETE, after=18)
COMPLETE: Final = f"""
WITH moved AS (
    UPDATE tasks SET state = {enters(Event.COMPLETE)}, progress = 100,
        billing = '{BillingStatus.COMMITTED}', actual = $3, released = reserved - $3, result = $4,
        arrived = NULL, seq = seq + 1, updated_at = $5, completed_at = $5,
        expires_at = $5 + {kept_ms("result_days", "$21::bigint")}, {_HAS_WEBHOOK}
    WHERE id = $1 AND claim = $2 AND {leaves(Event.COMPLETE)} AND {_WANTED}
        AND ($6::bigint IS NULL OR EXISTS (
            SELECT 1 FROM attempts WHERE task_id = $1 AND number = $6 AND finished_at IS NULL
        ))
    RETURNING id, account_id, seq, state, progress, updated_at, actual, released, has_webhook,
        expires_at
), {_TOLD.format(event=Event.COMPLETE)}, {_OUTBOX}, closed AS (
    UPDATE attempts SET cost_micro_usdc = $7, finished_at = $5, state = $8, detail = $9,
        code = $10, fault = $11
    FROM moved WHERE task_id = moved.id AND number = $6
), booked AS (
    INSERT INTO ledger (account_id, task_id, kind, amount, created_at)
    SELECT account_id, id, '{EntryKind.COMMIT}', actual, $5 FROM moved
    UNION ALL
    SELECT account_id, id, '{EntryKind.RELEASE}', released, $5 FROM moved WHERE released > 0
), settled AS (
    UPDATE accounts SET
        balance = balance + {_settled("balance", "actual", "released")},
        reserved = reserved + {_settled("reserved", "actual", "released")},
        unfinished = unfinished - 1
    FROM moved WHERE accounts.id = moved.account_id
), outlived AS (
    UPDATE assets SET expires_at = moved.expires_at
    FROM moved WHERE assets.id = ANY($22::bigint[]) AND assets.task_id = moved.id
), kept AS ({_assets("result", after=11)})
SELECT id FROM moved
"""

_HAS_WEBHOOK, _OUTBOX = _webhook(Event.FAIL, after=11)
FAIL: Final = f"""
WITH moved AS (
    UPDATE tasks SET state = {enters(Event.FAIL)}, billing = CASE WHEN $11::bigint > 0
        THEN '{BillingStatus.COMMITTED}' ELSE '{BillingStatus.RELEASED}' END,
        actual = $11, released = reserved - $11, error = CASE WHEN {_WANTED} THEN $3
        ELSE convert_to({CANCELLED_ERROR}, 'UTF8') END,
        seq = seq + 1, updated_at = $4, completed_at = $4, {_HAS_WEBHOOK}
    WHERE id = $1 AND claim = $2 AND {leaves(Event.FAIL)} AND ($5::bigint IS NULL OR EXISTS (
        SELECT 1 FROM attempts WHERE task_id = $1 AND number = $5 AND finished_at IS NULL
    ))
    RETURNING id, account_id, seq, state, progress, updated_at, actual, released, has_webhook
), {_TOLD.format(event=Event.FAIL)}, {_OUTBOX}, closed AS (
    UPDATE attempts SET state = $6, detail = $7, finished_at = $4, code = $8, fault = $9,
        cost_micro_usdc = $10
    FROM moved WHERE task_id = moved.id AND number = $5
), booked AS (
    INSERT INTO ledger (account_id, task_id, kind, amount, created_at)
    SELECT account_id, id, '{EntryKind.COMMIT}', actual, $4 FROM moved WHERE actual > 0
    UNION ALL
    SELECT account_id, id, '{EntryKind.RELEASE}', released, $4 FROM moved
    WHERE released > 0 OR actual = 0
), settled AS (
    UPDATE accounts SET
        balance = balance + {_settled("balance", "actual", "released")},
        reserved = reserved + {_settled("reserved", "actual", "released")},
        unfinished = unfinished - 1
    FROM moved WHERE accounts.id = moved.account_id
)
SELECT id FROM moved
"""


def webhook_columns(task: Task) -> tuple[str | None, str | None]:
    """What ``COMPLETE`` and ``FAIL`` take near the end: the task's own URL and its receiver."""
    url = task.request.callback_url
    return (None, None) if url is None else (url, receiver_of(task.account_id, url))


def asset_columns(assets: Sequence[Asset]) -> list[list[Any]]:
    """The columns of images, for statements that keep them."""
    return [
        [asset.id for asset in assets],
        [asset.key for asset in assets],
        [asset.content_type for asset in assets],
        [asset.bytes for asset in assets],
        [asset.width for asset in assets],
        [asset.height for asset in assets],
        [asset.created_at for asset in assets],
    ]
