"""The one HTTP client towards upstreams: sends once, never holds an image, hides no retry."""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from calotype.domain.errors import Unavailable
from calotype.domain.outcomes import ImageSource
from calotype.domain.urls import endpoint_of
from calotype.net import connections
from calotype.net.answers import Answer, EventStream, Reader, WholeBody, retry_after
from calotype.net.bodies import Body
from calotype.net.connections import UNDER_WAY, Call, Connector, Rested, Sending
from calotype.net.fetcher import GuardedFetcher
from calotype.net.intake import Intake, too_large
from calotype.net.jsonstream import TooLarge
from calotype.net.lookup import SystemLookup
from calotype.net.results import Result
from calotype.net.spool import STEP, CannotKeep, Memory, Room, Spool

__all__ = [
    "Answer",
    "BodyBroken",
    "BrokenOff",
    "NotKept",
    "NotSent",
    "TooLarge",
    "UpstreamClient",
]

RESULT_BYTES: Final = 512 * 1024 * 1024
"""Of one image that an upstream made."""
MEMORY: Final = 32 * 1024 * 1024
"""For images on their way, all together; what is over goes through files."""
_ROOM_SECONDS: Final = 5
_IDLE_SECONDS: Final = 15.0
_READ: Final = 16 * 1024
_TURNS: Final = 64
_WEBSOCKET_MESSAGE: Final = 64 * 1024 * 1024
_HEADERS: Final = {
    "User-Agent": "Calotype",
    "Accept": "*/*",
    # Base64 shrinks by a quarter only, and undoing that costs more than it saves.
    "Accept-Encoding": "identity",
}
_CLOSED: Final = "This server is shutting down."
_PRINTABLE: Final = re.compile(r"[!-~]+")


class NotSent(Exception):
    """No byte of the request can have reached the upstream: no connection was made."""


class BrokenOff(Exception):
    """It was sent, perhaps, and the answer did not come, or not to its end, or not in time."""


class NotKept(BrokenOff):
    """The answer came, and our own disk did not take it in time; no fault of the upstream."""


class BodyBroken(Exception):
    """The request was not sent whole, for a reason of ours; the upstream cannot have taken it."""


