"""How long a client may take over what it owes its connection, and how large a head may be.

A client that sends a request byte by byte, or never takes its answer, would hold a connection and
what belongs to it for ever. So each connection is looked at every few seconds; all that a request
pays for it are a few assignments. What is slow but goes on is left alone.
"""

import asyncio
import fcntl
import resource
import secrets
import struct
import termios
from collections.abc import Sized
from contextlib import suppress
from typing import Any, Final, Literal

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from calotype.api.cuts import NOT_TAKEN, NOTHING_ASKED, Cuts
from calotype.api.edge import Edge
from calotype.api.lane import Lane
from calotype.api.render import Answer, error_answer, whole
from calotype.domain.errors import CalotypeError, HeadTooLarge, RequestTimeout, Unavailable
from calotype.observing.metrics import REQUESTS

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request's first line and headers."""
MAX_HEADERS: Final = 100
MIN_RATE: Final = 500
"""Bytes a second that a body must come to on average, once ``client_seconds`` are over."""
LOOKS: Final = 6
"""How often in ``client_seconds`` a connection is looked at. They are what is counted, not time:
for what a server does not come to do, no client is to blame."""
RESERVED_FILES: Final = 256
"""Of those that the process may open: what is left for all but clients' connections."""
CROWDED_SECONDS: Final = 5
"""When a client that found no room may try again."""

_cuts: Final = Cuts()

_Owed = tuple[Literal["head", "body", "answer"], int, int, int]
"""What a client is to go on with, and how far it is."""


class Patient(Lane):
    """A connection that does not wait for ever."""

    _received = 0
    """Bytes since it was made."""
    _received_before = 0
    """Up to the head that is being read, or to the last that came of a body."""
    _messages = 0
    """Requests that came to their end."""
    _in_body = False
    _taken = 0
    """How often more of an answer was taken by a client that was behind."""
    _owed: _Owed | None = None
    """As it was found by the last look."""
    _looks = 0
    """That have found the same since."""
    _owed_from = 0
    """What was received by the first of them."""
    _refused = False
    _next_look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it
        """Begin to look, unless there is no room for one more."""
        super().connection_made(transport)
        if _is_crowded(self.connections):
            self.refuse(
                Unavailable(
                    "This server has as many connections as it may; try again a little later.",
                    retry_after=CROWDED_SECONDS,
                )
            )
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        if self._next_look is not None:
            self._next_look.cancel()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """Go on with an answer, and remember that its client did."""
        self._taken += 1
        super().resume_writing()

    def _wake(self) -> None:
        self._taken += 1
        super()._wake()

    def check_head(self) -> None:
        """Whether the head that has come is one that is read.

        Raises:
            errors.HeadTooLarge: it has too many headers, or they are too long.

        """
        if len(self.headers) > MAX_HEADERS:
            raise HeadTooLarge(f"The request has more than {MAX_HEADERS} headers; send fewer.")
        if self._received - self._received_before > MAX_HEAD:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > MAX_HEAD:
                raise _head_too_large()

    def check_unfinished(self) -> None:
        """Refuse a head that has no end yet and is too large already, or what is around chunks."""
        if self._received - self._received_before > MAX_HEAD and not self._refused:
            self.refuse(_head_too_large())

    def refuse(self, error: CalotypeError) -> None:
        """Refuse what is being read, after the answers to all before it, and close."""
        self._refused = True
        _cuts.note(error.code, self.client)
        answer = whole(
            error_answer(error), [(b"x-request-id", b"req_%s" % secrets.token_hex(12).encode())]
        )
        cycle: RequestResponseCycle | None = self.cycle  # None until the first one
        if self._held is not None:
            self._held = None  # nobody has begun with it
        elif self._in_body and self._answered:
            self._part_with(None)
            return
        elif self._in_body and self.pipeline:
            self.pipeline.popleft()  # nobody has begun with it
        elif self._in_body and cycle is not None and cycle.scope is self.scope:
            began = cycle.response_started
            cycle.disconnected = True  # whoever reads the body is told that no more will come
            cycle.message_event.set()
            self._part_with(None if began else answer)
            return
        if self._may_begin():
            self._part_with(answer)
            return
        last = self.pipeline[0][0] if self.pipeline else self._answering
        last.on_response = lambda: self._part_with(answer)

    def _part_with(self, answer: Answer | None) -> None:
        """Close, with a last answer."""
        if answer is not None and not self.transport.is_closing():
            REQUESTS.add("other", "none", str(answer.status))
            self.transport.write(self._bytes_of(answer, keep_alive=False))
        self.transport.close()

    def _look(self) -> None:
        """See how far the client is, and cut the connection where it does not go on."""
        seconds = self._seconds()
        self._next_look = self.loop.call_later(seconds / LOOKS, self._look)
        owed = self._owes()
        if owed is None or owed != self._owed:
            self._owed, self._looks, self._owed_from = owed, 0, self._received
            return
        self._looks += 1
        more = (self._received - self._owed_from) / MIN_RATE if owed[0] == "body" else 0
        if self._looks >= LOOKS * (1 + more / seconds):
            self._cut(owed[0])

    def _owes(self) -> _Owed | None:
        """What it is the client's turn to do."""
        unsent = self.transport.get_write_buffer_size()
        if unsent or (self._full is not None and not self._full.done()):
            return "answer", self._taken, unsent, self._in_flight()
        cycle: RequestResponseCycle | None = self.cycle
        if self.flow.read_paused or self._refused:
            return None
        if self._in_body:
            awaited = cycle is None or cycle.response_complete or not cycle.waiting_for_100_continue
            return ("body", self._messages, 0, 0) if awaited else None
        begins = self._idle_since is None and self._may_begin()
        return ("head", self._messages, 0, 0) if begins else None

    def _cut(self, owed: str) -> None:
        nothing = self._received == self._received_before
        if owed == "answer":
            _cuts.note(NOT_TAKEN, self.client)
            self.transport.abort()
        elif owed == "head" and nothing:
            _cuts.note(NOTHING_ASKED, self.client)
            self.transport.close()
        elif owed == "body" and self._may_begin():  # all of it is answered
            _cuts.note(RequestTimeout.code, self.client)
            self.transport.close()
        else:
            self.refuse(
                RequestTimeout(f"The {owed} of the request came too slowly; send it again, faster.")
            )

    def _in_flight(self) -> int:
        """Bytes that the system has and the client has not acknowledged."""
        socket = self.transport.get_extra_info("socket")
        if socket is None:
            return 0
        with suppress(OSError, ValueError):  # it is being closed; or the system cannot say
            told = fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4))
            return int(struct.unpack("i", told)[0])
        return 0

    def _seconds(self) -> float:
        app: Any = self.app
        return app.client_seconds if isinstance(app, Edge) else 60.0


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"The request's first line and headers have more than {MAX_HEAD} bytes; send fewer."
    )


def _is_crowded(connections: Sized) -> bool:
    """Whether there are as many connections as may be, the newest counted in."""
    may_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if may_open == resource.RLIM_INFINITY:
        return False
    return len(connections) > may_open - RESERVED_FILES
