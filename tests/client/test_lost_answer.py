"""A connection that is cut after the server took the request, and before its answer came."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from client.speaking import Kind, do, opened
from harness import Server, picture


class Cutter:
    """Passes connections on to a server; of the first it keeps the answer to itself."""

    def __init__(self, server: Server) -> None:
        self._port = int(server.url.rpartition(":")[2])
        self.kept = list[bytes]()
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upward, downward = await asyncio.open_connection("127.0.0.1", self._port)
        sending = asyncio.create_task(_copy(reader, downward))
        try:
            if self.kept:
                await _copy(upward, writer)
            else:
                self.kept.append(await upward.readuntil(b"\r\n\r\n"))
        finally:
            sending.cancel()
            for each in (writer, downward):
                each.close()
                with contextlib.suppress(ConnectionError):
                    await each.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()


@contextlib.asynccontextmanager
async def cutting(server: Server) -> AsyncIterator[Cutter]:
    cutter = Cutter(server)
    async with await asyncio.start_server(cutter.handle, "127.0.0.1", 0) as listening:
        cutter.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield cutter


async def test_what_the_server_took_before_the_connection_was_cut_is_bought_once(
    idle_server: Server, kind: Kind, tmp_path: Path
) -> None:
    (tmp_path / "reference.png").write_bytes(picture())
    notes = list[str]()
    async with (
        cutting(idle_server) as cutter,
        opened(kind, idle_server.key, cutter.url, on_retry=notes.append) as client,
    ):
        references = [tmp_path / "reference.png", "https://example.com/a.png"]
        task = await do(client.generate, "x", model="gpt-image-2", references=references)
    (head,) = cutter.kept
    assert b" 202 " in head.splitlines()[0]
    assert f"/v1/tasks/{task.id}".encode() in head
    assert len(notes) == 1
    assert (await idle_server.balance())["reserved_micro_usdc"] == 60_000
