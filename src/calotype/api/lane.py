"""The short lane: whole answers in one write, and those that are ready without any ASGI.

``scope["state"]["answer"]`` sends an answer that is there as a whole, head and body in one piece.
While nothing else is under way on its connection,

* ``GET /v1/tasks/{id}`` whose document is ready (``services/ready.py``) is answered as soon as its
  head has come;
* any other reading of one task and a submission, where they have come whole in one piece, go to
  their handlers without ASGI's messages in between.

All else takes uvicorn's way, and so does whatever is out of the ordinary, so that no rule is known
twice.
"""

import asyncio
import re
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from calotype.api.edge import Edge
from calotype.api.render import Answer, common_lines, lines
from calotype.api.sendfile import FileSender

_TASK: Final = re.compile(rb"(/v1/tasks/(task_[0-9a-z]{13}))(?:\?([^#]*))?\Z")
_READING: Final = re.compile(rb"GET /v1/tasks/(task_[0-9a-z]{13}) HTTP/1\.1\Z")
_END: Final = b"\r\n\r\n"  # of a head, and of a whole request that has no body
_SUBMISSION: Final = b"/v1/images/generations"
MAX_AT_ONCE: Final = 16
"""Pipelined requests that are answered before other connections have their turn."""


class _Brief(RequestResponseCycle):
    """A request that has come as a whole; uvicorn's own makes what ASGI's messages take."""

    disconnected = False
    response_started = False
    response_complete = False
    waiting_for_100_continue = False
    more_body = False
    keep_alive = True
    message_event = asyncio.Event()  # nobody waits for it

    def __init__(self, lane: "Lane", whole: bytes) -> None:
        self._tasks: set[Any] = lane.tasks
        self.scope = lane.scope
        self.on_response = lane.on_response_complete
        self.transport = lane.transport
        self._answer = lane.answer
        self._whole = whole

    async def run_asgi(self, app: Any) -> None:
        """Answer it, without ASGI."""
        try:
            await self._answer(await app.brief(self.scope, self._whole))
        except BaseException:  # a stopping server waits no longer, and answers no more
            self.transport.close()
            raise
        finally:  # it refers to the connection, which refers to it
            del self._answer
            self.on_response = _nothing
            self._tasks.discard(asyncio.current_task())


def _nothing() -> None:
    """Nobody waits for the end of an answer any more."""


class Lane(FileSender):
    """A connection with a short way for what is asked most."""

    _answered = False
    """The request that is being read was answered when its head had come."""
    _held: bytearray | None = None
    """What has come of the body of a request that is not begun with before its end."""
    _ended: Any = None
    """The scope of the request that was the last to come to its end."""
    _piece = b""
    """What is being read, if it begins with a request."""
    _usual: tuple[bytes, Any] | None = None
    """The headers of the last piece, if that was one reading that was ready, and what they mean."""
    _at_once = 0
    _idle_since: float | None = None
    """When the last answer was given; None once something has come since."""

    def on_headers_complete(self) -> None:
        """Answer what is ready, hold what may be brief, and begin to answer everything else."""
        self._answered = False
        if self._is_free():
            if self.url == _SUBMISSION and self.parser.get_method() == b"POST":
                self._hold(_SUBMISSION, b"")
                return
            if (match := _TASK.match(self.url)) and self.parser.get_method() == b"GET":
                self._read(match[1], match[2], match[3])
                return
        self._begin()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body that somebody waits for."""
        if self._held is not None:
            self._held += body
        elif not self._answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End of a request that is being answered, or is now."""
        self._ended = self.scope
        if self._held is not None:
            cycle, self._held = _Brief(self, bytes(self._held)), None
            self.cycle = self._answering = cycle
            self.tasks.add(self.loop.create_task(cycle.run_asgi(self.app)))
        elif not self._answered:
            super().on_message_complete()

    def is_answered(self, piece: bytes) -> bool:
        """Answer a reading whose headers are those of the last one: they need no parser again."""
        usual, self._usual = self._usual, None
        if usual is not None and not self.flow.write_paused:
            line, _, headers = piece.partition(b"\r\n")
            match = _READING.match(line) if headers == usual[0] else None
            if match is not None and self._answer_at_once(usual[1], match[1]):
                self._usual = usual
                return True
        self._piece = piece if self._ended is self.scope else b""
        return False

    def end_of_piece(self) -> None:
        """Let uvicorn have a request that did not come whole; remember the headers of a reading."""
        piece, self._piece = self._piece, b""
        if self._answered and self._ended is self.scope and piece.find(_END) == len(piece) - 4:
            line, _, headers = piece.partition(b"\r\n")
            if _READING.match(line):  # nothing else was in it
                self._usual = headers, self.scope
        body, self._held = self._held, None
        if body is not None and not self.transport.is_closing():
            self._begin()
            if body:
                super().on_body(bytes(body))

    def _begin(self) -> None:
        self.scope["state"]["answer"] = self.answer
        super().on_headers_complete()

    def _hold(self, path: bytes, query: bytes) -> None:
        self.scope["method"] = self.parser.get_method().decode()
        self.scope["path"] = path.decode()
        self.scope["raw_path"] = path
        self.scope["query_string"] = query
        self._held = bytearray()

    def _read(self, path: bytes, word: bytes, query: bytes | None) -> None:
        self._answered = not query and self._answer_at_once(self.scope, word)
        if not self._answered:
            self._hold(path, query or b"")

    def _answer_at_once(self, scope: Any, word: bytes) -> bool:
        """Answer the reading of a task if it is ready."""
        answer = self.app.ready(scope, word.decode())
        if answer is None:
            return False
        self._at_once += 1
        self.transport.write(self._bytes_of(answer))
        self._rest()
        return True

    async def answer(self, answer: Answer) -> None:
        """Send a whole answer, and end with it; the same as ASGI's two messages."""
        cycle = self._answering
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if cycle.disconnected:
            return
        if cycle.scope["method"] == "HEAD":
            answer = Answer(answer.status, b"", answer.headers, answer.own)
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
            and not self.expect_100_continue
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and isinstance(self.app, Edge)
        )

    def _bytes_of(self, answer: Answer, *, keep_alive: bool = True) -> bytes:
        """An answer as it is sent."""
        return b"".join(
            [
                STATUS_LINE[answer.status],
                lines(self.server_state.default_headers),
                common_lines(answer.headers),
                lines(answer.own),
                b"\r\n" if keep_alive else b"connection: close\r\n\r\n",
                answer.body,
            ]
        )
