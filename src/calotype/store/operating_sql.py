"""The SQL of ``store.operating`` that the stores share.

Parameters are written as SQLite does, ``?1``; PostgreSQL's are ``$1``.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from calotype.domain.money import Balance
from calotype.domain.task import AttemptState, State, Task
from calotype.store import rows
from calotype.store.operating import (
    BEGUN,
    COUNTED,
    FIGURED,
    WALKED,
    AccountRow,
    AuditEntry,
    ChannelFigures,
    SentAttempt,
    Switch,
    TaskPage,
    UnknownAttempt,
)

_NEWEST: Final = (
    "SELECT task_id, number, state, started_at, finished_at, cost_micro_usdc FROM {attempts} "
    f"WHERE channel_id = {{channel}} AND started_at >= ?1 ORDER BY started_at DESC LIMIT {FIGURED}"
)
_SUM: Final = (
    "CAST(COALESCE(SUM({}) FILTER (WHERE newest.cost_micro_usdc IS NOT NULL), 0) AS BIGINT)"
)
_PAID: Final = (
    "CASE WHEN EXISTS (SELECT 1 FROM attempts AS later WHERE later.task_id = newest.task_id "
    "AND later.number > newest.number) THEN 0 ELSE tasks.actual END"
)
_ENDED: Final = (AttemptState.DONE, AttemptState.REFUSED, AttemptState.FAILED, AttemptState.UNKNOWN)
_FIGURES: Final = ", ".join(
    (
        "COUNT(*)",
        *(f"COUNT(*) FILTER (WHERE newest.state = '{state}')" for state in _ENDED),
        "COUNT(newest.cost_micro_usdc)",
        _SUM.format("newest.cost_micro_usdc"),
        _SUM.format(_PAID),
    )
)
CHANNELS_SENT_TO: Final = """
WITH RECURSIVE sent_to (id) AS (
    SELECT MIN(channel_id) FROM attempts
    UNION ALL
    SELECT (SELECT MIN(channel_id) FROM attempts WHERE channel_id > sent_to.id)
    FROM sent_to WHERE sent_to.id IS NOT NULL
)
"""
"""Every channel that anything was ever sent to, found by as many steps."""


def _of(table: str) -> str:
    """What ``rows.attempt`` takes, of a table."""
    return ", ".join(f"{table}.{column}" for column in rows.ATTEMPT.split(", "))


def figures_of(source: str, *, group: str) -> str:
    """The statement that makes figures of the attempts of ``source``, called ``newest``.

    ``group`` is how a database makes one value of many.
    """
    took = f"{group}(newest.finished_at - newest.started_at)"
    return f"SELECT {_FIGURES}, {took} FILTER (WHERE newest.state = '{_ENDED[0]}') FROM {source}"


def newest(attempts: str, *, channel: str) -> str:
    """The newest attempts of a channel."""
    return _NEWEST.format(attempts=attempts, channel=channel)


def sent(attempts: str, *, join: str, model: str) -> str:
    """The statement of a channel's newest attempts: of the channel ``?2``, since ``?1``.

    Args:
        attempts: the table, with what is said of its index.
        join: how tasks are joined.
        model: the expression of a task's model.

    """
    newest = (
        f"SELECT task_id, {rows.ATTEMPT} FROM {attempts} WHERE channel_id = ?2 "
        f"AND started_at >= ?1 ORDER BY started_at DESC LIMIT {FIGURED}"
    )
    return (
        f"SELECT newest.task_id, tasks.account_id, {model}, {_PAID}, {_of('newest')} "
        f"FROM ({newest}) AS newest {join} tasks ON tasks.id = newest.task_id "
        "ORDER BY newest.started_at DESC, newest.task_id DESC, newest.number DESC"
    )


def sent_attempt(row: Sequence[Any]) -> SentAttempt:
    """A row of ``sent``."""
    task_id, account_id, model, paid, *attempt = row
    return SentAttempt(task_id, account_id, model, paid, rows.attempt(attempt))


COUNTS: Final = f"""{CHANNELS_SENT_TO}
SELECT id, (
    SELECT COUNT(*) FROM {{attempts}} WHERE channel_id = sent_to.id AND started_at >= ?1
) FROM sent_to WHERE id IS NOT NULL
"""
RETRIED: Final = (
    "SELECT COUNT(*), COUNT(DISTINCT receiver) FROM (SELECT receiver, attempts FROM webhooks "
    f"WHERE state = 'pending' ORDER BY next_at DESC LIMIT {FIGURED}) AS last WHERE attempts > 0"
)
"""Whoever has failed most waits longest."""


def figures(channel_id: int, row: Sequence[Any], milliseconds: Sequence[int]) -> ChannelFigures:
    """A row of ``figures_of``, but for its last column."""
    attempts, done, refused, failed, unknown, costed, cost, paid = row
    return ChannelFigures(
        channel_id=channel_id,
        attempts=attempts,
        done=done,
        refused=refused,
        failed=failed,
        unknown=unknown,
        costed=costed,
        cost=cost,
        paid=paid,
        milliseconds=tuple(sorted(milliseconds)),
    )


TOTALS: Final = f"""
SELECT (SELECT CAST(COALESCE(SUM(balance), 0) AS BIGINT) FROM accounts),
    (SELECT CAST(COALESCE(SUM(reserved), 0) AS BIGINT) FROM accounts),
    (SELECT COUNT(*) FROM (
        SELECT 1 FROM attempts WHERE {{unknown}} AND resolved_at IS NULL LIMIT {COUNTED}) AS a),
    (SELECT COUNT(*) FROM (
        SELECT 1 FROM webhooks WHERE state = 'pending' LIMIT {COUNTED}) AS w)
