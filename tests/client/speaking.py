"""Both clients under one spelling, and servers that misbehave."""

import asyncio
import contextlib
import inspect
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from calotype.client import AsyncCalotype, Calotype

KINDS = (Calotype, AsyncCalotype)
Kind = type[Calotype] | type[AsyncCalotype]
DROP = b""


async def do(method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a method of either client, and wait; what it iterates over comes as a list."""
    if inspect.iscoroutinefunction(method):
        return await method(*arguments, **options)
    if inspect.isasyncgenfunction(method):
        return [item async for item in method(*arguments, **options)]
    if inspect.isgeneratorfunction(method):
        return await asyncio.to_thread(lambda: list(method(*arguments, **options)))
    return await asyncio.to_thread(method, *arguments, **options)


async def first(count: int, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The first few of what a method of either client iterates over."""
    if inspect.isasyncgenfunction(method):
        source: AsyncGenerator[Any, None] = method(*arguments, **options)
        async with contextlib.aclosing(source):
            return [await anext(source) for _ in range(count)]

    def taken() -> list[Any]:
        with contextlib.closing(method(*arguments, **options)) as source:
            return [next(source) for _ in range(count)]

    return await asyncio.to_thread(taken)


@contextlib.asynccontextmanager
async def opened(kind: Kind, key: str, url: str, **options: Any) -> AsyncIterator[Any]:
    """A client of either kind that is not patient with pauses."""
    client = kind(key, url, **{"pauses": (0, 0, 0), **options})
    try:
        yield client
    finally:
        await do(client.close)


class Rogue:
    """Answers each connection with the next of its answers, byte for byte, and hangs up."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.answers = list(answers)
        self.heads: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.lines: list[str] = []
        """Method and path of each request."""
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.lines.append(lines[0].removesuffix(" HTTP/1.1"))
        head = dict[str, str]()
        for line in lines[1:]:
            name, _, value = line.partition(":")
            head[name.lower()] = value.strip()
        self.heads.append(head)
        self.bodies.append(await reader.readexactly(int(head.get("content-length", "0"))))
        writer.write(self.answers.pop(0))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def answer(status: int, body: Any, *, headers: str = "") -> bytes:
    """An answer; ``headers`` are whole lines."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Some\r\nContent-Length: {len(content)}\r\n{headers}Connection: close"
    return head.encode() + b"\r\n\r\n" + content


def stream(*events: bytes) -> bytes:
    """A stream of events that ends when the connection does."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    return head + b"".join(events)


@contextlib.asynccontextmanager
async def rogue(*answers: bytes) -> AsyncIterator[Rogue]:
    """A server of these answers."""
    served = Rogue(answers)
    server = await asyncio.start_server(served.handle, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield served


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def handling(handle: Handler) -> AsyncIterator[str]:
    """The URL of a server that does so with each connection; it ends once all have hung up."""
    handlers = set[asyncio.Task[Any] | None]()

    async def each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            await handle(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(each, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*filter(None, handlers))


def names_in(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())
