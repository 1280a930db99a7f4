"""Loopback servers that speak HTTP byte by byte, so that they can break it as they like."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import msgspec


class Seen(msgspec.Struct, kw_only=True):
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int
    """Counts from 0."""
    whole: bool
    """Whether the body came to its announced end."""


class Exchange:
    """One request, and the way to answer it."""

    def __init__(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        self.seen = seen
        self.writer = writer
        self.hang_up = False

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self, body: bytes, *, status: int = 200, kind: str = "application/json", more: str = ""
    ) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        await self.send(f"{head}{more}\r\n".encode() + body)


Script = Callable[[Exchange], Awaitable[None]]


class Server:
    """What arrived, and where."""

    def __init__(self, script: Script, *, scheme: str, early: bool) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self.gone = asyncio.Event()
        """Set once a client has hung up."""
        self.url = ""
        self._script = script
        self._scheme = scheme
        self._early = early
        self._speaking: set[asyncio.Task[None]] = set()

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._speaking.add(task)
        number = self.connections
        self.connections += 1
        try:
            while (seen := await self._receive(reader, number)) is not None:
                self.seen.append(seen)
                exchange = Exchange(seen, writer)
                await self._script(exchange)
                if exchange.hang_up or not seen.whole:
                    break
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass  # the client hung up, or the test is over
        self.gone.set()
        writer.close()
        with suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
            await writer.wait_closed()

    async def _receive(self, reader: asyncio.StreamReader, number: int) -> Seen | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return None
        line, *fields = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)}
        length = 0 if self._early else int(headers.get("content-length", "0"))
        whole = not self._early
        try:
            body = await reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            body, whole = error.partial, False
        return Seen(line=line, headers=headers, body=body, connection=number, whole=whole)

    @asynccontextmanager
    async def up(self, *, tls: ssl.SSLContext | None = None) -> AsyncIterator["Server"]:
        server = await asyncio.start_server(self.speak, "127.0.0.1", 0, ssl=tls)
        async with server:
            self.url = f"{self._scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self
        for task in self._speaking:
            task.cancel()
        await asyncio.gather(*self._speaking, return_exceptions=True)


@asynccontextmanager
async def serving(
    script: Script, *, tls: ssl.SSLContext | None = None, early: bool = False
) -> AsyncIterator[Server]:
    """A server that plays ``script`` to every request; ``early``: before it reads the body."""
    scheme = "https" if tls else "http"
    async with Server(script, scheme=scheme, early=early).up(tls=tls) as server:
        yield server


@asynccontextmanager
async def saying(answer: bytes, *, hang_up: bool = True) -> AsyncIterator[Server]:
    """A server that says the same to everyone."""

    async def say(exchange: Exchange) -> None:
        exchange.hang_up = hang_up
        await exchange.send(answer)

    async with serving(say) as server:
        yield server


def ok(body: bytes, *more: str, kind: str = "application/json") -> bytes:
    """A whole answer as bytes."""
    head = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
