"""What an agent is told of a purchase whose outcome, or whose acceptance, cannot be learnt.

The server is played here, since ours would have to break at the right moment.
"""

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agents import agent, local_agent, refusal, said, told
from harness import picture, running_server, serving

KEY = "ck_" + "x" * 43
TASK = "task_1k0v3m9d5b8qe"
ACCEPTED = {"task_id": TASK, "state": "waiting", "model": "gpt-image-2"}
ASKED = {"prompt": "a lighthouse", "model": "gpt-image-2", "wait_seconds": 30}
LIMITS = {"supported": True, "max_items": 4, "max_bytes": 400}
Answer = Callable[[web.Request], web.StreamResponse]


def refused(status: int, code: str) -> web.Response:
    return web.json_response({"code": code, "message": f"It is {code}."}, status=status)


def broken_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@asynccontextmanager
async def server_that(
    *, submits: Answer, tells: Answer = lambda _: refused(500, "internal_error")
) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """A server of one model; yields its URL and the requests that it gets."""
    seen = list[web.Request]()

    def app() -> web.Application:
        def answering(answer: Answer) -> Any:
            async def answered(request: web.Request) -> web.StreamResponse:
                seen.append(request)
                await request.read()
                return answer(request)

            return answered

        made = web.Application()
        made.router.add_post("/v1/images/generations", answering(submits))
        made.router.add_get("/v1/tasks/{id}", answering(tells))
        model = {"id": "gpt-image-2", "name": "x", "capabilities": {"reference_input": LIMITS}}
        made.router.add_get("/v1/models/{id}", answering(lambda _: web.json_response(model)))
        made.router.add_get("/v1/assets/x", answering(lambda _: web.Response(body=b"x" * 401)))
        return made

    async with serving(app()) as url:
        yield url, seen


@pytest.mark.parametrize(
    ("tells", "why"),
    [
        (lambda _: refused(401, "invalid_api_key"), "invalid_api_key"),
        (
            lambda _: web.json_response(
                {**ACCEPTED, "state": "success", "result": {"data": [{"url": 1}]}}
            ),
            "Something broke",
        ),
    ],
    ids=["revoked", "odd"],
)
@pytest.mark.parametrize("tool", ["generate_image", "edit_image"])
async def test_a_task_that_cannot_be_followed_is_named_so_that_it_is_not_bought_again(
    tool: str, tells: Answer, why: str
) -> None:
    image = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    asked = {**ASKED, "references": [image]} if tool == "edit_image" else ASKED
    async with (
        server_that(submits=lambda _: web.json_response(ACCEPTED), tells=tells) as (url, _),
        local_agent(url, KEY) as client,
    ):
        result = await client.call_tool(tool, asked)
    text = said(result)
    assert f"{TASK} was accepted" in text
    assert "could not be followed just now" in text
    assert why in text
    assert "get_task" in text
    assert "buy a second one" in text
    assert told(result)["task_id"] == TASK
    assert told(result)["prompt"] == "a lighthouse"


async def test_a_key_that_is_revoked_meanwhile_does_not_take_the_task_along(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, sandbox_seconds=4) as server,
        agent(server.url, server.key) as client,
    ):

        async def revoke(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 -- as the SDK calls it
            key = await server.core.accounts.authenticate(server.key)
            await server.core.accounts.revoke(key)

        await client.list_tools()  # or else it would ask for them afterwards, to check the answer
        result = await client.call_tool("generate_image", ASKED, progress_callback=revoke)
    assert told(result)["task_id"].startswith("task_")
    assert "could not be followed" in said(result)


@pytest.mark.parametrize(
    "fails",
    [broken_off, lambda _: refused(500, "internal_error"), lambda _: web.Response(status=504)],
    ids=["broken", "500", "504"],
)
async def test_a_submission_in_doubt_names_the_key_under_which_to_repeat_it(fails: Answer) -> None:
    async with server_that(submits=fails) as (url, seen), local_agent(url, KEY) as client:
        text = refusal(await client.call_tool("generate_image", ASKED))
        keys = {request.headers["Idempotency-Key"] for request in seen}
    (key,) = keys
    assert f'idempotency_key "{key}"' in text


async def test_a_submission_that_was_broken_off_stays_in_doubt_whatever_comes_after() -> None:
    fails = [broken_off]

    def next_answer(request: web.Request) -> web.StreamResponse:
        return fails.pop()(request) if fails else refused(429, "rate_limited")

    async with (
        server_that(submits=next_answer) as (url, seen),
        local_agent(url, KEY) as client,
    ):
        text = refusal(await client.call_tool("generate_image", ASKED))
    assert f'idempotency_key "{seen[0].headers["Idempotency-Key"]}"' in text


async def test_a_refused_submission_is_in_no_doubt() -> None:
    async with (
        server_that(submits=lambda _: refused(402, "insufficient_balance")) as (url, _),
        local_agent(url, KEY) as client,
    ):
        assert "idempotency_key" not in refusal(await client.call_tool("generate_image", ASKED))


async def test_a_reference_that_the_model_finds_too_large_is_not_kept() -> None:
    big = {**ACCEPTED, "state": "success", "result": {"data": [{"url": "/none", "bytes": 401}]}}
    async with (
        server_that(
            submits=lambda _: web.json_response(ACCEPTED), tells=lambda _: web.json_response(big)
        ) as (url, seen),
        local_agent(url, KEY) as client,
    ):
        for reference in (TASK, f"{url}/v1/assets/x"):
            asked = {**ASKED, "references": [reference] * 3}
            text = refusal(await client.call_tool("edit_image", asked))
            assert text == "references[0] has 401 bytes; gpt-image-2 takes 400 of a file at most."
    paths = [request.path for request in seen]
    assert paths.count("/v1/assets/x") == 1
    assert "/v1/images/generations" not in paths
