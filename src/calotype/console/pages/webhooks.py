"""/console/webhooks: where an account is told of its tasks, its secrets, and what was sent."""

from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, account_page
from calotype.console.context import Console
from calotype.console.errors import PageError
from calotype.console.live import server_url
from calotype.console.render import redirect
from calotype.domain.catalog import quoted
from calotype.domain.errors import InvalidParameter
from calotype.domain.ids import decode, encode
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
SAID: Final = {
    "set": ("good", "Saved. Tasks that end from now on are told of there."),
    "cleared": ("good", "Saved. Only tasks with a callback_url of their own are told of."),
    "rotated": ("good", "There is a new secret; give it to your receiver."),
    "redelivering": ("good", "The webhook is on its way again."),
}
"""What a page says after something was done: the kind of notice, and the words."""


class Asked(msgspec.Struct, frozen=True):
    """What the list of deliveries was asked for."""

    state: DeliveryState | None = None
    before: int | None = None
    """The id of the task before which the page begins."""
    said: tuple[str, str] | None = None

    def link(self, *, before: int | None = None) -> str:
        """The same from another place on; the newest without one."""
        return link(self.state, before=before)


def link(state: str | None, *, before: int | None = None) -> str:
    """The list of deliveries in a state."""
    said = {"state": state, "before": None if before is None else encode("page", before)}
    query = urlencode({name: value for name, value in said.items() if value is not None})
    return f"{PATH}?{query}" if query else PATH


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
        return await self._page(request, visitor, _asked(request))

    async def set_url(self, request: Request, visitor: Visitor) -> Response:
        """Tell of tasks there, or with an empty URL nowhere."""
        url = "" if "remove" in visitor.form else visitor.form.get("url")
        try:
            await self._console.webhooks.set_url(visitor.account_id, url or None)
        except InvalidParameter as error:
            return await self._page(request, visitor, Asked(), typed=url, wrong=error.message)
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
            return await self._page(request, visitor, Asked(), overlap_wrong=error.message)
        await self._console.webhooks.rotate(visitor.account_id, overlap_seconds=overlap)
        return redirect(f"{PATH}?said=rotated")

    async def delivery(self, request: Request, visitor: Visitor) -> Response:
        """One delivery with every try."""
        said = _asked(request, "said").said
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
        asked: Asked,
        *,
        typed: str | None = None,
        wrong: str = "",
        overlap_wrong: str = "",
    ) -> Response:
        webhooks = self._console.webhooks
        settings = await webhooks.settings(visitor.account_id)
        page: Page = await webhooks.deliveries(
            visitor.account_id, state=asked.state, before=asked.before, limit=LIMIT
        )
        here = asked.link(before=asked.before)
        return self._console.render.page(
            request,
            "webhooks/list.html",
            status=422 if wrong or overlap_wrong else 200,
            asked=asked,
            back=f"{here}{'&' if '?' in here else '?'}said=redelivering",
            deliveries=page.data,
            newest=asked.link() if asked.before is not None else "",
            older="" if page.last is None else asked.link(before=page.last),
            overlap_wrong=overlap_wrong,
            overlaps=OVERLAPS,
            path_is=PATH,
            said=asked.said,
            server=server_url(self._console, request),
            settings=settings,
            states=[(link(state), state, state == asked.state) for state in (None, *STORED)],
            typed=settings["url"] if typed is None else typed,
            wrong=wrong,
        )


def _asked(request: Request, *names: str) -> Asked:
    """What the query says.

    Raises:
        PageError: it makes no sense.

    """
    said: dict[str, Any] = {}
    known = names or ("state", "before", "said")
    for name, value in request.query_params.multi_items():
        if name not in known or name in said:
            wrong = f"There is no {quoted(name)} here." if name not in known else f"{name} twice."
            raise PageError(422, f"{wrong} Begin with the newest: {PATH}.")
        said[name] = value
    state, notice = said.get("state"), said.get("said")
    before = None if "before" not in said else decode("page", said["before"])
    if state is not None and state not in STORED:
        raise PageError(422, f"There is no state {quoted(state)}; choose {', '.join(STORED)}.")
    if "before" in said and before is None:
        raise PageError(422, "The address of this page is not whole; begin with the newest.")
    if notice is not None and notice not in SAID:
        raise PageError(422, "The page has no such notice.")
    return Asked(None if state is None else DeliveryState(state), before, SAID.get(notice or ""))
