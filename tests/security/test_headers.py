"""What guards an answer against caches, frames and guesses goes with every kind of it."""

from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from calotype.domain.secret import Secret
from console.tabs import PASSWORD, Tab
from harness import Reply, Server, picture, running_server
from security.test_isolation import OPEN, OWN, placed

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUBLIC = ("/v1/models", "/openapi.json", "/docs", "/llms.txt", "/console/static/")
"""What every cache may keep: it is the same for everybody."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    data = tmp_path_factory.mktemp("data")
    async with running_server(data, behind_proxy=True, admin_password=Secret(PASSWORD)) as running:
        yield running


def is_guarded(path: str, status: int, headers: Mapping[str, str]) -> None:
    about = (path, status, dict(headers))
    assert headers["X-Content-Type-Options"] == "nosniff", about
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy, about
    assert "frame-ancestors 'none'" in policy, about
    assert headers["Referrer-Policy"] in {"no-referrer", "same-origin"}, about
    kept = headers["Cache-Control"]
    assert kept == "no-store" or "private" in kept or path.startswith(PUBLIC), about


def named(path: str) -> str:
    words = {"model_id": "gpt-image-2", "brand": "openai", "channel": "sandbox"}
    return path.format_map({**words, "version": "x", "path": "favicon.svg"})


async def test_every_answer_of_the_api_is_guarded(server: Server) -> None:
    task = await server.outcome()
    word = task["task_id"]
    image = task["result"]["data"][0]["url"].removeprefix(server.url)
    asked = [("GET", named(path)) for method, path in placed(OPEN, OWN, console=False)]
    asked += [
        ("GET", f"/v1/tasks/{word}"),
        ("GET", f"/v1/tasks/{word}?wait=1"),
        ("GET", f"/v1/tasks/{word}/events"),
        ("GET", image),
        ("HEAD", image),
        ("GET", f"{image}&width=320"),
        ("GET", image[:-1]),
        ("GET", "/nowhere"),
        ("DELETE", "/v1/models"),
        ("POST", "/v1/files"),
        ("POST", "/v1/images/generations"),
        ("POST", "/openai/v1/images/generations"),
        ("POST", "/mcp"),
        ("DELETE", f"/v1/tasks/{word}"),
    ]
    for method, path in asked:
        reply = await server.call(method, path)
        is_guarded(path, reply.status, reply.headers)
        nobody = await server.anonymous(method, path)
        is_guarded(path, nobody.status, nobody.headers)


async def test_what_is_accepted_is_guarded_too(server: Server) -> None:
    png = {"Content-Type": "image/png"}
    for reply in [
        await server.submit(),
        await server.call("POST", "/v1/files", data=picture(), headers=png),
        await server.call("PUT", "/v1/webhooks", json={"url": None}),
        await server.call(
            "POST", "/openai/v1/images/generations", json={"model": "gpt-image-2", "prompt": "x"}
        ),
    ]:
        assert reply.status < 300
        is_guarded("/", reply.status, reply.headers)


async def test_what_is_ready_and_what_is_no_http_are_guarded(server: Server) -> None:
    path = f"/v1/tasks/{(await server.accepted())['task_id']}"
    for _ in range(3):  # the second time it is answered without ASGI
        ready = await server.exchange(f"GET {path}")
        is_guarded(path, ready.status, ready.headers)
    async with server.connection() as (reader, writer):
        writer.write(b"nonsense\r\n\r\n")
        refused = await Reply.read(reader)
    is_guarded("/", refused.status, refused.headers)


async def test_an_answer_that_says_that_nothing_changed_is_guarded(server: Server) -> None:
    image = (await server.outcome())["result"]["data"][0]["url"].removeprefix(server.url)
    public = ("/v1/models", "/openapi.json", "/docs", "/llms.txt", "/v1/models/brands/openai/image")
    for path in (*public, image):
        whole = await server.call("GET", path)
        known = {"If-None-Match": whole.headers["ETag"]}
        same = await server.call("GET", path, headers=known)
        assert same.status == 304
        is_guarded(path, 304, same.headers)
        policies = {each.headers["Content-Security-Policy"] for each in (whole, same)}
        assert len(policies) == 1, "a browser takes those of the 304 from then on"


async def test_every_page_is_guarded(server: Server) -> None:
    image = (await server.outcome())["result"]["data"][0]["url"]
    word = image.partition("?")[0].rpartition("/")[2].partition(".")[0]
    pages = [named(path) for method, path in placed(OPEN, OWN, console=True) if method == "GET"]
    pages += [f"/console/images/{word}/whole", f"/console/images/{word}/320.webp"]
    async with Tab(server) as tab:
        before = [(path, await tab.get(path)) for path in pages]
        await tab.sign_in()
        after = [(path, await tab.get(path)) for path in pages]
    for path, reply in before + after:
        is_guarded(path, reply.status, reply.headers)


async def test_each_header_is_said_once(server: Server) -> None:
    word = (await server.outcome())["task_id"]
    for path in (
        "/v1/models",
        f"/v1/tasks/{word}",
        f"/v1/tasks/{word}/events",
        "/docs",
        "/console",
    ):
        async with server.http.get(
            server.url + path, headers=server.auth, allow_redirects=False
        ) as reply:
            names = [name.lower() for name in reply.headers]
        assert len(set(names)) == len(names), path
