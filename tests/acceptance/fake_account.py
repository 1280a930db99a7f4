"""A stand-in for a server: the routes of an account that the command line calls, as documents."""

import asyncio
import json
from typing import Any

from aiohttp import web

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def task(number: int, state: str, **fields: Any) -> dict[str, Any]:
    """A task's document."""
    return {
        "task_id": f"task_000000000000{number}",
        "state": state,
        "progress": 100 if state == "success" else 40,
        "model": "gpt-image-2",
        "request": {"prompt": f"prompt {number}"},
        **fields,
    }


class FakeAccount:
    """Answers from what it is given, and remembers what it was asked."""

    def __init__(self) -> None:
        self.tasks: list[dict[str, Any]] = []
        self.deliveries: list[dict[str, Any]] = []
        self.settings: dict[str, Any] = {
            "object": "webhook_settings",
            "url": None,
            "secrets": [{"secret": SECRET, "created_at": 1_760_000_000, "expires_at": None}],
            "disabled_urls": [],
        }
        self.asked: list[tuple[str, str, Any]] = []
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.app = web.Application(middlewares=[self._remember])
        self.app.add_routes(
            [
                web.get("/v1/tasks", self._tasks),
                web.get("/v1/events", self._events),
                web.post("/v1/tasks/{id}/cancel", self._cancel),
                web.post("/v1/tasks/{id}/webhook/redeliver", self._redeliver),
                web.get("/v1/webhooks", self._settings),
                web.put("/v1/webhooks", self._set),
                web.post("/v1/webhooks/rotate", self._rotate),
                web.get("/v1/webhooks/deliveries", self._deliveries),
            ]
        )

    @web.middleware
    async def _remember(self, request: web.Request, handler: Any) -> web.StreamResponse:
        body = await request.read()
        said = json.loads(body) if body else None
        self.asked.append((request.method, request.path_qs, said))
        if request.headers.get("Authorization") != "Bearer ck_fake":
            refusal = {"message": "No such key.", "code": "invalid_api_key"}
            return web.json_response(refusal, status=401)
        response: web.StreamResponse = await handler(request)
        return response

    async def _tasks(self, _: web.Request) -> web.Response:
        page = {"object": "list", "data": self.tasks, "has_more": False, "next_cursor": None}
        return web.json_response(page)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            event = await self.events.get()
            await response.write(f"id: 1\ndata: {json.dumps(event)}\n\n".encode())

    def _find(self, request: web.Request) -> dict[str, Any]:
        for one in self.tasks:
            if one["task_id"] == request.match_info["id"]:
                return one
        refusal = {"message": "There is no such task.", "code": "task_not_found"}
        raise web.HTTPNotFound(text=json.dumps(refusal), content_type="application/json")

    async def _cancel(self, request: web.Request) -> web.Response:
        found = self._find(request)
        if found["state"] == "waiting":
            error = {"code": "cancelled", "message": "It was cancelled."}
            found |= {"state": "fail", "error": error}
        return web.json_response(found)

    async def _redeliver(self, request: web.Request) -> web.Response:
        word = self._find(request)["task_id"]
        return web.json_response({"task_id": word, "state": "pending", "history": []}, status=202)

    async def _settings(self, _: web.Request) -> web.Response:
        return web.json_response(self.settings)

    async def _set(self, request: web.Request) -> web.Response:
        self.settings["url"] = (await request.json())["url"]
        return web.json_response(self.settings)

    async def _rotate(self, _: web.Request) -> web.Response:
        (old,) = self.settings["secrets"]
        new = {"secret": f"{SECRET[:-1]}x", "created_at": 1_760_000_001, "expires_at": None}
        self.settings["secrets"] = [new, {**old, "expires_at": 1_760_086_401}]
        return web.json_response(self.settings)

    async def _deliveries(self, _: web.Request) -> web.Response:
        page = {"object": "list", "data": self.deliveries, "has_more": False, "next_cursor": None}
        return web.json_response(page)
