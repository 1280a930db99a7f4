"""Large files sent by the system: over raw sockets, on both event loops."""

import asyncio
import os
import secrets
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.types import Message, Receive, Scope, Send

from calotype.api.protocol import Protocol
from calotype.assets.download import SMALL, Download, open_file
from harness import until

LARGE = 20_000_000
"""More than the buffers of any socket hold."""

Body = Callable[[], Coroutine[Any, Any, None]]
Run = Callable[[Body], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine on an event loop of either kind."""

    def run(body: Body) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(body(), 60))

    return run


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A large file."""
    path = tmp_path / "image"
    path.write_bytes(secrets.token_bytes(LARGE))
    return path


class Site:
    """A server that answers every path with one file, ``/a-b`` with a part of it."""

    def __init__(self, path: Path) -> None:
        self.address = ("", 0)
        self.path = path
        self.whole = path.read_bytes()
        self.passed = 0
        """Bytes of bodies that went through Python."""
        self.ended = 0
        """Answers that came to their end, whatever it was."""
        self.server = uvicorn.Server(
            uvicorn.Config(
                self, http=Protocol, lifespan="off", log_config=None, timeout_graceful_shutdown=1
            )
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            self.passed += len(message.get("body", b""))
            await send(message)

        first, _, last = scope["path"].removeprefix("/").partition("-")
        part = range(int(first), int(last)) if last else range(LARGE)
        answer = Download(await open_file(self.path), part, status=200, headers={})
        try:
            await answer(scope, receive, counting)
        finally:
            self.ended += 1

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink()

    def still_open(self) -> int:
        """How many descriptors of the file this process holds."""
        return sum(_leads_to(link, self.path) for link in Path("/proc/self/fd").iterdir())

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection whose client takes little ahead of being read."""
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, self.address)
        reader, writer = await asyncio.open_connection(sock=raw)
        try:
            yield reader, writer
        finally:
            writer.close()


def _leads_to(link: Path, path: Path) -> bool:
    with suppress(OSError):
        return str(link.readlink()).startswith(str(path))
    return False


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Site]:
    site = Site(path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site.address = listener.getsockname()
        task = asyncio.create_task(site.server.serve(sockets=[listener]))
        try:
            await until(lambda: site.server.started)
            yield site
        finally:
            site.server.should_exit = True
            await task


def asking(path: str = "/", method: str = "GET", *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", *lines, "", ""]).encode()


async def answered(reader: asyncio.StreamReader) -> bytes:
    """The body of an answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    return await reader.readexactly(_length(head))


def _length(head: bytes) -> int:
    return int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])


def test_no_byte_of_a_large_file_passes_through_python(run: Run, image: Path) -> None:
    async def body() -> None:
        async with serving(image) as site, site.connection() as (reader, writer):
            writer.write(asking())
            assert await answered(reader) == site.whole
            assert site.passed == 0

    run(body)


@pytest.mark.parametrize("size", [1, 1000, SMALL, SMALL + 1, 600_000])
def test_a_part_of_any_size_arrives_as_it_is(run: Run, image: Path, size: int) -> None:
    async def body() -> None:
        async with serving(image) as site, site.connection() as (reader, writer):
            for start in (0, 4095, LARGE - size):
                writer.write(asking(f"/{start}-{start + size}"))
                assert await answered(reader) == site.whole[start : start + size]

    run(body)


def test_requests_sent_at_once_are_answered_in_their_order(run: Run, image: Path) -> None:
    async def body() -> None:
        async with serving(image) as site, site.connection() as (reader, writer):
            parts = [(0, 900_000), (5, 10), (10, LARGE), (7, 700_007), (3, 4)]
            sent = [asking(f"/{start}-{stop}") for start, stop in parts]
            sent.insert(2, asking("/", "HEAD"))
            writer.write(b"".join(sent))
            for number, (start, stop) in enumerate(parts):
                if number == 2:
                    assert _length(await reader.readuntil(b"\r\n\r\n")) == LARGE
                assert await answered(reader) == site.whole[start:stop]

    run(body)