"""
DEPTH: Final = f"""
SELECT channel_id, COUNT(*) FILTER (WHERE state = '{State.WAITING}'),
    COUNT(*) FILTER (WHERE state = '{State.QUEUING}'),
    COUNT(*) FILTER (WHERE state = '{State.GENERATING}'), MIN(created_at)
FROM {{tasks}} WHERE completed_at IS NULL GROUP BY channel_id ORDER BY channel_id
"""


def unknown(ended: str, *, model: str, resolved: bool) -> str:
    """The statement of a page of attempts that may have been billed, the last ended first.

    It takes the three values of a cursor, and how many.

    Args:
        ended: the column by which they have an index.
        model: the expression of a task's model.
        resolved: whether those that the operator has settled, or the others.

    """
    return f"""
SELECT a.task_id, t.account_id, (SELECT name FROM accounts WHERE id = t.account_id), {model},
    t.actual, t.released, {_of("a")}
FROM attempts AS a JOIN tasks AS t ON t.id = a.task_id
WHERE {ended} AND a.resolved_at IS {"NOT NULL" if resolved else "NULL"}
    AND (a.finished_at, a.task_id, a.number) < (?1, ?2, ?3)
ORDER BY a.finished_at DESC, a.task_id DESC, a.number DESC LIMIT ?4
"""


def unknown_attempt(row: Sequence[Any]) -> UnknownAttempt:
    """A row of ``unknown``."""
    task_id, account_id, account, model, paid, released, *attempt = row
    return UnknownAttempt(
        task_id, account_id, account, model, paid, released, rows.attempt(attempt)
    )


TO_RESOLVE: Final = (
    "SELECT COALESCE(cost_micro_usdc, 0) FROM attempts WHERE task_id = ?1 AND number = ?2 "
    f"AND state = '{AttemptState.UNKNOWN}' AND resolved_at IS NULL"
)
RESOLVE: Final = (
    "UPDATE attempts SET resolved_at = ?3, resolution = ?4, "
    "cost_micro_usdc = COALESCE(?5, cost_micro_usdc) WHERE task_id = ?1 AND number = ?2"
)
ADD_COST: Final = """
UPDATE usage_days SET cost = cost + ?2 FROM tasks
WHERE tasks.id = ?1 AND usage_days.account_id = tasks.account_id
    AND usage_days.day = tasks.completed_at / 86400000 AND usage_days.key_id = tasks.key_id
    AND usage_days.model = {model} AND usage_days.channel_id = tasks.channel_id
"""
"""An unfinished task is in no day yet: its end counts what its attempts cost by then."""


class Walk(msgspec.Struct, frozen=True):
    """What is asked for of everyone's tasks; see ``OperatingStore.tasks``."""

    account_id: int | None
    state: State | None
    model: str | None
    channel_id: int | None
    before: int
    limit: int

    @property
    def only_open(self) -> bool:
        """Whether all that can be found is among the few that are not final."""
        return self.state in {State.WAITING, State.QUEUING, State.GENERATING}

    def floor(self, tasks: str) -> str:
        """The statement that finds the last id to look at; it takes the id to begin before."""
        return (
            f"SELECT id FROM {tasks} WHERE {self._kind} id < ?1 ORDER BY id DESC "
            f"LIMIT 1 OFFSET {WALKED - 1}"
        )

    def page(self, tasks: str, *, model: str) -> str:
        """The statement of a page, down to the floor."""
        wanted = {
            "account_id": self.account_id,
            "state": self.state,
            model: self.model,
            "channel_id": self.channel_id,
        }
        asked = [column for column, value in wanted.items() if value is not None]
        conditions = "".join(
            f" AND {column} = ?{place}" for place, column in enumerate(asked, start=4)
        )
        return (
            f"SELECT {rows.TASK} FROM {tasks} WHERE {self._kind} id < ?1 AND id >= ?2{conditions} "
            "ORDER BY id DESC LIMIT ?3"
        )

    def values(self, floor: int) -> list[Any]:
        """What the statement of a page takes."""
        wanted = (self.account_id, self.state, self.model, self.channel_id)
        asked = [value for value in wanted if value is not None]
        return [self.before, floor, self.limit, *asked]

    @property
    def _kind(self) -> str:
        return "completed_at IS NULL AND" if self.only_open else ""


