"""A receiver of webhooks on loopback that fails in every way that receivers do."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec


class Message(msgspec.Struct, frozen=True):
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def id(self) -> str:
        """What is the same in every try."""
        return self.headers["webhook-id"]


Script = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""What happens once a request has arrived; the connection is closed after it."""


def answer(status: int, *more: str, body: bytes = b"") -> Script:
    """A whole answer."""

    async def play(writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *more]
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return play


OK = answer(200)


async def hang(_writer: asyncio.StreamWriter) -> None:
    """No answer at all."""
    await asyncio.Event().wait()


async def cut(writer: asyncio.StreamWriter) -> None:
    """An answer that ends in its middle."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Len")


async def drip(writer: asyncio.StreamWriter) -> None:
    """A good status, and a body that never comes to its end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsl")
    await writer.drain()
    await asyncio.Event().wait()


async def flood(writer: asyncio.StreamWriter) -> None:
    """A good status, and a body without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10\r\n\x1b[31mno end\0 \n\xff\xfe\r\n")
        await writer.drain()


class Receiver:
    """What arrived, and how it is answered: by each script once, by the last one for ever."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts or [OK])
        self.got: list[Message] = []
        self.url = ""
        self._talking: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    def then(self, *scripts: Script) -> None:
        """Answer by these from now on."""
        self.scripts = list(scripts)

    async def received(self, number: int) -> Sequence[Message]:
        """What arrived, once that is so much."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: len(self.got) >= number)
        return self.got

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talking.add(task)
        try:
            with suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
                await self._exchange(reader, writer)
        finally:
            self._talking.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        self.got.append(Message(line, headers, body))
        async with self._changed:
            self._changed.notify_all()
        await script(writer)

    @asynccontextmanager
    async def up(
        self, *, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator["Receiver"]:
        """While entered, it listens."""
        server = await asyncio.start_server(self._talk, "127.0.0.1", port, ssl=tls)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        try:
            yield self
        finally:
            server.close()
            talking = set(self._talking)
            for task in talking:
                task.cancel()
            await asyncio.gather(*talking, return_exceptions=True)
            await server.wait_closed()


@asynccontextmanager
async def receiving(*scripts: Script) -> AsyncIterator[Receiver]:
    """A receiver that listens on a free port."""
    async with Receiver(*scripts).up() as receiver:
        yield receiver
