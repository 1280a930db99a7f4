"""What no browser sends is refused, and breaks nothing."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from calotype.domain.ids import encode
from calotype.domain.secret import Secret
from console.tabs import PASSWORD, Tab, gone_to
from harness import Server, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")
MANY = "9" * 5000
ODD = ("", "0", "-1", "\u0663", "1e9", MANY, "http://[", "'\\\\%;", "9" * 19, "0001-01-01")
"""What somebody may write where a number, a day, an id or a word belongs."""
NAMES = ("before", "from", "to", "since", "until", "range", "show", "said", "task", "state")
OF_ACCOUNTS = tuple(
    f"/console/{path}"
    for path in (
        *("playground", "gallery", "tasks", "keys", "usage", "usage.csv", "ledger", "ledger.csv"),
        *("webhooks", "tasks/{}", "tasks/{}/live", "images/{}/160.webp"),
    )
)
OF_THE_OPERATOR = tuple(
    f"/console/operator{path}"
    for path in (
        *("", "/accounts", "/channels", "/queue", "/unknown", "/tasks", "/catalog", "/settings"),
        *("/audit", "/usage", "/usage.csv", "/accounts/{}", "/accounts/{}/ledger", "/channels/{}"),
        *("/tasks/{}", "/catalog/{}", "/unknown/x/{}"),
    )
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server that develops nothing."""
    async with running_server(
        tmp_path_factory.mktemp("data"),
        behind_proxy=True,
        with_worker=False,
        admin_password=Secret(PASSWORD),
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def tab(site: Server) -> AsyncIterator[Tab]:
    """A browser in which nobody has signed in."""
    async with Tab(site) as opened:
        yield opened


async def test_a_page_that_htmx_says_it_shows_need_be_none(tab: Tab) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://["}
    reply = await tab.get("/console/gallery", headers)
    assert (reply.status, reply.headers["HX-Redirect"]) == (200, "/console/sign-in")


async def test_an_origin_that_is_none_is_not_ours(tab: Tab) -> None:
    assert (await tab.post("/console/sign-in", {"Origin": "http://["})).status == 403


@pytest.mark.parametrize("width", [MANY, "0", "-160", "1_60", "\u0661\u0666\u0660", "x"])
async def test_there_are_no_copies_of_other_widths(tab: Tab, width: str) -> None:
    await tab.sign_in()
    reply = await tab.get(f"/console/images/{encode('asset', 1)}/{width}.webp")
    assert reply.status == 404


@pytest.mark.parametrize("number", [MANY, "0", "-1", "1", "x"])
async def test_there_is_no_attempt_with_such_a_number(tab: Tab, number: str) -> None:
    await tab.be_operator()
    path = f"/console/operator/unknown/{encode('task', 1)}/{number}"
    assert (await tab.get(path)).status == 404


@pytest.mark.parametrize("role", ["account", "admin"])
async def test_no_address_breaks_a_page(tab: Tab, role: str) -> None:
    await (tab.sign_in() if role == "account" else tab.be_operator())
    for path in OF_ACCOUNTS if role == "account" else OF_THE_OPERATOR:
        asked = [f"{path}?{name}={odd}" for name in NAMES for odd in ODD]
        if "{}" in path:
            asked = [path.format(odd or "x") for odd in ODD]
        for each in asked:
            assert (await tab.get(each)).status < 500, each[:80]


async def test_an_empty_token_in_a_header_is_none(tab: Tab) -> None:
    await tab.sign_in()
    for path in ("", "/form"):
        for headers in ({"X-CSRF-Token": ""}, {"X-CSRF-Token": "x"}, {}):
            kind = {"Content-Type": "multipart/form-data; boundary=b"} if not path else {}
            body = b"--b--\r\n" if not path else b"prompt=x"
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            reply = await tab._ask(
                "POST", f"/console/playground{path}", headers={**form, **kind, **headers}, data=body
            )
            assert (reply.status, b"Once more, please" in reply.body) == (403, True)
    sent = {"X-CSRF-Token": "", "Content-Type": "application/x-www-form-urlencoded"}
    reply = await tab._ask("POST", "/console/keys", headers=sent, data=b"name=x")
    assert reply.status == 403


async def test_errors_have_the_frame_of_whoever_signed_in(tab: Tab) -> None:
    nobodys = (await tab.get("/console/nothing")).body.decode()
    assert "/console/gallery" not in nobodys
    await tab.sign_in()
    for reply in (
        await tab.get("/console/nothing"),
        await tab.post("/console/live"),
        await tab.get("/console/operator"),
    ):
        assert reply.status in {403, 404, 405}
        assert 'href="/console/gallery"' in reply.body.decode()
        assert "/console/sign-out" in reply.body.decode()
    assert gone_to(await tab.send("/console/sign-out-everywhere")) == "/console/sign-in"
