"""Very many clients that wait: each holds one connection and notes when its answer came.

A process of its own, so that what it spends is not counted for the server, and its notes are not
late because the benchmark is busy. Reads ``{"port", "requests", "markers"}`` as one line of JSON,
says ``held`` when all wait, and at the end the time of each one's answer and its own seconds of
CPU.
"""

import asyncio
import resource
import sys
import time
from collections.abc import Sequence
from typing import cast

import msgspec
import uvloop

BATCH = 100
"""Connections that are opened at a time."""
PAUSE_SECONDS = 0.1
"""Between two batches: a crowd comes, it does not fall from the sky."""


class Order(msgspec.Struct):
    """What to wait for."""

    port: int
    requests: list[str]
    """One for each connection."""
    marker: str
    """What is in the answer that is waited for, and in nothing before it."""
    held: str = ""
    """What comes as soon as one is held; empty where nothing does."""


class Told(msgspec.Struct):
    """What came of it."""

    arrivals: list[float]
    """Unix time, in the order of the requests; 0 where none came."""
    cpu_seconds: float
    instead: str = ""
    """What one of those who were told nothing got instead."""


class _Crowd:
    def __init__(self, order: Order) -> None:
        self.marker = order.marker.encode()
        self.held = order.held.encode()
        self.arrivals = [0.0] * len(order.requests)
        self.instead = b""
        self.over = asyncio.Event()
        self.all_held = asyncio.Event()
        self._left = self._unheld = len(order.requests)

    def hold(self) -> None:
        self._unheld -= 1
        if not self._unheld:
            self.all_held.set()

    def end(self) -> None:
        self._left -= 1
        if not self._left:
            self.over.set()


class _Waiter(asyncio.Protocol):
    __slots__ = ("_crowd", "_held", "_place", "_request", "_seen", "_transport")

    def __init__(self, crowd: _Crowd, place: int, request: bytes) -> None:
        self._crowd = crowd
        self._place = place
        self._request = request
        self._seen = b""
        self._held = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._transport.write(self._request)
        if not self._crowd.held:
            self._hold()

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self._seen += data
        if self._crowd.held in self._seen:
            self._hold()
        if self._crowd.marker in self._seen:
            self._crowd.arrivals[self._place] = now
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self._hold()
        if not self._crowd.arrivals[self._place]:
            self._crowd.instead = self._seen
        self._crowd.end()

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            self._crowd.hold()


async def wait_for_all(order: Order) -> None:
    """Hold every connection until each has its answer."""
    loop, crowd = asyncio.get_running_loop(), _Crowd(order)
    requests = [request.encode() for request in order.requests]
    waiters = [_Waiter(crowd, place, request) for place, request in enumerate(requests)]
    for start in range(0, len(waiters), BATCH):
        await asyncio.gather(*(_opened(loop, each, order.port) for each in waiters[start:][:BATCH]))
        await asyncio.sleep(PAUSE_SECONDS)
    await crowd.all_held.wait()
    print("held", flush=True)
    await crowd.over.wait()
    spent = resource.getrusage(resource.RUSAGE_SELF)
    seconds = spent.ru_utime + spent.ru_stime
    told = Told(crowd.arrivals, seconds, crowd.instead[-2000:].decode(errors="replace"))
    sys.stdout.write(msgspec.json.encode(told).decode() + "\n")


async def _opened(loop: asyncio.AbstractEventLoop, waiter: _Waiter, port: int) -> None:
    await loop.create_connection(lambda: waiter, "127.0.0.1", port)


def lines(paths: Sequence[str], key: str) -> list[str]:
    """A GET of each path."""
    head = f"HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n"
    return [f"GET {path} {head}" for path in paths]


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(wait_for_all(msgspec.json.decode(sys.stdin.readline(), type=Order)))
