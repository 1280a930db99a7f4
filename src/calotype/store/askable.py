"""What can be asked of every database; asked for anything else, it has nothing."""

import re
from typing import Final

from calotype.store.port import EVER

_NOT_KEPT: Final = re.compile("[\0\ud800-\udfff]")
"""PostgreSQL keeps no NUL, and UTF-8 has no half of a surrogate pair."""


def is_askable(*values: str | int | None) -> bool:
    """Whether a database could hold all of these texts and numbers."""
    return not any(
        _NOT_KEPT.search(value) if isinstance(value, str) else abs(value) > EVER
        for value in values
        if value is not None
    )


def bounded(number: int) -> int:
    """The number, or what is nearest to it of those that a database takes."""
    return max(-EVER, min(number, EVER))
