"""Every answer that is no success has one shape, and every answer has a request id."""

import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import pytest
import pytest_asyncio

from calotype.api.render import SLUGS, STATUSES
from calotype.domain import errors
from harness import GENERATIONS, Reply, Server, picture, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data"), with_worker=False) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def breakable(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server of the test's own, for the test to break."""
    async with running_server(tmp_path_factory.mktemp("data"), with_worker=False) as running:
        yield running


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/",
        "/v2/models",
        "/v1/images",
        "/v1/images/generations/",
        "/v1/images/generations/x",
        "/v1//models",
        "/V1/models",
        "/v1/task",
        "/v1/tasks/a/b",
        "/v1/credits",
        "/v1/assets",
        "/favicon.ico",
        "/%00",
        "/" + "x" * 3000,
        "/%ff%fe",
        "/../../etc/passwd",
        "/<script>alert(1)</script>",
    ],
    ids=lambda path: path[:30],
)
async def test_a_path_that_leads_nowhere_is_not_found(server: Server, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        message = (await server.exchange(f"{method} {path}")).assert_refused(404, "unknown_route")
        assert len(message) < 400


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (GENERATIONS, {"POST"}),
        ("/v1/tasks/task_0000000000000", {"GET", "HEAD", "DELETE"}),
        ("/v1/models", {"GET", "HEAD"}),
        ("/v1/models/gpt-image-2", {"GET", "HEAD"}),
        ("/v1/models/brands/google/image", {"GET", "HEAD"}),
        ("/v1/credits/balance", {"GET", "HEAD"}),
        ("/healthz", {"GET", "HEAD"}),
        ("/readyz", {"GET", "HEAD"}),
    ],
)
async def test_a_method_that_a_path_does_not_take_is_refused(
    server: Server, path: str, allowed: set[str]
) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - allowed:
        reply = await server.call(method, path)
        reply.assert_refused(405, "method_not_allowed")
        assert set(reply.headers["Allow"].split(", ")) == allowed


async def test_every_answer_carries_a_request_id(server: Server) -> None:
    upload = ("image", picture(), "a.png")
    accepted = await server.submit_form(upload)
    poll = accepted.json["poll_url"]
    image = (await server.task(accepted.json["task_id"]))["request"]["image_input"][0]
    etag = {"If-None-Match": "*"}
    answers = [
        (202, accepted),
        (200, await server.call("GET", poll)),
        (200, await server.call("HEAD", poll)),
        (200, await server.call("GET", "/v1/credits/balance")),
        (200, await server.call("GET", "/v1/models")),
        (304, await server.call("GET", "/v1/models", headers=etag)),
        (200, await server.call("GET", image)),
        (206, await server.call("GET", image, headers={"Range": "bytes=0-1"})),
        (304, await server.call("GET", image, headers=etag)),
        (416, await server.call("GET", image, headers={"Range": "bytes=9999999-"})),
        (403, await server.call("GET", image + "x")),
        (400, await server.submit(n=2)),
        (401, await server.anonymous("GET", "/v1/credits/balance")),
        (404, await server.call("GET", "/nowhere")),
        (405, await server.call("DELETE", "/v1/models")),
        (
            413,
            await server.exchange(
                f"POST {GENERATIONS}\nContent-Type: application/json\nContent-Length: 9999999"
            ),
        ),
        (415, await server.call("POST", GENERATIONS, data=b"x", headers={"Content-Type": "a/b"})),
        (200, await server.anonymous("GET", "/healthz")),
        (200, await server.anonymous("GET", "/readyz")),
    ]
    for status, reply in answers:
        assert reply.status == status, reply.body
        assert len([name for name in reply.headers if name.lower() == "x-request-id"]) == 1
    assert len({reply.headers["X-Request-Id"] for _, reply in answers}) == len(answers)


@pytest.mark.parametrize("given", ["abc-123", "7", "A.b_c:d-e", "x" * 128])
async def test_a_sane_request_id_of_the_client_is_taken_over(server: Server, given: str) -> None:
    headers = {"X-Request-Id": given}
    accepted = await server.submit_form(headers=headers)
    assert accepted.headers["X-Request-Id"] == accepted.json["request_id"] == given
    task = await server.call("GET", accepted.json["poll_url"])
    assert task.json["request_id"] == given
    assert task.headers["X-Request-Id"] != given
    for path in ("/v1/models", "/v1/credits/balance", "/nowhere"):
        reply = await server.call("GET", path, headers=headers)
        assert reply.headers["X-Request-Id"] == given


@pytest.mark.parametrize(
    "given",
    ["", " ", "a b", "x" * 129, "ünïcode", "a/b", "<script>", 'a"b', "a,b", "a\tb", "%0d%0aX: y"],
    ids=repr,
)
async def test_an_insane_request_id_is_replaced(server: Server, given: str) -> None:
    for path in ("/v1/models", "/nowhere", "/v1/tasks/x"):
        reply = await server.exchange(f"GET {path}\nX-Request-Id: {given}\n")
        assert reply.headers["X-Request-Id"].startswith("req_")


def break_asset_store(server: Server) -> None:
    """Put a file where images are stored."""
    assets = server.data / "assets"
    shutil.rmtree(assets)
    assets.write_text("no folder")


