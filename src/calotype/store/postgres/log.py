"""All events in one order that can be followed to its end, though many write at a time.

An event's place is the id of its transaction and a base. Ids are given when a transaction
begins to write and not when it ends, so only places below the oldest open transaction are read:
nothing can come there any more. Within a transaction the order is by task and number.

Rows from another cluster, by ``pg_restore`` or from a SQLite file, bring places that this
cluster's transactions have not come to; then the base is moved above all of them.
"""

from typing import Any, Final

import asyncpg

from calotype.store import cursors, rows
from calotype.store.port import LoggedEvent

_JUMP: Final = 2**40
"""More transactions than may have been lost with what came after a backup."""
_SETTLED: Final = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint + event_base()"
END: Final = f"SELECT {_SETTLED} - 1"
"""The place after which is all that is not settled yet."""
_AHEAD: Final = (
    "SELECT (SELECT MAX(place) FROM events) >= "
    "pg_snapshot_xmax(pg_current_snapshot())::text::bigint + event_base()"
)


def _page(source: str, place: str) -> str:
    return (
        f"SELECT {rows.EVENT} {source} ({place}, task_id, seq) > ($1::bigint, $2::bigint, "
        f"$3::bigint) AND {place} < {_SETTLED} ORDER BY {place}, task_id, seq LIMIT $4"
    )


OF_ALL: Final = _page("FROM events WHERE", "place")
OF_ACCOUNT: Final = _page("FROM events WHERE account_id = $5 AND", "(place + 0)")
OF_TASK: Final = (
    "WITH own AS MATERIALIZED (SELECT * FROM events WHERE task_id = $5 "
    "AND ($6::bigint IS NULL OR account_id = $6)) "
) + _page("FROM own WHERE", "place")


def page(
    *, after: str, limit: int, account_id: int | None, task_id: int | None
) -> tuple[str, list[int | None]]:
    """The statement of a page of the log, and its values."""
    values: list[int | None] = [*cursors.parse(after), limit]
    if task_id is not None:
        return OF_TASK, [*values, task_id, account_id]
    if account_id is not None:
        return OF_ACCOUNT, [*values, account_id]
    return OF_ALL, values


def logged(row: rows.Row) -> LoggedEvent:
    """A row of a page."""
    place, task_id, _, seq, *_ = row
    return rows.logged_event(row, f"{place}-{task_id}-{seq}")


async def is_ahead(connection: "asyncpg.Connection[Any]") -> bool:
    """Whether there are places that this cluster's transactions have not come to."""
    return bool(await connection.fetchval(_AHEAD))


async def move_on(connection: "asyncpg.Connection[Any]") -> None:
    """Let every transaction from now on come after all that is there; nobody may write."""
    base = await connection.fetchval(f"SELECT COALESCE(MAX(place), 0) + {_JUMP} FROM events")
    await connection.execute(
        "CREATE OR REPLACE FUNCTION event_base() RETURNS BIGINT LANGUAGE sql STABLE "
        f"AS 'SELECT {int(base)}::bigint'"
    )
