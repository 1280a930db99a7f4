"""The webhooks of a SQLite database; see ``store.webhooks.WebhookStore``."""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

from calotype.domain.task import Event, Task
from calotype.domain.webhooks import (
    EVENTS,
    DeliveryState,
    Due,
    Try,
    Verdict,
    Webhook,
    WebhookSettings,
    receiver_of,
)
from calotype.store import rows, webhooks
from calotype.store.port import EVER
from calotype.store.sqlite.files import Writing

_DEFAULT: Final = (
    "SELECT url, receiver FROM webhook_settings WHERE account_id = ? AND url IS NOT NULL"
)
_ENQUEUE: Final = (
    "INSERT INTO webhooks (task_id, account_id, url, receiver, event, state, next_at, round_at, "
    "created_at) SELECT ?1, ?2, ?3, ?4, ?5, CASE WHEN gone THEN 'disabled' ELSE 'pending' END, "
    "CASE WHEN gone THEN NULL ELSE 0 END, ?6, ?6 FROM (SELECT EXISTS ("
    "SELECT 1 FROM webhook_disabled WHERE account_id = ?2 AND url = ?3 AND enabled_at IS NULL"
    ") AS gone)"
)
_TURNS: Final = webhooks.TURNS.format(
    account="CAST(receiver AS INTEGER)",
    free="receiver NOT IN (SELECT value FROM json_each(?2))",
)
_CLAIM: Final = (
    f"UPDATE webhooks SET state = CASE WHEN {webhooks.GONE} THEN 'disabled' ELSE state END, "
    f"attempts = attempts + NOT {webhooks.GONE}, "
    f"next_at = CASE WHEN {webhooks.GONE} THEN NULL ELSE ?3 END "
    "WHERE task_id IN (SELECT w.task_id FROM webhooks AS w WHERE w.state = 'pending' "
    "AND w.receiver = ?1 AND w.next_at <= ?2 "
    "AND w.task_id NOT IN (SELECT value FROM json_each(?5)) "
    "ORDER BY w.next_at, w.task_id LIMIT ?4) "
    f"RETURNING state, {webhooks.DUE}"
)
_OF_TASKS: Final = (
    f"SELECT {webhooks.WEBHOOK} FROM webhooks WHERE task_id IN (SELECT value FROM json_each(?))"
)
_SIGNED_BY: Final = "SELECT version, previous_until FROM webhook_settings WHERE account_id = ?"
_KEEP: Final = (
    f"INSERT OR IGNORE INTO webhook_attempts (task_id, {webhooks.TRY}) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_MOVE: Final = (
    "UPDATE webhooks SET state = ?1, next_at = ?2, last_status = ?3, tries = tries + 1 "
    "WHERE task_id = ?4 AND round_at = ?6 AND ((state = 'pending' AND attempts = ?5) "
    f"OR (?1 = '{DeliveryState.DELIVERED}' AND state IN ('pending', 'failed')))"
)
_DISABLE: Final = (
    "INSERT INTO webhook_disabled (account_id, url, at) VALUES (?1, ?2, ?3) "
    "ON CONFLICT (account_id, url) DO UPDATE SET at = MAX(at, excluded.at), enabled_at = NULL "
    "WHERE enabled_at IS NULL OR enabled_at <= ?4"
)
_RELEASE: Final = (
    "UPDATE webhooks SET next_at = ?1 WHERE state = 'pending' AND attempts > 0 "
    "AND next_at > ?1 AND NOT EXISTS (SELECT 1 FROM webhook_attempts AS a "
    "WHERE a.task_id = webhooks.task_id AND a.number = webhooks.attempts)"
)

Destination = tuple[str, str]
"""A URL and its receiver."""


def destination(connection: sqlite3.Connection, task: Task) -> Destination | None:
    """Where a task's end is told, now that it has come."""
    if (url := task.request.callback_url) is not None:
        return url, receiver_of(task.account_id, url)
    found: Destination | None = connection.execute(_DEFAULT, (task.account_id,)).fetchone()
    return found


def enqueue(
    connection: sqlite3.Connection, task: Task, to: Destination, event: Event, *, now: int
) -> None:
    """Put the webhook of a task that has just ended into the outbox."""
    connection.execute(_ENQUEUE, (task.id, task.account_id, *to, EVENTS[event], now))


class _Read(Protocol):
    def __call__(self, statement: str, *values: Any) -> list[rows.Row]: ...


class _ReadInThread(Protocol):
    async def __call__(self, statement: str, *values: Any) -> list[rows.Row]: ...


