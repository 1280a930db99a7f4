"""Listing, cancelling and webhooks, against a small server of their shapes."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from aiohttp import web
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from calotype.client import AsyncCalotype, NotFoundError, Reference
from client.speaking import Kind, do, first, opened
from harness import serving

KEY = "ck_secret"


def task(number: int, **fields: Any) -> dict[str, Any]:
    return {"task_id": f"task_{number}", "state": "waiting", "metadata": {}, **fields}


@dataclass
class Shapes:
    """Answers as the API does, and remembers what it was asked."""

    url: str = ""
    asked: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    held: int = 250
    """How many tasks there are."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        self.asked.append((request.method, request.path, dict(request.query)))
        self.bodies.append(await request.json() if request.can_read_body else None)
        answers: dict[tuple[str, str], Callable[[Mapping[str, str]], Any]] = {
            ("GET", "/v1/tasks"): self.page,
            ("POST", "/v1/tasks/task_7/cancel"): lambda _: task(7, cancel_requested_at=1),
            ("GET", "/v1/webhooks"): lambda _: self.settings(None),
            ("PUT", "/v1/webhooks"): lambda _: self.settings(self.bodies[-1]["url"]),
            ("POST", "/v1/webhooks/rotate"): lambda _: self.settings("https://x", secrets=2),
            ("GET", "/v1/webhooks/deliveries"): lambda _: {"data": [{"state": "failed"}]},
            ("GET", "/v1/tasks/task_7/webhook"): lambda _: {"state": "failed", "attempts": []},
            ("POST", "/v1/tasks/task_7/webhook/redeliver"): lambda _: {"state": "pending"},
        }
        found = answers.get((request.method, request.path))
        if found is None:
            error = {"error": "not_found", "message": "None.", "code": "task_not_found"}
            return web.json_response(error, status=404)
        return web.json_response(found(request.query))

    def page(self, query: Mapping[str, str]) -> dict[str, Any]:
        start, limit = int(query.get("cursor", "0")), int(query["limit"])
        end = min(self.held, start + limit)
        return {
            "object": "list",
            "data": [task(number) for number in range(start, end)],
            "has_more": end < self.held,
            "next_cursor": str(end) if end < self.held else None,
        }

    def settings(self, url: str | None, *, secrets: int = 1) -> dict[str, Any]:
        shown = [
            {"secret": f"whsec_{place}", "created_at": place, "expires_at": place or None}
            for place in range(secrets)
        ]
        return {
            "object": "webhook_settings",
            "url": url,
            "secrets": shown,
            "disabled_urls": ["https://gone.example.com"],
        }


@pytest.fixture
async def shapes() -> AsyncIterator[Shapes]:
    made = Shapes()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    async with serving(app) as url:
        made.url = url
        yield made


async def test_tasks_are_listed_page_by_page_as_they_are_taken(shapes: Shapes, kind: Kind) -> None:
    async with opened(kind, KEY, shapes.url) as client:
        assert [one.id for one in await first(2, client.tasks)] == ["task_0", "task_1"]
        assert len(shapes.asked) == 1
        everything = await do(client.tasks)
    assert [one.id for one in everything] == [f"task_{number}" for number in range(250)]
    assert [query.get("cursor") for _, _, query in shapes.asked[1:]] == [None, "100", "200"]


async def test_no_more_tasks_are_asked_for_than_wanted(shapes: Shapes, kind: Kind) -> None:
    async with opened(kind, KEY, shapes.url) as client:
        assert len(await do(client.tasks, limit=130)) == 130
        assert await do(client.tasks, limit=0) == []
    assert [query["limit"] for _, _, query in shapes.asked] == ["100", "30"]


async def test_a_list_is_narrowed_by_what_was_given(shapes: Shapes, kind: Kind) -> None:
    shapes.held = 1
    narrowed = {"state": "fail", "model": "m", "since": 7, "metadata": {"order": "a&b"}}
    async with opened(kind, KEY, shapes.url) as client:
        await do(client.tasks, **narrowed)
    ((_, _, query),) = shapes.asked
    assert query == {
        "state": "fail",
        "model": "m",
        "since": "7",
        "metadata.order": "a&b",
        "limit": "100",
    }


async def test_a_task_is_cancelled_by_its_id_and_by_itself(shapes: Shapes, kind: Kind) -> None:
    async with opened(kind, KEY, shapes.url) as client:
        cancelled = await do(client.cancel, "task_7")
        again = await do(cancelled.cancel)
        assert cancelled.raw == again.raw
        with pytest.raises(NotFoundError, match="task_not_found"):
            await do(client.cancel, "task_8")


async def test_the_settings_of_webhooks_are_read_and_changed(shapes: Shapes, kind: Kind) -> None:
    async with opened(kind, KEY, shapes.url) as client:
        settings = await do(client.webhook_settings)
        assert (settings.url, settings.disabled_urls) == (None, ["https://gone.example.com"])
        assert (await do(client.set_webhook, "https://x")).url == "https://x"
        assert (await do(client.set_webhook, None)).url is None
        rotated = await do(client.rotate_webhook_secret)
        await do(client.rotate_webhook_secret, 0)
    assert [one.secret for one in rotated.secrets] == ["whsec_0", "whsec_1"]
    assert [one.expires_at for one in rotated.secrets] == [None, 1]
    sent = [
        {"url": "https://x"},
        {"url": None},
        {"overlap_seconds": 86_400},
        {"overlap_seconds": 0},
    ]
    assert shapes.bodies == [None, *sent]


async def test_the_delivery_of_a_webhook_is_shown_and_tried_anew(
    shapes: Shapes, kind: Kind
) -> None:
    async with opened(kind, KEY, shapes.url) as client:
        assert (await do(client.webhook_delivery, "task_7"))["state"] == "failed"
        assert (await do(client.redeliver, "task_7"))["state"] == "pending"
        assert await do(client.webhook_deliveries, state="failed", limit=5) == [{"state": "failed"}]
    assert shapes.asked[-1][2] == {"state": "failed", "limit": "5"}


async def test_a_given_http_client_reaches_an_application_in_this_process_and_stays_open() -> None:
    async def accept(request: Request) -> Response:
        async with request.form() as form:
            names = [name for name, _ in form.multi_items()]
        return JSONResponse(task(1, request={"names": names}), status_code=202)

    async def show(request: Request) -> Response:
        return JSONResponse(task(1, state="success", request=dict(request.query_params)))

    app = Starlette(
        routes=[
            Route("/v1/images/generations", accept, methods=["POST"]),
            Route("/v1/tasks/task_1", show),
        ]
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as http:
        async with AsyncCalotype(KEY, "http://within", http_client=http) as client:
            references: list[Reference] = [b"one", "https://example.com/a.png", b"two"]
            made = await client.generate("x", model="m", references=references)
            done = await made.wait()
        assert not http.is_closed
    assert made.request["names"] == ["model", "prompt", "image", "image_input", "image"]
    assert done.request == {"wait": "30", "since": "0"}
