"""The surface for OpenAI's clients as any HTTP client meets it: errors, waiting, hanging up."""

import asyncio
import base64
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from jsonschema import Draft202012Validator
from PIL import Image

from calotype.api.openai import held, retries
from calotype.domain.channel import Channel
from harness import FORM, Reply, Server, form, picture, running_server, until, website

GENERATIONS = "/openai/v1/images/generations"
EDITS = "/openai/v1/images/edits"
PAID = Channel(id=7, slug="paid", name="Paid", provider="sandbox", free=False)
FIRST, AGAIN, LAST = [
    {"x-stainless-lang": "python", "x-stainless-retry-count": count} for count in "012"
]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server on whose channel a second send would cost again."""
    async with running_server(
        tmp_path / "data", channels=(PAID,), reference_allow_hosts=("127.0.0.1",)
    ) as running:
        yield running


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are begun, and kept alive, at a quick pace."""
    monkeypatch.setattr(held, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(held, "BEAT_SECONDS", 0.1)


async def ask(server: Server, *, headers: dict[str, str] | None = None, **fields: Any) -> Reply:
    body = {"model": "gpt-image-2", "prompt": "a lighthouse", **fields}
    return await server.call("POST", GENERATIONS, json=body, headers=headers)


async def edit(server: Server, *parts: Any) -> Reply:
    body = BytesIO(form(("model", "gpt-image-2"), ("prompt", "a lighthouse"), *parts))
    return await server.call("POST", EDITS, data=body, headers=FORM)


def error_of(reply: Reply, status: int) -> dict[str, Any]:
    """An error in exactly OpenAI's shape."""
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/json"), reply.body
    assert list(reply.json) == ["error"]
    error: dict[str, Any] = reply.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith(".")
    assert reply.headers["X-Request-Id"]
    return error


def decoded(data: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(data, validate=True)))


async def tasks(server: Server) -> list[Any]:
    return list(await server.core.store.tasks(limit=100))


async def the_task(server: Server) -> Any:
    (task,) = await tasks(server)
    return task


# Errors


async def test_whatever_raises_it_an_error_has_openais_shape(server: Server) -> None:
    for status, code, reply in [
        (404, "unknown_route", await server.call("GET", "/openai/v1/nothing")),
        (404, "unknown_route", await server.call("POST", "/openai/v1/images/variations")),
        (405, "method_not_allowed", await server.call("GET", GENERATIONS)),
        (401, "missing_api_key", await server.anonymous("POST", GENERATIONS, json={})),
        (401, "missing_api_key", await server.anonymous("GET", "/openai/v1/models")),
        (401, "invalid_api_key", await ask(server, headers={"Authorization": "Bearer sk-x"})),
        (400, "malformed_body", await server.call("POST", GENERATIONS, json=[])),
        (
            400,
            "malformed_body",
            await server.call(
                "POST", GENERATIONS, data=b"{", headers={"Content-Type": "application/json"}
            ),
        ),
        (415, "unsupported_media_type", await server.call("POST", EDITS, json={})),
        (
            415,
            "unsupported_media_type",
            await server.call("POST", GENERATIONS, data=form(), headers=FORM),
        ),
        (
            413,
            "body_too_large",
            await server.call(
                "POST",
                GENERATIONS,
                data=BytesIO(b'"' + b"x" * 2_000_000 + b'"'),
                headers={"Content-Type": "application/json"},
            ),
        ),
        (400, "missing_field", await ask(server, prompt=None)),
        (400, "missing_field", await ask(server, model=None)),
        (400, "unknown_model", await ask(server, model="dall-e-3")),
        (400, "invalid_parameter", await ask(server, model=["x"])),
        (400, "invalid_parameter", await ask(server, n=10**30)),
        (400, "unsupported_parameter", await ask(server, seed=1)),
        (404, "model_not_found", await server.call("GET", "/openai/v1/models/dall-e-3")),
    ]:
        assert error_of(reply, status)["code"] == code
    wrong = error_of(await ask(server, n=2), 400)
    assert (wrong["type"], wrong["param"]) == ("invalid_request_error", "n")
    allow = await server.call("GET", GENERATIONS)
    assert allow.headers["Allow"] == "POST"
    assert await tasks(server) == []


async def test_an_account_that_cannot_pay_is_told_so(server: Server) -> None:
    poor = await server.for_account(credit=10)
    error = error_of(await ask(poor), 402)
    assert (error["type"], error["code"]) == ("billing_error", "insufficient_balance")