def test_a_connection_that_is_to_close_closes_after_the_last_byte(run: Run, image: Path) -> None:
    async def body() -> None:
        async with serving(image) as site, site.connection() as (reader, writer):
            writer.write(asking("/", "GET", "Connection: close"))
            assert await answered(reader) == site.whole
            assert await reader.read() == b""

    run(body)


def test_clients_that_do_not_read_keep_nobody_waiting(run: Run, image: Path) -> None:
    async def body() -> None:
        async with serving(image) as site, site.connection() as (slow, writer):
            writer.write(asking())
            begun = await slow.readuntil(b"\r\n\r\n")
            for _ in range(3):
                async with site.connection() as (quick, asks):
                    asks.write(asking())
                    assert len(await answered(quick)) == LARGE
            assert site.ended == 3
            assert await slow.readexactly(_length(begun)) == site.whole

    run(body)


def reset(connected: socket.socket) -> None:
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connected.close()


def half_close(connected: socket.socket) -> None:
    connected.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("hang_up", [socket.socket.close, reset, half_close])
def test_a_client_that_hangs_up_leaves_nothing_behind(
    run: Run,
    image: Path,
    hang_up: Callable[[socket.socket], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> None:
        async with serving(image) as site:
            loop = asyncio.get_running_loop()
            with socket.create_connection(site.address) as client:
                client.setblocking(False)
                await loop.sock_sendall(client, asking())
                assert await loop.sock_recv(client, 1000)
                assert site.still_open() == 1
                hang_up(client)
                await until(lambda: site.ended == 1)
            assert site.still_open() == 0
            async with site.connection() as (reader, writer):
                writer.write(asking())
                assert len(await answered(reader)) == LARGE

    run(body)
    assert caplog.messages == []


def test_a_file_that_is_deleted_meanwhile_is_sent_to_its_end(run: Run, image: Path) -> None:
    async def body() -> None:
        async with serving(image) as site, site.connection() as (reader, writer):
            writer.write(asking())
            begun = await reader.readuntil(b"\r\n\r\n")
            site.remove()
            assert await reader.readexactly(_length(begun)) == site.whole

    run(body)


def test_a_file_that_is_cut_short_meanwhile_ends_the_connection(run: Run, image: Path) -> None:
    async def body() -> None:
        async with serving(image) as site, site.connection() as (reader, writer):
            writer.write(asking())
            await reader.readuntil(b"\r\n\r\n")
            os.truncate(image, LARGE // 2)
            assert len(await reader.read()) < LARGE
            assert site.still_open() == 0

    run(body)


def test_a_file_that_is_not_in_memory_is_sent_as_well(run: Run, image: Path) -> None:
    async def body() -> None:
        async with serving(image) as site, site.connection() as (reader, writer):
            for path, expected in (("/", site.whole), ("/5-5000", site.whole[5:5000])):
                with image.open("rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                writer.write(asking(path))
                assert await answered(reader) == expected

    run(body)


def test_a_server_that_stops_sends_what_is_taken_in_time(run: Run, image: Path) -> None:
    async def body() -> None:
        async with serving(image) as site, site.connection() as (reader, writer):
            writer.write(asking())
            begun = await reader.readuntil(b"\r\n\r\n")
            site.server.should_exit = True
            assert len(await reader.readexactly(_length(begun))) == LARGE

    run(body)


def test_a_server_that_stops_gives_up_what_nobody_takes(run: Run, image: Path) -> None:
    async def body() -> None:
        async with serving(image) as site, site.connection() as (reader, writer):
            writer.write(asking())
            begun = await reader.readuntil(b"\r\n\r\n")
            site.server.should_exit = True
            await until(lambda: site.ended == 1)
            assert site.still_open() == 0
            with suppress(ConnectionError):
                assert len(await reader.read()) < _length(begun)

    run(body)
