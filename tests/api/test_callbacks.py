"""Callbacks of upstreams: verified, believed in nothing, and worth a poll."""

import hashlib
import hmac
import io
import json
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from calotype.domain.channel import Channel, Served
from calotype.domain.secret import Secret
from harness import Server, picture, running_server, serving, until

SECRET = "whsec_" + b64encode(b"a secret of the callback's").decode()
CHANNEL = Channel(
    id=10,
    slug="slow-one",
    name="Slow",
    provider="replicate",
    api_key=Secret("r8_test"),
    callback_secret=Secret(SECRET),
    callbacks=True,
    models={"gpt-image-2": Served()},
)


class Upstream:
    """Ends a job when it is told to, and remembers who asked."""

    def __init__(self) -> None:
        self.ended = False
        self.polls = 0
        self.webhook = ""

    async def create(self, request: web.Request) -> web.Response:
        self.webhook = (await request.json())["webhook"]
        return web.json_response({"id": "job1", "status": "starting"}, status=201)

    async def read(self, request: web.Request) -> web.Response:
        self.polls += 1
        document: dict[str, Any] = {"id": "job1", "status": "processing"}
        if self.ended:
            document = {"id": "job1", "status": "succeeded"}
            document["output"] = f"{request.url.origin()}/picture.png"
        # Nobody would come again before the test is over.
        return web.json_response(document, headers={"Retry-After": "3600"})

    def running(self) -> AbstractAsyncContextManager[str]:
        async def result(_request: web.Request) -> web.Response:
            return web.Response(body=picture(), content_type="image/png")

        app = web.Application()
        app.router.add_post("/{path:v1/models/.*}", self.create)
        app.router.add_get("/v1/predictions/job1", self.read)
        app.router.add_get("/picture.png", result)
        return serving(app)


def signed(body: bytes, *, at: float | None = None) -> dict[str, str]:
    moment = str(int(time.time() if at is None else at))
    key = b64decode(SECRET.removeprefix("whsec_"))
    signature = hmac.digest(key, b"msg_1." + moment.encode() + b"." + body, hashlib.sha256)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{b64encode(signature).decode()}",
    }


BODY = json.dumps({"id": "job1", "status": "succeeded"}).encode()


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[tuple[Upstream, Server]]:
    played = Upstream()
    async with played.running() as url:
        channel = msgspec.structs.replace(CHANNEL, base_url=url)
        async with running_server(
            tmp_path, channels=(channel,), public_url="https://images.example.com"
        ) as server:
            yield played, server


async def deliver(
    server: Server, headers: Mapping[str, str], *, body: bytes = BODY, slug: str = "slow-one"
) -> int:
    url = f"{server.url}/v1/callbacks/{slug}"
    async with server.http.post(url, data=body, headers=dict(headers)) as response:
        return response.status


async def test_a_callback_ends_the_wait_for_the_next_poll(
    upstream: tuple[Upstream, Server],
) -> None:
    played, server = upstream
    accepted = await server.accepted(model="gpt-image-2", prompt="a lighthouse")
    await until(lambda: played.polls == 1)
    assert played.webhook == "https://images.example.com/v1/callbacks/slow-one"
    played.ended = True
    assert await deliver(server, signed(BODY)) == 204
    task = await server.finished(accepted["task_id"])
    assert (task["state"], played.polls) == ("success", 2)
    assert await deliver(server, signed(BODY)) == 204, "a repeated callback does no harm"


async def test_what_a_callback_says_is_not_believed(upstream: tuple[Upstream, Server]) -> None:
    played, server = upstream
    accepted = await server.accepted(model="gpt-image-2", prompt="a lighthouse")
    await until(lambda: played.polls == 1)
    lie = json.dumps({"id": "job1", "status": "failed", "error": "no"}).encode()
    assert await deliver(server, signed(lie), body=lie) == 204
    await until(lambda: played.polls == 2)
    assert (await server.task(accepted["task_id"]))["state"] == "generating"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {**signed(BODY), "webhook-signature": "v1,AAAA"},
        signed(BODY + b" "),
        signed(BODY, at=time.time() - 3600),
        signed(BODY, at=time.time() + 3600),
    ],
    ids=["unsigned", "forged", "another body's", "stale", "from the future"],
)
async def test_a_callback_that_is_not_the_upstreams_is_refused(
    upstream: tuple[Upstream, Server], headers: dict[str, str]
) -> None:
    _, server = upstream
    url = f"{server.url}/v1/callbacks/slow-one"
    async with server.http.post(url, data=BODY, headers=headers) as response:
        assert response.status == 403
        assert (await response.json())["code"] == "invalid_signature"


async def test_only_channels_that_ask_for_callbacks_have_a_place_for_them(
    upstream: tuple[Upstream, Server],
) -> None:
    _, server = upstream
    assert await deliver(server, signed(BODY), slug="sandbox") == 404
    assert await deliver(server, signed(BODY), slug="nobody") == 404


async def test_a_huge_callback_is_refused(upstream: tuple[Upstream, Server]) -> None:
    _, server = upstream
    url = f"{server.url}/v1/callbacks/slow-one"
    async with server.http.post(url, data=io.BytesIO(b"x" * 1_100_000)) as response:
        assert response.status == 413
