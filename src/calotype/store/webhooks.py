"""What a store keeps of webhooks: a port of its own, and the SQL that the stores share.

The outbox is written by ``Store.complete`` and ``Store.fail``, in their transaction. All times are
milliseconds since 1970.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol

from calotype.domain.webhooks import (
    DeliveryState,
    Due,
    Try,
    Verdict,
    Webhook,
    WebhookSettings,
    account_of,
)

SHARE: Final = 8
"""Deliveries that one process sends to a receiver at a time."""
MAX_TURNS: Final = 128
"""Receivers that one look into the outbox gives something to."""
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
WEBHOOK: Final = """
task_id, account_id, url, event, state, attempts, last_status,
CASE WHEN next_at = 0 THEN round_at
    WHEN attempts > 0 AND NOT EXISTS (
        SELECT 1 FROM webhook_attempts AS made
        WHERE made.task_id = webhooks.task_id AND made.number = webhooks.attempts
    ) THEN NULL ELSE next_at END AS next_at,
created_at
"""
"""``next_at`` as it is shown: no time while a try is under way."""
TRY: Final = "number, at, milliseconds, status, error, reply"
DUE: Final = "task_id, account_id, url, receiver, event, attempts, tries, round_at"

SETTINGS: Final = (
    "SELECT s.url, COALESCE(s.version, 1), COALESCE(s.version_at, a.created_at), s.previous_at, "
    "s.previous_until FROM accounts a LEFT JOIN webhook_settings s ON s.account_id = a.id "
    "WHERE a.id = ?1"
)
DISABLED_URLS: Final = (
    "SELECT url FROM webhook_disabled WHERE account_id = ?1 AND enabled_at IS NULL "
    f"ORDER BY at DESC, url LIMIT {MAX_DISABLED}"
)
SET_URL: Final = (
    "INSERT INTO webhook_settings (account_id, url, receiver, version, version_at) "
    "SELECT id, ?2, ?3, 1, created_at FROM accounts WHERE id = ?1 "
    "ON CONFLICT (account_id) DO UPDATE SET url = excluded.url, receiver = excluded.receiver"
)
ENABLE: Final = (
    "UPDATE webhook_disabled SET enabled_at = ?4 WHERE account_id = ?1 AND url = ?2 "
    "AND enabled_at IS NULL"
)
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
    "UPDATE webhooks SET url = ?2, receiver = ?3, state = 'pending', tries = 0, next_at = 0, "
    "round_at = MAX(?4, round_at + 1, COALESCE((SELECT d.at FROM webhook_disabled AS d "
    "WHERE d.account_id = webhooks.account_id AND d.url = ?2), 0)) WHERE task_id = ?1"
)
"""A round begins later than any before it, and no earlier than the receiver's last 410, whoever's
clock is behind: what is still under way for an earlier round tells it by that."""
NEXT: Final = "SELECT next_at FROM webhooks WHERE state = 'pending' ORDER BY next_at LIMIT 1"
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
TURNS: Final = f"""
{RECEIVERS}
SELECT receiver, (
    SELECT COUNT(*) FROM (
        SELECT 1 FROM webhooks AS w WHERE w.state = 'pending' AND w.receiver = found.receiver
            AND w.next_at <= ?1 LIMIT {SHARE}
    ) AS waiting
) FROM (
    SELECT receiver, ROW_NUMBER() OVER (PARTITION BY {{account}} ORDER BY random()) AS turn
    FROM receivers WHERE receiver IS NOT NULL AND {{free}} AND EXISTS (
        SELECT 1 FROM webhooks AS w WHERE w.state = 'pending' AND w.receiver = receivers.receiver
            AND w.next_at <= ?1
    )
) AS found
ORDER BY turn, random() LIMIT {MAX_TURNS}
"""
"""Receivers for whom something is due and how much, by chance, one of each account first."""
GONE: Final = (
    "EXISTS (SELECT 1 FROM webhook_disabled AS d WHERE d.account_id = webhooks.account_id "
    "AND d.url = webhooks.url AND d.enabled_at IS NULL AND d.at > webhooks.round_at)"
)
"""Whether the receiver has wanted no more since the round began."""


def busy(under_way: Collection[Due]) -> list[str]:
    """The receivers that have all that they get at a time."""
    return [
        receiver
        for receiver, number in Counter(due.receiver for due in under_way).items()
        if number >= SHARE
    ]


def shares(
    waiting: Sequence[Sequence[Any]], under_way: Collection[Due], *, free: int
) -> dict[str, int]:
    """How many deliveries each receiver gets now.

    An account has no more under way than it leaves free for others: half if it is alone, a third
    if there are two. So there is room for the next one, however many hosts the others name that
    hang.

    Args:
        waiting: receivers, each with how much is due for it; the first ones get first.
        under_way: what is being sent.
        free: places.

    """
    receivers = Counter(due.receiver for due in under_way)
    accounts = Counter(due.account_id for due in under_way)
    given: dict[str, int] = {}
    for receiver, due in sorted(waiting, key=lambda one: accounts[account_of(one[0])]):
        account = account_of(receiver)
        room = min(due, SHARE - receivers[receiver], (free - accounts[account] + 1) // 2)
        if room > 0:
            given[receiver] = room
            accounts[account] += room
            free -= room
    return given


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

    async def set_url(self, account_id: int, url: str | None, *, now: int) -> None:
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

    async def redeliver(self, webhook: Webhook, url: str, *, now: int) -> None:
        """Begin a new round of tries, due at once."""
        ...

    async def claim(
        self, *, now: int, lease_ms: int, under_way: Collection[Due], limit: int
    ) -> Sequence[Due]:
        """Deliveries that are due, for this process to send.

        After the lease they are due again, so that what a dead process was sending is sent by
        another. Receivers take turns, and so do accounts; see ``shares``.

        Args:
            now: the time.
            lease_ms: how long no other process gets them.
            under_way: what this process is sending; it gets none of it again.
            limit: how many places there are.

        """
        ...

    async def record(self, due: Due, made: Try, verdict: Verdict, *, now: int) -> None:
        """Write down what came of a try, and how the delivery goes on.

        Where another process took it over, or another round began, only the history and what the
        receiver said of the URL are written. That a receiver has it counts in its round whoever
        took it over; that it wants no more, unless the URL was enabled after the try began.
        """
        ...

    async def release(self, *, now: int) -> int:
        """Make due what was being sent when the database's only process died; how many."""
        ...
