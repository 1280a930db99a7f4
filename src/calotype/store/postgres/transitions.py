"""Moving tasks: one statement for many, in which all else hangs on the guarded tasks.

Each statement takes columns, one value for each task. It locks the tasks that are as their mover
thinks, in the order of their ids, then the accounts, in theirs: so two batches never wait for each
other. A task that has moved on is left out; an account's row is written once for all its tasks.

The guards and the states entered are generated from ``domain.task.TRANSITIONS``; what a
settlement does to an account from ``money.EFFECTS``.
"""

from typing import Final

from calotype.domain.money import EFFECTS, EntryKind
from calotype.domain.task import FINAL, AttemptState, BillingStatus, Event, State, Task
from calotype.domain.webhooks import EVENTS, receiver_of
from calotype.store import rows
from calotype.store.postgres.enqueue import ENQUEUE_AGAIN
from calotype.store.postgres.moves import Move, with_images, with_result
from calotype.store.postgres.webhooks import HAS_WEBHOOK, OUTBOX
from calotype.store.statements import CANCELLED_ERROR, enters, kept_ms, leaves

_TOLD: Final = (
    "told AS (INSERT INTO events (account_id, task_id, seq, at, event, state, progress) "
    "SELECT account_id, id, seq, updated_at, '{event}', state, progress FROM moved)"
)
_MOVED: Final = "tasks.id, account_id, seq, state, progress, updated_at"
_WANTED: Final = "cancel_at IS NULL"
"""The client has not asked for the task to be stopped."""
_FINAL: Final = ", ".join(f"'{state}'" for state in sorted(FINAL))
_HELD: Final = f"claim = of_claim AND state NOT IN ({_FINAL})"
"""By ``state``: naming ``completed_at``, a plan may walk along the index of unfinished tasks."""


def _given(columns: str, guard: str) -> str:
    """The tasks that are as ``guard`` says, locked, each with its values; none is named as theirs.

    Args:
        columns: name and type of each value, the first of them being ``task_id``.
        guard: a condition on tasks and these values.

    """
    names, types = zip(*(column.split() for column in columns.split(", ")), strict=True)
    arrays = ", ".join(f"${place}::{each}[]" for place, each in enumerate(types, start=1))
    return f"""given AS (
    SELECT asked.* FROM unnest({arrays}) AS asked ({", ".join(names)})
    JOIN tasks ON tasks.id = task_id WHERE {guard} ORDER BY task_id FOR UPDATE OF tasks
)"""


def _assets(kind: str, columns: str) -> str:
    """What keeps the images that come with tasks, in the columns after these."""
    types = ("bigint", "bigint", "text", "text", *4 * ("bigint",))
    first = columns.count(",") + 2
    arrays = ", ".join(f"${place}::{each}[]" for place, each in enumerate(types, start=first))
    return f"""
    INSERT INTO assets (
        id, task_id, account_id, kind, key, content_type, bytes, width, height, created_at,
        expires_at
    )
    SELECT u.id, moved.id, moved.account_id, '{kind}', u.key, u.content_type, u.bytes, u.width,
        u.height, u.created_at, moved.expires_at
    FROM unnest({arrays}) AS u (task_id, id, key, content_type, bytes, width, height, created_at)
    JOIN moved ON moved.id = u.task_id
"""


def _settled(side: str) -> str:
    commit = getattr(EFFECTS[EntryKind.COMMIT], side)
    release = getattr(EFFECTS[EntryKind.RELEASE], side)
    return f"SUM(({commit}) * actual + ({release}) * released)::bigint AS {side}"


_SETTLED: Final = f"""purses AS (
    SELECT id FROM accounts WHERE id IN (SELECT account_id FROM moved) ORDER BY id FOR UPDATE
), sums AS (
    SELECT account_id, {_settled("balance")}, {_settled("reserved")}, COUNT(*) AS number
    FROM moved JOIN purses ON purses.id = account_id GROUP BY account_id
), settled AS (
    UPDATE accounts SET balance = accounts.balance + sums.balance,
        reserved = accounts.reserved + sums.reserved, unfinished = unfinished - sums.number
    FROM sums WHERE accounts.id = account_id
)"""
_OPEN: Final = """(number IS NULL OR (
    SELECT finished_at IS NULL FROM attempts
    WHERE attempts.task_id = asked.task_id AND attempts.number = asked.number
))"""
"""No ``EXISTS``: beside an ``OR``, PostgreSQL may read all open attempts to look into them."""
_HAS_WEBHOOK: Final = HAS_WEBHOOK.format(url="own_url")


