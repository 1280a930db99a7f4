"""POST /mcp below the tools: keys, sizes, forms, addresses."""

import asyncio
import base64
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from agents import agent, told
from calotype.api.mcp import MAX_BYTES
from harness import Reply, Server, noise, picture, running_server

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


async def posted(server: Server, document: Any = LIST, **headers: str) -> Reply:
    return await server.call("POST", "/mcp", json=document, headers=headers)


async def test_each_request_has_to_bring_a_good_key(idle_server: Server) -> None:
    unknown = {"Authorization": "Bearer ck_" + "x" * 43}
    for headers, code in (({}, "missing_api_key"), (unknown, "invalid_api_key")):
        reply = await idle_server.anonymous("POST", "/mcp", json=LIST, headers=headers)
        reply.assert_refused(401, code)
        assert reply.headers["WWW-Authenticate"] == 'Bearer realm="calotype"'
    assert (await posted(idle_server)).status == 200
    reply = await idle_server.anonymous("POST", "/mcp", json=LIST)
    reply.assert_refused(401, "missing_api_key")


async def test_who_does_not_speak_of_events_is_answered_in_json(idle_server: Server) -> None:
    for accepted in ("*/*", "application/json"):
        reply = await posted(idle_server, Accept=accepted)
        assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
        assert len(reply.json["result"]["tools"]) == 6
        assert reply.headers["X-Request-Id"]
    reply = await posted(idle_server, Accept="application/json, text/event-stream")
    assert reply.headers["Content-Type"].startswith("text/event-stream")


async def test_a_notification_is_taken(idle_server: Server) -> None:
    done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await posted(idle_server, done)).status == 202


async def test_what_is_no_message_of_the_protocol_is_refused_as_the_protocol_has_it(
    idle_server: Server,
) -> None:
    for document in ({"id": 1}, [], "text", [LIST]):
        for version in ({}, {"MCP-Protocol-Version": "2026-07-28"}):
            reply = await posted(idle_server, document, **version)
            assert (reply.status, reply.json["jsonrpc"]) == (400, "2.0"), document
            assert reply.json["error"]["message"]


@pytest.mark.parametrize("name", [None, True, 1.5, {}, []])
async def test_a_request_whose_id_is_none_is_refused_rather_than_never_answered(
    idle_server: Server, name: object
) -> None:
    reply = await posted(idle_server, {**LIST, "id": name})
    assert (reply.status, reply.json["error"]["code"]) == (400, -32600)
    assert reply.json["id"] is None
    assert "id must be a string or an integer" in reply.json["error"]["message"]


async def test_no_other_method_and_no_other_type_is_taken(idle_server: Server) -> None:
    for method in ("GET", "DELETE"):
        reply = await idle_server.call(method, "/mcp")
        reply.assert_refused(405, "method_not_allowed")
        assert reply.headers["Allow"] == "POST"
    reply = await idle_server.call(
        "POST", "/mcp", data=b"{}", headers={"Content-Type": "text/plain"}
    )
    reply.assert_refused(415, "unsupported_media_type")


