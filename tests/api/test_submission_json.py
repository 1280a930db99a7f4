"""POST /v1/images/generations as JSON: every rule of the contract, one server for all of them."""

import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import pytest
import pytest_asyncio

from harness import CREDIT, GENERATIONS, Reply, Server, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"Content-Type": "application/json"}
MIB = 1024 * 1024

# The table of the contract, typed off by hand.
NANO_RATIOS = ["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9", "auto"]
GPT_RESOLUTIONS = {
    "auto": ["1K"],
    "1:1": ["1K", "2K"],
    "9:16": ["1K", "2K", "4K"],
    "16:9": ["1K", "2K", "4K"],
    "4:3": ["1K", "2K", "4K"],
    "3:4": ["1K", "2K", "4K"],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data"), with_worker=False) as running:
        yield running


async def post(server: Server, body: bytes, **headers: str) -> Reply:
    sent = {**JSON, **headers}
    return await server.call("POST", GENERATIONS, data=BytesIO(body), headers=sent)


@pytest.mark.parametrize(
    "body",
    [
        {"model": "gpt-image-2", "prompt": "…", "response_format": "url"},
        {
            "model": "nano-banana-pro",
            "prompt": "…",
            "async": True,
            "aspect_ratio": "16:9",
            "resolution": "2K",
            "response_format": "url",
        },
        {
            "model": "gpt-image-2",
            "prompt": "…",
            "n": 1,
            "image_input": ["https://example.com/reference.png"],
            "response_format": "url",
        },
    ],
    ids=["plain", "all fields", "a reference"],
)
async def test_the_requests_seen_in_the_field_work_as_they_are(
    server: Server, body: dict[str, Any]
) -> None:
    reply = await server.call("POST", GENERATIONS, json=body)
    assert reply.status == 202, reply.body
    answer = reply.json
    task_id = answer["task_id"]
    assert task_id.startswith("task_")
    assert reply.headers["Location"] == f"/v1/tasks/{task_id}"
    assert reply.headers["Content-Type"] == "application/json"
    contract = {
        "object": "task",
        "model": body["model"],
        "type": "image",
        "state": "waiting",
        "poll_url": f"/v1/tasks/{task_id}",
        "request_id": reply.headers["X-Request-Id"],
    }
    assert {name: answer[name] for name in contract} == contract
    assert set(answer) == {
        *contract,
        "task_id",
        "created_at",
        "recommended_poll_interval_ms",
        "eta_hint_seconds",
    }
    assert isinstance(answer["created_at"], int)
    assert 1_700_000_000 < answer["created_at"] < 10_000_000_000, "seconds, not milliseconds"
    assert answer["recommended_poll_interval_ms"] > 0


async def test_nano_banana_pro_takes_every_ratio_at_every_resolution(server: Server) -> None:
    for ratio in NANO_RATIOS:
        for resolution in ("1K", "2K", "4K"):
            fields = {"aspect_ratio": ratio, "resolution": resolution}
            task = await server.accepted(model="nano-banana-pro", **fields)
            assert task["request"].items() >= fields.items()


async def test_gpt_image_2_takes_the_resolutions_that_go_with_the_ratio(server: Server) -> None:
    for ratio, allowed in GPT_RESOLUTIONS.items():
        for resolution in ("1K", "2K", "4K"):
            reply = await server.submit(aspect_ratio=ratio, resolution=resolution)
            if resolution in allowed:
                assert reply.status == 202, (ratio, resolution, reply.body)
            else:
                message = reply.assert_refused(400, "invalid_parameter", "resolution")
                assert all(each in message for each in allowed), message


async def test_a_resolution_is_held_against_the_ratio_that_was_left_out(server: Server) -> None:
    reply = await server.submit(resolution="2K")
    reply.assert_refused(400, "invalid_parameter", "resolution")


@pytest.mark.parametrize("output_format", ["png", "jpg"])
async def test_nano_banana_pro_takes_an_output_format(server: Server, output_format: str) -> None:
    task = await server.accepted(model="nano-banana-pro", output_format=output_format)
    assert task["request"]["output_format"] == output_format


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"aspect_ratio": "2:3"}, "aspect_ratio"),
        ({"aspect_ratio": "16 : 9"}, "aspect_ratio"),
        ({"aspect_ratio": ""}, "aspect_ratio"),
        ({"aspect_ratio": 1}, "aspect_ratio"),
        ({"aspect_ratio": ["1:1"]}, "aspect_ratio"),
        ({"aspect_ratio": {"1:1": 1}}, "aspect_ratio"),
        ({"resolution": "1k"}, "resolution"),
        ({"resolution": "8K"}, "resolution"),
        ({"resolution": True}, "resolution"),
        ({"model": "nano-banana-pro", "output_format": "webp"}, "output_format"),
        ({"model": "nano-banana-pro", "output_format": "jpeg"}, "output_format"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": "\0"}, "prompt"),
        ({"prompt": "x" * 20_001}, "prompt"),
        ({"model": "nano-banana-pro", "prompt": "x" * 10_001}, "prompt"),
        ({"model": 7}, "model"),
        ({"model": ["gpt-image-2"]}, "model"),
        ({"n": 0}, "n"),
        ({"n": 2}, "n"),
        ({"n": -1}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": "1"}, "n"),
        ({"n": True}, "n"),
        ({"n": 10**400}, "n"),
        ({"async": "perhaps"}, "async"),
        ({"async": 2}, "async"),
        ({"async": {}}, "async"),
        ({"channel_id": 0}, "channel_id"),
        ({"channel_id": "1"}, "channel_id"),
        ({"channel_id": True}, "channel_id"),
        ({"channel_id": 2**63}, "channel_id"),
        ({"image_input": "https://example.com/a.png"}, "image_input"),
        ({"image_input": {"url": "https://example.com/a.png"}}, "image_input"),
        ({"image_input": [None]}, "image_input"),
        ({"image_input": [["https://example.com/a.png"]]}, "image_input"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
async def test_a_value_that_the_model_does_not_take_is_named(
    server: Server, fields: dict[str, Any], param: str
) -> None:
    reply = await server.submit(**fields)
    message = reply.assert_refused(400, "invalid_parameter", param)
    assert len(message) < 500, "what was sent is not repeated at length"


async def test_a_refused_value_comes_with_those_that_are_right(server: Server) -> None:
    reply = await server.submit(aspect_ratio="2:1")
    assert all(ratio in reply.json["message"] for ratio in GPT_RESOLUTIONS)


@pytest.mark.parametrize("field", ["model", "prompt"])
@pytest.mark.parametrize("value", [None, "", "  \n\t ", ...], ids=repr)
async def test_model_and_prompt_are_required(server: Server, field: str, value: Any) -> None:
    body = {"model": "gpt-image-2", "prompt": "x", field: value}
    if value is ...:
        del body[field]
    reply = await server.call("POST", GENERATIONS, json=body)
    reply.assert_refused(400, "missing_field", field)


@pytest.mark.parametrize(
    "name", ["midjourney", "GPT-IMAGE-2", "gpt-image-2 ", "openai/gpt-image-2", "..", "x" * 5000]
)
async def test_an_unknown_model_is_answered_with_those_that_exist(
    server: Server, name: str
) -> None:
    message = (await server.submit(model=name)).assert_refused(400, "unknown_model", "model")
    assert "gpt-image-2" in message
    assert "nano-banana-pro" in message
    assert len(message) < 2000


@pytest.mark.parametrize(
    "prompt",
    [
        "x" * 20_000,
        "  blanks around it  ",
        "日本語 🖼️ \u202e мир",
        "line\r\nline\ttab",
        "'; DROP --",
    ],
    ids=["longest", "blanks", "unicode", "lines", "quotes"],
)
async def test_a_prompt_is_kept_as_it_was_sent(server: Server, prompt: str) -> None:
    assert (await server.accepted(prompt=prompt))["request"]["prompt"] == prompt


@pytest.mark.parametrize(
    "name", ["output_format", "quality", "seed", "image", "image_input[]", "Prompt", "", "\u202e"]
)
async def test_a_parameter_that_the_model_lacks_is_refused_with_those_it_has(
    server: Server, name: str
) -> None:
    reply = await server.submit(**{name: "png"})
    param = None if name == "\u202e" else name
    message = reply.assert_refused(400, "unsupported_parameter", param)
    assert "aspect_ratio" in message
    assert "resolution" in message


async def test_a_null_is_a_field_left_out(server: Server) -> None:
    optional = ["n", "async", "aspect_ratio", "resolution", "response_format", "channel_id"]
    left_out = await server.accepted()
    task = await server.accepted(**dict.fromkeys([*optional, "image_input"]))
    assert task["request"] == left_out["request"]


@pytest.mark.parametrize("value", ["b64_json", "URL", "", 7, ["url"], True])
async def test_only_the_response_format_url_exists(server: Server, value: Any) -> None:
    reply = await server.submit(response_format=value)
    message = reply.assert_refused(400, "unsupported_response_format", "response_format")
    assert "url" in message


@pytest.mark.parametrize("value", [True, False, "true", "FALSE", "True", "1", "no", 1, 0])
async def test_async_is_accepted_in_any_spelling_and_changes_nothing(
    server: Server, value: Any
) -> None:
    reply = await server.submit(**{"async": value})
    assert reply.status == 202, reply.body
    assert reply.json["state"] == "waiting"
    task = await server.task(reply.json["task_id"])
    assert "async" not in task["request"]


async def test_channel_id_pins_one_of_the_models_channels(server: Server) -> None:
    model = (await server.call("GET", "/v1/models/gpt-image-2")).json
    (channel,) = model["available_channels"]
    task = await server.accepted(channel_id=channel["id"])
    assert task["request"]["channel_id"] == channel["id"]
    reply = await server.submit(channel_id=channel["id"] + 1)
    message = reply.assert_refused(400, "unknown_channel", "channel_id")
    assert f"{channel['id']} ({channel['slug']})" in message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b'{"model": "gpt-image-2", "prompt": "x"} trailing',
        b'{"model": "gpt-image-2", "prompt": "x", "n": NaN}',
        b'{"model": "gpt-image-2", "prompt": "x", "n": Infinity}',
        b'{"model": "gpt-image-2", "prompt": "x", "n": 1e999}',
        b'{"model": "gpt-image-2", "prompt": "x", "n": ' + b"9" * 5000 + b"}",
        b'{"model": "gpt-image-2", "prompt": "\\ud800"}',
        b'{"model": "gpt-image-2", "prompt": "\\udc00\\ud800"}',
        b'{"model": "gpt-image-2", "prompt": "\xff\xfe"}',
        b'{"model": "gpt-image-2", "prompt": "\xed\xa0\x80"}',
        b'{"model": "gpt-image-2", "prompt": "a\nb"}',
        b'{"\\ud800": 1}',
        b"\xff\xfe{\x00}\x00",
        b"[" * 200_000,
        b'{"prompt": ' + b'{"a": ' * 100_000 + b"1" + b"}" * 100_001,
        b"null",
        b"7",
        b'"text"',
        b'[{"model": "gpt-image-2"}]',
    ],
    ids=lambda body: body[:48].decode("latin-1"),
)
async def test_a_body_that_is_no_json_object_is_refused(server: Server, body: bytes) -> None:
    (await post(server, body)).assert_refused(400, "malformed_body")


async def test_deep_but_sound_nesting_is_judged_as_a_value(server: Server) -> None:
    deep = '{"model": "gpt-image-2", "prompt": ' + "[" * 200 + "]" * 200 + "}"
    reply = await post(server, deep.encode())
    reply.assert_refused(400, "invalid_parameter", "prompt")


async def test_a_body_of_a_mebibyte_is_taken_and_no_byte_more(server: Server) -> None:
    sound = b'{"model": "gpt-image-2", "prompt": "x"}'
    assert (await post(server, sound.ljust(MIB))).status == 202
    (await post(server, sound.ljust(MIB + 1))).assert_refused(413, "body_too_large")


async def test_the_limit_holds_for_a_body_whose_length_was_not_announced(server: Server) -> None:
    async def send(size: int) -> Reply:
        body = b'{"model": "gpt-image-2", "prompt": "x"}'.ljust(size)

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, size, 65_536):
                yield body[start : start + 65_536]

        return await server.call("POST", GENERATIONS, data=chunks(), headers=JSON)

    assert (await send(MIB)).status == 202
    (await send(MIB + 1)).assert_refused(413, "body_too_large")


