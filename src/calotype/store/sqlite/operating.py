"""The operator's side of a SQLite database; see ``store.operating.OperatingStore``.

``INDEXED BY``: SQLite keeps no statistics here, so the choice is made once, in the text.
"""

import json
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

from calotype.domain.task import AttemptState, State
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
from calotype.store.searching import search_of
from calotype.store.sqlite import search

_OPEN: Final = "tasks INDEXED BY tasks_unfinished"
_CHANNELS: Final = f"{sql.CHANNELS_SENT_TO} SELECT id FROM sent_to WHERE id IS NOT NULL"
_FIGURES: Final = sql.figures_of(
    f"({sql.newest('attempts INDEXED BY attempts_of_channel', channel='?2')}) AS newest "
    "CROSS JOIN tasks ON tasks.id = newest.task_id",
    group="json_group_array",
)
_SENT: Final = sql.sent(
    "attempts INDEXED BY attempts_of_channel", join="CROSS JOIN", model="tasks.model"
)
_COUNTS: Final = sql.COUNTS.format(attempts="attempts INDEXED BY attempts_of_channel")
_DEPTH: Final = sql.DEPTH.format(tasks=_OPEN)
_TOTALS: Final = sql.TOTALS.format(unknown=f"state = '{AttemptState.UNKNOWN}'")
_UNKNOWN: Final = {
    resolved: sql.unknown(f"a.state = '{AttemptState.UNKNOWN}'", model="t.model", resolved=resolved)
    for resolved in (False, True)
}
_ADD_COST: Final = sql.ADD_COST.format(model="tasks.model")
_ACCOUNTS: Final = sql.ACCOUNTS.format(within="instr(lowered(name), lowered(?2)) > 0")


class _Read(Protocol):
    def __call__(self, statement: str, *values: Any) -> list[rows.Row]: ...


