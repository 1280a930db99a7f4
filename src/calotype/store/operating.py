"""What a store keeps for its operator: a port of its own, and the SQL that the stores share.

All times are milliseconds since 1970, all amounts micro-USDC.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

BEGUN: Final = "begun"
"""The outcome of an action that is under way, or that its process did not outlive."""
DONE: Final = "done"
LINKS_KEPT_MS: Final = 24 * 3600 * 1000
"""A spent link is remembered so long after it has expired, whoever's clock is behind."""


class AuditEntry(msgspec.Struct, frozen=True):
    """One action of an operator, or of a user on keys."""

    id: int
    at: int
    actor: str
    action: str
    """Such as ``key.create``."""
    subject: str
    detail: str
    outcome: str
    """``begun``, ``done``, or why it was refused."""


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
CUT_OFF: Final = (
    "INSERT INTO session_cutoffs (subject, at) VALUES (?1, ?2) ON CONFLICT (subject) "
    "DO UPDATE SET at = excluded.at WHERE session_cutoffs.at < excluded.at"
)
CUTOFF: Final = "SELECT at FROM session_cutoffs WHERE subject = ?1"
FORGET_LINKS: Final = "DELETE FROM spent_links WHERE expires_at < ?1"
SPEND_LINK: Final = (
    "INSERT INTO spent_links (nonce, expires_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING "
    "RETURNING nonce"
)


def audit_entry(row: Sequence[Any]) -> AuditEntry:
    """A row of the audit."""
    return AuditEntry(*row)


class OperatingStore(Protocol):
    """The operator's side of one database."""

    # What was done, by whom

    async def begin_action(
        self, *, actor: str, action: str, subject: str, detail: str, now: int
    ) -> int:
        """Write down that something is about to be done; returns the entry's id."""
        ...

    async def end_action(self, entry_id: int, *, outcome: str, detail: str) -> None:
        """Write down what came of it."""
        ...

    async def actions(
        self, *, before: int | None = None, limit: int, action: str | None = None
    ) -> Sequence[AuditEntry]:
        """The audit, newest first: entries with an id below ``before``, of one kind if asked."""
        ...

    # Sessions

    async def cut_off(self, subject: str, *, now: int) -> None:
        """End every session of ``admin`` or ``account:<id>`` that began before now."""
        ...

    async def cutoff(self, subject: str) -> int | None:
        """The time before which its sessions are over; None where none was ever ended so."""
        ...

    async def spend_link(self, nonce: str, *, expires_at: int, now: int) -> bool:
        """Use up a one-time link; False when it was used already."""
        ...
