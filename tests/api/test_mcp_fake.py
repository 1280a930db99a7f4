"""Tools whose calls are watched by a server that answers what it is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from agents import local_agent, pictures, refusal, said, told
from harness import serving

KEY = "ck_test"
TASK = "task_0000000000001"


def task(state: str, **more: Any) -> dict[str, Any]:
    billing = {"status": "released", "actual_amount_micro_usdc": 0}
    request = {"prompt": "a lighthouse " * 40}
    document = {"task_id": TASK, "state": state, "model": "m", "request": request}
    return {**document, "progress": 40, "billing": billing, "error": {}, "result": {}, **more}


CANCELLED = {"code": "cancelled", "message": "It was cancelled.", "retryable": True}


@dataclass
class Fake:
    """Answers by path, and keeps what was asked."""

    answers: dict[str, tuple[int, Any]]
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        self.asked.append((request.method, request.path, dict(request.query)))
        status, document = self.answers[request.path]
        if isinstance(document, bytes):
            return web.Response(body=document, status=status)
        return web.json_response(document, status=status)


@asynccontextmanager
async def faking(answers: dict[str, tuple[int, Any]]) -> AsyncIterator[tuple[Fake, str]]:
    fake, app = Fake(answers), web.Application()
    app.router.add_route("*", "/{path:.*}", fake.answer)
    async with serving(app) as url:
        yield fake, url


@pytest.mark.parametrize(
    ("answered", "text"),
    [
        (task("fail", error=CANCELLED), "Nothing was charged."),
        (task("success"), "was finished already"),
        (task("generating", cancel_requested_at=1), "as soon as its upstream lets it"),
    ],
    ids=["at once", "too late", "later"],
)
async def test_cancelling_tells_how_the_task_stands(answered: dict[str, Any], text: str) -> None:
    path = f"/v1/tasks/{TASK}/cancel"
    async with faking({path: (200, answered)}) as (fake, url), local_agent(url, KEY) as client:
        result = await client.call_tool("cancel_task", {"task_id": TASK})
    assert fake.asked == [("POST", path, {})]
    assert told(result)["state"] == answered["state"]
    assert text in said(result)


async def test_tasks_are_listed_without_their_pictures() -> None:
    page = {"object": "list", "data": [task("generating")], "has_more": False}
    async with (
        faking({"/v1/tasks": (200, {**page, "next_cursor": None})}) as (fake, url),
        local_agent(url, KEY) as client,
    ):
        asked = {"state": "generating", "model": "m", "limit": 3}
        result = await client.call_tool("list_tasks", asked)
    assert fake.asked == [("GET", "/v1/tasks", {"state": "generating", "model": "m", "limit": "3"})]
    (listed,) = told(result)["tasks"]
    assert (listed["task_id"], listed["progress"]) == (TASK, 40)
    assert len(listed["prompt"]) == 201
    assert pictures(result) == []


async def test_an_error_of_the_api_is_told_with_its_code_and_when_to_come_back() -> None:
    error = {
        "error": "rate_limited",
        "message": "Too many requests.",
        "type": "rate_limit_error",
        "code": "too_many_requests",
    }
    async with (
        faking({f"/v1/tasks/{TASK}": (403, error)}) as (_, url),
        local_agent(url, KEY) as client,
    ):
        result = await client.call_tool("get_task", {"task_id": TASK})
    assert refusal(result) == "Too many requests. (too_many_requests)"


async def test_images_that_are_there_already_are_told_while_others_are_made() -> None:
    partial = {"data": [{"url": "http://127.0.0.1:9/v1/assets/a.png", "width": 8, "height": 6}]}
    answered = task("generating", partial_result=partial)
    async with (
        faking({f"/v1/tasks/{TASK}": (200, answered)}) as (_, url),
        local_agent(url, KEY) as client,
    ):
        result = await client.call_tool("get_task", {"task_id": TASK, "wait_seconds": 0})
    assert [image["width"] for image in told(result)["images"]] == [8]
    assert "1. 8x6 http://127.0.0.1:9/v1/assets/a.png" in said(result)


async def test_an_answer_that_is_no_task_is_told_without_a_traceback() -> None:
    async with (
        faking(
            {f"/v1/tasks/{TASK}": (200, {"task_id": TASK, "state": "success", "result": 7})}
        ) as (
            _,
            url,
        ),
        local_agent(url, KEY) as client,
    ):
        text = refusal(await client.call_tool("get_task", {"task_id": TASK}))
    assert "Traceback" not in text
    assert KEY not in text
