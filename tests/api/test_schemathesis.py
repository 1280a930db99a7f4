"""The API does what its OpenAPI document says, whatever is sent: judged by schemathesis.

Every operation of the document is tested, so a new route is covered as soon as it is described.
``make fuzz-api`` looks for longer.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp import web

import calotype.catalog
from calotype.settings import Settings
from harness import Server, picture, running_server, serving

HOOKS: Final = Path(__file__).with_name("schemathesis_hooks.py")
EXAMPLES: Final = 10
"""Of each operation, beside those that the document's every word calls for."""
EXCLUDED: Final[dict[str, str]] = {}
"""Path → why it is not tested here."""
CONFIG: Final = f"""
hooks = "{HOOKS.name}"
max-stream-events = 1
request-timeout = 30
continue-on-failure = true
warnings = false
"""
TALK_SECONDS: Final = 0.05
FILE: Final = {"Content-Type": "application/octet-stream"}
KINDS: Final = ("gpt-image-2", "nano-banana-pro", "flux-2-flex", "ideogram-v4")
"""Models of every kind: dependent limits, plain choices, numbers, and one without references."""
CALLING: Final = [name for name in Settings.__struct_fields__ if name.endswith("_allow_hosts")]
"""Settings of what the server calls by itself; here, nothing but loopback."""
SHIPPED: Final = Path(calotype.catalog.__file__).parent


class Judgement(NamedTuple):
    """What schemathesis said."""

    exit_code: int
    words: str


@asynccontextmanager
async def talkative(server: Server) -> AsyncIterator[None]:
    """While entered, tasks of the account come and end, so that its stream has something to say."""

    async def talk() -> None:
        while True:
            await server.submit(prompt="sandbox:refuse")
            await asyncio.sleep(TALK_SECONDS)

    talking = asyncio.create_task(talk())
    try:
        yield
    finally:
        talking.cancel()
        with suppress(asyncio.CancelledError):
            await talking


async def known(server: Server, site: str) -> dict[str, object]:
    """What schemathesis cannot make up."""
    task = await server.outcome()
    image = urlsplit(task["result"]["data"][0]["url"])
    kinds = {"file": picture("WEBP"), "reference": picture("JPEG")}
    files = {
        name: (await server.call("POST", "/v1/files", data=body, headers=FILE)).json
        for name, body in kinds.items()
    }
    return {
        "file_id": files["file"]["id"],  # one that may be deleted, and one that stays
        "reference": files["reference"]["reference"],
        "task_id": task["task_id"],
        "name": image.path.rpartition("/")[2],
        "query": dict(parse_qsl(image.query)),
        "website": site,
    }


def outside() -> web.Application:
    """The world as this server knows it: it has a picture at every path, and takes webhooks."""

    async def reference(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=picture(), content_type="image/png")

    async def webhook(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=204)

    app = web.Application()
    app.router.add_get("/{path:.*}", reference)
    app.router.add_post("/{path:.*}", webhook)
    return app


async def assert_only_called(server: Server, site: str) -> None:
    """Nothing that was submitted or set made the server call anyone else."""
    cursor = ""
    while cursor is not None:
        page = (await server.call("GET", f"/v1/webhooks/deliveries?limit=100{cursor}")).json
        assert all(entry["url"].startswith(site) for entry in page["data"]), page
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"


def switched_off(folder: Path, models: Collection[str]) -> Path:
    """A catalog's folder that leaves only these models on: each one multiplies the requests."""
    folder.mkdir()
    for file in SHIPPED.glob("*.toml"):
        if file.stem not in models:
            (folder / file.name).write_text(f"enabled = false\n{file.read_text()}")
    return folder


async def judged(
    folder: Path, options: Sequence[str], *, models: Collection[str], database_url: str = ""
) -> Judgement:
    """Exit code and words of a run against a server of its own."""
    settings: dict[str, Any] = {
        "catalog_dir": switched_off(folder / "models", models),
        "sandbox_processes": 1,
        "database_url": database_url,
        **dict.fromkeys(CALLING, ("127.0.0.1",)),
    }
    async with (
        serving(outside()) as site,
        running_server(folder / "data", **settings) as server,
        talkative(server),
    ):
        (folder / "known.json").write_text(json.dumps(await known(server, site)))
        (folder / "schemathesis.toml").write_text(CONFIG)
        (folder / HOOKS.name).write_bytes(HOOKS.read_bytes())
        excluded = [f"--exclude-path={path}" for path in EXCLUDED]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "--no-color", "run"),
            *(f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {server.key}"),
            *(*excluded, *options),
            cwd=folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        words, _ = await process.communicate()
        await assert_only_called(server, site)
        return Judgement(await process.wait(), words.decode())


@pytest.mark.timeout(400)
async def test_the_server_keeps_to_its_openapi_document_whatever_is_sent(tmp_path: Path) -> None:
    options = ["--generation-deterministic", f"--max-examples={EXAMPLES}"]
    judgement = await judged(tmp_path, options, models=KINDS)
    assert judgement.exit_code == 0, judgement.words
