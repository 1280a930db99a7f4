"""The outermost layer: request ids, errors, and the short way to the two busiest routes."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from calotype.api import tasks
from calotype.api.allowance import HEADERS
from calotype.api.assets import PREFIX, AssetFiles
from calotype.api.body import ClientGone, Incoming
from calotype.api.context import RequestIds, header
from calotype.api.images import Generations
from calotype.api.openai import errors as openai
from calotype.api.render import Answer, error_answer, guarded, whole
from calotype.api.tasks import Tasks
from calotype.domain.errors import (
    CalotypeError,
    InternalError,
    MalformedBody,
    MethodNotAllowed,
    UnknownRoute,
)
from calotype.observing import context, tracing
from calotype.observing.metrics import REQUESTS

_FIRST_ERROR: Final = 400

Sender = Callable[[Answer], Awaitable[None]]
"""Sends a whole answer in one piece: ``api/lane.py``."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})
_SHOWN: Final = ("GET", "/v1/tasks/{task_id}", "200")
_SHORT: Final = {
    "/v1/images/generations": "/v1/images/generations",
    "/v1/tasks": "/v1/tasks/{task_id}",
    "/v1/assets": "/v1/assets/{name}",
}
"""The routes that are answered without the router, by their path but for its last part."""

log = logging.getLogger(__name__)
access = logging.getLogger("calotype.access")


class ErrorPages(Protocol):
    """How errors look where a browser asks."""

    def covers(self, scope: Scope) -> bool:
        """Whether a request is for pages."""
        ...

    def answer(
        self, scope: Scope, error: CalotypeError, status: int
    ) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """Body and headers of the page."""
        ...


