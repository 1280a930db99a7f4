"""An upstream that speaks OpenAI's images and costs next to nothing: ready answers on bare sockets.

The prompt says what to answer: ``mock:size=64k,delay=200,call=17``, with ``size`` 64k or 3m,
``delay`` in milliseconds, and under ``call`` it notes when that call came and was answered, by
``time.monotonic_ns``, which all processes of a machine share. ``GET /calls`` tells of those,
``GET /held`` how many calls wait for their answer.
"""

import asyncio
import base64
import io
import os
import re
import socket
import time
from typing import ClassVar, Final, cast

import msgspec
import uvloop
from PIL import Image

_SAID: Final = re.compile(rb"mock:size=(\w+),delay=(\d+)(?:,call=(\d+))?")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_SIDES: Final = {b"64k": 147, b"3m": 1024}


def picture(side: int) -> bytes:
    """A PNG of noise."""
    file = io.BytesIO()
    noise = os.urandom(3 * side * side)
    Image.frombytes("RGB", (side, side), noise).save(file, "PNG", compress_level=0)
    return file.getvalue()


def _answer(side: int) -> bytes:
    image = base64.b64encode(picture(side)).decode()
    usage = {"input_tokens": 12, "output_tokens": 1056, "total_tokens": 1068}
    body = msgspec.json.encode({"created": 1, "data": [{"b64_json": image}], "usage": usage})
    return _HEAD % len(body) + body


class Call(msgspec.Struct, array_like=True):
    """When a call came and was answered."""

    arrived_ns: int
    answered_ns: int = 0


class _Upstream(asyncio.Protocol):
    answers: ClassVar[dict[bytes, bytes]] = {}
    calls: ClassVar[dict[str, Call]] = {}
    held: ClassVar[set["_Upstream"]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._seen = b""

    def connection_lost(self, _error: Exception | None) -> None:
        self.held.discard(self)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, end, rest = self._seen.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(rest) < (int(length[1]) if length else 0):
            return
        self._seen = b""
        if head.startswith(b"GET "):
            told = len(self.held) if head.startswith(b"GET /held") else self.calls
            body = msgspec.json.encode(told)
            self._transport.write(_HEAD % len(body) + body)
            return
        self._generate(rest)

    def _generate(self, body: bytes) -> None:
        said = _SAID.search(body)
        if said is None:
            raise ValueError("the prompt does not say what to answer")
        call = Call(time.monotonic_ns())
        if said[3]:
            self.calls[said[3].decode()] = call
        if delay := int(said[2]):
            self.held.add(self)
            asyncio.get_running_loop().call_later(delay / 1000, self._reply, said[1], call)
        else:
            self._reply(said[1], call)

    def _reply(self, size: bytes, call: Call) -> None:
        self.held.discard(self)
        self._transport.write(self.answers[size])
        call.answered_ns = time.monotonic_ns()


async def main() -> None:
    """Serve on a free port and print it."""
    _Upstream.answers.update((size, _answer(side)) for size, side in _SIDES.items())
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    server = await asyncio.get_running_loop().create_server(_Upstream, sock=listener, backlog=4096)
    print(f"listens on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
