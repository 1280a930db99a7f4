"""What a list of tasks or pictures is asked for: the query of its page, judged and written back."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from calotype.console.query import BEFORE, SAID, Query, page_id
from calotype.domain.catalog import quoted
from calotype.domain.errors import InvalidParameter
from calotype.domain.limits import DAY_MS
from calotype.domain.options import check_metadata
from calotype.domain.task import State
from calotype.services.usage import day_of

MAX_TEXT: Final = 200
"""Characters that are looked for in a prompt."""
STATE: Final = "state"
MODEL: Final = "model"
FROM: Final = "from"
TO: Final = "to"
TEXT: Final = "text"
METADATA: Final = "metadata"
PICTURES: Final = (MODEL, FROM, TO, TEXT, METADATA, BEFORE)
"""What a list of pictures can be asked for."""
TASKS: Final = (STATE, *PICTURES, SAID)
"""What a list of tasks can be asked for."""


class Search(Query):
    """What is looked for; where something of it is ``wrong``, nothing is to be looked for.

    ``from`` and ``to`` are UTC days, both within what is found.

    Args:
        text: the query string.
        names: the fields there are, ``PICTURES`` or ``TASKS``.

    """

    def __init__(self, text: bytes, names: Collection[str]) -> None:
        super().__init__(text, names, many=METADATA)
        self.pairs = self.all(METADATA)
        """Each ``key=value`` of metadata as it came."""
        self.before = self.read(BEFORE, page_id)
        """The id before which the page begins."""
        self.state = self.read(STATE, state_of)
        since, last = self.read(FROM, _begins(FROM)), self.read(TO, _begins(TO))
        if since is not None and last is not None and last < since:
            self.wrong.setdefault(TO, "The last day is before the first; swap them.")
        self.wanted: Mapping[str, Any] = {
            "model": self.read(MODEL, _text),
            "since": since,
            "until": None if last is None else last + DAY_MS,
            "text": self.read(TEXT, _text) or "",
            "metadata": self.read(METADATA, lambda _: _metadata(self.pairs)) or {},
            "before": self.before,
        }
        """The arguments of ``GalleryStore.pictures``; with ``state``, those of its ``tasks``."""


def state_of(word: str) -> State:
    """The state that a word names.

    Raises:
        errors.InvalidParameter: none; the message lists those there are.

    """
    try:
        return State(word)
    except ValueError:
        raise InvalidParameter(
            f"There is no state {quoted(word)}; choose one of {', '.join(State)}."
        ) from None


def _begins(name: str) -> Callable[[str], int]:
    """Reads the beginning of a UTC day, in milliseconds."""
    return lambda word: day_of(word, name) * DAY_MS


def _text(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise InvalidParameter(f"Look for at most {MAX_TEXT} characters; these are {len(text)}.")
    return text


def _metadata(pairs: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InvalidParameter(f"Write key=value, such as order=7391, not {quoted(pair)}.")
        if found.setdefault(key, value) != value:
            raise InvalidParameter(f"{quoted(key)} cannot have two values at once; take one out.")
    return check_metadata(found)
