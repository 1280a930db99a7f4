"""/console/operator/audit: what was done, by whom, and what came of it."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, operator_page
from calotype.console.context import Console
from calotype.console.query import BEFORE, Query, page_id

PATH: Final = "/console/operator/audit"
LIMIT: Final = 100
"""Entries that are shown at a time."""


def routes(console: Console) -> list[Route]:
    """The routes of this group."""

    async def audit(request: Request, _visitor: Visitor) -> Response:
        query = Query(request.scope["query_string"], ("action", BEFORE))
        before = query.read(BEFORE, page_id)
        entries = (
            []
            if query.wrong
            else await console.store.operating.actions(
                action=query.typed.get("action"), before=before, limit=LIMIT + 1
            )
        )
        shown = entries[:LIMIT]
        return console.render.page(
            request,
            "operator/audit.html",
            status=422 if query.wrong else 200,
            actions=await console.store.operating.kinds_of_actions(),
            entries=shown,
            newest=query.link(PATH) if before is not None else "",
            older=query.link(PATH, before=shown[-1].id) if len(entries) > LIMIT else "",
            path_is=PATH,
            query=query,
        )

    return [Route(PATH, operator_page(console, audit))]
