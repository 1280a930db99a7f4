"""GET /v1/tasks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from calotype.api.context import Context, authenticate, base_url
from calotype.api.render import json_answer
from calotype.api.tasks import FRESH
from calotype.domain.catalog import quoted
from calotype.domain.errors import InvalidParameter, UnsupportedParameter
from calotype.domain.ids import decode, encode
from calotype.domain.options import check_metadata
from calotype.domain.task import State
from calotype.domain.validation import storable, unstorable

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100
MAX_SINCE: Final = 10**11
"""Seconds; whoever sends milliseconds is told so instead of being shown nothing."""

_METADATA: Final = "metadata."
_PAGE: Final = ("limit", "cursor")
_NAMES: Final = ("state", "model", "since", *_PAGE)
_DIGITS: Final = 15
_PARAM: Final = 100
"""Characters of a name that an error repeats as ``param``."""


class Asked(msgspec.Struct, frozen=True):
    """Which tasks a query asks for."""

    state: State | None = None
    model: str | None = None
    since: int | None = None
    """Unix seconds."""
    metadata: dict[str, str] = {}
    before: int | None = None
    """The id of the last task of the page before."""
    limit: int = DEFAULT_LIMIT


class TaskList:
    """Shows an account's tasks, newest first."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def handle(self, request: Request) -> Response:
        """A page of them."""
        key = await authenticate(request.scope, self._context.accounts)
        asked = read_query(request.scope["query_string"])
        found = await self._context.store.search(
            key.account_id,
            state=asked.state,
            model=asked.model,
            since=None if asked.since is None else asked.since * 1000,
            metadata=asked.metadata,
            before=asked.before,
            limit=asked.limit + 1,  # one more, to know whether there is another page
        )
        page = found[: asked.limit]
        has_more = len(found) > asked.limit
        documents = await self._context.delivery.documents(
            page, base_url=base_url(request.scope, self._context.public_url)
        )
        document = {
            "object": "list",
            "data": documents,
            "has_more": has_more,
            "next_cursor": encode("page", page[-1].id) if has_more else None,
        }
        return json_answer(200, document, headers=[FRESH]).response()


def read_query(query: bytes) -> Asked:
    """What a query string asks for.

    Raises:
        errors.UnsupportedParameter: a name that means nothing here.
        errors.InvalidParameter: a name that comes twice, or a value that cannot be.

    """
    values = _values(query, _NAMES, metadata=True)
    return Asked(
        state=_state(values["state"]) if "state" in values else None,
        model=_text(values["model"], "model") if "model" in values else None,
        since=_number(values["since"], "since", range(MAX_SINCE + 1))
        if "since" in values
        else None,
        metadata=_metadata(values.items()),
        before=_before_of(values),
        limit=_limit_of(values),
    )


def read_page(query: bytes) -> Asked:
    """Which page of a list without filters a query string asks for.

    Raises:
        errors.UnsupportedParameter, errors.InvalidParameter: as ``read_query`` does.

    """
    values = _values(query, _PAGE, metadata=False)
    return Asked(before=_before_of(values), limit=_limit_of(values))


def _values(query: bytes, names: Sequence[str], *, metadata: bool) -> dict[str, str]:
    """The parameters of a query, each once: of these names, or of metadata where that counts."""
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
    except UnicodeError:
        raise InvalidParameter(
            "The query is not UTF-8; percent-encode its names and values as UTF-8."
        ) from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in names and not (metadata and name.startswith(_METADATA)):
            others = ", and metadata.<key> for a key of the metadata" if metadata else ""
            raise UnsupportedParameter(
                f"There is no query parameter {quoted(name)}; there are {', '.join(names)}"
                f"{others}.",
                param=_shown(name),
            )
        if name in values:
            raise InvalidParameter(f"{quoted(name)} came twice; send it once.", param=_shown(name))
        values[name] = value
    return values


def _state(word: str) -> State:
    try:
        return State(word.lower())
    except ValueError:
        raise InvalidParameter(
            f"state must be one of {', '.join(State)}, not {quoted(word)}.", param="state"
        ) from None


def _number(text: str, name: str, allowed: range) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= _DIGITS
    if not digits or int(text) not in allowed:
        what = "a time in Unix seconds" if name == "since" else "a whole number"
        raise InvalidParameter(
            f"{name} must be {what} from {allowed[0]} to {allowed[-1]}, not {quoted(text)}.",
            param=name,
        )
    return int(text)


def _text(text: str, name: str) -> str:
    if not storable(text):
        raise unstorable(name)
    return text


def _metadata(values: Iterable[tuple[str, str]]) -> dict[str, str]:
    pairs = {
        name.removeprefix(_METADATA): value for name, value in values if name.startswith(_METADATA)
    }
    return check_metadata(pairs)


def _limit_of(values: Mapping[str, str]) -> int:
    return _number(values.get("limit", str(DEFAULT_LIMIT)), "limit", range(1, MAX_LIMIT + 1))


def _before_of(values: Mapping[str, str]) -> int | None:
    if "cursor" not in values:
        return None
    last = decode("page", values["cursor"])
    if last is None:
        raise InvalidParameter(
            "cursor must be the next_cursor of the page before, as it was given.", param="cursor"
        )
    return last


def _shown(name: str) -> str | None:
    """A name as far as an error can repeat it as ``param``."""
    return name if len(name) <= _PARAM and name.isprintable() else None
