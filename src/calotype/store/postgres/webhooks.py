"""The webhooks of a PostgreSQL database; see ``store.webhooks.WebhookStore``.

One statement each, so that nobody holds a row over a round trip.
"""

from collections.abc import Collection, Sequence
from typing import Final

from calotype.domain.webhooks import (
    DeliveryState,
    Due,
    Try,
    Verdict,
    Webhook,
    WebhookSettings,
    receiver_of,
)
from calotype.store import webhooks
from calotype.store.port import EVER
from calotype.store.postgres.database import Database

OUTBOX: Final = """
outbox AS (
    INSERT INTO webhooks (
        task_id, account_id, url, receiver, event, state, next_at, round_at, created_at
    )
    SELECT told.id, told.account_id, told.url, told.receiver, '{event}',
        CASE WHEN gone.at IS NULL THEN 'pending' ELSE 'disabled' END,
        CASE WHEN gone.at IS NULL THEN 0 END, told.updated_at, told.updated_at
    FROM (
        SELECT moved.id, moved.account_id, moved.updated_at, COALESCE({url}, s.url) AS url,
            CASE WHEN {url} IS NULL THEN s.receiver ELSE {receiver} END AS receiver
        FROM moved LEFT JOIN webhook_settings AS s ON s.account_id = moved.account_id
        WHERE moved.has_webhook = 1
    ) AS told
    LEFT JOIN webhook_disabled AS gone
        ON gone.account_id = told.account_id AND gone.url = told.url AND gone.enabled_at IS NULL
)
"""
"""Puts the webhook of the task that was ``moved`` to its end into the outbox."""
HAS_WEBHOOK: Final = """
has_webhook = CASE WHEN {url} IS NOT NULL OR (
    SELECT s.url IS NOT NULL FROM webhook_settings AS s WHERE s.account_id = tasks.account_id
) THEN 1 ELSE 0 END
"""

_OF_TASKS: Final = f"SELECT {webhooks.WEBHOOK} FROM webhooks WHERE task_id = ANY($1)"
_SETTINGS: Final = webhooks.SETTINGS.replace("?", "$")
_DISABLED_URLS: Final = webhooks.DISABLED_URLS.replace("?", "$")
_ENABLE: Final = webhooks.ENABLE.replace("?", "$")
_SET_URL: Final = f"""
WITH enabled AS ({_ENABLE})
{webhooks.SET_URL.replace("?", "$")}
"""
_ROTATE: Final = webhooks.ROTATE.replace("?", "$")
_OF_TASK: Final = webhooks.OF_TASK.replace("?", "$")
_HISTORY: Final = webhooks.HISTORY.replace("?", "$")
_REDELIVER: Final = webhooks.REDELIVER.replace("MAX(", "GREATEST(").replace("?", "$")
_TURNS: Final = webhooks.TURNS.format(
    account="split_part(receiver, '/', 1)", free="receiver <> ALL(?2::text[])"
).replace("?", "$")
_CLAIM: Final = f"""
WITH due AS (
    SELECT one.task_id, one.gone FROM unnest($3::text[], $4::bigint[]) AS free (receiver, room)
    CROSS JOIN LATERAL (
        SELECT task_id, {webhooks.GONE} AS gone FROM webhooks
        WHERE state = 'pending' AND receiver = free.receiver AND next_at <= $1
            AND task_id <> ALL($5::bigint[])
        ORDER BY next_at, task_id LIMIT free.room FOR UPDATE OF webhooks SKIP LOCKED
    ) AS one
), claimed AS (
    UPDATE webhooks SET
        state = CASE WHEN due.gone THEN 'disabled' ELSE state END,
        attempts = attempts + (NOT due.gone)::int,
        next_at = CASE WHEN due.gone THEN NULL ELSE $2::bigint END
    FROM due WHERE webhooks.task_id = due.task_id
    RETURNING {", ".join(f"webhooks.{column}" for column in ("state", *webhooks.DUE.split(", ")))}
)
SELECT {", ".join(f"claimed.{column}" for column in webhooks.DUE.split(", "))},
    COALESCE(s.version, 1), s.previous_until
FROM claimed LEFT JOIN webhook_settings AS s ON s.account_id = claimed.account_id
WHERE claimed.state = 'pending'
"""
_RECORD: Final = f"""
WITH kept AS (
    INSERT INTO webhook_attempts (task_id, {webhooks.TRY})
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING
), moved AS (
    UPDATE webhooks SET state = $8::text, next_at = $9, last_status = $5, tries = tries + 1
    WHERE task_id = $1 AND round_at = $10 AND ((state = 'pending' AND attempts = $2)
        OR ($8 = '{DeliveryState.DELIVERED}' AND state IN ('pending', 'failed')))
), disabled AS (
    INSERT INTO webhook_disabled AS old (account_id, url, at)
    SELECT $11::bigint, $12::text, $13::bigint WHERE $8 = '{DeliveryState.DISABLED}'
    ON CONFLICT (account_id, url) DO UPDATE
    SET at = GREATEST(old.at, excluded.at), enabled_at = NULL
    WHERE old.enabled_at IS NULL OR old.enabled_at <= $3
)
UPDATE webhook_disabled SET enabled_at = $13
WHERE $8 = '{DeliveryState.DELIVERED}' AND account_id = $11 AND url = $12 AND at <= $3
    AND enabled_at IS NULL
"""
_RELEASE: Final = """
UPDATE webhooks SET next_at = $1 WHERE state = 'pending' AND attempts > 0 AND next_at > $1
    AND NOT EXISTS (
        SELECT 1 FROM webhook_attempts AS a
        WHERE a.task_id = webhooks.task_id AND a.number = webhooks.attempts
    )
"""


