"""A way to a server that breaks on command: refuses, answers for it, or cuts connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
_CHUNK = 65_536


class FaultyWay:
    """Passes bytes on to a port of this machine.

    Each fault is told of by how often it is to happen still.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self.down = False
        """Connections are closed as soon as they come."""
        self.busy = 0
        """Connections whose first request is answered with 503 SlowDown."""
        self.cut_uploads = 0
        """Connections that are cut once the client has sent ``cut_after`` bytes."""
        self.cut_downloads = 0
        """Connections that are cut once the server has sent ``cut_after`` bytes."""
        self.cut_after = 1_000_000
        self.stall_after: int | None = None
        """Uploads of more bytes than this come to a standstill there."""
        self.stalled = asyncio.Event()
        """One has."""
        self.connections = 0
        self.requests = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._handling: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection that is open."""
        for writer in self._open:
            writer.transport.abort()

    async def close(self) -> None:
        """Break what is open, and wait until nothing is passed on any more."""
        self._closing.set()
        self.cut()
        await asyncio.gather(*self._handling)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        if (task := asyncio.current_task()) is not None:
            self._handling.add(task)
            task.add_done_callback(self._handling.discard)
        try:
            if not self.down:
                await self._pass(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        if self.busy:
            self.busy -= 1
            await _drain(reader, head)
            writer.write(
                b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(SLOW_DOWN), SLOW_DOWN)
            )
            await writer.drain()
            writer.write_eof()
            await reader.read()
            return
        back, on = await asyncio.open_connection("127.0.0.1", self._target)
        self._open.add(on)
        on.write(head)
        both = [
            asyncio.create_task(self._pump(reader, on, upload=True, sent=len(head))),
            asyncio.create_task(self._pump(back, writer, upload=False, sent=0)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._open.discard(on)
            on.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upload: bool, sent: int
    ) -> None:
        while chunk := await reader.read(_CHUNK):
            sent += len(chunk)
            if upload and self.stall_after is not None and sent > self.stall_after:
                self.stalled.set()
                await self._closing.wait()
                return
            left = self.cut_uploads if upload else self.cut_downloads
            if left and sent > self.cut_after:
                if upload:
                    self.cut_uploads -= 1
                else:
                    self.cut_downloads -= 1
                return
            writer.write(chunk)
            await writer.drain()


async def _drain(reader: asyncio.StreamReader, head: bytes) -> None:
    """Read the body that the client sends, as a server does before it answers."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            with suppress(asyncio.IncompleteReadError):
                await reader.readexactly(int(line.partition(b":")[2]))


@asynccontextmanager
async def faulty_way(target: int) -> AsyncIterator[FaultyWay]:
    """A way to a port of this machine, in order until told otherwise."""
    way = FaultyWay(target)
    server = await asyncio.start_server(way.handle, "127.0.0.1", 0, limit=1 << 20)
    way.port = server.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        server.close()
        await way.close()
        await server.wait_closed()
