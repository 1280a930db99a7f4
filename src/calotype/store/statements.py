"""SQL that every store has in common, most of it generated from the domain's tables.

Parameters are written as SQLite does, ``?1``; PostgreSQL's are ``$1``.
"""

from typing import Final

from calotype.domain.errors import CANCELLED
from calotype.domain.limits import DAY_MS
from calotype.domain.money import EFFECTS
from calotype.domain.task import TRANSITIONS, Event
from calotype.store import rows
from calotype.store.port import FORGOTTEN_AT_ONCE


def enters(event: Event) -> str:
    """The state after an event, as an expression over the column ``state``."""
    cases = " ".join(
        f"WHEN '{left}' THEN '{entered}'" for left, entered in TRANSITIONS[event].enters.items()
    )
    return f"CASE state {cases} END"


def leaves(event: Event) -> str:
    """Whether an event may happen, as a condition on the column ``state``.

    Not by ``IN``: for more than two words SQLite fills a table of its own each time.
    """
    states = " OR ".join(f"state = '{state}'" for state in TRANSITIONS[event].enters)
    return f"({states})"


def kept_ms(column: str, fallback: str, *, account: str = "tasks.account_id") -> str:
    """How long images of an account are kept, in ms; NULL: until they are deleted.

    The account's ``column`` says so in days, or, where that says nothing, ``fallback``.
    """
    own = f"SELECT {column} FROM accounts WHERE accounts.id = {account}"
    return f"NULLIF(COALESCE(({own}), {fallback}), 0) * {DAY_MS}"


CANCELLED_ERROR: Final = f"'{rows.encode(CANCELLED).decode()}'"
"""The error of every task that the client had asked to be stopped, as a text of SQL."""


def ledger_sum(side: str) -> str:
    """What an account's entries come to, ``side`` being a field of ``money.Effect``."""
    cases = " ".join(
        f"WHEN '{kind}' THEN {getattr(effect, side)} * amount" for kind, effect in EFFECTS.items()
    )
    return f"SUM(CASE kind {cases} END)"


NOTE_HEALTH: Final = """
INSERT INTO channel_health AS old (
    channel_id, model, fault, until, strikes, opened_at, updated_at, detail, event
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (channel_id, model) DO UPDATE SET
    fault = CASE WHEN excluded.opened_at IS NULL THEN old.fault ELSE excluded.fault END,
    detail = CASE WHEN excluded.opened_at IS NULL THEN old.detail ELSE excluded.detail END,
    until = excluded.until, strikes = excluded.strikes, opened_at = excluded.opened_at,
    updated_at = excluded.updated_at,
    event = CASE
        WHEN excluded.opened_at IS NULL AND old.opened_at IS NULL THEN NULL
        WHEN excluded.opened_at IS NULL THEN 'closed'
        WHEN old.opened_at IS NULL THEN excluded.event
        WHEN excluded.event = 'half-open' AND old.until > old.updated_at THEN 'half-open'
        WHEN excluded.event = 'opened' AND old.until <= excluded.updated_at THEN 'opened'
        WHEN excluded.event = 'opened' AND old.fault <> excluded.fault THEN 'opened'
    END
WHERE old.updated_at <= excluded.updated_at
RETURNING channel_id, model, event, fault, detail, updated_at
"""
"""Keeps what is known of a breaker, unless later news are there, and says what that changed.

That all is well is kept too, as a row without ``opened_at``: news that were overtaken on their
way would open the breaker again.
"""

HEALTH: Final = (
    f"SELECT {rows.HEALTH} FROM channel_health WHERE opened_at IS NOT NULL "
    "ORDER BY channel_id, model"
)
CHANNEL_EVENTS: Final = (
    f"SELECT {rows.CHANNEL_EVENT} FROM channel_events WHERE at >= ?1 "
    "ORDER BY at DESC, id DESC LIMIT ?2"
)
FORGET_CHANNEL_EVENTS: Final = (
    "DELETE FROM channel_events WHERE id IN (SELECT id FROM channel_events WHERE at < ?1 "
    f"ORDER BY at LIMIT {FORGOTTEN_AT_ONCE})"
)
UNFINISHED_CHANNELS: Final = (
    "SELECT DISTINCT channel_id FROM tasks WHERE completed_at IS NULL ORDER BY channel_id"
)
ADD_KEY: Final = (
    "INSERT INTO api_keys "
    "(id, account_id, name, prefix, digest, created_at, expires_at, models, channels) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
)
ADD_METER: Final = (
    "INSERT INTO key_meters (key_id, day_limit, month_limit, per_minute, max_tasks) "
    "VALUES (?1, ?2, ?3, ?4, ?5)"
)
METER: Final = f"SELECT {rows.METER} FROM key_meters WHERE key_id = ?1"
METERS_OF_ACCOUNT: Final = (
    f"SELECT {rows.METER} FROM key_meters JOIN api_keys ON api_keys.id = key_id "
    "WHERE account_id = ?1"
)
KEEP_METER: Final = (
    "UPDATE key_meters SET day = ?2, day_spent = ?3, month = ?4, month_spent = ?5, free_at = ?6 "
    "WHERE key_id = ?1"
)
