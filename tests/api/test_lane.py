"""The short lane says what plain ASGI says, in order, whatever a connection is used for."""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import pytest_asyncio
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from calotype.api.protocol import Protocol
from calotype.app import build_app
from harness import GENERATIONS, Reply, Server, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUBMISSION = {"model": "gpt-image-2", "prompt": "a lighthouse"}
FORM = (
    '--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt-image-2\r\n'
    '--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na lighthouse\r\n--x--\r\n'
)
_CHANGING = [
    (re.compile(rb"task_[0-9a-z]{13}"), b"TASK"),
    (re.compile(rb"req_[0-9a-f]+"), b"REQUEST"),
    (re.compile(rb'(date: [A-Z]|_at":|_seconds":|_ms":|;t=)[^\r,}]+'), rb"\1THEN"),
    (re.compile(rb"THEN, [^\r]+"), b"THEN"),
    (re.compile(rb"127\.0\.0\.1:\d+"), b"ADDRESS"),
]


@asynccontextmanager
async def serving(
    server: Server,
    protocol: type[asyncio.Protocol],
    *,
    keep_alive: int = 600,
    grace: int | None = None,
) -> AsyncIterator[tuple[int, uvicorn.Server]]:
    """The port of another way into the same data, by this class of connections."""
    config = uvicorn.Config(
        build_app(server.core, with_worker=False),
        port=0,
        http=protocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # as calotype serves: what is around the application hides it
        timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=grace,
    )
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve())
    while not running.started:
        await asyncio.sleep(0.01)
    try:
        yield running.servers[0].sockets[0].getsockname()[1], running
    finally:
        running.should_exit = True
        await task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def data(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data"), with_worker=False) as running:
        yield running


def request(server: Server, line: str, *headers: str, body: str = "") -> bytes:
    """A request with the key, its length where it has a body, and these headers."""
    names = {each.partition(":")[0].lower() for each in headers}
    ours = ["Host: 127.0.0.1:80"] if "host" not in names else []
    if "authorization" not in names:
        ours.append(f"Authorization: Bearer {server.key}")
    if body and "content-type" not in names:
        ours.append("Content-Type: application/json")
    if body and not names & {"content-length", "transfer-encoding"}:
        ours.append(f"Content-Length: {len(body.encode())}")
    version = "" if " HTTP/" in line else " HTTP/1.1"
    return ("\r\n".join([line + version, *ours, *headers, "", ""]) + body).encode("latin-1")


def submission(server: Server, *headers: str, **fields: object) -> bytes:
    body = json.dumps({**SUBMISSION, **fields})
    return request(server, f"POST {GENERATIONS}", *headers, body=body)


Make = Callable[[Server, str], bytes]


def post(body: str, *headers: str, line: str = f"POST {GENERATIONS}") -> Make:
    return lambda server, _: request(server, line, *headers, body=body)


def asked(*headers: str, **fields: object) -> Make:
    return lambda server, _: submission(server, *headers, **fields)


def get(line: str, *headers: str) -> Make:
    """A request in which ``{id}`` is a task."""
    return lambda server, word: request(server, line.replace("{id}", word), *headers)


NO_KEY = "Authorization: none"
WRONG_KEY = f"Authorization: Bearer ck_{'a' * 43}"
BARE = {"model": "gpt-image-2", "prompt": "x"}

TABLE: dict[str, Make] = {
    "a submission": asked(),
    "with options": asked(n=2, size="1536x1024", metadata={"a": "b"}),
    "a request id": asked("X-Request-Id: my-own"),
    "a request id that is none": asked("X-Request-Id: my own"),
    "an upper-case scheme": lambda s, _: submission(s, f"AUTHORIZATION: BEARER {s.key}"),
    "no key": asked(NO_KEY),
    "a wrong key": asked(WRONG_KEY),
    "a malformed key": asked("Authorization: Bearer ck_short"),
    "an empty key": asked("Authorization: Bearer "),
    "a key beyond ASCII": asked("Authorization: Bearer ck_\xe9"),
    "no prompt": post('{"model":"gpt-image-2"}'),
    "no model": post('{"prompt":"x"}'),
    "an unknown model": asked(model="none-such"),
    "an unknown field": asked(colour="red"),
    "a wrong size": asked(size="1x1"),
    "a wrong type": asked(n="two"),
    "too many": asked(n=1000),
    "a wrong channel": asked(channel_id=999),
    "another format of answers": asked(response_format="b64_json"),
    "a reference that is none": asked(image_input=["ftp://example.com/a.png"]),
    "too many references": asked(image_input=["https://example.com/a.png"] * 50),
    "a callback that is none": asked(callback_url="http://localhost/"),
    "no JSON": post("{"),
    "no UTF-8": post('{"model":"\xff"}', "Content-Length: 13"),
    "an array": post("[]"),
    "a number": post("1"),
    "too deep": post("[" * 5000),
    "an empty body": post("", "Content-Type: application/json", "Content-Length: 0"),
    "no body at all": post("", "Content-Type: application/json"),
    "no content type": lambda s, _: request(
        s, f"POST {GENERATIONS}", "Content-Type:", body=json.dumps(SUBMISSION)
    ),
    "another content type": asked("Content-Type: text/plain"),
    "a charset": asked("Content-Type: Application/JSON; charset=utf-8"),
    "a form": post(FORM, "Content-Type: multipart/form-data; boundary=x"),
    "a broken form": post("--x", "Content-Type: multipart/form-data; boundary=x"),
    "a form without boundary": post(FORM, "Content-Type: multipart/form-data"),
    "a body over the limit": post('{"a":"' + "x" * (1024 * 1024) + '"}'),
    "a body just within it": post('{"a":"' + "x" * (1000 * 1000) + '"}'),
    "chunks": post(
        f"{len(json.dumps(BARE)):x}\r\n{json.dumps(BARE)}\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked",
    ),
    "a query": post(json.dumps(BARE), line=f"POST {GENERATIONS}?a=b"),
    "a path in other letters": post(json.dumps(BARE), line="POST /v1/images/%67enerations"),
    "an idempotency key": asked("Idempotency-Key: once"),
    "an idempotency key for another request": asked("Idempotency-Key: once", prompt="another"),
    "an empty idempotency key": asked("Idempotency-Key:"),
    "an endless idempotency key": asked("Idempotency-Key: " + "k" * 300),
    "a wait of none": asked("Prefer: wait=0"),
    "a preference that means nothing": asked("Prefer: respond-async"),
    "PUT": post(json.dumps(BARE), line=f"PUT {GENERATIONS}"),
    "GET of the submission": get(f"GET {GENERATIONS}"),
    "HEAD of the submission": get(f"HEAD {GENERATIONS}"),
    "closing after a submission": asked("Connection: close"),
    "HTTP/1.0": post(json.dumps(BARE), line=f"POST {GENERATIONS} HTTP/1.0"),
    "a task": get("GET /v1/tasks/{id}"),
    "a task by another host": get("GET /v1/tasks/{id}", "Host: images.example.com"),
    "a task by a host that is none": get("GET /v1/tasks/{id}", "Host: a b"),
    "a task with a request id": get("GET /v1/tasks/{id}", "X-Request-Id: mine"),
    "a task without a key": get("GET /v1/tasks/{id}", NO_KEY),
    "a task with a wrong key": get("GET /v1/tasks/{id}", WRONG_KEY),
    "a task that is none": get("GET /v1/tasks/task_0000000000000"),
    "a task that cannot be": get("GET /v1/tasks/nothing"),
    "a task in capitals": get("GET /v1/tasks/TASK_0000000000000"),
    "a task and a slash": get("GET /v1/tasks/{id}/"),
    "a task with an empty query": get("GET /v1/tasks/{id}?"),
    "a task waited for": get("GET /v1/tasks/{id}?wait=0"),
    "a task waited for wrongly": get("GET /v1/tasks/{id}?wait=x"),
    "a task with a fragment": get("GET /v1/tasks/{id}#a"),
    "a task by its whole URL": get("GET http://127.0.0.1:80/v1/tasks/{id}"),
    "a task with a body": lambda s, word: request(s, f"GET /v1/tasks/{word}", body="{}"),
    "HEAD of a task": get("HEAD /v1/tasks/{id}"),
    "PATCH of a task": get("PATCH /v1/tasks/{id}"),
    "closing after a task": get("GET /v1/tasks/{id}", "Connection: close"),
    "a task over HTTP/1.0": get("GET /v1/tasks/{id} HTTP/1.0"),
}


async def answers(port: int, sent: bytes, *, again: int) -> bytes:
    """All that comes back for a request that is sent so often, and then for a last one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        come = b""
        for _ in range(again):
            writer.write(sent)
            come += await _one(reader, bodyless=sent.startswith(b"HEAD"))
            if reader.at_eof() or b"connection: close" in come:
                break
        else:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return come + await reader.read()


async def _one(reader: asyncio.StreamReader, *, bodyless: bool) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head if bodyless else head + await reader.readexactly(length)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ports(data: Server) -> AsyncIterator[tuple[int, int]]:
    """Of the lane, and of plain ASGI as uvicorn has it."""
    async with (
        serving(data, Protocol) as (lane, _),
        serving(data, HttpToolsProtocol) as (plain, _),
    ):
        yield lane, plain


@pytest.mark.parametrize("name", TABLE)
async def test_the_lane_answers_as_plain_asgi_does(
    data: Server, ports: tuple[int, int], name: str
) -> None:
    word = (await data.accepted())["task_id"]
    sent = TABLE[name](data, word)
    told = [await answers(port, sent, again=3) for port in ports]
    for pattern, put in _CHANGING:
        told = [pattern.sub(put, each) for each in told]
    assert told[0] == told[1]
    assert told[0].startswith(b"HTTP/1.1 ")


async def replies(reader: asyncio.StreamReader, count: int) -> list[tuple[int, str]]:
    """Status and request id of so many answers."""
    read = [await Reply.read(reader) for _ in range(count)]
    return [(each.status, each.headers["X-Request-Id"]) for each in read]


async def test_pipelined_requests_of_every_way_are_answered_in_order(data: Server) -> None:
    word = (await data.accepted())["task_id"]
    await data.task(word)  # now it is ready
    kinds = (
        lambda name: request(data, f"GET /v1/tasks/{word}", name),
        lambda name: submission(data, name),
        lambda name: request(data, "GET /v1/models", name),
        lambda name: request(data, f"GET /v1/tasks/{word}?wait=0", name),
        lambda name: request(data, f"GET /v1/tasks/{word}", name),
        lambda name: submission(data, name, n=1000),
    )
    sent = [kinds[number % 6](f"X-Request-Id: number-{number}") for number in range(60)]
    expected = [(202, 200, 200, 200, 400, 200)[(number - 1) % 6] for number in range(60)]
    for pieces in (1, 3, 60):
        async with data.connection() as (reader, writer):
            step = 60 // pieces
            for start in range(0, 60, step):
                writer.write(b"".join(sent[start : start + step]))
                await writer.drain()
            assert await replies(reader, 60) == [
                (status, f"number-{number}") for number, status in enumerate(expected)
            ]


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_a_request_may_come_in_pieces(data: Server, size: int) -> None:
    word = (await data.accepted())["task_id"]
    await data.task(word)
    sent = submission(data) + request(data, f"GET /v1/tasks/{word}") + submission(data)
    async with data.connection() as (reader, writer):
        for start in range(0, len(sent), size):
            writer.write(sent[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)
        assert [status for status, _ in await replies(reader, 3)] == [202, 200, 202]


def _reading(word: str, *headers: str, body: str = "") -> str:
    return "\r\n".join([f"GET /v1/tasks/{word} HTTP/1.1", *headers, "", body])


PIECES: dict[str, Callable[[str, str, str], list[str]]] = {
    "the same headers for another task": lambda a, b, key: [
        _reading(a, "Host: a", key),
        _reading(b, "Host: a", key),
        _reading("task_0000000000000", "Host: a", key),
        _reading(b, "Host: a", key),
    ],
    "other headers": lambda a, b, key: [
        _reading(a, "Host: a", key),
        _reading(b, "Host: a"),
        _reading(b, "Host: b", key),
        _reading(b, "Host: b", key, "Connection: close"),
    ],
    "headers of which a part came before": lambda a, b, key: [
        _reading(a, key).removesuffix("\r\n"),
        "Host: a\r\n\r\n",
        _reading(b, "Host: a"),
    ],
    "a header that looks like a request": lambda a, b, key: [
        _reading(a, "Host: a", key, "X-A: ").removesuffix("\r\n\r\n"),
        _reading(a, "Host: a"),
        _reading(b, "Host: a"),
    ],
    "a body that looks like the request before it": lambda a, _, key: [
        announced := _reading(a, "Host: a", key, f"Content-Length: {len(key) + 77:3}"),
        announced,
        announced,
        announced,
    ],
    "two at a time": lambda a, b, key: [
        _reading(a, "Host: a", key) + _reading(b, "Host: a", key),
        _reading(a, "Host: a", key) + _reading(b, "Host: a", key),
    ],
    "an announced body each time": lambda a, b, key: [
        _reading(a, "Host: a", key, "Content-Length: 2"),
        "{}",
        _reading(b, "Host: a", key, "Content-Length: 2"),
        "{}",
    ],
    "a part of the next request": lambda a, b, key: [
        _reading(a, "Host: a", key) + "GET ",
        f"/v1/tasks/{b} HTTP/1.1\r\nHost: a\r\n{key}\r\n\r\n",
        "\r\n" + _reading(b, "Host: a", key),
        _reading(a).removesuffix("\r\n") + _reading(b, "Host: a", key),
    ],
    "a body that ends as a request begins": lambda a, b, key: [
        f"POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(_reading(a)) - 2}\r\n\r\n",
        _reading(a).removesuffix("\r\n") + _reading(b, "Host: a", key),
        _reading(a).removesuffix("\r\n") + _reading(b, "Host: a", key),
    ],
}


@pytest.mark.parametrize("name", PIECES)
async def test_pieces_are_read_as_plain_asgi_reads_them(
    data: Server, ports: tuple[int, int], name: str
) -> None:
    a, b = [(await data.accepted())["task_id"] for _ in range(2)]
    key = f"Authorization: Bearer {data.key}"
    pieces = [_reading(word, "Host: a", key) for word in (a, b, a)]  # now both are ready
    pieces += PIECES[name](a, b, key)
    told = []
    for port in ports:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            for piece in pieces:
                writer.write(piece.encode())
                for _ in range(20):  # each is mostly read as a piece; the answers are the same
                    await asyncio.sleep(0)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            come = await reader.read()
        for pattern, put in _CHANGING:
            come = pattern.sub(put, come)
        told.append(come.partition(b"HTTP/1.1 400 ")[:2])  # what is no HTTP is told in our own way
    assert told[0] == told[1]


@pytest.mark.parametrize("part", ["", '{"model":'])
async def test_a_submission_is_refused_before_the_rest_of_it_has_come(
    data: Server, ports: tuple[int, int], part: str
) -> None:
    sent = submission(data, NO_KEY).partition(b"\r\n\r\n")
    for port in ports:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            writer.write(sent[0] + sent[1] + part.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 401 ")
            writer.write(sent[2][len(part) :] + request(data, "GET /healthz"))
            assert b"missing_api_key" in await reader.readuntil(b"HTTP/1.1 200 OK")


async def test_a_flood_of_pipelined_reads_is_answered_in_order_beside_others(data: Server) -> None:
    word = (await data.accepted())["task_id"]
    await data.task(word)
    flood = [request(data, f"GET /v1/tasks/{word}", f"X-Request-Id: {n}") for n in range(3000)]
    async with data.connection() as (reader, writer):
        writer.write(b"".join(flood))
        assert (await data.task(word))["task_id"] == word  # while nobody reads those answers
        assert await replies(reader, 3000) == [(200, str(number)) for number in range(3000)]


@asynccontextmanager
async def locked(data: Server) -> AsyncIterator[None]:
    """While entered, nothing can be written."""
    with closing(sqlite3.connect(data.data / "calotype.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_a_submission_goes_on_when_its_client_hangs_up(data: Server) -> None:
    before = await data.newest()
    async with locked(data):
        async with data.connection() as (reader, writer):
            writer.write(submission(data) + request(data, "GET /v1/tasks/none", "Expect: x"))
            await writer.drain()
            assert await data.newest() == before
            writer.transport.abort()
            del reader
        assert (await data.call("GET", "/healthz")).status == 200
    async with asyncio.timeout(30):
        while await data.newest() == before:
            await asyncio.sleep(0.01)


async def test_a_stopping_server_answers_the_submission_that_is_under_way(data: Server) -> None:
    async with serving(data, Protocol) as (port, server):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        idle, unused = await asyncio.open_connection("127.0.0.1", port)
        word = await data.newest()
        unused.write(request(data, f"GET /v1/tasks/{word}") * 2)
        assert [status for status, _ in await replies(idle, 2)] == [200, 200]
        with closing(writer), closing(unused):
            async with locked(data):
                writer.write(submission(data))
                while not server.server_state.tasks:
                    await asyncio.sleep(0.01)
                server.should_exit = True
                assert await idle.read() == b""  # it lets go of those that are idle
            told = await reader.read()
    assert told.startswith(b"HTTP/1.1 202 ")
    assert b"connection: close\r\n" in told


async def test_a_server_that_stops_waiting_hangs_up_on_whoever_it_does_not_answer(
    data: Server,
) -> None:
    async with locked(data):
        async with serving(data, Protocol, grace=0) as (port, server):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(submission(data))
            while not server.server_state.tasks:
                await asyncio.sleep(0.01)
        with closing(writer):
            assert await reader.read() == b""
    await data.accepted()  # behind what was under way, which other tests would see come


@pytest.mark.parametrize("line", [f"POST {GENERATIONS}", f"POST {GENERATIONS}?slow"])
async def test_what_comes_behind_a_body_is_no_header(data: Server, line: str) -> None:
    body = "2\r\n{}\r\n0\r\n" + f"Authorization: Bearer {data.key}\r\n\r\n"
    chunked = request(data, line, NO_KEY, "Transfer-Encoding: chunked", body=body)
    async with data.connection() as (reader, writer):
        writer.write(chunked.replace(b"Authorization: none\r\n", b""))
        (await Reply.read(reader)).assert_refused(401, "missing_api_key")


async def test_a_broken_body_behind_a_ready_answer_gets_no_answer_of_its_own(data: Server) -> None:
    word = (await data.accepted())["task_id"]
    broken = request(data, f"GET /v1/tasks/{word}", "Transfer-Encoding: chunked")
    async with data.connection() as (reader, writer):
        writer.write(request(data, f"GET /v1/tasks/{word}"))
        assert (await Reply.read(reader)).status == 200
        writer.write(broken + b"no number\r\n")
        assert (await Reply.read(reader)).status == 200
        assert await reader.read() == b""


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(data: Server) -> None:
    word = (await data.accepted())["task_id"]
    async with serving(data, Protocol, keep_alive=1) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            for _ in range(2):
                writer.write(request(data, f"GET /v1/tasks/{word}"))
                assert (await Reply.read(reader)).status == 200
            writer.write(request(data, f"GET /v1/tasks/{word}?wait=3"))  # longer than it may idle
            assert (await Reply.read(reader)).status == 200
            assert await reader.read() == b""


async def test_what_breaks_is_told_with_the_request_id_in_the_one_shape(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_server(tmp_path / "data", with_worker=False) as server:
        task = await server.accepted()
        with closing(sqlite3.connect(server.data / "calotype.db")) as other:
            other.execute("UPDATE tasks SET request = x'5b5d'")
            other.commit()
        reply = await server.call("GET", task["poll_url"], headers={"X-Request-Id": "mine"})
        reply.assert_refused(500, "internal_error")
        assert "mine: GET" in caplog.text
