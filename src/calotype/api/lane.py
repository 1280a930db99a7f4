"""The short lane: whole answers in one write, and those that are ready without any ASGI.

``scope["state"]["answer"]`` sends an answer that is there as a whole, head and body in one piece.
``GET /v1/tasks/{id}`` whose document is ready (``services/ready.py``) is answered as soon as its
head has come, while nothing else is under way on its connection. All else takes uvicorn's way, and
so does whatever is out of the ordinary, so that no rule is known twice.
"""

import re
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from calotype.api.edge import Edge
from calotype.api.render import Answer
from calotype.api.sendfile import FileSender

_TASK: Final = re.compile(rb"/v1/tasks/(task_[0-9a-z]{13})\Z")
MAX_AT_ONCE: Final = 16
"""Pipelined requests that are answered before other connections have their turn."""


class Lane(FileSender):
    """A connection with a short way for what is asked most."""

    _answered = False
    """The request that is being read was answered when its head had come."""
    _at_once = 0
    _idle_since: float | None = None
    """When the last answer was given; None once something has come since."""

    def on_headers_complete(self) -> None:
        """Answer what is ready, and begin to answer everything else."""
        match = _TASK.match(self.url)
        answer = self._ready(match[1].decode()) if match and self._is_free() else None
        self._answered = answer is not None
        if answer is None:
            self.scope["state"]["answer"] = self.answer
            super().on_headers_complete()
            return
        self._at_once += 1
        self.transport.write(self._bytes_of(answer))
        self._rest()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body that somebody waits for."""
        if not self._answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End of a request that is being answered."""
        if not self._answered:
            super().on_message_complete()

    async def answer(self, answer: Answer) -> None:
        """Send a whole answer, and end with it; the same as ASGI's two messages."""
        cycle = self._answering
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if cycle.disconnected:
            return
        if cycle.scope["method"] == "HEAD":
            answer = Answer(answer.status, b"", answer.headers)
        self.transport.write(self._bytes_of(answer, keep_alive=cycle.keep_alive))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for so long.

        One timer goes on over many requests: arming it with each would cost more than many answers.
        """
        self.timeout_keep_alive_task = None
        if self._idle_since is None or not self._may_begin():
            return  # the end of what is under way arms it again
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._arm(left)
        else:
            super().timeout_keep_alive_handler()

    def on_response_complete(self) -> None:
        """Go on with what waits behind an answer, or wait for the next request."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
        else:
            self.flow.resume_reading()
            self._rest()

    def _rest(self) -> None:
        """Wait for the next request."""
        self.server_state.total_requests += 1
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._arm(self.timeout_keep_alive)

    def _arm(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def _may_begin(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None until the first one
        return cycle is None or cycle.response_complete

    def _is_free(self) -> bool:
        """Whether a request may be answered here and now, as far as its connection goes."""
        return (
            self._may_begin()
            and not self.flow.write_paused
            and self._at_once < MAX_AT_ONCE
            and self.parser.get_method() == b"GET"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
        )

    def _ready(self, word: str) -> Answer | None:
        scope: Any = self.scope
        return self.app.ready(scope, word) if isinstance(self.app, Edge) else None

    def _bytes_of(self, answer: Answer, *, keep_alive: bool = True) -> bytes:
        """An answer as it is sent; nothing in its headers comes from outside unchecked."""
        headers = [
            b"%b: %b\r\n" % pair for pair in (*self.server_state.default_headers, *answer.headers)
        ]
        end = b"\r\n" if keep_alive else b"connection: close\r\n\r\n"
        return b"".join([STATUS_LINE[answer.status], *headers, end, answer.body])
