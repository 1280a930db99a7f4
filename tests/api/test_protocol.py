"""What stands below the routes: offers to upgrade, and requests that are no HTTP."""

import json

import pytest

from harness import Reply, Server

BODY = json.dumps({"model": "gpt-image-2", "prompt": "over h2c"}).encode()


def post(server: Server, *lines: str, body: bytes = BODY) -> bytes:
    head = [
        "POST /v1/images/generations HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {server.key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *lines,
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAA")


@pytest.mark.parametrize(
    "offer", [H2C, ("Connection: Upgrade", "Upgrade: websocket")], ids=["h2c", "websocket"]
)
@pytest.mark.parametrize("pieces", [1, 2, 7])
async def test_an_offer_to_upgrade_is_ignored_and_the_body_kept(
    idle_server: Server, offer: tuple[str, ...], pieces: int
) -> None:
    async with idle_server.connection() as (reader, writer):
        for _ in range(2):  # the connection stays usable
            request = post(idle_server, *offer)
            step = -(-len(request) // pieces)
            for start in range(0, len(request), step):
                writer.write(request[start : start + step])
                await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 202 ")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert json.loads(await reader.readexactly(length))["state"] == "waiting"


async def test_offers_to_upgrade_without_end_are_answered_one_by_one(idle_server: Server) -> None:
    offer = "\r\n".join(["GET /v1/models HTTP/1.1", "Host: a", *H2C, "", ""]).encode()
    async with idle_server.connection() as (reader, writer):
        writer.write(offer * 2000)
        for _ in range(2000):
            assert (await Reply.read(reader)).status == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nno colon here\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_in_the_one_shape(
    idle_server: Server, garbage: bytes
) -> None:
    async with idle_server.connection() as (reader, writer):
        writer.write(garbage)
        answer = await reader.read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-request-id: req_" in head
    assert json.loads(body)["code"] == "malformed_body"
