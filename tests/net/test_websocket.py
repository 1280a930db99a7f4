import json

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from calotype.net.client import BrokenOff, NotSent, UpstreamClient
from net.calls import CREDENTIAL
from net.servers import ok, saying


async def test_a_websocket_carries_the_credential_and_messages(client: UpstreamClient) -> None:
    async def speak(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"credential": request.headers["Authorization"]})
        async for message in socket:
            await socket.send_bytes(message.data * 5_000_000)
        return socket

    app = web.Application()
    app.router.add_get("/ws", speak)
    async with TestServer(app) as server:
        url = str(server.make_url("/ws"))
        async with client.websocket(url, headers=CREDENTIAL) as socket:
            assert json.loads(await socket.receive_str()) == {"credential": "Bearer hunter2"}
            await socket.send_bytes(b"a")
            assert len(await socket.receive_bytes()) == 5_000_000
        assert socket.closed


async def test_a_websocket_that_cannot_be_had_is_told(client: UpstreamClient) -> None:
    async with saying(ok(b"{}")) as server:
        with pytest.raises(BrokenOff):
            async with client.websocket(f"{server.url}/?key=hunter2", headers={}):
                pass
        url = server.url
    with pytest.raises(NotSent) as caught:
        async with client.websocket(f"{url}/?key=hunter2", headers={}):
            pass
    assert "hunter2" not in str(caught.value)


async def test_an_error_within_a_websocket_closes_it(client: UpstreamClient) -> None:
    async def speak(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        closed.append((await socket.receive()).type)
        return socket

    closed: list[aiohttp.WSMsgType] = []
    app = web.Application()
    app.router.add_get("/ws", speak)
    async with TestServer(app) as server:
        with pytest.raises(ZeroDivisionError):
            async with client.websocket(str(server.make_url("/ws")), headers={}):
                raise ZeroDivisionError
    assert closed == [aiohttp.WSMsgType.CLOSE]
