"""The operator's side of a PostgreSQL database; see ``store.operating.OperatingStore``."""

from collections.abc import Mapping, Sequence
from typing import Final

from calotype.domain.task import State
from calotype.store import operating_sql as sql
from calotype.store import rows
from calotype.store.askable import bounded, is_askable
from calotype.store.gallery import NOTHING
from calotype.store.operating import (
    CUTOFFS_KEPT_MS,
    LINKS_KEPT_MS,
    AccountRow,
    AttemptCursor,
    AuditEntry,
    ChannelFigures,
    QueueDepth,
    Resolution,
    RetriedWebhooks,
    SentAttempt,
    Switch,
    TaskPage,
    Totals,
    UnknownAttempt,
)
from calotype.store.operating_sql import Walk
from calotype.store.port import EVER
from calotype.store.postgres import search
from calotype.store.postgres.database import Database
from calotype.store.searching import search_of

_FIGURES: Final = f"""
{sql.CHANNELS_SENT_TO}
SELECT sent_to.id, made.* FROM sent_to CROSS JOIN LATERAL (
    {
    sql.figures_of(
        f"({sql.newest('attempts', channel='sent_to.id')}) AS newest "
        "JOIN tasks ON tasks.id = newest.task_id",
        group="array_agg",
    )
}
) AS made (attempts) WHERE sent_to.id IS NOT NULL AND made.attempts > 0 ORDER BY sent_to.id
""".replace("?", "$")
_SENT: Final = sql.sent("attempts", join="JOIN", model="task_model(tasks.request)").replace(
    "?", "$"
)
_COUNTS: Final = sql.COUNTS.format(attempts="attempts").replace("?", "$")
_DEPTH: Final = sql.DEPTH.format(tasks="tasks")
_TOTALS: Final = sql.TOTALS.format(unknown="unknown_at IS NOT NULL")
_UNKNOWN: Final = {
    resolved: sql.unknown(
        "a.unknown_at IS NOT NULL", model="task_model(t.request)", resolved=resolved
    )
    .replace("a.finished_at", "a.unknown_at")
    .replace("?", "$")
    for resolved in (False, True)
}
_TO_RESOLVE: Final = sql.TO_RESOLVE.replace("?", "$")
_RESOLVE: Final = sql.RESOLVE.replace("?", "$")
_ADD_COST: Final = sql.ADD_COST.format(model="task_model(tasks.request)").replace("?", "$")
_ACCOUNTS: Final = sql.ACCOUNTS.format(within="strpos(lower(name), lower(?2)) > 0").replace(
    "?", "$"
)
_ACCOUNT: Final = sql.ACCOUNT.replace("?", "$")
_SWITCH: Final = sql.SWITCH.replace("?", "$")
_UNSWITCH: Final = sql.UNSWITCH.replace("?", "$")

_BEGIN_ACTION: Final = sql.BEGIN_ACTION.replace("?", "$")
_END_ACTION: Final = sql.END_ACTION.replace("?", "$")
_ACTIONS: Final = sql.ACTIONS.replace("?", "$")
_ACTIONS_CALLED: Final = sql.ACTIONS_CALLED.replace("?", "$")
_CUT_OFF: Final = f"""
WITH forgotten AS ({sql.FORGET_CUTOFFS.replace("?1", "$3").replace("?2", "$1")})
{sql.CUT_OFF.replace("?", "$")}
"""
_CUTOFF: Final = sql.CUTOFF.replace("?", "$")
_SPEND_LINK: Final = f"""
WITH forgotten AS ({sql.FORGET_LINKS.replace("?1", "$3")})
{sql.SPEND_LINK.replace("?", "$")}
"""


