"""Who did what: each action of an operator is written down before it is done, and what came of it.

So an action that its process did not outlive is there, too, as ``begun``.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from calotype.domain.clock import Clock
from calotype.domain.errors import CalotypeError, Unavailable
from calotype.store.operating import DONE
from calotype.store.port import Store

CLI: Final = "cli"
CONSOLE: Final = "console"
"""The operator's ways in; a user's key actions are those of ``account <name>``."""
MAX_TEXT: Final = 500
"""Characters that are kept of a subject, a detail, an outcome."""

log = logging.getLogger(__name__)


class Noting(msgspec.Struct):
    """What is said of an action; what only its doing shows can be added."""

    detail: str


class Audit:
    """The audit of one database."""

    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    @asynccontextmanager
    async def action(
        self, actor: str, action: str, subject: str, detail: str = ""
    ) -> AsyncIterator[Noting]:
        """Do what is inside as an action that can be read of later.

        Args:
            actor: ``CLI``, ``CONSOLE``, or ``account <name>``.
            action: what, such as ``key.create``.
            subject: with whom or what, such as an account's name or a key's id.
            detail: more for people; no secret.

        Raises:
            errors.Unavailable: it could not be written down; nothing was done.

        """
        noting = Noting(detail)
        entry = await self._store.operating.begin_action(
            actor=actor,
            action=action,
            subject=_short(subject),
            detail=_short(detail),
            now=self._clock(),
        )
        try:
            yield noting
        except CalotypeError as error:
            await self._end(entry, f"refused: {error}", noting)
            raise
        except Exception as error:
            await self._end(entry, f"broke off: {type(error).__name__}", noting)
            raise
        await self._end(entry, DONE, noting)

    async def _end(self, entry: int, outcome: str, noting: Noting) -> None:
        try:
            await self._store.operating.end_action(
                entry, outcome=_short(outcome), detail=_short(noting.detail)
            )
        except Unavailable:  # what it is about has happened, or was refused, all the same
            log.warning("audit entry %d stays as begun: the database does not answer", entry)
        except Exception:
            log.exception("audit entry %d stays as begun", entry)


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
