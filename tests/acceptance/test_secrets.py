"""Marked secrets, much trouble, and a look at all that a server writes: none of them is there."""

import asyncio
import base64
import os
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest
from aiohttp import ClientError, FormData, web

from acceptance.conftest import Site
from harness import GENERATIONS, noise, picture, serving
from postgres import PostgresServer, fresh_database

UPSTREAM_KEY: Final = "sk-upstream-7f3a9c2e5b81"
CALLBACK_SECRET: Final = "whsec_Y2FsbGJhY2stNWQxZTcz"
SERVER_SECRET: Final = "server-secret-4c8d1f6b0a2e7795"
ADMIN_PASSWORD: Final = "operator-password-e19b"
TYPED_PASSWORD: Final = "mistyped-password-c7d2"
DATABASE_PASSWORD: Final = "database-password-83fa"
UNKNOWN_KEY: Final = f"ck_{'Zq7' * 14}Z"
PROMPT: Final = "a heliotrope 5512 in confidence"
REFERENCE_TOKEN: Final = "reference-token-91c4"
HOOK_TOKEN: Final = "hook-token-2b6e"
IMAGE: Final = noise(64)

CONFIGURATION = """
[[channels]]
id = {number}
slug = "{slug}"
name = "Upstream"
provider = "openai"
base_url = "{url}/v1"
api_key_env = "UPSTREAM_KEY"
models = ["gpt-image-2"]
"""
GOOD: Final = 10
BAD: Final = 11
"""The channel of what is to go wrong: its breaker opens, and keeps nothing else waiting."""
OPEN_PATHS = (
    *("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/v1/models"),
    *("/openai/v1/models", "/console/sign-in", "/nowhere", "/v1/tasks", "/v1/events"),
)


@dataclass
class Told:
    """What was said to whom, by place."""

    places: dict[str, bytes] = field(default_factory=dict)

    def add(self, place: str, text: bytes) -> None:
        self.places[place] = self.places.get(place, b"") + text

    def holds(self, secrets: Mapping[str, bytes]) -> list[str]:
        """Where which secret stands."""
        return [
            f"{name} in {place}"
            for name, secret in secrets.items()
            for form in spellings(secret)
            for place, text in self.places.items()
            if form in text
        ]


