"""The whole API over a channel of local pictures: what a client sees is as with any other."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, BadRequestError
from PIL import Image
from playwright.async_api import Page, async_playwright, expect
from standardwebhooks.webhooks import Webhook as Verifier

from harness import Server, picture
from local.studio import CHANNEL, MODEL, OWN, PRICE, STEPS, studio
from programs import installed
from receiver import receiving

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    tmp_path_factory: pytest.TempPathFactory, weights_folder: Path
) -> AsyncIterator[Server]:
    """A server whose engine has loaded."""
    async with studio(tmp_path_factory.mktemp("studio"), weights_folder) as server:
        while (await server.call("GET", "/readyz")).status != 200:
            await asyncio.sleep(0.05)
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def server(running: Server) -> Server:
    """That server, as an account of the test's own meets it."""
    return await running.for_account()


@pytest_asyncio.fixture(loop_scope="module")
async def sdk(server: Server) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.url}/openai/v1", api_key=server.key) as client:
        yield client


@asynccontextmanager
async def events(server: Server, task: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """What the stream of a task tells."""
    url = f"{server.url}/v1/tasks/{task}/events"
    async with server.http.get(url, headers=server.auth) as response:

        async def told() -> AsyncIterator[dict[str, Any]]:
            async for line in response.content:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))

        yield told()


async def images(server: Server, task: dict[str, Any]) -> list[Image.Image]:
    assert task["state"] == "success", task
    replies = [
        await server.call("GET", item["url"], headers={"Authorization": ""})
        for item in task["result"]["data"]
    ]
    return [Image.open(BytesIO(reply.body)) for reply in replies]


async def pixels(server: Server, **fields: Any) -> list[bytes]:
    task = await server.outcome(model=OWN, **fields)
    return [image.tobytes() for image in await images(server, task)]


def image_of(response: Any) -> Image.Image:
    (item,) = response.data
    return Image.open(BytesIO(base64.b64decode(item.b64_json, validate=True)))


# What is offered


async def test_only_what_a_channel_serves_is_offered(server: Server) -> None:
    listed = (await server.anonymous("GET", "/v1/models")).json["data"]
    entries = {model["id"]: model for model in listed}
    assert {"sdxl-turbo", "qwen-image", "z-image-turbo"}.isdisjoint(entries)
    for offered in (MODEL, OWN):
        assert [each["id"] for each in entries[offered]["available_channels"]] == [CHANNEL]
    message = (await server.submit(model="qwen-image")).assert_refused(
        400, "unknown_model", "model"
    )
    assert "no model 'qwen-image'" in message
    assert MODEL in message


@pytest.mark.parametrize(
    ("param", "value", "limit"),
    [
        ("steps", 5, "from 1 to 4"),
        ("steps", "2.5", "from 1 to 4"),
        ("guidance", 2.1, "from 0.0 to 2.0"),
        ("guidance", "nan", "from 0.0 to 2.0"),
        ("seed", 2**31, "from 0 to 2147483647"),
        ("seed", -1, "from 0 to 2147483647"),
        ("n", 9, "from 1 to 8"),
        ("negative_prompt", "x" * 321, "at most 320 characters"),
        ("prompt", "x" * 321, "at most 320 characters"),
        ("aspect_ratio", "21:9", "16:9, 9:16 or auto"),
    ],
)
async def test_what_is_out_of_limits_is_refused_with_the_limit(
    server: Server, param: str, value: object, limit: str
) -> None:
    reply = await server.submit(model=MODEL, **{param: value})
    assert limit in reply.assert_refused(400, "invalid_parameter", param)


async def test_a_size_that_is_not_offered_is_refused(server: Server) -> None:
    reply = await server.submit(model=MODEL, resolution="4K")
    told = reply.assert_refused(400, "unsupported_parameter", "resolution")
    assert "aspect_ratio, seed, steps, guidance and negative_prompt" in told


# What is drawn


async def test_several_pictures_differ_and_a_seed_gives_its_picture_again(server: Server) -> None:
    three = await pixels(server, seed=5, n=3)
    assert len(set(three)) == 3
    assert await pixels(server, seed=6) == [three[1]]
    assert await pixels(server, seed=5, n=3) == three


async def test_a_negative_prompt_is_heeded_with_guidance(server: Server) -> None:
    said = {"seed": 5, "guidance": 2.0}
    plain = await pixels(server, **said)
    assert await pixels(server, **said, negative_prompt="a boat") != plain


