"""The operator's side of a PostgreSQL database; see ``store.operating.OperatingStore``."""

from collections.abc import Sequence
from typing import Final

from calotype.store import operating
from calotype.store.operating import AuditEntry
from calotype.store.port import EVER
from calotype.store.postgres.database import Database

_BEGIN_ACTION: Final = operating.BEGIN_ACTION.replace("?", "$")
_END_ACTION: Final = operating.END_ACTION.replace("?", "$")
_ACTIONS: Final = operating.ACTIONS.replace("?", "$")
_ACTIONS_CALLED: Final = operating.ACTIONS_CALLED.replace("?", "$")
_CUT_OFF: Final = operating.CUT_OFF.replace("?", "$")
_CUTOFF: Final = operating.CUTOFF.replace("?", "$")
_SPEND_LINK: Final = f"""
WITH forgotten AS ({operating.FORGET_LINKS.replace("?1", "$3")})
{operating.SPEND_LINK.replace("?", "$")}
"""


class PostgresOperating:
    """The operator's side of one PostgreSQL database."""

    def __init__(self, database: Database) -> None:
        self._db = database

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
        values = (EVER if before is None else before, limit)
        if action is None:
            found = await self._db.fetch(_ACTIONS, *values)
        else:
            found = await self._db.fetch(_ACTIONS_CALLED, *values, action)
        return [operating.audit_entry(row) for row in found]

    async def cut_off(self, subject: str, *, now: int) -> None:
        """End every session of someone that began before now."""
        await self._db.execute(_CUT_OFF, subject, now)

    async def cutoff(self, subject: str) -> int | None:
        """The time before which its sessions are over."""
        found = await self._db.fetch(_CUTOFF, subject)
        return found[0][0] if found else None

    async def spend_link(self, nonce: str, *, expires_at: int, now: int) -> bool:
        """Use up a one-time link."""
        forgotten = now - operating.LINKS_KEPT_MS
        return bool(await self._db.fetch(_SPEND_LINK, nonce, expires_at, forgotten))
