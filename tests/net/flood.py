"""Many large answers at once, by two processes: ``python flood.py serve|fetch …``.

``serve BYTES`` sends the same prepared JSON, with an image of so many bytes, to everyone; it
prints its port. ``fetch PORT CALLS FOLDER`` makes so many calls at once through one client and
prints what it measured as JSON.
"""

import asyncio
import base64
import json
import re
import socket
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

from calotype.net.client import UpstreamClient

_ROOM = 1024 * 1024 * 1024


class _Sender(asyncio.Protocol):
    """Writes the answer piece by piece, as fast as it is taken."""

    def __init__(self, answer: bytes) -> None:
        self._left = memoryview(answer)
        self._open = asyncio.Event()
        self._open.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self._sending = asyncio.ensure_future(self._send())

    async def _send(self) -> None:
        while self._left and not self._transport.is_closing():
            piece, self._left = self._left[:262_144], self._left[262_144:]
            self._transport.write(piece)
            await self._open.wait()
        self._transport.close()

    def pause_writing(self) -> None:
        self._open.clear()

    def resume_writing(self) -> None:
        self._open.set()


async def serve(size: int) -> None:
    letters = base64.b64encode(bytes(range(256)) * (size // 256))
    body = b'{"created": 1, "data": [{"b64_json": "%b"}]}' % letters
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        # Else the kernel keeps megabytes for each of thousands of connections, and runs short.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 131_072)
        tell(listener.getsockname()[1])
        await loop.create_server(lambda: _Sender(head + body), sock=listener, backlog=4096)
        await asyncio.Event().wait()


def tell(what: object) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


def memory(what: str) -> int:
    """Bytes, by the kernel's count of this process."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


async def fetch(port: int, calls: int, folder: Path) -> None:
    client = UpstreamClient(folder)

    async def one() -> int:
        answer = await client.call(
            "GET",
            f"http://127.0.0.1:{port}/",
            headers={},
            body=None,
            fresh=True,
            timeout_seconds=300,
            max_bytes=_ROOM,
        )
        source = answer.blob(answer.document["data"][0]["b64_json"])
        assert source is not None
        taken = 0
        async with source.open() as stream:
            async for chunk in stream:
                taken += len(chunk)
        return taken

    await one()
    before = memory("VmRSS")
    started = time.perf_counter()
    taken = await asyncio.gather(*(one() for _ in range(calls)))
    seconds = time.perf_counter() - started
    growth = memory("VmHWM") - before
    spent = time.process_time()
    tell({"taken": taken, "growth": growth, "seconds": seconds, "cpu": spent})
    await client.close()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", size]:
            uvloop.run(serve(int(size)))
        case ["fetch", port, calls, folder]:
            uvloop.run(fetch(int(port), int(calls), Path(folder)))
        case _:
            sys.exit(__doc__)