class Edge:
    """The ASGI application.

    Submission, task retrieval and images are answered here, without a router in between; all else
    goes to ``rest``. Whatever is raised below becomes an answer in the contract's shape, on the
    surface for OpenAI's clients in theirs, in the console as a page.

    Args:
        generations: submission.
        tasks: retrieval.
        files: images.
        rest: every other route.
        client_seconds: see the setting; ``api/patience.py`` keeps it.
        hurry: lets nobody wait any longer, for a server that is to stop.
        pages: the console's errors.

    """

    def __init__(
        self,
        generations: Generations,
        tasks: Tasks,
        files: AssetFiles,
        rest: ASGIApp,
        *,
        client_seconds: float,
        hurry: Callable[[], None],
        pages: ErrorPages,
    ) -> None:
        self.client_seconds = client_seconds
        self.hurry = hurry
        self._pages = pages
        self._generations = generations
        self._tasks = tasks
        self._files = files
        self._rest = rest
        self._request_ids = RequestIds()

    def ready(self, scope: Scope, word: str) -> Answer | None:
        """The answer to ``GET /v1/tasks/{word}``, where nothing has to be waited for."""
        answer = self._tasks.ready(scope, word)
        if answer is None:
            return None
        request_id = self._request_ids.of(scope)
        REQUESTS.values[_SHOWN] += 1
        if access.isEnabledFor(logging.INFO):
            _log("GET", f"{tasks.PREFIX}{word}", 200, request_id)
        return whole(answer, [(b"x-request-id", request_id.encode())])

    async def brief(self, scope: Scope, body: bytes) -> Answer:
        """The answer to a submission, or the reading of a task, that has come as a whole."""
        request_id = self._request_ids.of(scope)
        _place(scope, request_id)
        headers = scope["state"][HEADERS] = [(b"x-request-id", request_id.encode())]

        async def receive() -> Message:
            return {"type": "http.request", "body": body}

        try:
            if scope["method"] == "POST":
                answer = await self._generations.handle(scope, receive, request_id)
            else:
                answer = await self._tasks.handle(scope)
        except Exception as error:  # noqa: BLE001 -- each is told of in its own way
            answer = self._refusal(scope, error, request_id)
        path = scope["path"] if scope["method"] == "POST" else tasks.PREFIX[:-1]
        _count(scope, answer.status, request_id, route=_SHORT[path])
        return whole(answer, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's start and end."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        response = _Response(send, self._request_ids.of(scope), scope)
        _place(scope, response.request_id)
        scope.setdefault("state", {})[HEADERS] = response.headers
        body = Incoming(scope, receive)
        try:
            answer = await self._answer(scope, body.receive, response)
        except (ClientGone, ClientDisconnect):
            return
        except Exception as error:
            answer = self._refusal(scope, error, response.request_id)
            if response.started:
                raise
        if answer is not None:
            await response.finish(answer, body, scope["state"].get("answer"))

    def _refusal(self, scope: Scope, error: Exception, request_id: str) -> Answer:
        """The answer that a request gets which met an error."""
        if isinstance(error, HTTPException):
            error = _routing_error(error, scope)
        elif not isinstance(error, CalotypeError):
            method, path = scope["method"], scope["path"]
            log.error("%s: %s %s broke", request_id, method, path, exc_info=error)
            message = f"Something broke on our side; the logs tell more of {request_id}."
            error = InternalError(message)
        return self._told(scope, error)

    def _told(self, scope: Scope, error: CalotypeError) -> Answer:
        """An error as whoever asks is told of it."""
        if scope["path"].startswith(openai.PREFIX):
            return openai.error_answer(error)
        told = error_answer(error)
        if not self._pages.covers(scope):
            return told
        body, headers = self._pages.answer(scope, error, told.status)
        kept = [header for header in told.headers if header[0] != b"content-type"]
        return Answer(told.status, body, (*headers, *kept), told.own)

    async def _answer(self, scope: Scope, receive: Receive, response: "_Response") -> Answer | None:
        path, method = scope["path"], scope["method"]
        if method == "POST" and path == "/v1/images/generations":
            return await self._generations.handle(scope, receive, response.request_id)
        if method == "GET" and path.startswith(tasks.PREFIX) and path.count("/") == 3:  # noqa: PLR2004 -- /v1/tasks/{id}
            return await self._tasks.handle(scope)
        if method == "GET" and path.startswith(PREFIX) and path.count("/") == 3:  # noqa: PLR2004 -- /v1/assets/{name}
            image = await self._files.handle(Request(scope))
            await image(scope, receive, response.send)
            return None
        scope["app"] = self  # makes the router raise instead of answering in plain text
        scope["state"]["request_id"] = response.request_id
        await self._rest(scope, receive, response.send)
        return None


class _Response:
    """Adds the request id, and what handlers have put beside it, to whatever is sent."""

    __slots__ = ("_scope", "_send", "headers", "request_id", "started")

    def __init__(self, send: Send, request_id: str, scope: Scope) -> None:
        self._send = send
        self._scope = scope
        self.request_id = request_id
        self.headers: list[tuple[bytes, bytes]] = [(b"x-request-id", request_id.encode())]
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            _count(self._scope, message["status"], self.request_id)
            headers = [*guarded(tuple(message.get("headers", ()))), *self.headers]
            message = {**message, "headers": headers}
        await self._send(message)

    async def finish(self, answer: Answer, body: Incoming, at_once: Sender | None) -> None:
        answer = whole(answer, self.headers)
        _count(self._scope, answer.status, self.request_id)
        may_end = answer.status < _FIRST_ERROR or body.ended
        if may_end and at_once is not None:
            await at_once(answer)
            return
        headers = [*guarded(answer.headers), *answer.own]
        start = {"type": "http.response.start", "status": answer.status, "headers": headers}
        await self._send(start)
        if may_end:
            await self._send({"type": "http.response.body", "body": answer.body})
            return
        # Ending here could close the connection under a client that is still sending: it would
        # be told of the reset and not of what is wrong.
        await self._send({"type": "http.response.body", "body": answer.body, "more_body": True})
        await body.drain()
        await self._send({"type": "http.response.body", "body": b""})


def _place(scope: Scope, request_id: str) -> None:
    """Let what is logged and traced from here on tell of this request."""
    context.REQUEST.set(request_id)
    if tracing.is_on():
        tracing.accept(header(scope, b"traceparent"))


def _count(scope: Scope, status: int, request_id: str, *, route: str | None = None) -> None:
    """Take in that an answer begins; ``route`` where it is known without a look at the path."""
    path, method = scope["path"], scope["method"]
    if route is None:
        short = _SHORT.get(path) or _SHORT.get(path.rpartition("/")[0])
        route = short or str(getattr(scope.get("route"), "path", "none"))
    REQUESTS.values[method if method in _METHODS else "other", route, str(status)] += 1
    if access.isEnabledFor(logging.INFO):
        _log(method, path, status, request_id)


def _log(method: str, path: str, status: int, request_id: str) -> None:
    """A line of the access log; without the query, which may hold a signature."""
    access.info("%s %s %d", method, path, status, extra={"request_id": request_id})


def _routing_error(error: HTTPException, scope: Scope) -> CalotypeError:
    method, path = scope["method"], scope["path"]
    if error.status_code == 404:  # noqa: PLR2004 -- as the router says it
        return UnknownRoute(f"There is nothing at {path[:200]}; /docs lists what there is.")
    if error.status_code == 405:  # noqa: PLR2004 -- as the router says it
        allow = ", ".join(sorted((error.headers or {}).get("Allow", "GET").split(", ")))
        return MethodNotAllowed(f"{path} takes {allow}, not {method}.", allow=allow)
    return MalformedBody(str(error.detail))