class PostgresOperating:
    """The operator's side of one PostgreSQL database."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def figures(self, *, since: int) -> Sequence[ChannelFigures]:
        """How channels have done."""
        return [
            sql.figures(channel_id, row, took or ())
            for channel_id, *row, took in await self._db.fetch(_FIGURES, since)
        ]

    async def counts(self, *, since: int) -> Mapping[int, int]:
        """How many attempts have begun, by channel."""
        found = await self._db.fetch(_COUNTS, since)
        return {row[0]: row[1] for row in found}

    async def sent(self, channel_id: int, *, since: int) -> Sequence[SentAttempt]:
        """A channel's newest attempts."""
        found = await self._db.fetch(_SENT, since, channel_id)
        return [sql.sent_attempt(row) for row in found]

    async def retried_webhooks(self) -> RetriedWebhooks:
        """How many webhooks have not been taken yet."""
        found = await self._db.fetch(sql.RETRIED)
        return RetriedWebhooks(*found[0])

    async def totals(self) -> Totals:
        """What the whole database comes to."""
        return Totals(*(await self._db.fetch(_TOTALS))[0])

    async def depth(self) -> Sequence[QueueDepth]:
        """The tasks that are not final, by channel."""
        return [QueueDepth(*row) for row in await self._db.fetch(_DEPTH)]

    async def tasks(
        self,
        *,
        account_id: int | None = None,
        state: State | None = None,
        model: str | None = None,
        channel_id: int | None = None,
        before: int | None = None,
        limit: int,
    ) -> TaskPage:
        """Everyone's tasks, newest first."""
        if not is_askable(account_id, model, channel_id):
            return TaskPage((), None)
        if account_id is not None and channel_id is None:
            asked = search_of(
                account_id,
                state=state,
                model=model,
                since=None,
                metadata=NOTHING,
                before=before,
                limit=limit,
            )
            tasks = await search.find(self._db, asked)
            return sql.task_page(tasks, limit=limit, floor=None)
        last = EVER if before is None else bounded(before)
        walk = Walk(account_id, state, model, channel_id, last, limit)
        lowest = await self._db.fetch(walk.floor("tasks").replace("?", "$"), walk.before)
        floor = lowest[0][0] if lowest else None
        page = walk.page("tasks", model="task_model(request)").replace("?", "$")
        found = await self._db.fetch(page, *walk.values(floor or 0))
        return sql.task_page([rows.task(row) for row in found], limit=limit, floor=floor)

    async def accounts(
        self, *, after: str = "", text: str = "", limit: int
    ) -> Sequence[AccountRow]:
        """Accounts by name."""
        if not is_askable(after, text):
            return []
        found = await self._db.fetch(_ACCOUNTS, after, text, limit)
        return [sql.account_row(row) for row in found]

    async def account(self, account_id: int) -> AccountRow | None:
        """One of them by its id."""
        found = await self._db.fetch(_ACCOUNT, account_id)
        return sql.account_row(found[0]) if found else None

    async def unknown(
        self, *, resolved: bool = False, before: AttemptCursor | None = None, limit: int
    ) -> Sequence[UnknownAttempt]:
        """Attempts whose outcome is unknown."""
        at = before or AttemptCursor(EVER, EVER, EVER)
        found = await self._db.fetch(
            _UNKNOWN[resolved], at.finished_at, at.task_id, at.number, limit
        )
        return [sql.unknown_attempt(row) for row in found]

    async def resolve(
        self, task_id: int, number: int, *, resolution: Resolution, cost: int | None, now: int
    ) -> bool:
        """Settle an attempt whose outcome is unknown."""
        async with self._db.connection() as db, db.transaction():
            # Whoever ends the task holds its row, and counts what its attempts have cost.
            await db.execute("SELECT 1 FROM tasks WHERE id = $1 FOR UPDATE", task_id)
            found = await db.fetch(_TO_RESOLVE, task_id, number)
            if not found:
                return False
            await db.execute(_RESOLVE, task_id, number, now, resolution, cost)
            if cost is not None:
                await db.execute(_ADD_COST, task_id, cost - found[0][0])
            return True

    async def switch(self, channel_id: int, *, enabled: bool | None, by: str, now: int) -> None:
        """Switch a channel."""
        if enabled is None:
            await self._db.execute(_UNSWITCH, channel_id)
        else:
            await self._db.execute(_SWITCH, channel_id, int(enabled), now, by)

    async def switches(self) -> Sequence[Switch]:
        """The channels that were switched."""
        return [sql.switch(row) for row in await self._db.fetch(sql.SWITCHES)]

    async def begin_action(
        self, *, actor: str, action: str, subject: str, detail: str, now: int
    ) -> int:
        """Write down that something is about to be done."""
        found = await self._db.fetch(_BEGIN_ACTION, now, actor, action, subject, detail)
        return int(found[0][0])

    async def end_action(self, entry_id: int, *, outcome: str, detail: str) -> None:
        """Write down what came of it."""
        await self._db.execute(_END_ACTION, entry_id, outcome, detail)

    async def actions(
        self, *, before: int | None = None, limit: int, action: str | None = None
    ) -> Sequence[AuditEntry]:
        """The audit, newest first."""
        if not is_askable(action):
            return []
        values = (EVER if before is None else bounded(before), limit)
        if action is None:
            found = await self._db.fetch(_ACTIONS, *values)
        else:
            found = await self._db.fetch(_ACTIONS_CALLED, *values, action)
        return [sql.audit_entry(row) for row in found]

    async def kinds_of_actions(self) -> Sequence[str]:
        """Every action that the audit tells of."""
        return sorted(action for (action,) in await self._db.fetch(sql.KINDS_OF_ACTIONS))

    async def cut_off(self, subject: str, *, now: int) -> None:
        """End every session of someone that began before now."""
        await self._db.execute(_CUT_OFF, subject, now, now - CUTOFFS_KEPT_MS)

    async def cutoff(self, subject: str, alone: str = "") -> int | None:
        """The time before which its sessions are over."""
        ((at,),) = await self._db.fetch(_CUTOFF, subject, alone)
        return at if at is None else int(at)

    async def spend_link(self, nonce: str, *, expires_at: int, now: int) -> bool:
        """Use up a one-time link."""
        forgotten = now - LINKS_KEPT_MS
        return bool(await self._db.fetch(_SPEND_LINK, nonce, expires_at, forgotten))
