"""What happens to tasks, sent to the pages that show them: server-sent events under a session.

Pages connect with htmx: ``/console/tasks/{task_id}/live`` sends the task as ``tasks/_live.html``
shows it, as the event ``task``, and ``end`` after the last one; ``/console/live`` sends the event
``tasks`` when any of the account's tasks changed, at most one a second.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from calotype.console.access import Visitor, account_page, operator_page, sign
from calotype.console.context import Console
from calotype.console.errors import PageError
from calotype.console.task_lines import what_became
from calotype.domain.errors import TaskNotFound, UnknownModel
from calotype.domain.ids import decode, encode
from calotype.domain.task import FINAL, ResultImage, Task

FRAGMENT: Final = "tasks/_live.html"
HEARTBEAT_SECONDS: Final = 15.0
PAUSE_SECONDS: Final = 1.0
"""Between two events of an account."""
MAX_STREAMS: Final = 32
"""Of one session at once, in one process."""
_HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "x-accel-buffering": "no",  # nginx would hold events back
}
_BEAT: Final = b": still here\n\n"
_END: Final = b"event: end\ndata:\n\n"
_CHANGED: Final = b"id: 1\nevent: tasks\ndata: changed\n\n"


class Picture(msgspec.Struct, frozen=True):
    """An image of a task, for a page."""

    word: str
    """Its public id."""
    path: str
    """Where it is served whole, signed."""
    url: str
    """The same for others, with the server before it."""
    width: int
    height: int
    bytes: int
    content_type: str


class LiveTask(msgspec.Struct, frozen=True):
    """A task as ``tasks/_live.html`` shows it, in the variable ``live``."""

    task: Task
    word: str
    name: str
    """Of its model."""
    pictures: tuple[Picture, ...]
    """Its result, or what arrived of it so far."""
    path: str
    """Of the page with all of it."""
    usual_seconds: int
    gone: str
    """What became of its pictures, in a word; empty where they can be shown."""

    @property
    def final(self) -> bool:
        """Whether nothing more happens to it."""
        return self.task.state in FINAL


def routes(console: Console) -> list[Route]:
    """The streams."""
    live = _Live(console)
    path = "tasks/{task_id}/live"
    return [
        Route("/console/live", account_page(console, live.of_account)),
        Route(f"/console/{path}", account_page(console, live.of_task)),
        Route(f"/console/operator/{path}", operator_page(console, live.of_task)),
    ]


def server_url(console: Console, request: Request) -> str:
    """Where clients reach this server, without a slash at its end."""
    return console.settings.public_url.rstrip("/") or str(request.base_url).rstrip("/")


async def visible_task(console: Console, visitor: Visitor, word: str) -> Task:
    """The task of this public id that the visitor may see: the operator sees all of them.

    Raises:
        errors.TaskNotFound: there is none.

    """
    if visitor.api_key is not None:
        return await console.delivery.find(word, account_id=visitor.account_id)
    task_id = decode("task", word)
    task = None if task_id is None else await console.store.task(task_id)
    if task is None:
        raise TaskNotFound("There is no task with this id.")
    return task


def live_task(console: Console, request: Request, task: Task, *, operator: bool) -> LiveTask:
    """What ``tasks/_live.html`` shows of a task."""
    word = encode("task", task.id)
    base = server_url(console, request)
    gone = what_became(task, now=console.clock())
    images = () if gone else task.result or task.arrived
    return LiveTask(
        task=task,
        word=word,
        name=_model_name(console, task),
        pictures=tuple(_picture(console, image, base, task.expires_at) for image in images),
        path=f"/console/{'operator/' if operator else ''}tasks/{word}",
        usual_seconds=_usual_seconds(console, task),
        gone=gone,
    )


def _model_name(console: Console, task: Task) -> str:
    model = console.catalog.models.get(task.model)
    return task.model if model is None else model.name


def _usual_seconds(console: Console, task: Task) -> int:
    try:
        return console.router.usual_seconds(task.channel_id, console.catalog.get(task.model))
    except UnknownModel:  # the operator took it away since
        return 0


def _picture(console: Console, image: ResultImage, base: str, until: int | None) -> Picture:
    word = encode("asset", image.asset_id)
    url, _ = console.assets.url(image.asset_id, image.content_type, server=base, until=until)
    return Picture(
        word=word,
        path=f"/console/images/{word}/whole",
        url=url,
        width=image.width,
        height=image.height,
        bytes=image.bytes,
        content_type=image.content_type,
    )


class _Stream(StreamingResponse):
    """Events, counted as long as somebody listens."""

    def __init__(self, chunks: AsyncIterator[bytes], streams: Counter[str], name: str) -> None:
        super().__init__(chunks, headers=_HEADERS)
        self._streams, self._name = streams, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._streams[self._name] += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams[self._name] -= 1
            if not self._streams[self._name]:
                del self._streams[self._name]


class _Live:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._open: Counter[str] = Counter()

    async def of_task(self, request: Request, visitor: Visitor) -> Response:
        """A task from now on, whole at each change, to its last."""
        word = request.path_params["task_id"]
        task = await visible_task(self._console, visitor, word)
        operator = visitor.api_key is None
        return self._stream(visitor, self._task(request, task, operator=operator))

    async def of_account(self, request: Request, visitor: Visitor) -> Response:
        """That something happened to the account's tasks, from now on.

        Whoever was cut off is told at once: nobody knows what they missed.
        """
        missed = "last-event-id" in request.headers
        chunks = self._account(request, visitor.account_id, missed=missed)
        return self._stream(visitor, chunks)

    def _stream(self, visitor: Visitor, chunks: AsyncIterator[bytes]) -> Response:
        """One of so many streams of a session.

        Raises:
            PageError: it would be one too many.

        """
        if self._open[visitor.session.id] >= MAX_STREAMS:
            raise PageError(
                429,
                f"{MAX_STREAMS} pages of this session are kept up to date; close some of them.",
                title="Too many pages",
                headers={"retry-after": str(math.ceil(HEARTBEAT_SECONDS))},
            )
        return _Stream(chunks, self._open, visitor.session.id)

    async def _task(self, request: Request, task: Task, *, operator: bool) -> AsyncIterator[bytes]:
        feed, sent, task_id = self._console.feed, b"", task.id
        async with feed.waking(task_id=task_id) as wake:
            due = time.monotonic() + HEARTBEAT_SECONDS
            while not feed.closing:
                wake.clear()
                task = await feed.task(task_id) or task
                shown = live_task(self._console, request, task, operator=operator)
                event = _event(
                    "task", self._console.render.text(request.scope, FRAGMENT, live=shown)
                )
                if event != sent:
                    yield event
                    sent = event
                if shown.final:
                    yield _END
                    return
                woken = await _woken(wake, due)
                if not woken:
                    yield _BEAT
                if time.monotonic() >= due:
                    due = time.monotonic() + HEARTBEAT_SECONDS
                    if await sign(self._console, request) is None:
                        yield _END
                        return

    async def _account(
        self, request: Request, account_id: int, *, missed: bool
    ) -> AsyncIterator[bytes]:
        feed = self._console.feed
        async with feed.waking(account_id=account_id) as wake:
            due = time.monotonic() + HEARTBEAT_SECONDS
            yield _CHANGED if missed else _BEAT
            while not feed.closing:
                if await _woken(wake, due):
                    wake.clear()
                    yield _CHANGED
                    await asyncio.sleep(PAUSE_SECONDS)
                else:
                    yield _BEAT
                if time.monotonic() >= due:
                    due = time.monotonic() + HEARTBEAT_SECONDS
                    if await sign(self._console, request) is None:
                        yield _END
                        return


async def _woken(wake: asyncio.Event, until: float) -> bool:
    """Whether something happened before a time of the monotonic clock."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, until - time.monotonic())):
            await wake.wait()
            return True
    return False


def _event(name: str, text: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in text.splitlines() if line.strip())
    return f"event: {name}\n{lines}\n".encode()
