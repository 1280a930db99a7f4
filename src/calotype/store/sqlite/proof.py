"""Proving the books: each statement lists what does not hold, and finds nothing when all is well.

``money.EFFECTS`` is turned into SQL here, so that the proof sums by the same table by which the
store books, but from the ledger's rows alone.
"""

import sqlite3
from collections.abc import Iterator
from typing import Final

from calotype.domain.ids import encode
from calotype.domain.money import EFFECTS


def _sum(side: str) -> str:
    cases = " ".join(
        f"WHEN '{kind}' THEN {getattr(effect, side)} * amount" for kind, effect in EFFECTS.items()
    )
    return f"SUM(CASE kind {cases} END)"


_ACCOUNTS: Final = f"""
    SELECT a.name, a.balance, COALESCE(l.balance, 0), a.reserved, COALESCE(l.reserved, 0)
    FROM accounts a
    LEFT JOIN (
        SELECT account_id, {_sum("balance")} AS balance, {_sum("reserved")} AS reserved
        FROM ledger GROUP BY account_id
    ) l ON l.account_id = a.id
    WHERE a.balance <> COALESCE(l.balance, 0) OR a.reserved <> COALESCE(l.reserved, 0)
       OR a.balance < 0 OR a.reserved < 0 OR a.reserved > a.balance
"""
_RESERVED: Final = """
    SELECT a.name, a.reserved, a.unfinished, COALESCE(t.reserved, 0), COALESCE(t.number, 0)
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
               SUM(kind = 'reserve') AS reserves,
               SUM(kind IN ('commit', 'release')) AS settlements
        FROM ledger WHERE task_id IS NOT NULL GROUP BY task_id
    ) l ON l.task_id = t.id
    WHERE COALESCE(l.reserves, 0) <> 1
       OR l.reserved <> t.reserved
       OR COALESCE(l.actual, 0) <> t.actual
       OR COALESCE(l.released, 0) <> t.released
       OR t.billing <> CASE t.state
            WHEN 'success' THEN 'committed' WHEN 'fail' THEN 'released' ELSE 'reserved' END
       OR (t.state IN ('success', 'fail')) <> (t.completed_at IS NOT NULL)
       OR (t.completed_at IS NULL AND l.settlements > 0)
       OR (t.completed_at IS NOT NULL AND t.reserved <> t.actual + t.released)
"""
_STRAY: Final = """
    SELECT l.id, l.kind, l.amount FROM ledger l
    LEFT JOIN tasks t ON t.id = l.task_id AND t.account_id = l.account_id
    WHERE (l.task_id IS NOT NULL AND t.id IS NULL)
       OR (l.task_id IS NULL AND l.kind IN ('reserve', 'commit', 'release'))
"""


def prove(connection: sqlite3.Connection) -> list[str]:
    """One sentence for each thing that does not hold, from one snapshot of the database."""
    connection.execute("BEGIN")
    try:
        return list(_faults(connection))
    finally:
        connection.execute("COMMIT")


def _faults(connection: sqlite3.Connection) -> Iterator[str]:
    (integrity,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if integrity != "ok":
        yield f"The database file is damaged: {integrity}"
    for name, balance, booked, reserved, booked_reserved in connection.execute(_ACCOUNTS):
        yield (
            f"Account '{name}' shows balance {balance} and reserved {reserved}, "
            f"its ledger sums to {booked} and {booked_reserved}."
        )
    for name, reserved, open_tasks in connection.execute(_RESERVED):
        yield (
            f"Account '{name}' has {reserved} reserved, its unfinished tasks reserve {open_tasks}."
        )
    for task_id, state, billing, reserved, actual, released in connection.execute(_TASKS):
        yield (
            f"Task {encode('task', task_id)} ({state}, {billing}) says reserved {reserved}, "
            f"actual {actual}, released {released}; its ledger entries say otherwise."
        )
    for entry_id, kind, amount in connection.execute(_STRAY):
        yield f"Ledger entry {entry_id} ({kind} {amount}) belongs to no task of its account."