async def test_an_announced_body_too_large_is_refused_before_it_is_sent(server: Server) -> None:
    head = f"POST {GENERATIONS}\nContent-Type: application/json\nContent-Length: {MIB + 1}"
    (await server.exchange(head)).assert_refused(413, "body_too_large")


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "text/plain", "text/json", "multipart/mixed", "json", ""],
)
async def test_another_content_type_is_refused(server: Server, content_type: str) -> None:
    body = b"model=gpt-image-2&prompt=x"
    head = f"POST {GENERATIONS}\nContent-Length: {len(body)}\nContent-Type: {content_type}"
    message = (await server.exchange(head, body)).assert_refused(415, "unsupported_media_type")
    assert "application/json" in message
    assert "multipart/form-data" in message


async def test_a_missing_content_type_is_refused(server: Server) -> None:
    body = b'{"model": "gpt-image-2", "prompt": "x"}'
    head = f"POST {GENERATIONS}\nContent-Length: {len(body)}"
    message = (await server.exchange(head, body)).assert_refused(415, "unsupported_media_type")
    assert "missing" in message


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json ;a=b"]
)
async def test_json_is_recognised_in_every_spelling(server: Server, content_type: str) -> None:
    body = b'{"model": "gpt-image-2", "prompt": "x"}'
    assert (await post(server, body, **{"Content-Type": content_type})).status == 202


async def test_a_refused_request_reserves_nothing(server: Server) -> None:
    auth = {"Authorization": f"Bearer {await server.new_key('careful', credit=CREDIT)}"}
    for body in (b"{", b'{"model": "gpt-image-2", "prompt": "x", "n": 2}', b"{}"):
        assert (await post(server, body, **auth)).status == 400
    balance = await server.call("GET", "/v1/credits/balance", headers=auth)
    assert balance.json == {
        "balance_micro_usdc": CREDIT,
        "reserved_micro_usdc": 0,
        "available_micro_usdc": CREDIT,
    }
