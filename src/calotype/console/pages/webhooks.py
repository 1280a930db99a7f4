"""/console/webhooks: where an account is told of its tasks, its secrets, and what was sent."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, account_page
from calotype.console.context import Console
from calotype.console.live import server_url
from calotype.console.query import BEFORE, SAID, Notices, Query, notice, page_id
from calotype.console.render import redirect
from calotype.domain.errors import InvalidParameter
from calotype.domain.validation import integer_of
from calotype.domain.webhooks import MAX_OVERLAP_SECONDS, DeliveryState
from calotype.services.webhooks import Page
from calotype.store.webhooks import STORED

PATH: Final = "/console/webhooks"
LIMIT: Final = 50
"""Deliveries that are shown at a time."""
OVERLAPS: Final = (
    (24 * 3600, "for another day"),
    (7 * 24 * 3600, "for another week"),
    (3600, "for another hour"),
    (0, "no longer"),
)
"""Seconds for which the old secret signs, too, and how that is said."""
NOTICES: Final[Notices] = {
    "set": ("good", "Saved. Tasks that end from now on are told of there."),
    "cleared": ("good", "Saved. Only tasks with a callback_url of their own are told of."),
    "rotated": ("good", "There is a new secret; give it to your receiver."),
    "redelivering": ("good", "The webhook is on its way again."),
}


def routes(console: Console) -> list[Route]:
    """The routes of this group."""
    pages = _Webhooks(console)
    return [
        Route(PATH, account_page(console, pages.show)),
        Route(PATH, account_page(console, pages.set_url), methods=["POST"]),
        Route(f"{PATH}/rotate", account_page(console, pages.rotate), methods=["POST"]),
        Route(f"{PATH}/{{task_id}}", account_page(console, pages.delivery)),
    ]


class _Webhooks:
    def __init__(self, console: Console) -> None:
        self._console = console

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """Settings, and the deliveries."""
        return await self._page(request, visitor)

    async def set_url(self, request: Request, visitor: Visitor) -> Response:
        """Tell of tasks there, or with an empty URL nowhere."""
        url = "" if "remove" in visitor.form else visitor.form.get("url")
        try:
            await self._console.webhooks.set_url(visitor.account_id, url or None)
        except InvalidParameter as error:
            return await self._page(request, visitor, typed=url, wrong=error.message)
        return redirect(f"{PATH}?said={'set' if url else 'cleared'}")

    async def rotate(self, request: Request, visitor: Visitor) -> Response:
        """Make a new secret beside the old one."""
        try:
            overlap = integer_of(
                visitor.form.get("overlap_seconds"),
                "overlap_seconds",
                minimum=0,
                maximum=MAX_OVERLAP_SECONDS,
                text=True,
            )
        except InvalidParameter as error:
            return await self._page(request, visitor, overlap_wrong=error.message)
        await self._console.webhooks.rotate(visitor.account_id, overlap_seconds=overlap)
        return redirect(f"{PATH}?said=rotated")

    async def delivery(self, request: Request, visitor: Visitor) -> Response:
        """One delivery with every try."""
        said = notice(request, NOTICES)
        word = request.path_params["task_id"]
        task = await self._console.delivery.find(word, account_id=visitor.account_id)
        return self._console.render.page(
            request,
            "webhooks/delivery.html",
            delivery=await self._console.webhooks.delivery(task),
            next=f"{PATH}/{word}?said=redelivering",
            prompt=task.request.prompt,
            said=said,
        )

    async def _page(
        self,
        request: Request,
        visitor: Visitor,
        *,
        typed: str | None = None,
        wrong: str = "",
        overlap_wrong: str = "",
    ) -> Response:
        query = Query(request.scope["query_string"], ("state", BEFORE, SAID))
        state, before = query.among("state", STORED), query.read(BEFORE, page_id)
        said = query.notice(NOTICES)
        query.refuse()
        webhooks = self._console.webhooks
        settings = await webhooks.settings(visitor.account_id)
        page: Page = await webhooks.deliveries(
            visitor.account_id,
            state=DeliveryState(state) if state else None,
            before=before,
            limit=LIMIT,
        )
        return self._console.render.page(
            request,
            "webhooks/list.html",
            status=422 if wrong or overlap_wrong else 200,
            back=query.link(PATH, before=before, said="redelivering"),
            deliveries=page.data,
            newest="" if before is None else query.link(PATH),
            older="" if page.last is None else query.link(PATH, before=page.last),
            overlap_wrong=overlap_wrong,
            overlaps=OVERLAPS,
            path_is=PATH,
            said=said,
            server=server_url(self._console, request),
            settings=settings,
            state=state,
            states=[
                (f"{PATH}?state={each}" if each else PATH, each, each == state)
                for each in ("", *STORED)
            ],
            typed=settings["url"] if typed is None else typed,
            wrong=wrong,
        )
