"""All events in one order: places are given by the one writer, in the order of commits."""

from typing import Final

from calotype.store import cursors, rows
from calotype.store.port import LoggedEvent

_EVENT: Final = rows.EVENT.replace(
    "account_id",
    "COALESCE(account_id, (SELECT t.account_id FROM tasks t WHERE t.id = task_id)) AS account_id",
)
"""Whose an event is the version before did not say."""
_OF_ALL: Final = f"SELECT {_EVENT} FROM events WHERE place > ?1 ORDER BY place LIMIT ?2"
_OF_ACCOUNT: Final = f"""
SELECT {_EVENT} FROM events WHERE place IN (
    SELECT place FROM (
        SELECT place FROM events INDEXED BY events_of_account
        WHERE account_id = ?3 AND place > ?1 ORDER BY place LIMIT ?2
    )
    UNION ALL
    SELECT place FROM events INDEXED BY events_unowned CROSS JOIN tasks ON tasks.id = task_id
    WHERE events.account_id IS NULL AND place > ?1 AND tasks.account_id = ?3
) ORDER BY place LIMIT ?2
"""
_OF_TASK: Final = f"""
SELECT * FROM (
    SELECT {_EVENT} FROM events INDEXED BY events_of_task WHERE task_id = ?3 AND place > ?1
) WHERE ?4 IS NULL OR account_id = ?4 ORDER BY place LIMIT ?2
"""
NEWEST: Final = "SELECT MAX(place) FROM events"


def page(
    *, after: str, limit: int, account_id: int | None, task_id: int | None
) -> tuple[str, tuple[int | None, ...]]:
    """The statement of a page of the log, and its values."""
    place, _, _ = cursors.parse(after)
    if task_id is not None:
        return _OF_TASK, (place, limit, task_id, account_id)
    if account_id is not None:
        return _OF_ACCOUNT, (place, limit, account_id)
    return _OF_ALL, (place, limit)


def logged(row: rows.Row) -> LoggedEvent:
    """A row of a page."""
    return rows.logged_event(row, str(row[0]))