def _outbox(event: Event) -> str:
    return OUTBOX.format(event=EVENTS[event], url="own_url", receiver="own_receiver")


TAKE: Final = Move(f"""
WITH {_given("task_id bigint, at bigint", leaves(Event.TAKE))}, moved AS (
    UPDATE tasks SET state = {enters(Event.TAKE)}, claim = claim + 1, seq = seq + 1, updated_at = at
    FROM given WHERE id = task_id
    RETURNING {rows.TASK}
), {_TOLD.format(event=Event.TAKE)}
SELECT {rows.TASK} FROM moved
""")

_FETCHED: Final = "task_id bigint, of_claim bigint, fetched bytea, days bigint"
KEEP_REFERENCES: Final = Move(
    f"""
WITH {_given(_FETCHED, _HELD)}, moved AS (
    UPDATE tasks SET refs = fetched FROM given WHERE id = task_id
    RETURNING id, account_id, abandon_at + {kept_ms("reference_days", "days")} AS expires_at
), kept AS ({_assets("reference", _FETCHED)})
SELECT id FROM moved
""",
    with_images,
)


def _move(event: Event, more: str = "", *, only: str = "true") -> str:
    columns = f"task_id bigint, of_claim bigint, reached bigint, at bigint{more}"
    return f"""
WITH {_given(columns, f"claim = of_claim AND {leaves(event)} AND {only}")}, moved AS (
    UPDATE tasks SET state = {enters(event)}, progress = GREATEST(progress, LEAST(reached, 99)),
        seq = seq + 1, updated_at = at
    FROM given WHERE id = task_id RETURNING {_MOVED}, given.*
), {_TOLD.format(event=event)}
"""


MOVE: Final = {
    event: Move(f"{_move(event)} SELECT id FROM moved") for event in (Event.QUEUE, Event.RUN)
}

BEGIN_ATTEMPT: Final = {
    event: Move(f"""{_move(event, ", on_channel bigint", only=_WANTED)}
INSERT INTO attempts (task_id, number, channel_id, state, started_at)
SELECT id, 1 + COALESCE((SELECT MAX(number) FROM attempts WHERE attempts.task_id = id), 0),
    on_channel, '{AttemptState.SENDING}', updated_at
FROM moved RETURNING task_id, number
""")
    for event in (Event.QUEUE, Event.RUN)
}

ACCEPT_ATTEMPT: Final = Move(f"""
WITH {_given("task_id bigint, of_claim bigint, number bigint, known_as text", _HELD)}
UPDATE attempts SET state = '{AttemptState.ACCEPTED}', upstream_id = known_as
FROM given WHERE attempts.task_id = given.task_id AND attempts.number = given.number
    AND state = '{AttemptState.SENDING}'
RETURNING attempts.task_id
""")

_CLOSED: Final = (
    "task_id bigint, of_claim bigint, number bigint, ended text, detail text, at bigint, "
    "code text, fault text"
)
CLOSE_ATTEMPT: Final = Move(f"""
WITH {_given(_CLOSED, _HELD)}
UPDATE attempts SET state = ended, detail = given.detail, finished_at = at, code = given.code,
    fault = given.fault
FROM given WHERE attempts.task_id = given.task_id AND attempts.number = given.number
    AND finished_at IS NULL
RETURNING attempts.task_id
""")

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

_CAME: Final = "task_id bigint, of_claim bigint, reached bigint, came bytea, at bigint, days bigint"
_NEWS: Final = (
    f"claim = of_claim AND {leaves(Event.RUN)} AND {_WANTED} AND arrived IS DISTINCT FROM came"
)
KEEP_ARRIVED: Final = Move(
    f"""
WITH {_given(_CAME, _NEWS)}, moved AS (
    UPDATE tasks SET state = {enters(Event.RUN)}, arrived = came, seq = seq + 1, updated_at = at,
        progress = GREATEST(progress, LEAST(reached, 99))
    FROM given WHERE id = task_id
    RETURNING {_MOVED}, abandon_at + {kept_ms("result_days", "days")} AS expires_at
), {_TOLD.format(event=Event.RUN)}, kept AS ({_assets("result", _CAME)})
SELECT id FROM moved
""",
    with_images,
)
ARRIVED: Final = (
    "SELECT 1 FROM tasks WHERE id = $1 AND claim = $2 AND completed_at IS NULL "
    f"AND {_WANTED} AND arrived = $3"
)