@pytest.mark.parametrize(
    ("words", "status", "code", "family"),
    [
        ("refuse", 400, "content_policy_violation", "image_generation_user_error"),
        ("500-after", 424, "upstream_failed", "upstream_error"),
        ("malformed", 424, "upstream_malformed_response", "upstream_error"),
        ("unknown", 424, "upstream_outcome_unknown", "upstream_error"),
        ("no-such-word", 424, "upstream_rejected", "upstream_error"),
    ],
)
async def test_a_task_that_failed_is_told_with_a_status_that_no_client_tries_again(
    server: Server, words: str, status: int, code: str, family: str
) -> None:
    reply = await ask(server, prompt=f"sandbox:{words}")
    error = error_of(reply, status)
    assert (error["code"], error["type"]) == (code, family)
    assert reply.headers["x-should-retry"] == "false"
    task = await server.task(reply.headers["x-calotype-task-id"])
    assert (task["state"], task["error"]["message"]) == ("fail", error["message"])


async def test_a_reference_that_cannot_be_had_is_the_clients_to_mend(server: Server) -> None:
    async def gone(_request: web.Request) -> web.Response:
        return web.Response(status=404)

    async with website(gone) as site:
        reply = await ask(server, image_input=[f"{site}/a.png"])
    assert error_of(reply, 400)["code"] == "reference_fetch_failed"


# Answers


async def test_an_image_comes_inline_and_is_an_ordinary_task(server: Server) -> None:
    reply = await ask(server, size="1536x864", user="ada")
    assert reply.status == 200
    document = reply.json
    assert (document["size"], document["output_format"]) == ("1536x864", "png")
    assert set(document) == {"created", "size", "output_format", "data"}
    (item,) = document["data"]
    with decoded(item["b64_json"]) as image:
        assert (image.format, image.size) == ("PNG", (1536, 864))
    task = await server.task(reply.headers["x-calotype-task-id"])
    assert task["request"]["aspect_ratio"] == "16:9"
    assert task["result"]["created"] == document["created"]
    stored = await server.anonymous(
        "GET", task["result"]["data"][0]["url"].removeprefix(server.url)
    )
    assert base64.b64decode(item["b64_json"]) == stored.body


async def test_a_link_is_given_where_one_is_asked_for(server: Server) -> None:
    reply = await ask(server, response_format="url", model="nano-banana-pro", output_format="jpeg")
    ((url,),) = [item.values() for item in reply.json["data"]]
    assert reply.json["output_format"] == "jpeg"
    image = await server.anonymous("GET", url.removeprefix(server.url))
    assert image.headers["Content-Type"] == "image/jpeg"


async def test_what_was_chosen_of_background_is_told(server: Server) -> None:
    reply = await ask(server, model="gpt-image-2.5-flare", background="opaque")
    assert reply.json["background"] == "opaque"
    assert "background" not in (await ask(server, model="gpt-image-2.5-flare")).json


async def test_several_images_are_edited_in_their_order(server: Server) -> None:
    first, second = picture(colour="red"), picture("JPEG", colour="blue")
    reply = await edit(
        server, ("image[]", first, "a.png"), ("size", "1024x1024"), ("image[]", second, "b.jpg")
    )
    assert reply.status == 200, reply.body
    task = await server.task(reply.headers["x-calotype-task-id"])
    paths = [url.removeprefix(server.url) for url in task["request"]["image_input"]]
    assert [(await server.anonymous("GET", path)).body for path in paths] == [first, second]
    one = await edit(server, ("image", first, "a.png"), ("n", "1"), ("response_format", "url"))
    assert one.json["data"][0]["url"].startswith(server.url)


@pytest.mark.parametrize("name", ["mask", "markup"])
async def test_a_mask_is_refused_and_nothing_stays_behind(server: Server, name: str) -> None:
    image = ("image", picture(), "a.png")
    error = error_of(await edit(server, image, (name, picture(), "m.png")), 400)
    assert (error["code"], error["param"]) == ("unsupported_parameter", name)
    for parts in ([], [("image", "text")], [image, ("size", "1x1")], [image, ("other", b"x", "o")]):
        error_of(await edit(server, *parts), 400)
    assert error_of(await edit(server), 400)["param"] == "image"
    assert server.stored_files() == []


async def test_the_models_that_are_switched_on_are_listed(server: Server) -> None:
    listed = (await server.call("GET", "/openai/v1/models")).json
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == list(server.core.catalog.models)
    one = await server.call("GET", "/openai/v1/models/nano-banana-pro")
    assert one.json in listed["data"]
    assert one.json == {
        "id": "nano-banana-pro",
        "object": "model",
        "created": 1_779_926_400,
        "owned_by": "google",
    }


