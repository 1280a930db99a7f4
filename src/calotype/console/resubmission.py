"""Forms that do their work once, however often they are sent."""

import re
import secrets
from typing import Final

from calotype.console.access import Visitor
from calotype.console.context import Console
from calotype.console.errors import PageError
from calotype.console.sessions import HOURS

_BYTES: Final = 16
_FORM: Final = re.compile(r"[A-Za-z0-9_-]{22}")
_HOUR_MS: Final = 3_600_000


def new_mark() -> str:
    """What the hidden field ``once`` of a form says; another one each time that it is shown."""
    return secrets.token_urlsafe(_BYTES)


async def is_first(console: Console, visitor: Visitor) -> bool:
    """Whether a form is sent for the first time; from now on it was.

    So neither a double click nor loading a page again does twice what the form is for. Call it
    when nothing is wrong with the form.

    Raises:
        PageError: the form has no mark.

    """
    mark = visitor.form.get("once")
    if not _FORM.fullmatch(mark):
        raise PageError(400, "This form is not whole; go back, load the page anew and try again.")
    session, now = visitor.session, console.clock()
    return await console.store.operating.spend_link(
        f"form:{session.id}:{mark}", expires_at=now + HOURS[session.role] * _HOUR_MS, now=now
    )