class SqliteWebhooks:
    """The webhooks in one SQLite file.

    Args:
        write: does a piece of work in the next transaction.
        write_long: the same for what may take more than a few milliseconds.
        read: what a statement finds, read in the event loop.
        read_in_thread: the same for what nobody bounds.

    """

    def __init__(
        self,
        *,
        write: Writing,
        write_long: Writing,
        read: _Read,
        read_in_thread: _ReadInThread,
    ) -> None:
        self._write = write
        self._write_long = write_long
        self._read = read
        self._read_in_thread = read_in_thread

    async def settings(self, account_id: int) -> WebhookSettings:
        """What an account has said."""
        return webhooks.settings(self._read(webhooks.SETTINGS, account_id)[0])

    async def disabled_urls(self, account_id: int) -> Sequence[str]:
        """The URLs to which nothing is sent any more."""
        return [row[0] for row in await self._read_in_thread(webhooks.DISABLED_URLS, account_id)]

    async def set_url(self, account_id: int, url: str | None, *, now: int) -> None:
        """Where tasks that end from now on are told of."""

        def work(connection: sqlite3.Connection) -> None:
            to = None if url is None else receiver_of(account_id, url)
            connection.execute(webhooks.SET_URL, (account_id, url, to))
            connection.execute(webhooks.ENABLE, (account_id, url, None, now))

        await self._write(work)

    async def rotate(self, account_id: int, *, overlap_ms: int, now: int) -> None:
        """Make a new secret."""
        values = (account_id, now, now + overlap_ms)
        await self._write(lambda connection: connection.execute(webhooks.ROTATE, values).rowcount)

    async def of_task(self, task_id: int) -> Webhook | None:
        """The delivery of a task."""
        found = self._read(webhooks.OF_TASK, task_id)
        return webhooks.webhook(found[0]) if found else None

    async def of_tasks(self, task_ids: Sequence[int]) -> Sequence[Webhook]:
        """Those deliveries that there are, in any order."""
        found = self._read(_OF_TASKS, _json(task_ids))
        return [webhooks.webhook(row) for row in found]

    async def history(self, task_id: int) -> Sequence[Try]:
        """The newest tries of a delivery, oldest first."""
        return [Try(*row) for row in reversed(self._read(webhooks.HISTORY, task_id))]

    async def of_account(
        self,
        account_id: int,
        *,
        state: DeliveryState | None = None,
        before: int | None = None,
        limit: int,
    ) -> Sequence[Webhook]:
        """An account's deliveries, newest first."""
        found = await self._read_in_thread(
            webhooks.page(state), account_id, EVER if before is None else before, limit
        )
        return [webhooks.webhook(row) for row in found]

    async def redeliver(self, webhook: Webhook, url: str, *, now: int) -> None:
        """Begin a new round of tries."""
        values = (webhook.task_id, url, receiver_of(webhook.account_id, url), now)
        await self._write(
            lambda connection: connection.execute(webhooks.REDELIVER, values).rowcount
        )

    async def claim(
        self, *, now: int, lease_ms: int, under_way: Collection[Due], limit: int
    ) -> Sequence[Due]:
        """Deliveries that are due, for this process to send."""
        following = self._read(webhooks.NEXT)
        if not following or following[0][0] > now:
            return []
        waiting = await self._read_in_thread(_TURNS, now, _json(webhooks.busy(under_way)))
        shares = webhooks.shares(waiting, under_way, free=limit)
        if not shares:
            return []
        claimed: list[Due] = await self._write_long(
            partial(
                _claim,
                shares=shares,
                now=now,
                until=now + lease_ms,
                but=_json([due.task_id for due in under_way]),
            )
        )
        return claimed

    async def record(self, due: Due, made: Try, verdict: Verdict, *, now: int) -> None:
        """Write down what came of a try."""
        await self._write(partial(_record, due=due, made=made, verdict=verdict, now=now))

    async def release(self, *, now: int) -> int:
        """Make due what was being sent when the last process died."""
        return await self._write_long(
            lambda connection: connection.execute(_RELEASE, (now,)).rowcount
        )


def _claim(
    connection: sqlite3.Connection, *, shares: Mapping[str, int], now: int, until: int, but: str
) -> list[Due]:
    claimed: list[Due] = []
    for receiver, room in shares.items():
        values = (receiver, now, until, room, but)
        for state, *due in connection.execute(_CLAIM, values).fetchall():
            if state == DeliveryState.PENDING:
                signed_by = connection.execute(_SIGNED_BY, (due[1],)).fetchone()
                claimed.append(Due(*due, *(signed_by or (1, None))))
    return claimed


def _record(
    connection: sqlite3.Connection, *, due: Due, made: Try, verdict: Verdict, now: int
) -> None:
    told = (made.number, made.at, made.milliseconds, made.status, made.error, made.reply)
    connection.execute(_KEEP, (due.task_id, *told))
    which = (due.task_id, due.number, due.round_at)
    connection.execute(_MOVE, (verdict.state, verdict.next_at, made.status, *which))
    if verdict.state is DeliveryState.DISABLED:
        connection.execute(_DISABLE, (due.account_id, due.url, now, made.at))
    if verdict.state is DeliveryState.DELIVERED:
        enable = f"{webhooks.ENABLE} AND at <= ?3"
        connection.execute(enable, (due.account_id, due.url, made.at, now))


def _json(values: Sequence[int | str]) -> str:
    return rows.encode(values).decode()
