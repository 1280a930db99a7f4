"""/console/usage and /console/ledger: what was used, and where the money went."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from calotype.console import charts
from calotype.console.access import Visitor, account_page
from calotype.console.context import Console
from calotype.console.errors import PageError
from calotype.console.query import BEFORE, Query, asked
from calotype.domain.errors import InvalidParameter
from calotype.domain.limits import DAY_MS
from calotype.services.usage import DEFAULT_DAYS, Days, Report, Usage, csv_lines, date_of
from calotype.store.usage import EntryCursor, LedgerLine, Tally

USAGE: Final = "/console/usage"
LEDGER: Final = "/console/ledger"
RANGES: Final = (("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days"), ("month", "This month"))
ENTRIES: Final = 50
"""Ledger entries on a page."""
_DEFAULT: Final = f"{DEFAULT_DAYS}d"
_CURSOR: Final = re.compile(r"(\d{1,18})\.(-?\d{1,18})", re.ASCII)
_TEXT: Final = "text/csv; charset=utf-8"


class AskedDays(msgspec.Struct, frozen=True):
    """The days that a page is asked for: as it was typed, and what that comes to."""

    range: str
    """One of ``RANGES``; empty for days of one's own."""
    since: str
    until: str
    days: Days | None
    """None where it comes to nothing."""
    wrong: Mapping[str, str]
    """What is wrong with it, by field."""


class LedgerPage(msgspec.Struct, frozen=True):
    """A page of a ledger."""

    lines: Sequence[LedgerLine]
    older: str
    """Where it goes on; empty at the end."""
    is_first: bool


def routes(console: Console) -> list[Route]:
    """The routes of this group."""
    pages = _Usage(console)
    return [
        Route(USAGE, account_page(console, pages.usage)),
        Route(f"{USAGE}.csv", account_page(console, pages.usage_file)),
        Route(LEDGER, account_page(console, pages.ledger)),
        Route(f"{LEDGER}.csv", account_page(console, pages.ledger_file)),
    ]


class _Usage:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._usage = console.usage

    async def usage(self, request: Request, visitor: Visitor) -> Response:
        """What was used in a range of days."""
        query = asked_days(self._usage, request)
        report: Report | None = None
        by_key: Sequence[tuple[str, Tally]] = ()
        if query.days is not None:
            report = await self._usage.report(query.days, account_id=visitor.account_id)
            by_key = await self._usage.by_key(query.days, account_id=visitor.account_id)
        return self._console.render.page(
            request,
            "usage.html",
            status=200 if report else 422,
            asked=query,
            ranges=RANGES,
            report=report,
            by_key=by_key,
            charts=charts,
        )

    async def usage_file(self, request: Request, visitor: Visitor) -> Response:
        """The same for a spreadsheet, by day, key, model and channel."""
        days = file_days(self._usage, request)
        rows = self._usage.rows(days, account_id=visitor.account_id)
        return spreadsheet(rows, f"usage-{date_of(days.first)}-{date_of(days.last)}")

    async def ledger(self, request: Request, visitor: Visitor) -> Response:
        """Every entry with what was available after it."""
        return self._console.render.page(
            request,
            "ledger.html",
            page=await ledger_page(self._console, request, visitor.account_id, LEDGER),
            balance=await self._console.store.balance(visitor.account_id),
            tasks="/console/tasks",
        )

    async def ledger_file(self, request: Request, visitor: Visitor) -> Response:
        """The whole of it for a spreadsheet."""
        asked(request)
        today = date_of(self._console.clock() // DAY_MS)
        return spreadsheet(self._usage.ledger(visitor.account_id), f"ledger-{today}")


def asked_days(usage: Usage, request: Request) -> AskedDays:
    """The days that the address of a page asks for; 30 of them where it says nothing."""
    query = asked(request, "since", "until", range=dict(RANGES))
    name, since, until = query["range"], query["since"], query["until"]
    if name and (since or until):
        raise PageError(400, "Ask for a range, or for the days since and until; not for both.")
    if since or until:
        try:
            return AskedDays("", since, until, usage.asked(since, until), {})
        except InvalidParameter as error:
            return AskedDays("", since, until, None, {error.param or "since": error.message})
    name = name or _DEFAULT
    days = usage.asked()
    if name == "month":
        first = days.last - date_of(days.last).day + 1
    else:
        first = days.last - int(name.removesuffix("d")) + 1
    days = Days(max(0, first), days.last)
    return AskedDays(name, str(date_of(days.first)), str(date_of(days.last)), days, {})


def file_days(usage: Usage, request: Request) -> Days:
    """The days that the address of a spreadsheet asks for.

    Raises:
        errors.InvalidParameter: they are none.

    """
    query = asked(request, "since", "until")
    return usage.asked(query["since"], query["until"])


async def ledger_page(console: Console, request: Request, account_id: int, path: str) -> LedgerPage:
    """The page of a ledger that the address asks for.

    Raises:
        PageError: it is none.

    """
    query = Query(request.scope["query_string"], (BEFORE,))
    cursor = query.read(BEFORE, _cursor)
    query.refuse()
    found = await console.store.usage.entries(account_id, before=cursor, limit=ENTRIES + 1)
    lines = found[:ENTRIES]
    older = ""
    if len(found) > ENTRIES:
        last = lines[-1].cursor
        older = query.link(path, before=f"{last.id}.{last.available}")
    return LedgerPage(lines, older, cursor is None)


def spreadsheet(rows: AsyncIterator[list[str]], name: str) -> Response:
    """Rows as a file that the browser keeps."""
    headers = {"content-disposition": f'attachment; filename="calotype-{name}.csv"'}
    return StreamingResponse(csv_lines(rows), media_type=_TEXT, headers=headers)


def _cursor(word: str) -> EntryCursor:
    found = _CURSOR.fullmatch(word)
    if found is None:
        raise InvalidParameter("There is no such place in the ledger; begin with the newest.")
    return EntryCursor(int(found[1]), int(found[2]))
