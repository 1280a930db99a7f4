"""Proving the books, on any database: each statement finds nothing when all is well.

``money.EFFECTS`` is turned into SQL here too, so that the proof sums by the same table by which
the store books, but from the ledger's rows alone.
"""

from collections.abc import Callable
from typing import Final

from calotype.domain.ids import encode
from calotype.store.rows import Row
from calotype.store.statements import ledger_sum

_ACCOUNTS: Final = f"""
    SELECT a.name, a.balance, CAST(COALESCE(l.balance, 0) AS BIGINT),
        a.reserved, CAST(COALESCE(l.reserved, 0) AS BIGINT)
    FROM accounts a
    LEFT JOIN (
        SELECT account_id, {ledger_sum("balance")} AS balance, {ledger_sum("reserved")} AS reserved
        FROM ledger GROUP BY account_id
    ) l ON l.account_id = a.id
    WHERE a.balance <> COALESCE(l.balance, 0) OR a.reserved <> COALESCE(l.reserved, 0)
       OR a.balance < 0 OR a.reserved < 0 OR a.reserved > a.balance
"""
_RESERVED: Final = """
    SELECT a.name, a.reserved, a.unfinished,
        CAST(COALESCE(t.reserved, 0) AS BIGINT), COALESCE(t.number, 0)
    FROM accounts a
    LEFT JOIN (
        SELECT account_id, SUM(reserved) AS reserved, COUNT(*) AS number
        FROM tasks WHERE completed_at IS NULL GROUP BY account_id
    ) t ON t.account_id = a.id
    WHERE a.reserved <> COALESCE(t.reserved, 0) OR a.unfinished <> COALESCE(t.number, 0)
"""
_TASKS: Final = """
    SELECT t.id, t.state, t.billing, t.reserved, t.actual, t.released
    FROM tasks t
    LEFT JOIN (
        SELECT task_id,
               SUM(CASE kind WHEN 'reserve' THEN amount END) AS reserved,
               SUM(CASE kind WHEN 'commit' THEN amount END) AS actual,
               SUM(CASE kind WHEN 'release' THEN amount END) AS released,
               COUNT(*) FILTER (WHERE kind = 'reserve') AS reserves,
               COUNT(*) FILTER (WHERE kind IN ('commit', 'release')) AS settlements
        FROM ledger WHERE task_id IS NOT NULL GROUP BY task_id
    ) l ON l.task_id = t.id
    WHERE COALESCE(l.reserves, 0) <> 1
       OR l.reserved <> t.reserved
       OR COALESCE(l.actual, 0) <> t.actual
       OR COALESCE(l.released, 0) <> t.released
       OR t.billing <> CASE
            WHEN t.state = 'success' OR (t.state = 'fail' AND t.actual > 0) THEN 'committed'
            WHEN t.state = 'fail' THEN 'released' ELSE 'reserved' END
       OR (t.state IN ('success', 'fail')) <> (t.completed_at IS NOT NULL)
       OR (t.completed_at IS NULL AND l.settlements > 0)
       OR (t.completed_at IS NOT NULL AND t.reserved <> t.actual + t.released)
"""
_METERS: Final = """
    SELECT m.key_id, m.day_spent, m.month_spent,
        CAST(COALESCE(t.in_day, 0) AS BIGINT), CAST(COALESCE(t.in_month, 0) AS BIGINT)
    FROM key_meters m
    LEFT JOIN (
        SELECT key_id,
               SUM(CASE WHEN created_at / 86400000 = day THEN reserved - released END) AS in_day,
               SUM(CASE WHEN month_of(created_at) = month THEN reserved - released END) AS in_month
        FROM tasks JOIN key_meters USING (key_id) WHERE metered = 1 GROUP BY key_id
    ) t ON t.key_id = m.key_id
    WHERE m.day_spent <> COALESCE(t.in_day, 0) OR m.month_spent <> COALESCE(t.in_month, 0)
"""
_STRAY: Final = """
    SELECT l.id, l.kind, l.amount FROM ledger l
    LEFT JOIN tasks t ON t.id = l.task_id AND t.account_id = l.account_id
    WHERE (l.task_id IS NOT NULL AND t.id IS NULL)
       OR (l.task_id IS NULL AND l.kind IN ('reserve', 'commit', 'release'))
"""
_WEBHOOKS: Final = """
    SELECT t.id, t.state, t.has_webhook, w.state
    FROM tasks t
    LEFT JOIN webhooks w ON w.task_id = t.id
    WHERE t.has_webhook <> CASE WHEN w.task_id IS NULL THEN 0 ELSE 1 END
       OR (w.task_id IS NOT NULL AND t.completed_at IS NULL)
       OR w.account_id <> t.account_id
       OR (w.state = 'pending') <> (w.next_at IS NOT NULL)
"""
_STRAY_WEBHOOKS: Final = """
    SELECT w.task_id FROM webhooks w LEFT JOIN tasks t ON t.id = w.task_id WHERE t.id IS NULL
"""
_FIGURES: Final = ("succeeded", "failed", "images", "spent", "cost")
_USAGE: Final = f"""
    SELECT COALESCE(a.name, '?'), u.* FROM (
        SELECT account_id, day, key_id, model, channel_id,
            {", ".join(f"CAST(SUM({figure}) AS BIGINT) AS {figure}" for figure in _FIGURES)}
        FROM (
            SELECT account_id, day, key_id, model, channel_id, {", ".join(_FIGURES)}
            FROM usage_days
            UNION ALL
            SELECT account_id, completed_at / 86400000, key_id, task_model(request), channel_id,
                CASE WHEN result IS NULL THEN 0 ELSE -1 END,
                CASE WHEN result IS NULL THEN -1 ELSE 0 END,
                -number_of_images(result), -actual, 0
            FROM tasks WHERE completed_at IS NOT NULL
            UNION ALL
            SELECT t.account_id, t.completed_at / 86400000, t.key_id, task_model(t.request),
                t.channel_id, 0, 0, 0, 0, -attempts.cost_micro_usdc
            FROM attempts JOIN tasks t ON t.id = attempts.task_id
            WHERE t.completed_at IS NOT NULL AND attempts.cost_micro_usdc <> 0
        ) counted
        GROUP BY account_id, day, key_id, model, channel_id
        HAVING {" OR ".join(f"SUM({figure}) <> 0" for figure in _FIGURES)}
    ) u LEFT JOIN accounts a ON a.id = u.account_id
"""
"""What is counted by day less what tasks and attempts come to, in one pass over each table."""


