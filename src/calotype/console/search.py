"""What a list of tasks or pictures is asked for: the query of its page, judged and written back."""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from calotype.domain.catalog import quoted
from calotype.domain.errors import InvalidParameter
from calotype.domain.ids import decode, encode
from calotype.domain.options import check_metadata
from calotype.domain.task import State
from calotype.domain.validation import storable

MAX_TEXT: Final = 200
"""Characters that are looked for in a prompt."""
STATE: Final = "state"
MODEL: Final = "model"
FROM: Final = "from"
TO: Final = "to"
TEXT: Final = "text"
METADATA: Final = "metadata"
BEFORE: Final = "before"
PICTURES: Final = (MODEL, FROM, TO, TEXT, METADATA, BEFORE)
"""What a list of pictures can be asked for."""
TASKS: Final = (STATE, *PICTURES)
"""What a list of tasks can be asked for."""
DAY_MS: Final = 24 * 3600 * 1000

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)
_FIRST_YEAR: Final = 1970


class Search(msgspec.Struct, frozen=True):
    """What is looked for; where something of it is ``wrong``, nothing is to be looked for.

    ``from`` and ``to`` are UTC days, both within what is found.
    """

    typed: Mapping[str, str] = {}
    """Every value but metadata as it came, by name, to show it again."""
    pairs: tuple[str, ...] = ()
    """Each ``key=value`` of metadata as it came."""
    wrong: Mapping[str, str] = {}
    """What is wrong with a value, by its name; under ``""`` what fits no field."""
    state: State | None = None
    model: str | None = None
    since: int | None = None
    """The beginning of the first day, in milliseconds."""
    until: int | None = None
    """The end of the last one."""
    text: str = ""
    metadata: dict[str, str] = {}
    before: int | None = None
    """The id before which the page begins."""

    @property
    def filtered(self) -> bool:
        """Whether less is asked for than all."""
        return bool(self.pairs) or any(name != BEFORE for name in self.typed)

    @property
    def wanted(self) -> dict[str, Any]:
        """The arguments of ``GalleryStore.pictures``; with ``state``, those of its ``tasks``."""
        return {
            "model": self.model,
            "since": self.since,
            "until": self.until,
            "text": self.text,
            "metadata": self.metadata,
            "before": self.before,
        }

    def link(self, path: str, *, before: int | None = None) -> str:
        """Where the same is looked for from another place on; the newest without one."""
        said = [(name, value) for name, value in self.typed.items() if name != BEFORE]
        said += ((METADATA, pair) for pair in self.pairs)
        if before is not None:
            said.append((BEFORE, encode("page", before)))
        return f"{path}?{urlencode(said)}" if said else path


def read_search(query: bytes, names: Collection[str], *, also: Collection[str] = ()) -> Search:
    """What a query string asks for; fields that were left empty are not there.

    Args:
        query: as it came.
        names: the fields there are, ``PICTURES`` or ``TASKS``.
        also: names of values that somebody else reads.

    """
    try:
        said = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeError:
        return Search(wrong={"": "The address of this page is not text in UTF-8."})
    typed: dict[str, str] = {}
    pairs: list[str] = []
    wrong: dict[str, str] = {}
    for name, value in ((name, value.strip()) for name, value in said if name not in also):
        if name not in names:
            known = ", ".join(each for each in names if each != BEFORE)
            wrong[""] = f"There is no filter {quoted(name)} here; there are {known}."
        elif not value:
            continue
        elif name == METADATA:
            pairs.append(value)
        elif name in typed:
            wrong[name] = f"{name} came twice; say it once."
        else:
            typed[name] = value
    return _judged(typed, pairs, wrong)


def _judged(typed: dict[str, str], pairs: list[str], wrong: dict[str, str]) -> Search:
    def each(name: str, read: Any) -> Any:
        if name not in typed:
            return None
        try:
            return read(typed[name])
        except InvalidParameter as error:
            wrong.setdefault("" if name == BEFORE else name, error.message)
            return None

    since, last = each(FROM, _day), each(TO, _day)
    if since is not None and last is not None and last < since:
        wrong.setdefault(TO, "The last day is before the first; swap them.")
    metadata: dict[str, str] = {}
    try:
        metadata = _metadata(pairs)
    except InvalidParameter as error:
        wrong.setdefault(METADATA, error.message)
    return Search(
        typed=typed,
        pairs=tuple(pairs),
        wrong=wrong,
        state=each(STATE, state_of),
        model=each(MODEL, _text),
        since=since,
        until=None if last is None else last + DAY_MS,
        text=each(TEXT, _text) or "",
        metadata=metadata,
        before=each(BEFORE, _before),
    )


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


def _day(text: str) -> int:
    """The beginning of a UTC day, in milliseconds."""
    try:
        day = datetime.fromisoformat(text).replace(tzinfo=UTC) if _DAY.match(text) else None
    except ValueError:
        day = None
    if day is None or day.year < _FIRST_YEAR:
        raise InvalidParameter(f"Say a day such as 2026-11-23, not {quoted(text)}.")
    return int(day.timestamp()) * 1000


def _text(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise InvalidParameter(f"Look for at most {MAX_TEXT} characters; these are {len(text)}.")
    if not storable(text):
        raise InvalidParameter("It holds a NUL, which nothing here has; take it out.")
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


def _before(cursor: str) -> int:
    task_id = decode("page", cursor)
    if task_id is None:
        raise InvalidParameter("The address of this page is not whole; begin with the newest.")
    return task_id
