"""A real server on loopback inside the test's own loop, and what tests need around it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
from PIL import Image

from calotype.app import Core, build_app, build_core
from calotype.settings import Settings

CREDIT = 1_000_000_000


@dataclass
class Server:
    """A running server, and a client that holds a key with credit."""

    url: str
    key: str
    core: Core
    http: aiohttp.ClientSession
    data: Path

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    async def call(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> "Reply":
        """A request with the key; headers given override."""
        sent = {**self.auth, **(headers or {})}
        url = path if path.startswith("http") else self.url + path
        async with self.http.request(method, url, headers=sent, **options) as response:
            return Reply(response.status, dict(response.headers), await response.read())

    async def submit(self, **fields: Any) -> "Reply":
        """Submit as JSON, with a model and a prompt unless given."""
        body = {"model": "gpt-image-2", "prompt": "a lighthouse", **fields}
        return await self.call("POST", "/v1/images/generations", json=body)

    async def task(self, task_id: str) -> dict[str, Any]:
        """A task as its owner sees it."""
        reply = await self.call("GET", f"/v1/tasks/{task_id}")
        assert reply.status == 200, reply.body
        document: dict[str, Any] = reply.json
        return document

    async def finished(self, task_id: str) -> dict[str, Any]:
        """The task once it is final."""
        while True:
            task = await self.task(task_id)
            if task["state"] in {"success", "fail"}:
                return task
            await asyncio.sleep(0.02)

    async def new_key(self, account: str, *, credit: int = 0) -> str:
        """A key of another account."""
        key, _ = await self.core.accounts.create_key(account, account=account)
        owner = await self.core.accounts.find(account)
        assert owner is not None
        if credit:
            await self.core.accounts.add_credit(owner, credit, note="test")
        return key

    def stored_files(self) -> list[Path]:
        """Every file in the asset store, staged ones too."""
        return [path for path in (self.data / "assets").rglob("*") if path.is_file()]


@dataclass
class Reply:
    """An answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[int, str, str | None]:
        """Status, code and field at fault of an error."""
        return self.status, self.json["code"], self.json.get("param")


@asynccontextmanager
async def running_server(
    data: Path, *, with_worker: bool = True, credit: int = CREDIT, **settings: Any
) -> AsyncIterator[Server]:
    """A server on a free port with its own data folder."""
    chosen = {"sandbox_seconds": 0.0, "drain_seconds": 5.0, **settings}
    core = build_core(Settings(data_dir=data, **chosen))
    await core.store.migrate()
    key, _ = await core.accounts.create_key("test", account="test")
    owner = await core.accounts.find("test")
    assert owner is not None
    if credit:
        await core.accounts.add_credit(owner, credit, note="test")
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        build_app(core, with_worker=with_worker),
        lifespan="on",
        log_config=None,
        access_log=False,
        http="httptools",
        timeout_graceful_shutdown=5,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await server.ready.wait()
    try:
        async with aiohttp.ClientSession() as http:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Server(url, key, core, http, data)
    finally:
        server.should_exit = True
        await serving
        listener.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


def picture(kind: str = "PNG", *, size: tuple[int, int] = (64, 48), colour: str = "teal") -> bytes:
    """A small real image."""
    out = BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()
