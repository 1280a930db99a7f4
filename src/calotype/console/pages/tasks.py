"""/console/tasks: an account's tasks, newest first, as they go on."""

from collections.abc import Mapping, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, account_page
from calotype.console.context import Console
from calotype.console.query import Notices
from calotype.console.search import TASKS, Search
from calotype.console.task_lines import TaskLine, searched_to
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


class Line(TaskLine, frozen=True):
    """One task of the list."""

    name: str
    """Of its model."""
    webhook: str
    """The state of a delivery that its receiver never took; else empty."""

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
            older="" if page.searched_to is None else search.link(PATH, before=page.searched_to),
            path_is=PATH,
            said=said,
            search=search,
            searched_to=searched_to(page.tasks, page.searched_to, LIMIT),
        )

    return [Route(PATH, account_page(console, tasks))]


async def _lines(console: Console, tasks: Sequence[Task]) -> list[Line]:
    missed = await _missed(console, tasks)
    models = console.catalog.models
    return [
        Line(
            task=task,
            now=console.clock(),
            name=models[task.model].name if task.model in models else task.model,
            webhook=missed.get(task.id, ""),
        )
        for task in tasks
    ]


async def _missed(console: Console, tasks: Sequence[Task]) -> Mapping[int, str]:
    ids = [task.id for task in tasks if task.has_webhook]
    found = await console.store.webhooks.of_tasks(ids) if ids else ()
    return {one.task_id: one.state for one in found if one.state in _MISSED}