def spellings(secret: bytes) -> set[bytes]:
    """A secret as it may be written: plain, in hex, in base64."""
    coded = base64.b64encode(secret)[: len(secret) // 3 * 4]
    return {secret, secret.hex().encode(), coded}


@pytest.fixture
async def world() -> AsyncIterator[str]:
    """An upstream that repeats what it was told in its errors, images, and receivers that fail."""

    async def create(request: web.Request) -> web.Response:
        said = await request.json()
        told = f"{request.headers['Authorization']} asked for {said['prompt']}"
        match int(said["prompt"].rpartition(" ")[2]) % 5:
            case 0:
                image = base64.b64encode(picture(size=(1024, 1024))).decode()
                return web.json_response({"created": 1, "data": [{"b64_json": image}]})
            case 1:
                return web.json_response({"error": {"message": told, "code": "x"}}, status=400)
            case 2:
                return web.Response(text=told, status=500)
            case 3:
                error = {"message": told, "code": "invalid_api_key"}
                return web.json_response({"error": error}, status=401)
            case _:
                assert request.transport is not None
                request.transport.abort()
                return web.Response()

    async def image(_request: web.Request) -> web.Response:
        return web.Response(body=picture())

    async def hook(request: web.Request) -> web.Response:
        return web.Response(text=str(dict(request.headers)), status=500)

    app = web.Application()
    app.router.add_post("/v1/images/{kind:generations|edits}", create)
    app.router.add_get("/image.png", image)
    app.router.add_post("/hook", hook)
    async with serving(app) as url:
        yield url


class Caller:
    """Makes trouble, and keeps what it is told."""

    def __init__(self, site: Site, told: Told) -> None:
        self._site = site
        self._told = told
        self.key = {"Authorization": f"Bearer {site.key}"}

    async def ask(self, method: str, path: str, *, own: bool = False, **options: Any) -> Any:
        """The answer; what an account is told of itself may hold its ``own`` words."""
        try:
            async with self._site.http.request(
                method, self._site.url + path, allow_redirects=False, **options
            ) as answer:
                body = await answer.read()
                about = f"{answer.headers}".encode()
        except ClientError:
            return None
        if not own:
            self._told.add(f"the answer to {method} {path.partition('?')[0]}", about + body)
        return body

    async def submit(self, **fields: Any) -> None:
        body = {"model": "gpt-image-2", "channel_id": GOOD, **fields}
        await self.ask("POST", GENERATIONS, json=body, headers=self.key)


async def make_trouble(caller: Caller, world: str) -> None:
    """Good requests and bad ones of every kind, at once."""
    hook = f"{world}/hook?token={HOOK_TOKEN}"
    wanted = {"callback_url": hook, "metadata": {"a": PROMPT}}
    # What is tried again need not be for long.
    hurried = {**wanted, "channel_id": BAD, "deadline_seconds": 5}
    tasks = [
        caller.submit(prompt=f"{PROMPT} {number}", **(hurried if number % 5 else wanted))
        for number in range(20)
    ]
    for path in ("image.png", "missing.png"):
        url = f"{world}/{path}?signature={REFERENCE_TOKEN}"
        tasks += [caller.submit(prompt=f"{PROMPT} 0", image_input=[url])]
    form = FormData({"model": "gpt-image-2", "prompt": f"{PROMPT} 0"})
    form.add_field("image", IMAGE, filename="a.png")
    tasks.append(caller.ask("POST", GENERATIONS, data=form, headers=caller.key))
    png = {**caller.key, "Content-Type": "image/png"}
    tasks.append(caller.ask("POST", "/v1/files", data=IMAGE, headers=png, own=True))
    tasks += [
        caller.submit(prompt=PROMPT, resolution="9K"),
        caller.submit(prompt=PROMPT, nonsense=PROMPT),
        caller.submit(prompt=PROMPT, model="no-such-model"),
        caller.submit(prompt=PROMPT, image_input=[f"http://u:{HOOK_TOKEN}@example.com/"]),
        caller.submit(prompt=PROMPT, callback_url=f"http://10.0.0.1/?token={HOOK_TOKEN}"),
        caller.ask("POST", GENERATIONS, data=b'{"prompt": "' + PROMPT.encode(), headers=caller.key),
        caller.ask("POST", GENERATIONS, data=IMAGE, headers=png),
        caller.ask("GET", f"/v1/tasks?metadata.a={PROMPT}x", headers=caller.key),
        caller.ask("GET", "/v1/credits/balance", headers={"Authorization": UNKNOWN_KEY}),
        caller.ask(
            "GET", "/v1/credits/balance", headers={"Authorization": f"Bearer {UNKNOWN_KEY}"}
        ),
        caller.ask("GET", f"/v1/credits/balance?key={UNKNOWN_KEY}"),
        caller.ask("POST", "/console/sign-in", data={"password": TYPED_PASSWORD}),
        caller.ask("POST", "/mcp", json={"id": UNKNOWN_KEY[:9]}, headers=caller.key),
        caller.ask("POST", "/v1/callbacks/upstream", data=UNKNOWN_KEY.encode()),
    ]
    await asyncio.gather(*tasks)
    await asyncio.gather(*(caller.ask("GET", path) for path in OPEN_PATHS))


async def break_the_database(url: str, site: Site) -> None:
    """What is asked of it from now on ends in exceptions."""
    statement = "ALTER TABLE tasks RENAME TO gone"
    if not url:
        site.change(statement)
        return
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def all_rows(url: str, site: Site) -> bytes:
    """Everything in the database, as text."""
    if not url:
        with closing(sqlite3.connect(site.database)) as database:
            dump = "\n".join(database.iterdump()).encode()
        return dump + b"".join(path.read_bytes() for path in site.data.glob("calotype.db*"))
    connection = await asyncpg.connect(url)
    tables = await connection.fetch(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables "
        "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    rows = [
        row["text"]
        for table in tables
        for row in await connection.fetch(f"SELECT t::text AS text FROM {table['name']} t")  # noqa: S608 -- the server's own names
    ]
    await connection.close()
    return "\n".join(rows).encode()


def files_of(site: Site) -> bytes:
    """The data folder, but for the images in it and the database."""
    return b"".join(
        path.read_bytes()
        for path in site.data.rglob("*")
        if path.is_file() and "assets" not in path.parts and not path.name.startswith("calotype.db")
    )


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_no_secret_is_told_by_logs_answers_processes_or_the_database(
    site: Site, world: str, engine: str, request: pytest.FixtureRequest
) -> None:
    if engine == "sqlite":
        await scanned(site, world, "")
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    async with fresh_database(server) as url:
        await scanned(site, world, url.replace("postgres@", f"postgres:{DATABASE_PASSWORD}@"))


async def scanned(site: Site, world: str, url: str) -> None:
    channels = [
        CONFIGURATION.format(number=number, slug=slug, url=world)
        for number, slug in ((GOOD, "good"), (BAD, "bad"))
    ]
    (site.root / "calotype.toml").write_text("".join(channels), encoding="utf-8")
    host = world.removeprefix("http://")
    site.environment = {
        "CALOTYPE_CONFIG": str(site.root / "calotype.toml"),
        "CALOTYPE_DATABASE_URL": url,
        "CALOTYPE_SECRET": SERVER_SECRET,
        "CALOTYPE_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "CALOTYPE_LOG_LEVEL": "debug",
        "CALOTYPE_REFERENCE_ALLOW_HOSTS": host,
        "CALOTYPE_WEBHOOK_ALLOW_HOSTS": host,
        "UPSTREAM_KEY": UPSTREAM_KEY,
    }
    await site.fund()
    server, told = await site.serve(), Told()
    caller = Caller(site, told)
    await make_trouble(caller, world)
    listed = await site.get("/v1/tasks?limit=100")
    tasks = [await site.finished(task["task_id"]) for task in listed["data"]]
    signatures = [
        image["url"].rpartition("=")[2]
        for task in tasks
        for image in task["result"].get("data", ())
    ]
    assert signatures, "some of it went well"
    assert {task["state"] for task in tasks} == {"success", "fail"}
    errors = str([task["error"] for task in tasks]).encode()
    hook_secret = (await site.get("/v1/webhooks"))["secrets"][0]["secret"].encode()
    told.add("arguments of processes", arguments_of_everyone(server.process.pid))
    rows = await all_rows(url, site)
    await break_the_database(url, site)
    await make_trouble(caller, world)
    await server.terminate()
    logs = b"".join(each.err.read_bytes() for each in site.started) + server.out.read_bytes()

    private = {
        "the upstream's key": UPSTREAM_KEY.encode(),
        "the API key": site.key.encode(),
        "the server's secret": SERVER_SECRET.encode(),
        "the operator's password": ADMIN_PASSWORD.encode(),
        "a mistyped password": TYPED_PASSWORD.encode(),
        "the database's password": DATABASE_PASSWORD.encode(),
        "a key that is none": UNKNOWN_KEY.encode(),
        "a webhook secret": hook_secret,
        "a part of an image": IMAGE[len(IMAGE) // 2 :][:48],
        **{f"signature {n}": each.encode() for n, each in enumerate(signatures)},
    }
    told.add("logs", logs)
    told.add("files", files_of(site))
    own = {"a prompt": PROMPT.encode(), "a token": HOOK_TOKEN.encode()}
    own["a reference's token"] = REFERENCE_TOKEN.encode()
    assert told.holds({**private, **own}) == []
    assert Told({"rows of the database": rows, "errors of tasks": errors}).holds(private) == []
    assert b"DEBUG" in logs or b"debug" in logs, "it was told to say all it can"
    assert b"Traceback" in logs, "what broke is told"
    assert PROMPT.encode() in rows, "here it belongs, and so the look was a real one"


def arguments_of_everyone(group: int) -> bytes:
    """The command lines of a process and of those that it started."""
    found = b""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == group:
                found += (folder / "cmdline").read_bytes()
        except OSError:  # it ended while we looked
            continue
    assert b"serve" in found
    return found


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("doctor",), ("migrate",)])
async def test_a_database_that_is_not_there_is_told_of_without_its_password(
    site: Site, command: tuple[str, ...]
) -> None:
    site.environment = {
        "CALOTYPE_DATABASE_URL": f"postgresql://calotype:{DATABASE_PASSWORD}@127.0.0.1:1/none",
        "CALOTYPE_LOG_LEVEL": "debug",
    }
    ended = site.command(*command)
    assert await ended.ended() != 0
    said = ended.stderr + ended.out.read_text(encoding="utf-8")
    assert said
    assert DATABASE_PASSWORD not in said
