"""A closed-loop load generator: N keep-alive connections, each with one request in flight.

Written straight on asyncio protocols (uvloop), so that it stays well ahead of the servers it
measures; the floor of a run shows by how much.
"""

import asyncio
import time
from collections.abc import Callable
from typing import cast

import msgspec


class Result(msgspec.Struct, frozen=True):
    """What a run came to."""

    per_second: float
    p50_ms: float
    p99_ms: float
    bad: int
    """Answers with a status other than the one expected."""


def request(
    method: str, path: str, *, key: str = "", body: bytes = b"", kind: str = "application/json"
) -> bytes:
    """The bytes of an HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    if body:
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Connection(asyncio.Protocol):
    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._buffer = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._buffer.lower().find(b"content-length: ", 0, head + 2)
        length = int(self._buffer[at + 16 : self._buffer.find(b"\r\n", at)]) if at >= 0 else 0
        if len(self._buffer) < head + 4 + length:
            return
        self._run.count(self._buffer[9:12], time.perf_counter() - self._sent_at)
        self._buffer = b""
        self._next()

    def connection_lost(self, _error: Exception | None) -> None:
        self._run.ended()

    def _next(self) -> None:
        if self._run.over():
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._run.next_request())


class _Run:
    def __init__(
        self, next_request: Callable[[], bytes], *, seconds: float, expect: bytes, open_: int
    ) -> None:
        self.next_request = next_request
        self.latencies: list[float] = []
        self.bad = 0
        self.done = asyncio.Event()
        self._expect = expect
        self._open = open_
        self._until = time.perf_counter() + seconds

    def over(self) -> bool:
        return time.perf_counter() >= self._until

    def count(self, status: bytes, latency: float) -> None:
        self.latencies.append(latency)
        self.bad += status != self._expect

    def ended(self) -> None:
        self._open -= 1
        if not self._open:
            self.done.set()


async def drive(
    port: int,
    next_request: Callable[[], bytes],
    *,
    connections: int = 64,
    seconds: float = 5.0,
    expect: int = 200,
) -> Result:
    """Send as fast as the answers come, for a while."""
    run = _Run(next_request, seconds=seconds, expect=str(expect).encode(), open_=connections)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(run), "127.0.0.1", port)
    await run.done.wait()
    spent = time.perf_counter() - began
    ordered = sorted(run.latencies)
    return Result(
        per_second=len(ordered) / spent,
        p50_ms=ordered[len(ordered) // 2] * 1000,
        p99_ms=ordered[int(len(ordered) * 0.99)] * 1000,
        bad=run.bad,
    )