def task_page(found: Sequence[Task], *, limit: int, floor: int | None) -> TaskPage:
    """What was found down to a floor; None where that is the end."""
    return TaskPage(tuple(found), found[-1].id if len(found) >= limit else floor)


_ACCOUNT: Final = """
SELECT id, name, balance, reserved, unfinished, created_at,
    (SELECT COUNT(*) FROM api_keys WHERE account_id = accounts.id AND revoked_at IS NULL),
    (SELECT MAX(last_used_at) FROM api_keys WHERE account_id = accounts.id)
FROM accounts"""
ACCOUNTS: Final = f"{_ACCOUNT} WHERE name > ?1 AND {{within}} ORDER BY name LIMIT ?3"
ACCOUNT: Final = f"{_ACCOUNT} WHERE id = ?1"


def account_row(row: Sequence[Any]) -> AccountRow:
    """A row of ``ACCOUNTS``."""
    id_, name, balance, reserved, *rest = row
    return AccountRow(id_, name, Balance(balance=balance, reserved=reserved), *rest)


SWITCHES: Final = "SELECT channel_id, enabled, at, by FROM channel_switches ORDER BY channel_id"
SWITCH: Final = (
    "INSERT INTO channel_switches (channel_id, enabled, at, by) VALUES (?1, ?2, ?3, ?4) "
    "ON CONFLICT (channel_id) DO UPDATE SET enabled = excluded.enabled, at = excluded.at, "
    "by = excluded.by"
)
UNSWITCH: Final = "DELETE FROM channel_switches WHERE channel_id = ?1"


def switch(row: Sequence[Any]) -> Switch:
    """A row of ``SWITCHES``."""
    channel_id, enabled, at, by = row
    return Switch(channel_id, bool(enabled), at, by)


_AUDIT: Final = "id, at, actor, action, subject, detail, outcome"
BEGIN_ACTION: Final = (
    "INSERT INTO audit (at, actor, action, subject, detail, outcome) "
    f"VALUES (?1, ?2, ?3, ?4, ?5, '{BEGUN}') RETURNING id"
)
END_ACTION: Final = "UPDATE audit SET outcome = ?2, detail = ?3 WHERE id = ?1"
ACTIONS: Final = f"SELECT {_AUDIT} FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2"
ACTIONS_CALLED: Final = (
    f"SELECT {_AUDIT} FROM audit WHERE id < ?1 AND action = ?3 ORDER BY id DESC LIMIT ?2"
)
KINDS_OF_ACTIONS: Final = """
WITH RECURSIVE called (action) AS (
    SELECT MIN(action) FROM audit
    UNION ALL
    SELECT (SELECT MIN(action) FROM audit WHERE action > called.action)
    FROM called WHERE called.action IS NOT NULL
)
SELECT action FROM called WHERE action IS NOT NULL
"""
"""Found by as many steps as there are."""
CUT_OFF: Final = (
    "INSERT INTO session_cutoffs (subject, at) VALUES (?1, ?2) ON CONFLICT (subject) "
    "DO UPDATE SET at = excluded.at WHERE session_cutoffs.at < excluded.at"
)
CUTOFF: Final = "SELECT MAX(at) FROM session_cutoffs WHERE subject IN (?1, ?2)"
FORGET_CUTOFFS: Final = "DELETE FROM session_cutoffs WHERE at < ?1 AND subject <> ?2"
FORGET_LINKS: Final = "DELETE FROM spent_links WHERE expires_at < ?1"
SPEND_LINK: Final = (
    "INSERT INTO spent_links (nonce, expires_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING "
    "RETURNING nonce"
)


def audit_entry(row: Sequence[Any]) -> AuditEntry:
    """A row of the audit."""
    return AuditEntry(*row)
