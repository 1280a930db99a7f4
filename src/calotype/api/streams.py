"""GET /v1/tasks/{task_id}/events and GET /v1/events: server-sent events."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from calotype.api.context import Context, authenticate, base_url
from calotype.domain.errors import InvalidParameter
from calotype.domain.ids import encode
from calotype.domain.task import FINAL
from calotype.observing.metrics import HELD
from calotype.store.port import LoggedEvent

HEARTBEAT_SECONDS: Final = 15.0
EVENT_NUMBER: Final = "[0-9]{0,9}"
"""Id of an event in a task's stream, as a pattern; empty is none."""
_PLACE: Final = "(?:[0-9]{1,18}|[1-8][0-9]{18})"
EVENT_CURSOR: Final = f"(?:{_PLACE}(?:-{_PLACE}-{_PLACE})?)?"
"""Id of an event in an account's stream, as a pattern; empty is none."""
_PAGE: Final = 100
_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}
_BEAT: Final = b": still here\n\n"
_encode = msgspec.json.Encoder().encode


class Streams:
    """Streams what happens to tasks, to their owners."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def of_task(self, request: Request) -> Response:
        """One task's events, from its first or after ``Last-Event-ID``, to its last."""
        key = await authenticate(request.scope, self._context.accounts)
        word = request.path_params["task_id"]
        task = await self._context.delivery.find(word, account_id=key.account_id)
        last = _last_event(request, EVENT_NUMBER)
        base = base_url(request.scope, self._context.public_url)
        chunks = self._task_chunks(task.id, after=int(last or 0), base=base)
        return _Stream(chunks, headers=_HEADERS)

    async def of_account(self, request: Request) -> Response:
        """Events of all the account's tasks, from now on or after ``Last-Event-ID``."""
        key = await authenticate(request.scope, self._context.accounts)
        cursor = _last_event(request, EVENT_CURSOR) or await self._context.store.events_end()
        base = base_url(request.scope, self._context.public_url)
        chunks = self._account_chunks(key.account_id, cursor=cursor, base=base)
        return _Stream(chunks, headers=_HEADERS)

    async def _task_chunks(self, task_id: int, *, after: int, base: str) -> AsyncIterator[bytes]:
        feed, store, cursor = self._context.feed, self._context.store, ""
        async with feed.waking(task_id=task_id) as wake:
            yield _BEAT
            while not feed.closing:
                wake.clear()
                events = await store.events(after=cursor, limit=_PAGE, task_id=task_id)
                news = [
                    await self._event(event, name=str(event.seq), base=base)
                    for event in events
                    if event.seq > after
                ]
                if news:
                    yield b"".join(news)
                if any(event.state in FINAL for event in events):
                    return
                cursor = events[-1].cursor if events else cursor
                if len(events) < _PAGE and not await _woken(wake):
                    yield _BEAT

    async def _account_chunks(
        self, account_id: int, *, cursor: str, base: str
    ) -> AsyncIterator[bytes]:
        feed, store = self._context.feed, self._context.store
        async with feed.waking(account_id=account_id) as wake:
            yield _BEAT
            while not feed.closing:
                wake.clear()
                events = await store.events(after=cursor, limit=_PAGE, account_id=account_id)
                if events:
                    yield b"".join(
                        [await self._event(event, name=event.cursor, base=base) for event in events]
                    )
                    cursor = events[-1].cursor
                    await asyncio.sleep(0)  # nobody else need wait while a long log is read
                if len(events) < _PAGE and not await _woken(wake):
                    yield _BEAT

    async def _event(self, event: LoggedEvent, *, name: str, base: str) -> bytes:
        document: dict[str, Any] = {
            "task_id": encode("task", event.task_id),
            "event": event.seq,
            "state": event.state,
            "progress": event.progress,
            "at": event.at // 1000,
        }
        if event.state in FINAL and (task := await self._context.store.task(event.task_id)):
            document["task"] = await self._context.delivery.document(task, base_url=base)
        return b"id: %b\nevent: task.%b\ndata: %b\n\n" % (
            name.encode(),
            event.state.encode(),
            _encode(document),
        )


class _Stream(StreamingResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with HELD.during("stream"):
            await super().__call__(scope, receive, send)


async def _woken(wake: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(HEARTBEAT_SECONDS):
            await wake.wait()
            return True
    return False


def _last_event(request: Request, form: str) -> str:
    """The id after which to go on; empty for none.

    Raises:
        errors.InvalidParameter: it, or the one in the query, is no such id.

    """
    header = request.headers.get("last-event-id", "").strip(" \t")
    query = request.query_params.get("last_event_id", "")
    for given, name in ((header, "Last-Event-ID"), (query, "last_event_id")):
        if not re.fullmatch(form, given):
            raise InvalidParameter(
                f"{name} must be the id of an event of this stream; leave it out to begin anew.",
                param=name,
            )
    return header or query