async def test_a_broken_part_of_ours_is_answered_in_the_same_shape(
    breakable: Server, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = (await breakable.submit()).json["task_id"]
    with closing(sqlite3.connect(breakable.data / "calotype.db")) as database, database:
        database.execute("UPDATE tasks SET request = X'00'")
    reply = await breakable.call("GET", f"/v1/tasks/{task_id}")
    message = reply.assert_refused(500, "internal_error")
    assert reply.headers["X-Request-Id"] in message
    assert reply.headers["X-Request-Id"] in caplog.text
    assert str(breakable.data) not in message
    assert (await breakable.submit()).status == 202, "the rest goes on"


async def test_a_broken_asset_store_is_told_and_the_rest_goes_on(breakable: Server) -> None:
    break_asset_store(breakable)
    reply = await breakable.submit_form(("image", picture(), "a.png"))
    reply.assert_refused(503, "service_unavailable")
    assert (await breakable.submit()).status == 202
    not_ready = await breakable.anonymous("GET", "/readyz")
    assert not_ready.status == 503
    assert not_ready.json["checks"]["database"] == "ok"
    assert int(not_ready.headers["Retry-After"]) > 0
    assert (await breakable.balance())["reserved_micro_usdc"] == 60_000


async def test_an_unready_server_says_what_does_not_work(breakable: Server) -> None:
    ready = await breakable.anonymous("GET", "/readyz")
    assert ready.json == {"status": "ready", "checks": {"database": "ok", "assets": "ok"}}
    break_asset_store(breakable)
    broken = await breakable.anonymous("GET", "/readyz")
    error = broken.json
    checks = error.pop("checks")
    assert error == {
        "error": "unavailable",
        "message": "Not ready: assets.",
        "type": "server_error",
        "code": "service_unavailable",
    }
    assert checks["assets"] != "ok"
    assert (await breakable.anonymous("GET", "/healthz")).json == {"status": "ok"}


async def test_errors_are_utf_8_json(server: Server) -> None:
    reply = await server.submit(aspect_ratio="größer 🖼️")
    assert reply.headers["Content-Type"] == "application/json"
    assert "größer" in json.loads(reply.body.decode("utf-8"))["message"]


def leaves(error: type[errors.CalotypeError]) -> Iterator[type[errors.CalotypeError]]:
    below = error.__subclasses__()
    for each in below:
        yield from leaves(each)
    if not below:
        yield error


async def test_every_error_has_a_status_and_a_slug_and_no_status_is_left_over() -> None:
    codes = {each.code for each in leaves(errors.CalotypeError)}
    assert codes == set(STATUSES)
    assert set(STATUSES.values()) <= set(SLUGS)


BODY = b'{"model": "gpt-image-2", "prompt": "x"}'


def head(server: Server, length: int, *lines: str, key: str | None = None) -> bytes:
    """A submission up to its body."""
    first = [f"POST {GENERATIONS} HTTP/1.1", "Host: test", "Content-Type: application/json"]
    own = [f"Authorization: Bearer {key or server.key}", f"Content-Length: {length}"]
    return "\r\n".join([*first, *own, *lines, "", ""]).encode()


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
@pytest.mark.parametrize("key", [None, "ck_unknown"], ids=["too large", "without key"])
async def test_a_client_that_sends_on_after_a_refusal_gets_to_read_it(
    server: Server, connection: str, key: str | None
) -> None:
    size = 32 * 1024 * 1024
    async with server.connection() as (reader, writer):
        writer.write(head(server, size, f"Connection: {connection}", key=key))
        for _ in range(size // 65_536):
            writer.write(bytes(65_536))
            await writer.drain()
        reply = await Reply.read(reader)
        if key:
            reply.assert_refused(401, "invalid_api_key")
        else:
            reply.assert_refused(413, "body_too_large")
        if connection == "keep-alive":
            writer.write(head(server, len(BODY)) + BODY)
            assert (await Reply.read(reader)).status == 202


async def test_a_client_that_asks_first_is_told_to_go_on_or_not(server: Server) -> None:
    expect = "Expect: 100-continue"
    async with server.connection() as (reader, writer):
        writer.write(head(server, len(BODY), expect))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert (await Reply.read(reader)).status == 202
    async with server.connection() as (reader, writer):
        writer.write(head(server, 10_000_000, expect, "Connection: close"))
        (await Reply.read(reader)).assert_refused(413, "body_too_large")
        assert await reader.read() == b"", "nothing more was asked for"


async def test_requests_sent_ahead_on_one_connection_are_answered_in_order(server: Server) -> None:
    async with server.connection() as (reader, writer):
        lines = [f"X-Request-Id: number-{place}" for place in range(5)]
        writer.write(b"".join(head(server, len(BODY), line) + BODY for line in lines))
        replies = [await Reply.read(reader) for _ in lines]
    assert [reply.status for reply in replies] == [202] * 5
    assert [reply.json["request_id"] for reply in replies] == [
        f"number-{place}" for place in range(5)
    ]


async def test_a_client_that_hangs_up_within_its_body_is_forgotten(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server = await server.for_account()
    async with server.connection() as (_, writer):
        writer.write(head(server, 1000) + BODY)
        await writer.drain()
    accepted = await server.submit()
    assert accepted.status == 202
    assert (await server.balance())["reserved_micro_usdc"] == 60_000
    assert "broke" not in caplog.text