def _account(row: Row) -> str:
    name, balance, booked, reserved, booked_reserved = row
    return (
        f"Account '{name}' shows balance {balance} and reserved {reserved}, "
        f"its ledger sums to {booked} and {booked_reserved}."
    )


def _reserved(row: Row) -> str:
    name, reserved, number, task_reserved, tasks = row
    return (
        f"Account '{name}' has {reserved} reserved for {number} unfinished tasks, "
        f"its {tasks} unfinished tasks reserve {task_reserved}."
    )


def _task(row: Row) -> str:
    task_id, state, billing, reserved, actual, released = row
    return (
        f"Task {encode('task', task_id)} ({state}, {billing}) says reserved {reserved}, "
        f"actual {actual}, released {released}; its ledger entries say otherwise."
    )


def _meter(row: Row) -> str:
    key_id, day, month, in_day, in_month = row
    return (
        f"Key {encode('key', key_id)} has spent {day} of its day and {month} of its month, "
        f"its tasks come to {in_day} and {in_month}."
    )


def _stray(row: Row) -> str:
    entry_id, kind, amount = row
    return f"Ledger entry {entry_id} ({kind} {amount}) belongs to no task of its account."


def _webhook(row: Row) -> str:
    task_id, state, said, there = row
    return (
        f"Task {encode('task', task_id)} ({state}) has {'a' if said else 'no'} webhook, "
        f"the outbox says: {there or 'none'}."
    )


def _stray_webhook(row: Row) -> str:
    return f"The webhook of {encode('task', row[0])} belongs to no task."


def _usage(row: Row) -> str:
    name, _, day, key_id, model, channel_id, *figures = row
    off = ", ".join(f"{figure} {by:+}" for figure, by in zip(_FIGURES, figures, strict=True) if by)
    return (
        f"The usage of '{name}' on UTC day {day} by {encode('key', key_id)} of {model} on channel "
        f"{channel_id} is not what its final tasks come to: {off}."
    )


PROOFS: Final[tuple[tuple[str, Callable[[Row], str]], ...]] = (
    (_ACCOUNTS, _account),
    (_RESERVED, _reserved),
    (_TASKS, _task),
    (_METERS, _meter),
    (_STRAY, _stray),
    (_WEBHOOKS, _webhook),
    (_STRAY_WEBHOOKS, _stray_webhook),
    (_USAGE, _usage),
)
"""Statement → the sentence for each row that it finds; to be run on one snapshot."""
