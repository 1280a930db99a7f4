"""Clients of whole tasks: each submits, waits in one long-poll for the end, and begins anew."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, cast

import msgspec

from wrk import Load, RefusedError


class Task(msgspec.Struct):
    """What is read of an answer."""

    task_id: str
    state: str


_decode: Final = msgspec.json.Decoder(Task).decode


def _task(answer: bytes) -> Task:
    try:
        task = _decode(answer)
    except msgspec.DecodeError as error:
        raise RefusedError(answer.decode()) from error
    if task.state == "fail":
        raise RefusedError(answer.decode())
    return task


class Caller(asyncio.Protocol):
    """One connection that is kept, with one request at a time in flight."""

    def __init__(self, key: str) -> None:
        self._head = f"HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        self._seen = bytearray()
        self._answer: asyncio.Future[bytes] | None = None
        self.answered_ns = 0
        """When the last answer was whole, by the clock that all processes share."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        """Hand out an answer that is whole."""
        self._seen += data
        head = self._seen.find(b"\r\n\r\n") + 4
        if head < 4:
            return
        length = self._seen[:head].lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if len(self._seen) >= head + int(length):
            self.answered_ns = time.monotonic_ns()
            body = bytes(self._seen[head:])
            self._seen.clear()
            if self._answer is not None:
                self._answer.set_result(body)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("closed"))

    async def get(self, path: str) -> bytes:
        """The body of what is there."""
        return await self._ask(f"GET {path} {self._head}\r\n".encode())

    async def submit(self, body: bytes) -> Task:
        """A new task."""
        head = f"{self._head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return _task(await self._ask(f"POST /v1/images/generations {head}".encode() + body))

    async def ended(self, task_id: str) -> None:
        """Wait until a task has succeeded."""
        path = f"/v1/tasks/{task_id}?wait=60&since=99"
        while _task(await self.get(path)).state != "success":
            pass

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def _ask(self, request: bytes) -> asyncio.Future[bytes]:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer


@asynccontextmanager
async def callers(port: int, key: str, number: int) -> AsyncIterator[list[Caller]]:
    """So many connections."""
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(lambda: Caller(key), "127.0.0.1", port))[1]
        for _ in range(number)
    ]
    try:
        yield opened
    finally:
        for caller in opened:
            caller.close()


async def run_tasks(port: int, key: str, body: bytes, *, connections: int, seconds: float) -> Load:
    """From submission to success, again and again; the last of them to their end."""
    times = list[float]()
    began = time.perf_counter()

    async def go(caller: Caller) -> None:
        while (at := time.perf_counter()) < began + seconds:
            await caller.ended((await caller.submit(body)).task_id)
            times.append((time.perf_counter() - at) * 1000)

    async with callers(port, key, connections) as opened:
        await asyncio.gather(*map(go, opened))
    times.sort()
    rate = len(times) / (time.perf_counter() - began)
    return Load(rate, times[len(times) // 2], times[int(len(times) * 0.99)], len(times), 0)


async def submit_many(port: int, key: str, body: Callable[[], bytes], number: int) -> list[str]:
    """So many tasks, by 64 connections; their ids."""
    ids = list[str]()

    async def go(caller: Caller) -> None:
        while len(ids) < number:
            ids.append("")  # the place is taken before the answer is there
            place = len(ids) - 1
            ids[place] = (await caller.submit(body())).task_id

    async with callers(port, key, 64) as opened:
        await asyncio.gather(*map(go, opened))
    return ids
