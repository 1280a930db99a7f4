"""What goes with every answer of the console, the files of its pages, and errors as pages."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from calotype.console.render import HEADERS
from calotype.console.static_files import PREFIX, StaticFiles
from calotype.domain.secret import Secret
from console.tabs import PASSWORD, Tab, words
from harness import Server, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")
FAVICON = StaticFiles().url("favicon.svg")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server that develops nothing."""
    data = tmp_path_factory.mktemp("data")
    async with running_server(
        data, behind_proxy=True, with_worker=False, admin_password=Secret(PASSWORD)
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def tab(site: Server) -> AsyncIterator[Tab]:
    """A browser in which nobody has signed in."""
    async with Tab(site) as opened:
        yield opened


async def test_every_answer_keeps_what_is_strange_out(tab: Tab) -> None:
    replies = [
        (303, await tab.get("/console")),
        (200, await tab.get("/console/sign-in")),
        (303, await tab.get("/console/operator")),
        (403, await tab.post("/console/sign-in")),
        (404, await tab.get("/console/nothing")),
        (303, await tab.get("/console/")),
        (404, await tab.get(f"{PREFIX}/x/nothing.css")),
        (405, await tab.post("/console/operator/queue")),
        (303, await tab.sign_in()),
        (200, await tab.get("/console/playground")),
        (403, await tab.get("/console/operator")),
    ]
    for status, reply in replies:
        assert reply.status == status
        assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS
        assert reply.headers["X-Request-Id"]


async def test_the_policy_allows_nothing_from_elsewhere_and_nothing_in_line() -> None:
    policy = dict(
        directive.split(" ", 1) for directive in HEADERS["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert "unsafe" not in str(policy)


async def test_the_rest_of_the_server_answers_as_before(site: Server) -> None:
    for path in ("/nowhere", "/consoles", "/v1/console"):
        reply = await site.anonymous("GET", path)
        reply.assert_refused(404, "unknown_route")


# Files


async def test_a_file_under_its_own_address_is_kept_for_good(tab: Tab) -> None:
    reply = await tab.get(FAVICON)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "image/svg+xml")
    assert reply.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_address_of_another_release_gives_what_there_is_not_to_be_kept(tab: Tab) -> None:
    reply = await tab.get(f"{PREFIX}/0123456789ab/favicon.svg")
    assert (reply.status, reply.headers["Cache-Control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/x/",
        "/x/../render.py",
        "/x/..%2frender.py",
        "/x/%2e%2e/render.py",
        "/x//favicon.svg",
        "/x/./favicon.svg",
        "/x/favicon.svg/",
        "/x/favicon.svg%00",
        "/x/templates/base.html",
        "/favicon.svg",
    ],
)
async def test_nothing_else_is_served(site: Server, path: str) -> None:
    reply = await site.exchange(f"GET {PREFIX}{path}\n")
    assert reply.status == 404


# Errors


async def test_an_unknown_page_says_so_to_whoever_asks(tab: Tab) -> None:
    reply = await tab.get("/console/nothing?key=<script>")
    assert "There is no such page" in words(reply)
    assert b"<script>" not in reply.body
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"


async def test_htmx_is_told_of_an_error_in_a_piece_of_a_page(tab: Tab) -> None:
    reply = await tab.get("/console/nothing", {"HX-Request": "true"})
    assert reply.status == 404
    assert "<html" not in reply.body.decode()
    assert 'role="alert"' in reply.body.decode()


async def test_a_page_that_takes_no_form_says_so(tab: Tab) -> None:
    reply = await tab.post("/console/operator/queue")
    assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD")
    assert "takes GET, HEAD, not POST" in words(reply)


async def test_what_breaks_is_told_as_a_page_without_details(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        running_server(tmp_path, behind_proxy=True, with_worker=False) as site,
        Tab(site) as tab,
    ):
        await tab.sign_in()
        with closing(sqlite3.connect(tmp_path / "calotype.db")) as database, database:
            database.execute("UPDATE api_keys SET models = 'nonsense'")
        reply = await tab.get("/console/playground")
    assert (reply.status, "Something broke" in words(reply)) == (500, True)
    assert reply.headers["X-Request-Id"] in words(reply)
    assert reply.headers["X-Request-Id"] in caplog.text
    assert "nonsense" not in words(reply)
    assert reply.headers["Content-Security-Policy"] == HEADERS["content-security-policy"]
