"""/console/tasks/{task_id}: one task, all of it, and what can be done with it."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, account_page, local, operator_page
from calotype.console.context import Console
from calotype.console.filters import duration, moment
from calotype.console.live import live_task, server_url, visible_task
from calotype.console.query import Notices, notice
from calotype.console.render import redirect
from calotype.console.task_lines import image_path
from calotype.domain.errors import WebhookNotFound
from calotype.domain.files import SCHEME
from calotype.domain.pricing import cancelled
from calotype.domain.task import FINAL, Event, State, Task
from calotype.services.audit import CONSOLE
from calotype.store.port import LoggedEvent

EVENTS: Final = 500
"""Events that are shown of a task; few have more than a dozen."""
NOTICES: Final[Notices] = {
    "cancelled": ("good", "The task is cancelled; it cost nothing."),
    "stopping": ("info", "The task is being stopped. It ends as soon as its upstream says so."),
    "over": ("info", "The task was over before it could be cancelled."),
    "deleted": ("good", "The images are deleted for good."),
    "redelivering": ("good", "The webhook is on its way again."),
}

_TITLES: Final[Mapping[str, str]] = {
    "submit": "Accepted",
    Event.TAKE: "Taken up",
    Event.QUEUE: "Queued upstream",
    Event.RUN: "Developing",
    Event.CANCEL: "Asked to stop",
    Event.COMPLETE: "Done",
    Event.FAIL: "Failed",
}
_TONES: Final[Mapping[str, str]] = {
    Event.COMPLETE: "good",
    Event.FAIL: "bad",
    Event.CANCEL: "warn",
    Event.RUN: "busy",
}

Deed = Callable[[Task, str], Awaitable[str]]
"""Does something with a task (and the public id of it); returns one of ``NOTICES``."""


class Happening(msgspec.Struct, frozen=True):
    """A point of a task's timeline."""

    title: str
    ms: int
    at: str
    """How long after the one before; of the first, the time."""
    text: str
    tone: str


def routes(console: Console) -> list[Route]:
    """The routes of this group."""
    pages = _TaskPages(console)
    deeds: dict[str, Deed] = {
        "cancel": pages.cancel,
        "delete": pages.delete,
        "redeliver": pages.redeliver,
    }
    found = []
    for prefix, page in (("", account_page), ("operator/", operator_page)):
        path = f"/console/{prefix}tasks/{{task_id}}"
        found.append(Route(path, page(console, pages.show)))
        found += (
            Route(f"{path}/{name}", page(console, pages.doing(name, deed)), methods=["POST"])
            for name, deed in deeds.items()
        )
    return found


class _TaskPages:
    def __init__(self, console: Console) -> None:
        self._console = console

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """All of a task."""
        said = notice(request, NOTICES)
        console, operator = self._console, visitor.api_key is None
        task = await visible_task(console, visitor, request.path_params["task_id"])
        live = live_task(console, request, task, operator=operator)
        document = await console.delivery.document(task, base_url=server_url(console, request))
        events = await console.store.events(after="", limit=EVENTS, task_id=task.id)
        return console.render.page(
            request,
            "tasks/detail.html",
            account=await console.store.account(task.account_id) if operator else None,
            attempts=await console.store.attempts(task.id) if operator else (),
            back="/console/operator/tasks" if operator else "/console/tasks",
            channel=self._channel(task.channel_id),
            channel_name=self._channel,
            document=msgspec.json.format(msgspec.json.encode(document)).decode(),
            happened=list(_timeline(events)),
            live=live,
            most_to_cancel=self._most_to_cancel(task),
            operator=operator,
            references=await self._references(task),
            said=said,
            task=task,
            webhook=await self._webhook(task),
        )

    async def _references(self, task: Task) -> list[tuple[str, str]]:
        """For each its small copies, without the width, and its URL; empty where it has none."""
        ids = [each.asset_id for each in task.references if each.asset_id is not None]
        found = await self._console.store.assets(ids) if ids else ()
        now = self._console.clock()
        shown = {each.id for each in found if each.is_shown(now=now)}
        return [
            (image_path(each.asset_id) if each.asset_id in shown else "", _link(each.url))
            for each in task.references
        ]

    def doing(self, name: str, deed: Deed) -> Callable[[Request, Visitor], Awaitable[Response]]:
        """What a button of the page does; the operator's deeds go into the audit."""

        async def handle(request: Request, visitor: Visitor) -> Response:
            word = request.path_params["task_id"]
            task = await visible_task(self._console, visitor, word)
            if visitor.api_key is None:
                async with self._console.audit.action(CONSOLE, f"task.{name}", word):
                    said = await deed(task, word)
            else:
                said = await deed(task, word)
            page = request.url.path.rpartition("/")[0]
            return redirect(local(visitor.form.get("next")) or f"{page}?said={said}")

        return handle

    async def cancel(self, task: Task, word: str) -> str:
        """Cancel it as far as that can be done."""
        if task.state in FINAL:
            return "over"
        after = await self._console.cancelling.cancel(word, account_id=task.account_id)
        if after.state not in FINAL:
            return "stopping"
        return "over" if after.state is State.SUCCESS or after.cancel_at else "cancelled"

    async def delete(self, task: Task, word: str) -> str:
        """Delete its images for good."""
        await self._console.deleting.delete(word, account_id=task.account_id)
        return "deleted"

    async def redeliver(self, task: Task, _word: str) -> str:
        """Send its webhook again."""
        await self._console.webhooks.redeliver(task)
        return "redelivering"

    def _channel(self, channel_id: int) -> str:
        channel = self._console.router.get(channel_id)
        return f"channel {channel_id}" if channel is None else channel.name

    def _most_to_cancel(self, task: Task) -> int:
        """What stopping it may cost, should the upstream finish it all the same."""
        model = self._console.catalog.models.get(task.model)
        if model is None:  # the operator took it away since
            return 0
        return task.request.n * cancelled(model, task.reserved // task.request.n)

    async def _webhook(self, task: Task) -> dict[str, Any] | None:
        try:
            return await self._console.webhooks.delivery(task)
        except WebhookNotFound:
            return None


def _link(url: str | None) -> str:
    """Where a reference was fetched from, if it was."""
    return "" if url is None or url.startswith(SCHEME) else url


def _timeline(events: Sequence[LoggedEvent]) -> Iterator[Happening]:
    """What happened; of many steps of progress in a row only the first and the last."""
    before: int | None = None
    for place, event in enumerate(events):
        around = [each.event for each in events[max(0, place - 1) : place + 2]]
        if around == [Event.RUN] * 3:
            continue
        gap = moment(event.at) if before is None else f"+{duration(max(0, event.at - before))}"
        is_step = event.event == Event.RUN and event.progress
        yield Happening(
            title=_TITLES.get(event.event, event.event),
            ms=event.at,
            at=gap,
            text=f"{event.progress} %" if is_step else "",
            tone=_TONES.get(event.event, ""),
        )
        before = event.at
