"""/console/operator/tasks: everyone's tasks, newest first."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, operator_page
from calotype.console.context import Console
from calotype.console.query import BEFORE, Query, page_id
from calotype.console.render import redirect
from calotype.console.search import state_of
from calotype.console.task_lines import TaskLine, searched_to
from calotype.domain.catalog import quoted
from calotype.domain.channel import Channel
from calotype.domain.errors import InvalidParameter
from calotype.domain.ids import decode, encode
from calotype.domain.task import FINAL, Task
from calotype.store.operating import TaskPage

PATH: Final = "/console/operator/tasks"
LIMIT: Final = 50
"""Tasks that are shown at a time."""
NAMES: Final = ("task", "account", "state", "model", "channel", BEFORE)


class Line(TaskLine, frozen=True):
    """One task of the list."""

    account: str
    """The name of its account."""
    channel: Channel | None
    """Whose turn it is, or was; None where there is no such channel any more."""

    @property
    def settled(self) -> bool:
        """Whether its price is fixed."""
        return self.task.state in FINAL


def routes(console: Console) -> list[Route]:
    """The routes of this group."""

    async def tasks(request: Request, _visitor: Visitor) -> Response:
        accounts = {account.id: account.name for account in await console.store.accounts()}
        query = Query(request.scope["query_string"], NAMES)
        wanted = _wanted(console, query, accounts)
        task_id = query.read("task", _task)
        if task_id is not None and not query.wrong:
            if await console.store.task(task_id) is not None:
                return redirect(f"{PATH}/{encode('task', task_id)}")
            query.wrong["task"] = "There is no task with this id."
        page = TaskPage((), None)
        if not query.wrong:
            page = await console.store.operating.tasks(**wanted, limit=LIMIT)
        return console.render.page(
            request,
            "operator/tasks.html",
            status=422 if query.wrong else 200,
            channels=[channel.slug for channel in console.router.channels],
            lines=[_line(console, task, accounts) for task in page.tasks],
            models=sorted(console.catalog.models),
            newest=query.link(PATH) if wanted["before"] is not None else "",
            older="" if page.go_on is None else query.link(PATH, before=page.go_on),
            path_is=PATH,
            query=query,
            searched_to=searched_to(page.tasks, page.go_on, LIMIT),
        )

    return [Route(PATH, operator_page(console, tasks))]


def _wanted(console: Console, query: Query, accounts: Mapping[int, str]) -> dict[str, Any]:
    """What is asked of the store."""
    ids = {name: id_ for id_, name in accounts.items()}
    slugs = {channel.slug: channel.id for channel in console.router.channels}
    return {
        "account_id": query.read("account", lambda name: _found(name, ids, "account")),
        "state": query.read("state", state_of),
        "model": query.read("model", str),
        "channel_id": query.read("channel", lambda slug: _found(slug, slugs, "channel")),
        "before": query.read(BEFORE, page_id),
    }


def _found(name: str, known: Mapping[str, int], kind: str) -> int:
    if name not in known:
        raise InvalidParameter(f"There is no {kind} {quoted(name)}.")
    return known[name]


def _task(word: str) -> int:
    task_id = decode("task", word)
    if task_id is None:
        raise InvalidParameter("A task's id begins with task_ and has 13 letters and digits more.")
    return task_id


def _line(console: Console, task: Task, accounts: Mapping[int, str]) -> Line:
    return Line(
        task=task,
        now=console.clock(),
        account=accounts.get(task.account_id, "?"),
        channel=console.router.get(task.channel_id),
    )