async def test_a_message_that_is_too_large_is_refused(idle_server: Server) -> None:
    async def chunks() -> Any:
        for _ in range(MAX_BYTES // 65_536 + 1):
            yield b"x" * 65_536

    kind = {"Content-Type": "application/json"}
    for body in (BytesIO(b"x" * (MAX_BYTES + 1)), chunks()):
        reply = await idle_server.call("POST", "/mcp", data=body, headers=kind)
        reply.assert_refused(413, "body_too_large")


def edit(references: list[str], **arguments: Any) -> dict[str, Any]:
    asked = {"prompt": "x", "model": "gpt-image-2", "wait_seconds": 0, "references": references}
    params = {"name": "edit_image", "arguments": {**asked, **arguments}}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


async def sent(server: Server, body: str) -> Reply:
    kind = {"Content-Type": "application/json"}
    return await server.call("POST", "/mcp", data=BytesIO(body.encode()), headers=kind)


def uri(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def plainly(document: Any) -> str:
    return json.dumps(document)


def as_php_has_it(document: Any) -> str:
    return json.dumps(document).replace("/", "\\/")


def as_dotnet_has_it(document: Any) -> str:
    return json.dumps(document).replace("+", "\\u002B")


def in_lines(document: Any) -> str:
    return json.dumps(document).replace("A", "A\\r\\n ")


@pytest.mark.parametrize("written", [plainly, as_php_has_it, as_dotnet_has_it, in_lines])
async def test_the_images_of_a_large_message_arrive_as_they_are(
    idle_server: Server, written: Callable[[Any], str]
) -> None:
    images = [noise(), picture(), noise()]
    prompt = 'a "data:image/png;base64,AAAA" and {}'
    document = edit([uri(image) for image in images])
    body = written(document).replace('"x"', json.dumps(prompt))
    reply = await sent(idle_server, body)
    task = await idle_server.task(reply.json["result"]["structuredContent"]["task_id"])
    assert task["request"]["prompt"] == prompt
    for url, image in zip(task["request"]["image_input"], images, strict=True):
        stored = await idle_server.call("GET", url)
        assert stored.body == image


async def test_what_is_wrong_with_an_image_of_a_large_message_is_told_by_its_place(
    idle_server: Server,
) -> None:
    for odd in ("%", "\\ud800", "\\x", "é"):
        document = json.dumps(edit([uri(picture()), uri(noise())]))
        reply = await sent(idle_server, document[:-20] + odd + document[-20:])
        text = reply.json["result"]["content"][0]["text"]
        assert text.startswith("references[1] is not valid base64: "), odd


async def test_a_large_message_is_large_by_its_references_only(idle_server: Server) -> None:
    image = uri(noise())
    for document in (edit([image], prompt=image), {**LIST, "params": {"x": image}}):
        reply = await sent(idle_server, json.dumps(document))
        reply.assert_refused(413, "body_too_large")
    small = uri(noise(400))
    reply = await sent(idle_server, json.dumps({**LIST, "params": {"x": small}}))
    assert len(reply.json["result"]["tools"]) == 6
    for more in ("{}, " * 400_000, "x" * 1_100_000):
        reply = await sent(idle_server, json.dumps(edit([image], x=more)))
        reply.assert_refused(413, "body_too_large")
    reply = await sent(idle_server, json.dumps(edit([image] * 4, x="y" * 1_000_000)))
    assert "`x`" in reply.json["result"]["content"][0]["text"]


@pytest.mark.parametrize("host", ["[::1", ":::", "a:b:c", "test:0", "-"])
async def test_a_host_that_is_none_does_no_harm(idle_server: Server, host: str) -> None:
    call = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_models"}}'
    head = f"""POST /mcp HTTP/1.1
Host: {host}
Authorization: Bearer {idle_server.key}
Content-Type: application/json
Content-Length: {len(call)}
Connection: close

"""
    async with idle_server.connection() as (reader, writer):
        writer.write(head.replace("\n", "\r\n").encode() + call)
        reply = await Reply.read(reader)
    assert reply.status == 200
    assert "result" in reply.json


async def test_behind_a_name_and_a_path_of_its_own_the_urls_are_the_public_ones(
    tmp_path: Path,
) -> None:
    public = "https://images.example.com/calotype"
    asked = {"prompt": "x", "model": "gpt-image-2"}
    async with (
        running_server(tmp_path, public_url=public) as server,
        agent(server.url, server.key) as client,
    ):
        first = told(await client.call_tool("generate_image", asked))
        edit = {**asked, "references": [first["images"][0]["url"], first["task_id"]]}
        second = told(await client.call_tool("edit_image", edit))
        task = await server.task(second["task_id"])
    assert first["images"][0]["url"].startswith(f"{public}/v1/assets/")
    assert second["state"] == "success"
    assert len(task["request"]["image_input"]) == 2


async def test_the_request_id_goes_with_the_task(idle_server: Server) -> None:
    arguments = {"prompt": "x", "model": "gpt-image-2", "wait_seconds": 0}
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "generate_image", "arguments": arguments},
    }
    reply = await posted(idle_server, call, **{"X-Request-Id": "mine-1"})
    task = await idle_server.task(reply.json["result"]["structuredContent"]["task_id"])
    assert (reply.headers["X-Request-Id"], task["request_id"]) == ("mine-1", "mine-1")


async def test_many_agents_are_served_side_by_side(server: Server) -> None:
    async def one() -> str:
        async with agent(server.url, server.key) as client:
            asked = {"prompt": "x", "model": "gpt-image-2"}
            task_id = told(await client.call_tool("generate_image", asked))["task_id"]
            assert isinstance(task_id, str)
            return task_id

    assert len(set(await asyncio.gather(*(one() for _ in range(6))))) == 6
