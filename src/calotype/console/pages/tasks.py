"""/console/tasks: an account's tasks, newest first, as they go on."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, account_page
from calotype.console.context import Console
from calotype.console.query import Notices
from calotype.console.search import TASKS, Search
from calotype.domain.ids import encode, time_of
from calotype.domain.task import FINAL, Task
from calotype.domain.webhooks import DeliveryState
from calotype.store.gallery import Page

PATH: Final = "/console/tasks"
LIMIT: Final = 50
"""Tasks that are shown at a time."""
NOTICES: Final[Notices] = {
    "cancel": ("info", "The task was asked to stop; the list shows what comes of it."),
    "redeliver": ("good", "The webhook is on its way again."),
}
_MISSED: Final = frozenset({DeliveryState.FAILED, DeliveryState.DISABLED})


class Line(msgspec.Struct, frozen=True):
    """One task of the list."""

    task: Task
    word: str
    name: str
    """Of its model."""
    image: str
    """Its first picture, as a URL without the width; empty where it has none."""
    webhook: str
    """The state of a delivery that its receiver never took; else empty."""

    @property
    def took(self) -> int | None:
        """From submission to its end, in milliseconds."""
        ended = self.task.completed_at
        return None if ended is None else ended - self.task.created_at

    @property
    def can_stop(self) -> bool:
        """Whether asking it to stop would change anything."""
        return self.task.state not in FINAL and self.task.cancel_at is None


def routes(console: Console) -> list[Route]:
    """The routes of this group."""

    async def tasks(request: Request, visitor: Visitor) -> Response:
        search = Search(request.scope["query_string"], TASKS)
        said = search.notice(NOTICES)
        page = Page([], None)
        if not search.wrong:
            page = await console.store.gallery.tasks(
                visitor.account_id, state=search.state, **search.wanted, limit=LIMIT
            )
        return console.render.page(
            request,
            "tasks/list.html",
            fragment="tasks/_rows.html",
            status=422 if search.wrong else 200,
            back=search.link(PATH, before=search.before, said=""),
            here_is=search.link(PATH, before=search.before),
            lines=await _lines(console, page.tasks),
            models=sorted(console.catalog.models),
            newest=search.link(PATH) if search.before is not None else "",
            older=_older(search, page),
            path_is=PATH,
            said=said,
            search=search,
            searched_to=_searched_to(page),
        )

    return [Route(PATH, account_page(console, tasks))]


def _older(search: Search, page: Page) -> str:
    return "" if page.searched_to is None else search.link(PATH, before=page.searched_to)


def _searched_to(page: Page) -> int | None:
    """The time down to which nothing else was found, where the search broke off."""
    if page.searched_to is None or len(page.tasks) == LIMIT:
        return None
    return time_of(page.searched_to)


async def _lines(console: Console, tasks: Sequence[Task]) -> list[Line]:
    missed = await _missed(console, tasks)
    models = console.catalog.models
    return [
        Line(
            task=task,
            word=encode("task", task.id),
            name=models[task.model].name if task.model in models else task.model,
            image=_image(task),
            webhook=missed.get(task.id, ""),
        )
        for task in tasks
    ]


async def _missed(console: Console, tasks: Sequence[Task]) -> Mapping[int, str]:
    ids = [task.id for task in tasks if task.has_webhook]
    found = await console.store.webhooks.of_tasks(ids) if ids else ()
    return {one.task_id: one.state for one in found if one.state in _MISSED}


def _image(task: Task) -> str:
    images = () if task.deleted_at else task.result or task.arrived
    return f"/console/images/{encode('asset', images[0].asset_id)}" if images else ""