class SqliteOperating:
    """The operator's side of one SQLite file.

    Args:
        write: does a piece of work in the next transaction.
        read: what a statement finds, read in the event loop.
        read_with: does a piece of work that reads what nobody bounds, in a thread.

    """

    def __init__(
        self,
        *,
        write: Callable[[Callable[[sqlite3.Connection], Any]], Awaitable[Any]],
        read: _Read,
        read_with: Callable[[Callable[[sqlite3.Connection], Any]], Awaitable[Any]],
    ) -> None:
        self._write = write
        self._read = read
        self._read_with = read_with

    async def figures(self, *, since: int) -> Sequence[ChannelFigures]:
        """How channels have done."""

        def work(connection: sqlite3.Connection) -> list[ChannelFigures]:
            found = []
            for (channel_id,) in connection.execute(_CHANNELS).fetchall():
                *row, took = connection.execute(_FIGURES, (since, channel_id)).fetchone()
                if row[0]:
                    found.append(sql.figures(channel_id, row, json.loads(took)))
            return found

        figures: list[ChannelFigures] = await self._read_with(work)
        return figures

    async def counts(self, *, since: int) -> Mapping[int, int]:
        """How many attempts have begun, by channel."""

        def work(connection: sqlite3.Connection) -> dict[int, int]:
            return dict(connection.execute(_COUNTS, (since,)).fetchall())

        counts: dict[int, int] = await self._read_with(work)
        return counts

    async def sent(self, channel_id: int, *, since: int) -> Sequence[SentAttempt]:
        """A channel's newest attempts."""

        def work(connection: sqlite3.Connection) -> list[SentAttempt]:
            found = connection.execute(_SENT, (since, channel_id)).fetchall()
            return [sql.sent_attempt(row) for row in found]

        sent: list[SentAttempt] = await self._read_with(work)
        return sent

    async def retried_webhooks(self) -> RetriedWebhooks:
        """How many webhooks have not been taken yet."""
        found = await self._find(sql.RETRIED)
        return RetriedWebhooks(*found[0])

    async def totals(self) -> Totals:
        """What the whole database comes to."""
        return Totals(*(await self._find(_TOTALS))[0])

    async def depth(self) -> Sequence[QueueDepth]:
        """The tasks that are not final, by channel."""
        return [QueueDepth(*row) for row in await self._find(_DEPTH)]

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
            found = await self._read_with(partial(search.find, search=asked))
            return sql.task_page(found, limit=limit, floor=None)
        last = EVER if before is None else bounded(before)
        walk = Walk(account_id, state, model, channel_id, last, limit)
        page: TaskPage = await self._read_with(partial(_walked, walk=walk))
        return page

    async def accounts(
        self, *, after: str = "", text: str = "", limit: int
    ) -> Sequence[AccountRow]:
        """Accounts by name."""
        if not is_askable(after, text):
            return []
        found = await self._find(_ACCOUNTS, after, text, limit)
        return [sql.account_row(row) for row in found]

    async def account(self, account_id: int) -> AccountRow | None:
        """One of them by its id."""
        found = await self._find(sql.ACCOUNT, account_id)
        return sql.account_row(found[0]) if found else None

    async def unknown(
        self, *, resolved: bool = False, before: AttemptCursor | None = None, limit: int
    ) -> Sequence[UnknownAttempt]:
        """Attempts whose outcome is unknown."""
        at = before or AttemptCursor(EVER, EVER, EVER)
        found = await self._find(_UNKNOWN[resolved], at.finished_at, at.task_id, at.number, limit)
        return [sql.unknown_attempt(row) for row in found]

    async def resolve(
        self, task_id: int, number: int, *, resolution: Resolution, cost: int | None, now: int
    ) -> bool:
        """Settle an attempt whose outcome is unknown."""

        def work(connection: sqlite3.Connection) -> bool:
            found = connection.execute(sql.TO_RESOLVE, (task_id, number)).fetchone()
            if found is None:
                return False
            connection.execute(sql.RESOLVE, (task_id, number, now, resolution, cost))
            if cost is not None:
                connection.execute(_ADD_COST, (task_id, cost - found[0]))
            return True

        resolved: bool = await self._write(work)
        return resolved

    async def switch(self, channel_id: int, *, enabled: bool | None, by: str, now: int) -> None:
        """Switch a channel."""
        if enabled is None:
            await self._change(sql.UNSWITCH, channel_id)
        else:
            await self._change(sql.SWITCH, channel_id, int(enabled), now, by)

    async def switches(self) -> Sequence[Switch]:
        """The channels that were switched."""
        return [sql.switch(row) for row in self._read(sql.SWITCHES)]

    async def begin_action(
        self, *, actor: str, action: str, subject: str, detail: str, now: int
    ) -> int:
        """Write down that something is about to be done."""
        values = (now, actor, action, subject, detail)
        return int((await self._change(sql.BEGIN_ACTION, *values))[0][0])

    async def end_action(self, entry_id: int, *, outcome: str, detail: str) -> None:
        """Write down what came of it."""
        await self._change(sql.END_ACTION, entry_id, outcome, detail)

    async def actions(
        self, *, before: int | None = None, limit: int, action: str | None = None
    ) -> Sequence[AuditEntry]:
        """The audit, newest first."""
        if not is_askable(action):
            return []
        values = (EVER if before is None else bounded(before), limit)
        if action is None:
            found = await self._find(sql.ACTIONS, *values)
        else:
            found = await self._find(sql.ACTIONS_CALLED, *values, action)
        return [sql.audit_entry(row) for row in found]

    async def kinds_of_actions(self) -> Sequence[str]:
        """Every action that the audit tells of."""
        return sorted(action for (action,) in self._read(sql.KINDS_OF_ACTIONS))

    async def cut_off(self, subject: str, *, now: int) -> None:
        """End every session of someone that began before now."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(sql.FORGET_CUTOFFS, (now - CUTOFFS_KEPT_MS, subject))
            connection.execute(sql.CUT_OFF, (subject, now))

        await self._write(work)

    async def cutoff(self, subject: str, alone: str = "") -> int | None:
        """The time before which its sessions are over."""
        ((at,),) = self._read(sql.CUTOFF, subject, alone)
        return at if at is None else int(at)

    async def spend_link(self, nonce: str, *, expires_at: int, now: int) -> bool:
        """Use up a one-time link."""

        def work(connection: sqlite3.Connection) -> bool:
            connection.execute(sql.FORGET_LINKS, (now - LINKS_KEPT_MS,))
            return bool(connection.execute(sql.SPEND_LINK, (nonce, expires_at)).fetchall())

        spent: bool = await self._write(work)
        return spent

    async def _change(self, statement: str, *values: Any) -> list[rows.Row]:
        found: list[rows.Row] = await self._write(
            lambda connection: connection.execute(statement, values).fetchall()
        )
        return found

    async def _find(self, statement: str, *values: Any) -> list[rows.Row]:
        found: list[rows.Row] = await self._read_with(
            lambda connection: connection.execute(statement, values).fetchall()
        )
        return found


def _walked(connection: sqlite3.Connection, *, walk: Walk) -> TaskPage:
    tasks = _OPEN if walk.only_open else "tasks NOT INDEXED"
    lowest = connection.execute(walk.floor(tasks), (walk.before,)).fetchone()
    floor = lowest[0] if lowest else None
    found = connection.execute(walk.page(tasks, model="model"), walk.values(floor or 0))
    return sql.task_page([rows.task(row) for row in found], limit=walk.limit, floor=floor)
