"""What a store keeps of webhooks: a port of its own, and the SQL that the stores share.

The outbox is written by ``Store.complete`` and ``Store.fail``, in their transaction. All times are
milliseconds since 1970.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol

from calotype.domain.webhooks import (
    DeliveryState,
    Due,
    Try,
    Verdict,
    Webhook,
    WebhookSettings,
)

SHARE: Final = 8
"""Deliveries that one receiver gets at a time from one look into the outbox."""
MAX_DISABLED: Final = 1000
"""URLs that are shown, those disabled last."""
MAX_HISTORY: Final = 100
"""Tries that are shown, the newest ones."""

STORED: Final = (
    DeliveryState.PENDING,
    DeliveryState.DELIVERED,
    DeliveryState.FAILED,
    DeliveryState.DISABLED,
)
WEBHOOK: Final = (
    "task_id, account_id, url, event, state, attempts, last_status, next_at, created_at"
)
TRY: Final = "number, at, milliseconds, status, error, reply"
DUE: Final = "task_id, account_id, url, receiver, event, attempts, tries, round_at"

SETTINGS: Final = (
    "SELECT s.url, COALESCE(s.version, 1), COALESCE(s.version_at, a.created_at), s.previous_at, "
    "s.previous_until FROM accounts a LEFT JOIN webhook_settings s ON s.account_id = a.id "
    "WHERE a.id = ?1"
)
DISABLED_URLS: Final = (
    "SELECT url FROM webhook_disabled WHERE account_id = ?1 ORDER BY at DESC, url "
    f"LIMIT {MAX_DISABLED}"
)
SET_URL: Final = (
    "INSERT INTO webhook_settings (account_id, url, receiver, version, version_at) "
    "SELECT id, ?2, ?3, 1, created_at FROM accounts WHERE id = ?1 "
    "ON CONFLICT (account_id) DO UPDATE SET url = excluded.url, receiver = excluded.receiver"
)
ENABLE: Final = "DELETE FROM webhook_disabled WHERE account_id = ?1 AND url = ?2"
ROTATE: Final = (
    "INSERT INTO webhook_settings AS old "
    "(account_id, version, version_at, previous_at, previous_until) "
    "SELECT id, 2, ?2, created_at, ?3 FROM accounts WHERE id = ?1 "
    "ON CONFLICT (account_id) DO UPDATE SET version = old.version + 1, "
    "version_at = excluded.version_at, previous_at = old.version_at, "
    "previous_until = excluded.previous_until"
)
OF_TASK: Final = f"SELECT {WEBHOOK} FROM webhooks WHERE task_id = ?1"
HISTORY: Final = (
    f"SELECT {TRY} FROM webhook_attempts WHERE task_id = ?1 ORDER BY number DESC "
    f"LIMIT {MAX_HISTORY}"
)
REDELIVER: Final = (
    "UPDATE webhooks SET url = ?2, receiver = ?3, state = 'pending', tries = 0, next_at = ?4, "
    "round_at = CASE WHEN round_at < ?4 THEN ?4 ELSE round_at + 1 END "
    f"WHERE task_id = ?1 RETURNING {WEBHOOK}"
)
"""A round begins later than any before it: what is still under way for that one tells it."""
RECEIVERS: Final = """
WITH RECURSIVE receivers (receiver) AS (
    SELECT MIN(receiver) FROM webhooks WHERE state = 'pending'
    UNION ALL
    SELECT (
        SELECT MIN(w.receiver) FROM webhooks AS w
        WHERE w.state = 'pending' AND w.receiver > known.receiver
    )
    FROM receivers AS known WHERE known.receiver IS NOT NULL
)
"""
"""Everyone for whom there is something, found by as many steps, however much it is."""
GONE: Final = (
    "EXISTS (SELECT 1 FROM webhook_disabled AS d WHERE d.account_id = webhooks.account_id "
    "AND d.url = webhooks.url AND d.at > webhooks.round_at)"
)
"""Whether the receiver has wanted no more since the round began."""


def page(state: DeliveryState | None) -> str:
    """The statement of a page of an account's deliveries, newest first.

    It takes the account, the id below which it goes on, and how many; one index serves it,
    whatever the state.
    """
    states = STORED if state is None else (state,)
    each = " UNION ALL ".join(
        f"SELECT * FROM (SELECT {WEBHOOK} FROM webhooks WHERE account_id = ?1 "
        f"AND state = '{one}' AND task_id < ?2 ORDER BY task_id DESC LIMIT ?3) AS of_{one}"
        for one in states
    )
    return f"SELECT * FROM ({each}) AS found ORDER BY task_id DESC LIMIT ?3"


def settings(row: Sequence[Any]) -> WebhookSettings:
    """A row of ``SETTINGS``."""
    return WebhookSettings(*row)


def webhook(row: Sequence[Any]) -> Webhook:
    """A row of ``WEBHOOK`` columns."""
    task_id, account_id, url, event, state, *rest = row
    return Webhook(task_id, account_id, url, event, DeliveryState(state), *rest)


class WebhookStore(Protocol):
    """The webhooks of one database."""

    async def settings(self, account_id: int) -> WebhookSettings:
        """What an account has said; the defaults where it has said nothing."""
        ...

    async def disabled_urls(self, account_id: int) -> Sequence[str]:
        """The URLs to which nothing is sent any more, the last disabled first."""
        ...

    async def set_url(self, account_id: int, url: str | None) -> None:
        """Where tasks that end from now on are told of; a disabled URL is enabled by it."""
        ...

    async def rotate(self, account_id: int, *, overlap_ms: int, now: int) -> None:
        """Make a new secret; the one before signs, too, for so long."""
        ...

    async def of_task(self, task_id: int) -> Webhook | None:
        """The delivery of a task."""
        ...

    async def of_tasks(self, task_ids: Sequence[int]) -> Sequence[Webhook]:
        """Those deliveries that there are, in any order."""
        ...

    async def history(self, task_id: int) -> Sequence[Try]:
        """The newest tries of a delivery, oldest first."""
        ...

    async def of_account(
        self,
        account_id: int,
        *,
        state: DeliveryState | None = None,
        before: int | None = None,
        limit: int,
    ) -> Sequence[Webhook]:
        """An account's deliveries, newest first: those of tasks with an id below ``before``."""
        ...

    async def redeliver(self, task_id: int, url: str, *, now: int) -> Webhook | None:
        """Begin a new round of tries, due now; None where the task has no webhook."""
        ...

    async def claim(
        self, *, now: int, lease_ms: int, busy: Collection[str], limit: int
    ) -> Sequence[Due]:
        """Deliveries that are due, for this process to send; each counts as a try from here on.

        After the lease they are due again, so that what a dead process was sending is sent by
        another. Receivers take turns, each with about ``SHARE`` at a time.

        Args:
            now: the time.
            lease_ms: how long nobody else gets them.
            busy: receivers that get nothing now.
            limit: how many at most.

        """
        ...

    async def record(self, due: Due, made: Try, verdict: Verdict, *, now: int) -> None:
        """Write down what came of a try, and how the delivery goes on.

        Where another process took it over, or another round began, only the history and what the
        receiver said of the URL are written.
        """
        ...

    async def release(self, *, now: int) -> int:
        """Make due what was being sent when the database's only process died; how many."""
        ...