class UpstreamClient:
    """One per process; made anywhere, used within one event loop.

    It keeps no cookies, follows no redirects, reads no proxy from the environment and sends
    nothing twice.

    Args:
        spool: the folder for images on their way; made when it is missing.
        connect_seconds: limit on lookup, connection and TLS together.
        result_seconds: limit on fetching one result to its last byte.
        result_bytes: limit on the bytes of one result.
        allow_hosts: names and addresses that results are fetched from though they are not public.
        resolver: who asks DNS instead of the operating system; closed by ``close``.
        tls: how TLS peers are verified instead of by the system's authorities.
        memory: bytes of it for images on their way.

    """

    def __init__(
        self,
        spool: Path,
        *,
        connect_seconds: float = 10,
        result_seconds: float = 300,
        result_bytes: int = RESULT_BYTES,
        allow_hosts: frozenset[str] = frozenset(),
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        memory: int = MEMORY,
    ) -> None:
        self._folder = spool
        self._memory = Memory(memory)
        self._room = Room(spool)
        self._connect_seconds = connect_seconds
        self._resolver = resolver or SystemLookup()
        self._tls = tls
        self._turns = asyncio.Semaphore(_TURNS)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._closed = False
        self._fetcher = GuardedFetcher(
            allow_hosts,
            max_bytes=result_bytes,
            timeout_seconds=result_seconds,
            resolver=self._resolver,
            tls=tls,
            noun="result",
        )

    async def close(self) -> None:
        """Close every connection; what is under way ends in an error."""
        self._closed = True
        for session in self._sessions.values():
            await session.close()
        await self._fetcher.close()

    @property
    def has_room(self) -> bool:
        """Whether ``check_room`` would be content without a look."""
        return self._room.proven

    async def check_room(self) -> None:
        """Prove that images can be kept on their way; good to know before one is bought.

        Raises:
            errors.Unavailable: the folder cannot be written, or has fewer than ``spool.ROOM``
                bytes free.

        """
        try:
            await self._room.prove()
        except CannotKeep as error:
            message = f"Images cannot be kept on their way here: {error}."
            raise Unavailable(message, retry_after=_ROOM_SECONDS) from error

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Body | None,
        fresh: bool,
        timeout_seconds: float,
        max_bytes: int,
        on_event: Callable[[Any], bool] | None = None,
    ) -> Answer:
        """Send once and take in the answer, whatever its status; a redirect is an answer too.

        Args:
            method: such as ``POST``.
            url: whole, with its query.
            headers: the credential among them.
            body: what is sent; None for nothing.
            fresh: over a new connection, or one that cannot have been closed for being idle: its
                last answer ended between ``REST_SECONDS`` and ``KEPT_SECONDS`` ago.
            timeout_seconds: from lookup to the answer's last byte; waiting for other answers of
                ours to be read does not count.
            max_bytes: limit on the answer's body, uncompressed.
            on_event: for an answer in events, called with the JSON object of each; the one for
                which it returns True becomes the document and ends the call. Where none does,
                the document is None.

        Raises:
            NotSent: there was no connection.
            BodyBroken: there was one, and reading ``body`` raised what is its cause.
            BrokenOff: there was one, and no whole answer; ``NotKept`` where that is our disk's
                fault, which was given all of the call's time to mend.
            TooLarge: the answer is over ``max_bytes``, or holds too much besides images.

        """
        sending = Sending(body) if body is not None else None
        call = Call()
        UNDER_WAY.set(call)
        try:
            async with asyncio.timeout(timeout_seconds) as deadline:
                response = await self._session(fresh=fresh).request(
                    method,
                    _as_given(url),
                    headers=headers,
                    data=sending,
                    allow_redirects=False,
                )
                try:
                    return await self._answer(
                        response, deadline=deadline, max_bytes=max_bytes, on_event=on_event
                    )
                finally:
                    response.close()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            host = _host(url)
            if sending is not None and sending.fault is not None:
                raise BodyBroken(f"The request to {host} was not sent whole.") from sending.fault
            if not call.connected:
                raise NotSent(_no_connection(error, host)) from error
            # The response holds the error, whose traceback would hold it and the images for long.
            raise BrokenOff(_broken(error, host)) from error.with_traceback(None)
        except RuntimeError as error:
            if not self._closed:
                raise
            raise (BrokenOff if call.connected else NotSent)(_CLOSED) from error

    def result(self, url: str, *, own_host: str = "") -> ImageSource:
        """An image by its URL, fetched without any credential each time that it is opened.

        Args:
            url: whose host must be public.
            own_host: one that need not be, best with its port: the channel's.

        """
        return Result(self._fetcher, url, own_host=own_host)

    def own_result(self, url: str, *, headers: Mapping[str, str]) -> ImageSource:
        """An image at the upstream itself, fetched with the credential that is in ``headers``.

        A redirect is followed as ``result`` would, without the credential.
        """
        return Result(self._fetcher, url, own_host=endpoint_of(url), headers=headers)

    @asynccontextmanager
    async def websocket(
        self, url: str, *, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket, closed on exit.

        Raises:
            NotSent: there was no connection.
            BrokenOff: the upstream did not make it a WebSocket, or it broke while in use.

        """
        host = _host(url)
        try:
            async with asyncio.timeout(2 * self._connect_seconds):
                socket = await self._session(fresh=True).ws_connect(
                    _as_given(url), headers=headers, max_msg_size=_WEBSOCKET_MESSAGE
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotSent(_no_connection(error, host)) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise BrokenOff(_broken(error, host)) from error
        try:
            yield socket
        except (aiohttp.ClientError, ConnectionError) as error:
            raise BrokenOff(_broken(error, host)) from error
        finally:
            await socket.close()

    async def _answer(
        self,
        response: aiohttp.ClientResponse,
        *,
        deadline: asyncio.Timeout,
        max_bytes: int,
        on_event: Callable[[Any], bool] | None,
    ) -> Answer:
        if (response.content_length or 0) > max_bytes:
            raise too_large(max_bytes)
        size = response.content_length
        expected = STEP if size is None else size * 3 // 4
        new_spool = partial(Spool, self._folder, self._memory, expected)
        reader: Reader
        if on_event is not None and response.content_type == "text/event-stream":
            reader = EventStream(new_spool, on_event)
        else:
            reader = WholeBody(new_spool)
        intake = Intake(reader, self._turns, deadline, max_bytes=max_bytes)
        try:
            await intake.take_in(response.content)
            document, text, spools = reader.close()
            await intake.write()
        except CannotKeep as error:
            self._room.doubt()
            raise NotKept(f"The answer could not be stored here: {error}.") from error
        given = response.headers
        headers = {name.lower(): ", ".join(given.getall(name)) for name in given}
        return Answer(
            status=response.status,
            headers=headers,
            document=document,
            text=text,
            retry_after=retry_after(headers, now=time.time()),
            spools=spools,
        )

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        if self._closed:
            raise NotSent(_CLOSED)
        session = self._sessions.get(fresh)
        if session is None:
            session = self._sessions[fresh] = self._new_session(fresh=fresh)
        return session

    def _new_session(self, *, fresh: bool) -> aiohttp.ClientSession:
        kind = Rested if fresh else Connector
        session = aiohttp.ClientSession(
            connector=kind(
                resolver=self._resolver,
                keepalive_timeout=connections.KEPT_SECONDS if fresh else _IDLE_SECONDS,
                limit=0,
                ssl=self._tls or True,
            ),
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_seconds),
            trust_env=False,
            read_bufsize=_READ,
        )
        # Else aiohttp sends what it takes for idempotent twice over a connection that is cut.
        session._retry_connection = False  # noqa: SLF001 -- there is no public switch
        return session


def _as_given(url: str) -> URL:
    """The URL, byte for byte: a signature in it covers how it is spelled."""
    try:
        return URL(url, encoded=_PRINTABLE.fullmatch(url) is not None)
    except ValueError as error:
        raise NotSent("The upstream is not reached by a valid URL.") from error


def _host(url: str) -> str:
    try:
        return URL(url).host or "The upstream"
    except ValueError:
        return "The upstream"


def _no_connection(error: Exception, host: str) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"{host} cannot be resolved."
        case aiohttp.ClientConnectorCertificateError():
            return f"{host} has no valid TLS certificate."
        case TimeoutError():
            return f"{host} could not be connected to in time."
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return f"{host} is not reached by a valid URL."
        case _:
            return f"{host} could not be connected to."


def _broken(error: Exception, host: str) -> str:
    match error:
        case TimeoutError():
            return f"{host} did not answer in time."
        case aiohttp.ClientPayloadError():
            return f"{host} broke off its answer."
        case aiohttp.ServerDisconnectedError():
            return f"{host} closed the connection without an answer."
        case aiohttp.ClientResponseError():
            return f"{host} did not answer in valid HTTP."
        case _:
            return f"The connection to {host} broke."
