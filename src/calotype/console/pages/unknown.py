"""/console/operator/unknown: attempts that an upstream may have billed, and settling them."""

import re
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, operator_page
from calotype.console.context import Console
from calotype.console.errors import PageError
from calotype.console.pages.overview import UNKNOWN
from calotype.console.query import BEFORE, SAID, Query, asked
from calotype.console.render import redirect
from calotype.domain.errors import InvalidParameter
from calotype.domain.ids import decode, encode
from calotype.domain.money import parse_usd
from calotype.store.operating import AttemptCursor, Resolution, UnknownAttempt

PAGE: Final = 50
MAX_NOTE: Final = 300
_SETTLED: Final = "settled"
_SHOWN: Final = ("open", _SETTLED)
_RESOLUTIONS: Final[dict[str, Resolution]] = {"billed": "billed", "free": "free"}
_NUMBER: Final = re.compile(r"[1-9]\d{0,8}", re.ASCII)
_LOST: Final = "There is no such attempt, or its outcome is known."


def routes(console: Console) -> list[Route]:
    """The routes of this group."""
    pages = _Unknown(console)
    one = f"{UNKNOWN}/{{task_id}}/{{number}}"
    return [
        Route(UNKNOWN, operator_page(console, pages.all)),
        Route(one, operator_page(console, pages.one)),
        Route(one, operator_page(console, pages.settle), methods=["POST"]),
    ]


class _Unknown:
    def __init__(self, console: Console) -> None:
        self._console = console

    async def all(self, request: Request, _visitor: Visitor) -> Response:
        """Those to settle, or those that are."""
        query = Query(request.scope["query_string"], ("show", BEFORE, SAID))
        settled = query.among("show", _SHOWN) == _SETTLED
        before = query.read(BEFORE, _cursor)
        done = query.among(SAID, (_SETTLED,))
        query.refuse()
        found = await self._console.store.operating.unknown(
            resolved=settled,
            before=before,
            limit=PAGE + 1,
        )
        older = ""
        if len(found) > PAGE:
            older = query.link(UNKNOWN, before=_word(found[PAGE - 1].cursor))
        return self._console.render.page(
            request,
            "operator/unknown.html",
            settled=settled,
            rows=[self._row(one) for one in found[:PAGE]],
            older=older,
            newest="" if before is None else query.link(UNKNOWN),
            said=bool(done),
        )

    async def one(self, request: Request, _visitor: Visitor) -> Response:
        """What is known of one, and the form that settles it."""
        asked(request)
        return self._form(request, await self._find(request))

    async def settle(self, request: Request, visitor: Visitor) -> Response:
        """Settle it by what the upstream's own records say."""
        found, form = await self._find(request), visitor.form
        typed = {name: form.get(name) for name in ("resolution", "cost", "note")}
        wrong: dict[str, str] = {}
        if typed["resolution"] not in _RESOLUTIONS:
            wrong["resolution"] = "Say which of the two the upstream's records show."
        if len(typed["note"]) > MAX_NOTE:
            wrong["note"] = f"At most {MAX_NOTE} characters; this has {len(typed['note'])}."
        cost = None
        try:
            cost = parse_usd(typed["cost"]) if typed["cost"] else None
        except ValueError as error:
            wrong["cost"] = str(error)
        if not wrong:
            try:
                await self._console.operating.resolve(
                    visitor.actor,
                    encode("task", found.task_id),
                    found.attempt.number,
                    resolution=_RESOLUTIONS[typed["resolution"]],
                    cost=cost,
                    note=typed["note"],
                )
            except InvalidParameter as error:
                if error.param != "cost":
                    raise PageError(409, error.message, title="Settled already") from None
                wrong["cost"] = error.message
        if wrong:
            return self._form(request, found, status=422, typed=typed, wrong=wrong)
        return redirect(f"{UNKNOWN}?{SAID}={_SETTLED}")

    def _form(
        self, request: Request, found: UnknownAttempt, *, status: int = 200, **values: Any
    ) -> Response:
        given = {"typed": {"resolution": "", "cost": "", "note": ""}, "wrong": {}}
        return self._console.render.page(
            request,
            "operator/settle.html",
            status=status,
            row=self._row(found),
            one=found,
            most=MAX_NOTE,
            **(given | values),
        )

    async def _find(self, request: Request) -> UnknownAttempt:
        """The attempt that the path names, settled or not."""
        task_id = decode("task", request.path_params["task_id"])
        word = request.path_params["number"]
        number = int(word) if _NUMBER.fullmatch(word) else 0
        attempts = [] if task_id is None else await self._console.store.attempts(task_id)
        for attempt in attempts:
            if task_id is None or attempt.number != number or attempt.finished_at is None:
                continue
            found = await self._console.store.operating.unknown(
                resolved=attempt.resolved_at is not None,
                before=AttemptCursor(attempt.finished_at, task_id, number + 1),
                limit=1,
            )
            if found and (found[0].task_id, found[0].attempt.number) == (task_id, number):
                return found[0]
        raise PageError(404, _LOST)

    def _row(self, one: UnknownAttempt) -> dict[str, Any]:
        channel = self._console.router.get(one.attempt.channel_id)
        return {
            "one": one,
            "attempt": one.attempt,
            "word": encode("task", one.task_id),
            "slug": channel.slug if channel in self._console.router.channels else "",
            "channel": f"channel {one.attempt.channel_id}" if channel is None else channel.slug,
        }


def _word(cursor: AttemptCursor) -> str:
    return f"{cursor.finished_at}.{encode('task', cursor.task_id)}.{cursor.number}"


def _cursor(word: str) -> AttemptCursor:
    at, _, rest = word.partition(".")
    task, _, number = rest.partition(".")
    task_id = decode("task", task)
    most = 15
    plain = all(part.isascii() and part.isdigit() and len(part) <= most for part in (at, number))
    if task_id is None or not plain:
        raise InvalidParameter("There is no such place in this list; begin with the newest.")
    return AttemptCursor(int(at), task_id, int(number))
