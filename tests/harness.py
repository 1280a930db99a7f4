"""A real server on loopback inside the test's own loop, and what tests need around it."""

import asyncio
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
from aiohttp import web
from multidict import CIMultiDict
from PIL import Image

from calotype.api.protocol import Protocol
from calotype.app import build_app
from calotype.core import Core, build_core
from calotype.settings import Settings

CREDIT = 1_000_000_000
GENERATIONS = "/v1/images/generations"

BOUNDARY = "a-boundary-of-the-tests"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}

OUR_CODE = {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}  # noqa: TID251 -- of the tests themselves
"""For processes with an environment of their own: they run the code that is tested."""

Part = tuple[str, str] | tuple[str, bytes, str]
"""A text field, or a file with its bytes and name."""

_SLUGS = {
    400: "bad_request",
    401: "unauthorized",
    402: "payment_required",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    413: "payload_too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    429: "rate_limited",
    431: "request_header_fields_too_large",
    500: "internal_error",
    503: "unavailable",
}
_FAMILIES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "not_found_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    416: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    503: "server_error",
}


@dataclass
class Server:
    """A running server, and a client that holds a key with credit."""

    url: str
    key: str
    core: Core
    http: aiohttp.ClientSession
    data: Path
    account: str = "test"
    """The key's owner."""

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
            return Reply(response.status, response.headers, await response.read())

    async def anonymous(self, method: str, path: str, **options: Any) -> "Reply":
        """A request without a key."""
        async with self.http.request(method, self.url + path, **options) as response:
            return Reply(response.status, response.headers, await response.read())

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A socket of its own to the server."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield reader, writer
        finally:
            writer.close()

    async def exchange(self, head: str, body: bytes = b"") -> "Reply":
        """What comes back for exactly these header lines (after key, host and close) and bytes."""
        first, _, rest = head.partition("\n")
        ours = f"Host: test\nConnection: close\nAuthorization: Bearer {self.key}\n"
        lines = f"{first} HTTP/1.1\n{ours}{rest.rstrip()}".rstrip() + "\n\n"
        async with self.connection() as (reader, writer):
            writer.write(lines.replace("\n", "\r\n").encode("latin-1") + body)
            return await Reply.read(reader)

    async def submit(self, **fields: Any) -> "Reply":
        """Submit as JSON, with a model and a prompt unless given."""
        body = {"model": "gpt-image-2", "prompt": "a lighthouse", **fields}
        return await self.call("POST", GENERATIONS, json=body)

    async def submit_form(self, *parts: Part, headers: Mapping[str, str] | None = None) -> "Reply":
        """Submit as a form, with a model and a prompt at its end unless given."""
        given = {part[0] for part in parts}
        defaults = {"model": "gpt-image-2", "prompt": "a lighthouse"}
        rest = [(name, text) for name, text in defaults.items() if name not in given]
        sent = {**FORM, **(headers or {})}
        body = BytesIO(form(*parts, *rest))
        return await self.call("POST", GENERATIONS, data=body, headers=sent)

    async def accepted(self, **fields: Any) -> dict[str, Any]:
        """The task that a submission as JSON makes, as its owner sees it at once."""
        reply = await self.submit(**fields)
        assert reply.status == 202, reply.body
        return await self.task(reply.json["task_id"])

    async def outcome(self, prompt: str = "a lighthouse", **fields: Any) -> dict[str, Any]:
        """The final task that a submission as JSON comes to."""
        task = await self.accepted(prompt=prompt, **fields)
        return await self.finished(task["task_id"])

    async def balance(self) -> dict[str, int]:
        """What the account has."""
        reply = await self.call("GET", "/v1/credits/balance")
        assert reply.status == 200, reply.body
        document: dict[str, int] = reply.json
        return document

    async def newest(self) -> str | None:
        """The id of the account's newest task: a task more changes it, and nothing else does."""
        reply = await self.call("GET", "/v1/tasks?limit=1")
        assert reply.status == 200, reply.body
        return next((task["task_id"] for task in reply.json["data"]), None)

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

    async def for_account(self, *, credit: int = CREDIT) -> "Server":
        """The same server as a new account meets it."""
        account = secrets.token_hex(8)
        return replace(self, account=account, key=await self.new_key(account, credit=credit))

    def stored_files(self) -> list[Path]:
        """Every file in the asset store, staged ones too."""
        files = (self.data / "assets").rglob("*")
        return [path for path in files if path.is_file() and path.name != "lock"]


