"""/console/operator/usage: what everybody spent, against what upstreams charged."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console import charts
from calotype.console.access import Visitor, operator_page
from calotype.console.context import Console
from calotype.console.pages.usage import RANGES, asked_days, file_days, spreadsheet
from calotype.services.usage import Report, date_of
from calotype.store.port import Account
from calotype.store.usage import Tally

PATH: Final = "/console/operator/usage"


def routes(console: Console) -> list[Route]:
    """The routes of this group."""
    usage = console.usage

    async def everyones(request: Request, _visitor: Visitor) -> Response:
        query = asked_days(usage, request)
        report: Report | None = None
        found: dict[str, Sequence[tuple[str, Tally]]] = {}
        links: Mapping[str, Mapping[str, str]] = {}
        if query.days is not None:
            accounts = await console.store.accounts()
            links = _links(console, accounts)
            report = await usage.report(query.days, account_id=None)
            found = {
                "Channel": await usage.by_channel(query.days),
                "Model": report.by_model,
                "Account": await usage.by_account(
                    query.days, {each.id: each.name for each in accounts}
                ),
            }
        return console.render.page(
            request,
            "operator/usage.html",
            status=200 if report else 422,
            asked=query,
            ranges=RANGES,
            report=report,
            breakdowns={
                head: charts.rows(rows, report.total) for head, rows in found.items() if report
            },
            links=links,
            charts=charts,
            path_is=PATH,
        )

    async def file(request: Request, _visitor: Visitor) -> Response:
        days = file_days(usage, request)
        name = f"usage-of-all-{date_of(days.first)}-{date_of(days.last)}"
        return spreadsheet(usage.all_rows(days), name)

    return [
        Route(PATH, operator_page(console, everyones)),
        Route(f"{PATH}.csv", operator_page(console, file)),
    ]


def _links(console: Console, accounts: Sequence[Account]) -> Mapping[str, Mapping[str, str]]:
    """Where the names of each breakdown lead."""

    def below(path: str, names: Iterable[str]) -> dict[str, str]:
        return {name: f"/console/operator/{path}/{quote(name, safe='')}" for name in names}

    return {
        "Channel": below("channels", (each.slug for each in console.router.channels)),
        "Model": below("catalog", console.catalog.models),
        "Account": {each.name: f"/console/operator/accounts/{each.id}" for each in accounts},
    }