@pytest.mark.parametrize(("name", "kind"), [("jpg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
async def test_a_picture_comes_in_the_format_that_is_asked(
    server: Server, name: str, kind: str
) -> None:
    (image,) = await images(server, await server.outcome(model=OWN, output_format=name))
    assert (image.format, image.size) == (kind, (64, 64))


async def test_the_openai_sdk_draws_and_edits(sdk: AsyncOpenAI) -> None:
    drawn = image_of(await sdk.images.generate(model=MODEL, prompt="a boat", size="704x384"))
    assert (drawn.format, drawn.size) == ("PNG", (704, 384))
    edited = []
    for colour in ("red", "blue"):
        answer = await sdk.images.edit(
            model=OWN,
            prompt="a boat",
            image=picture(colour=colour),
            size="64x64",
            extra_body={"seed": 5},
        )
        edited.append(image_of(answer))
    assert {(image.format, image.size) for image in edited} == {("PNG", (64, 64))}
    assert edited[0].tobytes() != edited[1].tobytes()
    with pytest.raises(BadRequestError, match="it has auto, 64x64, 2048x2048"):
        await sdk.images.generate(model=OWN, prompt="a boat", size="1024x1024")


# How it is followed


async def test_steps_are_told_as_they_are_done(server: Server) -> None:
    task = await server.accepted(model=OWN, steps=100)
    async with events(server, task["task_id"]) as stream:
        told = [event async for event in stream]
    progress = [event["progress"] for event in told]
    assert progress == sorted(progress)
    assert {0, 100} < set(progress)
    assert told[-1]["state"] == "success"


async def test_whoever_waits_gets_the_picture_in_one_answer(server: Server) -> None:
    reply = await server.call(
        "POST",
        "/v1/images/generations",
        json={"model": OWN, "prompt": "a boat"},
        headers={"Prefer": "wait=60"},
    )
    assert (reply.status, reply.json["state"]) == (202, "success")
    task = await server.accepted(model=OWN, steps=50)
    while task["state"] not in {"success", "fail"}:
        seen = task["last_event"]
        task = (await server.call("GET", f"{task['poll_url']}?wait=60&since={seen}")).json
        assert task["last_event"] > seen
    assert task["state"] == "success"


async def test_a_webhook_tells_of_the_picture(server: Server) -> None:
    async with receiving() as receiver:
        hook = await server.call("PUT", "/v1/webhooks", json={"url": receiver.url})
        task = await server.outcome(model=OWN)
        (message,) = await receiver.received(1)
    told = Verifier(hook.json["secrets"][0]["secret"]).verify(message.body, message.headers)
    assert (told["task_id"], told["state"]) == (task["task_id"], "success")


async def test_a_drawing_is_cancelled_between_two_steps(server: Server) -> None:
    before = await server.balance()
    task = await server.accepted(model=OWN, steps=STEPS, n=8)
    async with events(server, task["task_id"]) as stream:
        while (await anext(stream))["progress"] == 0:
            pass
        reply = await server.call("POST", f"/v1/tasks/{task['task_id']}/cancel")
        assert reply.status == 200, reply.body
        (*_, last) = [event async for event in stream]
    ended = await server.task(task["task_id"])
    assert last["state"] == ended["state"] == "fail"
    assert ended["error"]["code"] == "cancelled"
    assert ended["progress"] < 100
    assert ended["billing"]["actual_amount_micro_usdc"] == 0
    assert await server.balance() == before
    await server.outcome(model=OWN)
    assert (await server.balance())["balance_micro_usdc"] == before["balance_micro_usdc"] - PRICE


async def sign_in(page: Page, server: Server) -> None:
    await page.goto(f"{server.url}/console/sign-in")
    await page.get_by_label("API key").fill(server.key)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/console/playground")


async def test_the_playground_shows_a_local_picture(server: Server, tmp_path: Path) -> None:
    program = installed("chromium", "chromium")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = await chromium.new_page()
        page.set_default_timeout(30_000)
        broke: list[str] = []
        page.on("pageerror", lambda error: broke.append(str(error)))
        await sign_in(page, server)
        await page.locator(".picker summary").click()
        await page.locator(f'[id="model-{MODEL}"]').check()
        await expect(page.locator('[name="ask:was"]')).to_have_value(MODEL)
        await page.get_by_label("Prompt", exact=True).fill("a lighthouse at dusk")
        await page.get_by_label("Steps").fill("2")
        await page.get_by_role("button", name="Generate").click()
        await page.wait_for_url("**/playground?task=task_*")
        image = page.locator(".results img")
        await expect(image).to_be_visible(timeout=60_000)
        await page.screenshot(path=tmp_path / "playground.png", full_page=True)
        await expect(image).to_have_js_property("complete", value=True)
        assert await image.evaluate("image => image.naturalWidth / image.naturalHeight") == 1
        assert broke == []
        await chromium.close()
    (task,) = (await server.call("GET", "/v1/tasks?limit=2")).json["data"]
    assert (task["state"], task["request"]["steps"]) == ("success", 2)