class PostgresWebhooks:
    """The webhooks in one PostgreSQL database."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def settings(self, account_id: int) -> WebhookSettings:
        """What an account has said."""
        return webhooks.settings((await self._db.fetch(_SETTINGS, account_id))[0])

    async def disabled_urls(self, account_id: int) -> Sequence[str]:
        """The URLs to which nothing is sent any more."""
        return [row[0] for row in await self._db.fetch(_DISABLED_URLS, account_id)]

    async def set_url(self, account_id: int, url: str | None, *, now: int) -> None:
        """Where tasks that end from now on are told of."""
        to = None if url is None else receiver_of(account_id, url)
        await self._db.fetch(_SET_URL, account_id, url, to, now)

    async def rotate(self, account_id: int, *, overlap_ms: int, now: int) -> None:
        """Make a new secret."""
        await self._db.fetch(_ROTATE, account_id, now, now + overlap_ms)

    async def of_task(self, task_id: int) -> Webhook | None:
        """The delivery of a task."""
        found = await self._db.fetch(_OF_TASK, task_id)
        return webhooks.webhook(found[0]) if found else None

    async def of_tasks(self, task_ids: Sequence[int]) -> Sequence[Webhook]:
        """Those deliveries that there are, in any order."""
        return [webhooks.webhook(row) for row in await self._db.fetch(_OF_TASKS, task_ids)]

    async def history(self, task_id: int) -> Sequence[Try]:
        """The newest tries of a delivery, oldest first."""
        return [Try(*row) for row in reversed(await self._db.fetch(_HISTORY, task_id))]

    async def of_account(
        self,
        account_id: int,
        *,
        state: DeliveryState | None = None,
        before: int | None = None,
        limit: int,
    ) -> Sequence[Webhook]:
        """An account's deliveries, newest first."""
        statement = webhooks.page(state).replace("?", "$")
        last = EVER if before is None else before
        found = await self._db.fetch(statement, account_id, last, limit)
        return [webhooks.webhook(row) for row in found]

    async def redeliver(self, webhook: Webhook, url: str, *, now: int) -> None:
        """Begin a new round of tries."""
        to = receiver_of(webhook.account_id, url)
        await self._db.execute(_REDELIVER, webhook.task_id, url, to, now)

    async def claim(
        self, *, now: int, lease_ms: int, under_way: Collection[Due], limit: int
    ) -> Sequence[Due]:
        """Deliveries that are due, for this process to send."""
        following = await self._db.fetch(webhooks.NEXT, patient=True)
        if not following or following[0][0] > now:
            return []
        busy = webhooks.busy(under_way)
        waiting = await self._db.fetch(_TURNS, now, busy, patient=True)
        shares = webhooks.shares([tuple(row) for row in waiting], under_way, free=limit)
        if not shares:
            return []
        found = await self._db.fetch(
            _CLAIM,
            *(now, now + lease_ms, list(shares), list(shares.values())),
            [due.task_id for due in under_way],
            patient=True,
        )
        return [Due(*row) for row in found]

    async def record(self, due: Due, made: Try, verdict: Verdict, *, now: int) -> None:
        """Write down what came of a try."""
        await self._db.fetch(
            _RECORD,
            *(due.task_id, made.number, made.at, made.milliseconds),
            *(made.status, made.error, made.reply),
            *(verdict.state, verdict.next_at, due.round_at),
            *(due.account_id, due.url, now),
            patient=True,
        )

    async def release(self, *, now: int) -> int:
        """Make due what was being sent when the last process died."""
        return await self._db.execute(_RELEASE, now)
