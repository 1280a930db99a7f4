"""Clients that send too slowly, take nothing, or send heads without end."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from calotype.api.cuts import LINE_SECONDS, Cuts
from calotype.api.patience import MAX_HEAD, MAX_HEADERS
from calotype.observing.metrics import CUT
from harness import Reply, Server, noise, running_server

HEAD = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n"
BEAT = 0.02
"""Seconds between what a slow client sends: far less than the server waits."""


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that waits for no client longer than a moment."""
    async with running_server(tmp_path / "data", with_worker=False, client_seconds=0.4) as running:
        yield running


async def trickled(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: bytes
) -> Reply:
    """The answer to a client that sends a piece again and again until it is told something."""
    answer = asyncio.create_task(Reply.read(reader))
    while not answer.done():
        writer.write(piece)
        await asyncio.wait([answer], timeout=BEAT)
    return answer.result()


@contextmanager
def counted(reason: str) -> Iterator[None]:
    """While entered, one connection is ended for this reason."""
    before = CUT.values[reason,]
    yield
    assert CUT.values[reason,] == before + 1


async def test_a_head_that_comes_byte_by_byte_is_cut_off(hasty: Server) -> None:
    with counted("request_timeout"):
        async with hasty.connection() as (reader, writer):
            writer.write(HEAD + b"X-Slow: ")
            told = await trickled(reader, writer, b"a")
            told.assert_refused(408, "request_timeout")
            assert told.headers["Connection"] == "close"


async def test_so_is_one_that_begins_behind_an_answer(hasty: Server) -> None:
    async with hasty.connection() as (reader, writer):
        writer.write(HEAD + b"\r\n")
        assert (await Reply.read(reader)).status == 200
        writer.write(HEAD + b"X-Slow: ")
        (await trickled(reader, writer, b"a")).assert_refused(408, "request_timeout")


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
async def test_a_body_that_comes_byte_by_byte_is_cut_off(hasty: Server, kind: str) -> None:
    head = (
        "POST /v1/images/generations HTTP/1.1\r\nHost: a\r\n"
        f"Authorization: Bearer {hasty.key}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: 900000\r\n\r\n"
    )
    with counted("request_timeout"):
        async with hasty.connection() as (reader, writer):
            writer.write(head.encode())
            (await trickled(reader, writer, b" ")).assert_refused(408, "request_timeout")
    assert await hasty.newest() is None
    assert hasty.stored_files() == []