async def test_answers_fit_the_published_schemas(server: Server) -> None:
    spec = (await server.call("GET", "/openapi.json")).json

    def fits(name: str, document: object) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": spec["components"]}
        Draft202012Validator(schema).validate(document)

    fits("OpenAiImages", (await ask(server)).json)
    fits("OpenAiImages", (await ask(server, response_format="url")).json)
    fits("OpenAiModelList", (await server.call("GET", "/openai/v1/models")).json)
    fits("OpenAiModel", (await server.call("GET", "/openai/v1/models/gpt-image-2")).json)
    fits("OpenAiError", (await ask(server, n=2)).json)
    fits("OpenAiError", (await ask(server, prompt="sandbox:refuse")).json)


# Waiting


@pytest.mark.usefixtures("impatient")
async def test_a_long_wait_is_kept_alive_by_blanks_before_the_json(server: Server) -> None:
    reply = await ask(server, prompt="sandbox:delay=1")
    assert reply.status == 200
    assert reply.headers["X-Accel-Buffering"] == "no"
    assert reply.body.startswith(b"\n\n\n")
    assert decoded(reply.json["data"][0]["b64_json"]).size == (1024, 1024)


@pytest.mark.usefixtures("impatient")
async def test_a_failure_after_the_status_was_sent_is_an_error_in_the_body(server: Server) -> None:
    reply = await ask(server, prompt="sandbox:500-after sandbox:delay=1")
    assert (reply.status, list(reply.json)) == (200, ["error"])
    assert reply.json["error"]["code"] == "upstream_failed"


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_tries_again_is_cut_off_and_then_told_with_a_status(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    fields = {"prompt": "sandbox:500-after sandbox:delay=1"}
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(server, headers=FIRST, **fields)
    assert error_of(await ask(server, headers=AGAIN, **fields), 424)["code"] == "upstream_failed"
    assert len(await tasks(server)) == 1
    assert caplog.records == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("headers", [LAST, {**FIRST, "x-stainless-lang": "js"}])
async def test_a_client_that_will_not_try_again_is_told_in_the_body(
    server: Server, headers: dict[str, str]
) -> None:
    reply = await ask(server, prompt="sandbox:500-after sandbox:delay=1", headers=headers)
    assert (reply.status, reply.json["error"]["code"]) == (200, "upstream_failed")


# Streams


def events(reply: Reply) -> list[tuple[str, Any]]:
    """Name and data of each event."""
    assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    blocks = [block for block in reply.body.decode().split("\n\n") if block]
    told = []
    for block in blocks:
        if not block.startswith(":"):
            name, data = block.split("\n")
            told.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return told


@pytest.mark.usefixtures("impatient")
async def test_a_stream_is_kept_alive_and_ends_with_the_image(server: Server) -> None:
    reply = await ask(server, stream=True, partial_images=2, prompt="sandbox:delay=1")
    assert reply.body.startswith(b": still here\n\n: still here\n\n")
    ((name, data),) = events(reply)
    assert name == data["type"] == "image_generation.completed"
    assert (data["size"], data["output_format"], data["quality"], data["background"]) == (
        "1024x1024",
        "png",
        "auto",
        "auto",
    )
    assert decoded(data["b64_json"]).size == (1024, 1024)
    edited = await edit(server, ("image", picture(), "a.png"), ("stream", "true"))
    assert [name for name, _ in events(edited)] == ["image_edit.completed"]


async def test_a_failure_is_an_event_of_a_stream(server: Server) -> None:
    ((name, data),) = events(await ask(server, stream=True, prompt="sandbox:refuse"))
    assert (name, data["type"]) == ("error", "error")
    assert data["error"]["code"] == "content_policy_violation"
    assert error_of(await ask(server, stream=True, n=2), 400)["param"] == "n"


# Once, whatever happens


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_finds_its_task_in_the_list(
    server: Server,
    stream: bool,  # noqa: FBT001 -- a column of the table
) -> None:
    body = {"model": "gpt-image-2", "prompt": "sandbox:delay=0.5", "stream": stream}
    leaving = asyncio.create_task(server.call("POST", GENERATIONS, json=body))
    while not await tasks(server):
        await asyncio.sleep(0.01)
    leaving.cancel()
    while (task := await the_task(server)).completed_at is None:
        await asyncio.sleep(0.02)
    assert task.state == "success"


async def test_nothing_waits_for_a_client_that_left(server: Server) -> None:
    def held_open() -> int:
        return sum("Held" in repr(task.get_coro()) for task in asyncio.all_tasks())

    leaving = asyncio.create_task(ask(server, prompt="sandbox:never"))
    await until(lambda: held_open() > 0)
    leaving.cancel()
    await until(lambda: held_open() == 0)
    assert (await the_task(server)).completed_at is None


async def test_the_same_key_gives_the_same_image_and_is_paid_once(server: Server) -> None:
    key = {"Idempotency-Key": "cover-1"}
    first, again = await ask(server, headers=key), await ask(server, headers=key)
    assert first.body == again.body
    assert first.headers["x-calotype-task-id"] == again.headers["x-calotype-task-id"]
    other = await ask(server, headers=key, size="1536x864")
    assert error_of(other, 409)["code"] == "idempotency_conflict"
    assert other.headers["x-should-retry"] == "false"
    assert error_of(await ask(server, headers={"Idempotency-Key": ""}), 400)["param"]
    assert len(await tasks(server)) == 1
    assert (await server.balance())["balance_micro_usdc"] == 1_000_000_000 - 60_000


async def test_two_equal_requests_are_two_tasks_unless_one_is_a_further_try(server: Server) -> None:
    replies = [await ask(server, headers=FIRST) for _ in range(2)]
    ids = [reply.headers["x-calotype-task-id"] for reply in replies]
    assert len(set(ids)) == 2
    further = await ask(server, headers=AGAIN)
    assert (further.headers["x-calotype-task-id"], further.body) == (ids[1], replies[1].body)
    other = await ask(server, headers=AGAIN, size="1024x1024", prompt="another")
    assert other.headers["x-calotype-task-id"] not in ids
    stranger = await server.for_account()
    foreign = await ask(stranger, headers=AGAIN)
    assert foreign.headers["x-calotype-task-id"] not in ids


async def test_a_further_try_of_an_edit_is_known_by_its_files(server: Server) -> None:
    red, blue = [("image", picture(colour=colour), "a.png") for colour in ("red", "blue")]

    async def sent(part: Any, headers: dict[str, str]) -> str:
        body = BytesIO(form(("model", "gpt-image-2"), ("prompt", "x"), part))
        reply = await server.call("POST", EDITS, data=body, headers={**FORM, **headers})
        return reply.headers["x-calotype-task-id"]

    first = await sent(red, FIRST)
    assert await sent(red, AGAIN) == first
    assert await sent(blue, AGAIN) != first
    assert len([path for path in server.stored_files() if "references" in path.parts]) == 2


async def test_a_further_try_long_after_the_end_is_a_request_of_its_own(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await ask(server, headers=FIRST)
    monkeypatch.setattr(retries, "RETRIED_MS", 0)
    again = await ask(server, headers=AGAIN)
    assert again.headers["x-calotype-task-id"] != first.headers["x-calotype-task-id"]


async def test_an_image_that_is_gone_is_told_and_not_bought_again(server: Server) -> None:
    await ask(server, headers=FIRST)
    for path in server.stored_files():
        path.unlink()
    reply = await ask(server, headers=AGAIN)
    assert error_of(reply, 424)["code"] == "asset_not_found"
    assert reply.headers["x-should-retry"] == "false"


async def test_an_image_that_cannot_be_read_to_its_end_is_not_taken_for_whole(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    await ask(server, headers=FIRST)
    (path,) = server.stored_files()
    path.unlink()
    path.symlink_to("/proc/self/mem")  # opens as a file, and reading it fails
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(server, headers=AGAIN)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_crash_is_told_by_whether_something_was_accepted(server: Server) -> None:
    key = {"Idempotency-Key": "cover-1"}
    first = await ask(server, headers=key)
    await ask(server, headers=FIRST)
    with closing(sqlite3.connect(server.data / "calotype.db")) as database, database:
        database.execute("UPDATE tasks SET request = X'00'")
    after = await ask(server, headers=key)
    error = error_of(after, 424)
    assert (error["code"], after.headers["x-should-retry"]) == ("internal_error", "false")
    assert first.headers["x-calotype-task-id"] in error["message"]
    with closing(sqlite3.connect(server.data / "calotype.db")) as database, database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        database.execute("UPDATE tasks SET state = 'x'")
    before = await ask(server, headers=AGAIN)
    assert error_of(before, 500)["code"] == "internal_error"