@dataclass
class Reply:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    """Names in any case."""
    body: bytes

    @classmethod
    async def read(cls, reader: asyncio.StreamReader) -> "Reply":
        """The next answer on a connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        fields = (line.partition(": ") for line in lines)
        headers = CIMultiDict((name, value) for name, _, value in fields)
        body = await reader.readexactly(int(headers["Content-Length"]))
        return cls(int(first.split(" ")[1]), headers, body)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[int, str, str | None]:
        """Status, code and field at fault of an error."""
        return self.status, self.json["code"], self.json.get("param")

    def assert_refused(self, status: int, code: str, param: str | None = None) -> str:
        """An error in the contract's exact shape; returns its message."""
        assert (self.status, self.headers["Content-Type"]) == (status, "application/json"), (
            self.status,
            self.body,
        )
        error = dict(self.json)
        message: str = error.pop("message")
        assert len(message) > len("a word.")
        assert message.endswith("."), message
        expected = {"error": _SLUGS[status], "type": _FAMILIES[status], "code": code}
        assert error == (expected if param is None else {**expected, "param": param}), message
        assert self.headers["X-Request-Id"]
        return message


@asynccontextmanager
async def running_server(
    data: Path,
    *,
    with_worker: bool = True,
    credit: int = CREDIT,
    behind_proxy: bool = False,
    **settings: Any,
) -> AsyncIterator[Server]:
    """A server on a free port with its own data folder.

    One that is ``behind_proxy`` believes what its clients say of where they come from.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    # asyncio misses that this is TCP, and would let each answer wait 40 ms for the last one's ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    chosen = {"sandbox_seconds": 0.0, "drain_seconds": 5.0, **settings}
    if behind_proxy:
        chosen["public_url"] = url
    core = build_core(Settings(data_dir=data, **chosen))
    await core.store.migrate()
    key, _ = await core.accounts.create_key("test", account="test")
    owner = await core.accounts.find("test")
    assert owner is not None
    if credit:
        await core.accounts.add_credit(owner, credit, note="test")
    config = uvicorn.Config(
        build_app(core, with_worker=with_worker, listens_on=url),
        lifespan="on",
        log_config=None,
        access_log=False,
        http=Protocol,
        proxy_headers=False,  # as calotype serve has it
        # Else a client whose loop stood still between two tests finds its connection closed.
        timeout_keep_alive=600,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await server.ready.wait()
    try:
        async with aiohttp.ClientSession() as http:
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


def noise(side: int = 800) -> bytes:
    """A PNG that is about three times as many bytes as it has pixels."""
    out = BytesIO()
    Image.frombytes("RGB", (side, side), secrets.token_bytes(3 * side * side)).save(out, "PNG")
    return out.getvalue()


def form(*parts: Part, end: bool = True) -> bytes:
    """The body of a multipart form, byte for byte; without its ``end`` it was cut off."""
    body = b""
    for name, value, *filename in parts:
        named = "".join(f'; filename="{each}"' for each in filename)
        kind = "Content-Type: application/octet-stream\r\n" if filename else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n{kind}\r\n'
        content = value.encode() if isinstance(value, str) else value
        body += head.encode() + content + b"\r\n"
    return body + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that nothing announces."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def website(handler: Handler) -> AsyncIterator[str]:
    """A web server on loopback that answers every path by ``handler``; yields its URL."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    async with serving(app) as url:
        yield url


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """Any web application on a free port of loopback; yields its URL."""
    runner = web.AppRunner(app, shutdown_timeout=1, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