async def test_a_body_that_is_slow_but_goes_on_is_waited_for(hasty: Server) -> None:
    body = json.dumps({"model": "gpt-image-2", "prompt": "slow"}).encode().ljust(400_000)
    head = (
        "POST /v1/images/generations HTTP/1.1\r\nHost: a\r\n"
        f"Authorization: Bearer {hasty.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    async with hasty.connection() as (reader, writer):
        writer.write(head.encode())
        began, step = loop.time(), 4_000
        for start in range(0, len(body), step):
            writer.write(body[start : start + step])
            await writer.drain()
            await asyncio.sleep(BEAT)
        assert loop.time() - began > 1  # more than twice what a client has
        assert (await Reply.read(reader)).status == 202


async def test_a_connection_on_which_nothing_is_asked_is_closed_without_a_word(
    hasty: Server,
) -> None:
    with counted("nothing_asked"):
        async with hasty.connection() as (reader, _):
            assert await reader.read() == b""


ANSWER = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"


@asynccontextmanager
async def idle_reader(server: Server) -> AsyncIterator[socket.socket]:
    """A connection whose client takes next to nothing unless it reads."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
        yield client


async def sent_until_cut(client: socket.socket, piece: bytes) -> None:
    """Send again and again until the server has hung up."""
    loop = asyncio.get_running_loop()

    async def send() -> None:
        while True:
            await loop.sock_sendall(client, piece)
            await asyncio.sleep(BEAT)

    with pytest.raises(ConnectionError):
        await send()


async def test_answers_that_nobody_takes_are_given_up(hasty: Server) -> None:
    with counted("answer_not_taken"):
        async with idle_reader(hasty) as client:
            await sent_until_cut(client, ANSWER * 10_000)


async def test_an_image_that_nobody_takes_is_given_up(hasty: Server) -> None:
    accepted = await hasty.submit_form(("image", noise(1600), "large.png"))
    assert accepted.status == 202, accepted.body
    task = await hasty.task(accepted.json["task_id"])
    path = task["request"]["image_input"][0].removeprefix(hasty.url)
    with counted("answer_not_taken"):
        async with idle_reader(hasty) as client:
            await asyncio.get_running_loop().sock_sendall(
                client, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
            )
            await sent_until_cut(client, b"\r\n")


async def test_answers_that_are_taken_slowly_are_sent_to_the_end(hasty: Server) -> None:
    loop, number = asyncio.get_running_loop(), 60
    async with hasty.connection() as (reader, writer):
        writer.write(ANSWER * number)
        began = loop.time()
        for taken in range(number):  # far more than the system keeps of it
            told = await Reply.read(reader)
            assert (told.status, taken) == (200, taken)
            await asyncio.sleep(BEAT)
        assert loop.time() - began > 1  # more than twice what a client has for each part


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X-Many: a\r\n" * MAX_HEADERS + b"\r\n",
        HEAD + b"X-Long: " + b"a" * MAX_HEAD + b"\r\n\r\n",
        HEAD + b"X-Without-End: " + b"a" * MAX_HEAD,
        b"GET /" + b"a" * MAX_HEAD,
    ],
    ids=["many", "long", "endless", "path"],
)
async def test_a_head_that_is_too_large_is_refused(idle_server: Server, head: bytes) -> None:
    with counted("head_too_large"):
        async with idle_server.connection() as (reader, writer):
            writer.write(head)
            told = await Reply.read(reader)
            told.assert_refused(431, "head_too_large")


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"1\r\n{\r\n0\r\n", b"X-Many: a\r\n" * 1000),
        (b"1\r\n{\r\n0\r\nX-Long: ", b"a" * 10_000),
        (b"1;long=", b"a" * 10_000),
    ],
    ids=["trailers", "trailer", "chunk"],
)
async def test_what_is_without_end_around_a_body_is_cut_off(
    idle_server: Server, begin: bytes, piece: bytes
) -> None:
    head = (
        b"POST /v1/images/generations HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
        b"Authorization: Bearer %b\r\nContent-Type: application/json\r\n\r\n"
    ) % idle_server.key.encode()
    async with idle_reader(idle_server) as client, asyncio.timeout(30):
        await asyncio.get_running_loop().sock_sendall(client, head + begin)
        await sent_until_cut(client, piece)


async def test_a_head_that_is_as_large_as_it_may_be_is_read(idle_server: Server) -> None:
    lines = b"".join(b"X-%d: %b\r\n" % (number, b"a" * 600) for number in range(MAX_HEADERS - 1))
    async with idle_server.connection() as (reader, writer):
        writer.write(HEAD + lines + b"\r\n")
        assert (await Reply.read(reader)).status == 200


@pytest.mark.parametrize("path", [b"/v1/models", b"/openapi.json"])
async def test_garbage_behind_requests_is_refused_after_their_answers(
    idle_server: Server, path: bytes
) -> None:
    with counted("malformed_body"):
        async with idle_server.connection() as (reader, writer):
            writer.write(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path * 3 + b"garbage\r\n\r\n")
            told = [(await Reply.read(reader)).status for _ in range(4)]
            assert told == [200, 200, 200, 400]
            assert await reader.read() == b""


async def test_a_body_that_is_broken_is_refused_behind_what_was_asked_before(
    idle_server: Server,
) -> None:
    first = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"
    broken = (
        b"POST /v1/images/generations HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
        b"Authorization: Bearer %b\r\nContent-Type: application/json\r\n\r\nno number\r\n"
    ) % idle_server.key.encode()
    async with idle_server.connection() as (reader, writer):
        writer.write(first + broken)
        told = [(await Reply.read(reader)).status for _ in range(2)]
        assert told == [200, 400]
        assert await reader.read() == b""


def test_a_flood_of_cuts_is_told_in_one_line_a_second_for_each_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    cuts = Cuts(lambda: now)
    with_flood = CUT.values["nothing_asked",] + 1001
    for port in range(1000):
        cuts.note("nothing_asked", ("192.0.2.1", port))
    cuts.note("service_unavailable", ("192.0.2.2", 1))
    now += LINE_SECONDS
    cuts.note("nothing_asked", None)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "connections cut: 1, nothing_asked, the last of 192.0.2.1"),
        ("WARNING", "connections cut: 1, service_unavailable, the last of 192.0.2.2"),
        ("INFO", "connections cut: 1000, nothing_asked, the last of unknown"),
    ]
    assert CUT.values["nothing_asked",] == with_flood
