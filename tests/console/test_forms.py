"""Forms: only our own are taken, and nothing that is too much."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from calotype.console.forms import MAX_BYTES, MAX_FIELDS
from calotype.domain.secret import Secret
from console.tabs import PASSWORD, Tab, gone_to
from harness import Reply, Server, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")
OUT = "/console/sign-out"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server that develops nothing."""
    data = tmp_path_factory.mktemp("data")
    async with running_server(
        data, with_worker=False, admin_password=Secret(PASSWORD), public_url="http://pics.example"
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def tab(site: Server) -> AsyncIterator[Tab]:
    """A browser in which somebody has signed in."""
    async with Tab(site) as opened:
        await opened.sign_in()
        yield opened


def refused(reply: Reply) -> bool:
    return reply.status == 403 and b"another site" in reply.body


async def test_a_form_without_our_token_is_refused(site: Server, tab: Tab) -> None:
    async with Tab(site) as other:
        await other.sign_in()
        foreign = await other.token("/console/playground")
    for fields in ({}, {"csrf": ""}, {"csrf": foreign}, {"csrf": "\N{SNOWMAN}"}):
        assert refused(await tab.post(OUT, **fields))
    assert (await tab.get("/console/playground")).status == 200


async def test_the_sign_in_form_needs_the_token_of_its_own_visit(site: Server) -> None:
    async with Tab(site) as tab, Tab(site) as other:
        foreign = await other.token("/console/sign-in")
        fields = {"way": "key", "key": site.key}
        assert refused(await tab.post("/console/sign-in", csrf=foreign, **fields))
        await tab.token("/console/sign-in")
        assert refused(await tab.post("/console/sign-in", csrf=foreign, **fields))


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://pics.example.evil.example"},
    ],
    ids=str,
)
async def test_what_a_browser_says_another_site_has_sent_is_refused(
    tab: Tab, headers: dict[str, str]
) -> None:
    csrf = await tab.token("/console/playground")
    assert refused(await tab.post(OUT, headers, csrf=csrf))
    assert (await tab.get("/console/playground")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
        {"Origin": "http://pics.example"},
        {"Origin": "null"},
        {},
    ],
    ids=str,
)
async def test_what_comes_from_our_own_pages_is_taken(tab: Tab, headers: dict[str, str]) -> None:
    csrf = await tab.token("/console/playground")
    assert gone_to(await tab.post(OUT, headers, csrf=csrf)) == "/console/sign-in"


async def test_the_address_by_which_a_browser_came_is_ours(site: Server, tab: Tab) -> None:
    csrf = await tab.token("/console/playground")
    assert gone_to(await tab.post(OUT, {"Origin": site.url}, csrf=csrf)) == "/console/sign-in"


async def test_a_form_that_is_too_large_or_none_is_refused_as_a_page(tab: Tab) -> None:
    for fields, status in (
        ({"text": "x" * MAX_BYTES}, 413),
        (dict.fromkeys(map(str, range(MAX_FIELDS + 1)), ""), 413),
        ({"text": "\0"}, 400),
    ):
        reply = await tab.post(OUT, **fields)
        assert (reply.status, reply.body[:15]) == (status, b"<!doctype html>")
    reply = await tab.post(OUT, {"Content-Type": "application/json"}, text="x")
    assert reply.status == 415


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/docs"])
async def test_signing_in_leads_nowhere_else(site: Server, path: str) -> None:
    async with Tab(site) as tab:
        assert gone_to(await tab.sign_in(next=path)) == "/console/playground"


async def test_signing_in_leads_to_the_page_that_was_asked_for(site: Server) -> None:
    async with Tab(site) as tab:
        sent_on = gone_to(await tab.get("/console/playground?model=a%26b"))
        assert sent_on == "/console/sign-in?next=/console/playground%3Fmodel%3Da%2526b"
        page = (await tab.get(sent_on)).body.decode()
        assert 'name="next" value="/console/playground?model=a%26b"' in page


async def test_htmx_is_told_to_go_to_the_sign_in_page(site: Server) -> None:
    async with Tab(site) as tab:
        shown = {"HX-Request": "true", "HX-Current-URL": f"{site.url}/console/keys?x=1"}
        reply = await tab.get("/console/playground", shown)
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["HX-Redirect"] == "/console/sign-in?next=/console/keys%3Fx%3D1"