_COMPLETED: Final = (
    "task_id bigint, of_claim bigint, charge bigint, shown bytea, at bigint, number bigint, "
    "cost bigint, ended text, detail text, code text, fault text, own_url text, "
    "own_receiver text, days bigint"
)
_COMPLETES: Final = f"claim = of_claim AND {leaves(Event.COMPLETE)} AND {_WANTED} AND {_OPEN}"
_EARLIER: Final = _COMPLETED.count(",") + 10
COMPLETE: Final = Move(
    f"""
WITH {_given(_COMPLETED, _COMPLETES)}, moved AS (
    UPDATE tasks SET state = {enters(Event.COMPLETE)}, progress = 100,
        billing = '{BillingStatus.COMMITTED}', actual = charge, released = reserved - charge,
        result = shown, arrived = NULL, seq = seq + 1, updated_at = at, completed_at = at,
        expires_at = at + {kept_ms("result_days", "days")}, {_HAS_WEBHOOK}
    FROM given WHERE id = task_id
    RETURNING {_MOVED}, actual, released, has_webhook, expires_at, given.*
), {_TOLD.format(event=Event.COMPLETE)}, {_outbox(Event.COMPLETE)}, closed AS (
    UPDATE attempts SET cost_micro_usdc = cost, finished_at = at, state = ended,
        detail = moved.detail, code = moved.code, fault = moved.fault
    FROM moved WHERE attempts.task_id = moved.id AND attempts.number = moved.number
), booked AS (
    INSERT INTO ledger (account_id, task_id, kind, amount, created_at)
    SELECT account_id, id, '{EntryKind.COMMIT}', actual, at FROM moved
    UNION ALL
    SELECT account_id, id, '{EntryKind.RELEASE}', released, at FROM moved WHERE released > 0
), {_SETTLED}, outlived AS (
    UPDATE assets SET expires_at = moved.expires_at
    FROM moved WHERE assets.id = ANY(${_EARLIER}::bigint[]) AND assets.task_id = moved.id
), kept AS ({_assets("result", _COMPLETED)})
SELECT id FROM moved
""",
    with_result,
)

_FAILED: Final = (
    "task_id bigint, of_claim bigint, failure bytea, at bigint, number bigint, ended text, "
    "detail text, code text, fault text, cost bigint, charge bigint, own_url text, "
    "own_receiver text"
)
FAIL: Final = Move(f"""
WITH {_given(_FAILED, f"claim = of_claim AND {leaves(Event.FAIL)} AND {_OPEN}")}, moved AS (
    UPDATE tasks SET state = {enters(Event.FAIL)}, billing = CASE WHEN charge > 0
        THEN '{BillingStatus.COMMITTED}' ELSE '{BillingStatus.RELEASED}' END,
        actual = charge, released = reserved - charge, error = CASE WHEN {_WANTED} THEN failure
        ELSE convert_to({CANCELLED_ERROR}, 'UTF8') END,
        seq = seq + 1, updated_at = at, completed_at = at, {_HAS_WEBHOOK}
    FROM given WHERE id = task_id
    RETURNING {_MOVED}, actual, released, has_webhook, given.*
), {_TOLD.format(event=Event.FAIL)}, {_outbox(Event.FAIL)}, closed AS (
    UPDATE attempts SET state = ended, detail = moved.detail, finished_at = at, code = moved.code,
        fault = moved.fault, cost_micro_usdc = cost
    FROM moved WHERE attempts.task_id = moved.id AND attempts.number = moved.number
), booked AS (
    INSERT INTO ledger (account_id, task_id, kind, amount, created_at)
    SELECT account_id, id, '{EntryKind.COMMIT}', actual, at FROM moved WHERE actual > 0
    UNION ALL
    SELECT account_id, id, '{EntryKind.RELEASE}', released, at FROM moved
    WHERE released > 0 OR actual = 0
), {_SETTLED}
SELECT id FROM moved
""")


def webhook_columns(task: Task) -> tuple[str | None, str | None]:
    """What ``COMPLETE`` and ``FAIL`` take near the end: the task's own URL and its receiver."""
    url = task.request.callback_url
    return (None, None) if url is None else (url, receiver_of(task.account_id, url))
