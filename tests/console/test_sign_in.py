"""Who may come in, how often, and for how long."""

import asyncio
import base64
import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from calotype.domain.secret import Secret
from console.tabs import PASSWORD, Tab, gone_to, links
from harness import Reply, Server, running_server
from postgres import fresh_database

pytestmark = pytest.mark.asyncio(loop_scope="module")
SIGN_IN = "/console/sign-in"
EVERYWHERE = "/console/sign-out-everywhere"
NUMBERS = itertools.count(1)


@pytest_asyncio.fixture(params=["sqlite", "postgres"], scope="module", loop_scope="module")
async def either(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """A server of each storage mode with an operator's password, for the whole module."""
    options: dict[str, Any] = {"with_worker": False, "admin_password": Secret(PASSWORD)}
    async with AsyncExitStack() as stack:
        if request.param == "postgres":
            postgres = request.getfixturevalue("postgres")
            options["database_url"] = await stack.enter_async_context(fresh_database(postgres))
        data = tmp_path_factory.mktemp("data")
        yield await stack.enter_async_context(running_server(data, behind_proxy=True, **options))


@pytest_asyncio.fixture(loop_scope="module")
async def site(either: Server) -> Server:
    """That server, as an account of the test's own meets it."""
    return await either.for_account()


@pytest_asyncio.fixture(loop_scope="module")
async def tab(site: Server) -> AsyncIterator[Tab]:
    """A browser at an address of the test's own."""
    async with Tab(site, f"198.51.100.{next(NUMBERS)}") as opened:
        yield opened


# Keys


async def test_a_key_opens_the_pages_of_its_account(site: Server, tab: Tab) -> None:
    assert gone_to(await tab.get("/console")) == SIGN_IN
    assert gone_to(await tab.sign_in()) == "/console/playground"
    assert gone_to(await tab.get("/console")) == "/console/playground"
    page = await tab.get("/console/playground")
    assert (page.status, site.account in page.body.decode()) == (200, True)
    assert gone_to(await tab.get(SIGN_IN)) == "/console/playground"


@pytest.mark.parametrize("key", ["", "nothing", "ck_" + "x" * 43, "ck_\N{SNOWMAN}"])
async def test_what_is_no_key_opens_nothing(tab: Tab, key: str) -> None:
    reply = await tab.send(SIGN_IN, way="key", key=key)
    assert (reply.status, "No account opens" in reply.body.decode()) == (403, True)
    assert "calotype_session" not in tab.cookies


async def test_expired_and_revoked_keys_are_told_apart_from_unknown_ones_by_nobody(
    site: Server, tab: Tab
) -> None:
    accounts = site.core.accounts
    expired, _ = await accounts.create_key("a", account=site.account, expires_in_seconds=0)
    revoked, key = await accounts.create_key("b", account=site.account)
    await accounts.revoke(key)
    pages = {
        re.sub(rb"value=.*?>", b"", (await tab.sign_in(word)).body)
        for word in (expired, revoked, "ck_" + "x" * 43)
    }
    assert len(pages) == 1


async def test_a_session_ends_when_its_key_is_revoked(site: Server, tab: Tab) -> None:
    word, key = await site.core.accounts.create_key("soon gone", account=site.account)
    await tab.sign_in(word)
    assert (await tab.get("/console/playground")).status == 200
    await site.core.accounts.revoke(key)
    assert gone_to(await tab.get("/console/playground")).startswith(SIGN_IN)


async def test_the_cookie_holds_no_secret_and_no_script_reads_it(site: Server, tab: Tab) -> None:
    reply = await tab.sign_in()
    said = reply.headers["Set-Cookie"]
    assert {"HttpOnly", "Path=/", "SameSite=lax", "Max-Age=604800"} <= set(said.split("; "))
    assert "Secure" not in said
    payload = tab.cookies["calotype_session"].partition(".")[0]
    told = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert set(told) == {"id", "role", "issued_at", "key_id"}
    assert site.key not in str(told)


# What a cookie says is believed only when we said it


async def test_a_cookie_that_was_changed_is_nobodys(tab: Tab) -> None:
    await tab.sign_in()
    payload, _, signature = tab.cookies["calotype_session"].partition(".")
    told = json.loads(base64.urlsafe_b64decode(payload + "=="))
    told["role"] = "admin"
    forged = base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")
    for value in (f"{forged}.{signature}", payload, "", "x.y", "\x7f" * 9):
        tab.keep("calotype_session", value)
        assert gone_to(await tab.get("/console/operator")).startswith(SIGN_IN)


async def test_the_token_of_a_link_is_no_session(site: Server, tab: Tab) -> None:
    tab.keep("calotype_session", links(site).make())
    assert gone_to(await tab.get("/console/operator")).startswith(SIGN_IN)


# Roles


async def test_the_password_opens_the_operators_pages_and_no_others(tab: Tab) -> None:
    assert gone_to(await tab.be_operator()) == "/console/operator"
    assert (await tab.get("/console/operator")).status == 200
    refused = await tab.get("/console/playground")
    assert (refused.status, "sign in with an API key" in refused.body.decode()) == (403, True)


async def test_a_key_does_not_open_the_operators_pages(tab: Tab) -> None:
    await tab.sign_in()
    refused = await tab.get("/console/operator")
    assert (refused.status, "for the operator" in refused.body.decode()) == (403, True)


@pytest.mark.parametrize("password", ["", "let me in", PASSWORD + "!", "\N{SNOWMAN}" * 12])
async def test_another_password_opens_nothing(tab: Tab, password: str) -> None:
    reply = await tab.send(SIGN_IN, way="password", password=password)
    assert (reply.status, "is not the operator" in reply.body.decode()) == (403, True)
    assert "calotype_session" not in tab.cookies


# Links


async def test_a_link_works_once(site: Server, tab: Tab) -> None:
    path = f"/console/enter?token={links(site).make()}"
    shown = await tab.get(path)
    assert (shown.status, shown.headers["Referrer-Policy"]) == (200, "no-referrer")
    assert (await tab.get(path)).status == 200, "looking does not use it up"
    assert gone_to(await enter(tab, path)) == "/console/operator"
    assert (await tab.get("/console/operator")).status == 200
    async with Tab(site, "203.0.113.7") as other:
        refused = await enter(other, path)
    assert (refused.status, "used already" in refused.body.decode()) == (403, True)


async def enter(tab: Tab, path: str) -> Reply:
    """Press the button of a link's page."""
    token = path.partition("token=")[2]
    return await tab.post("/console/enter", csrf=await tab.token(path), token=token)


async def test_a_link_that_two_press_at_once_lets_one_in(site: Server) -> None:
    path = f"/console/enter?token={links(site).make()}"
    async with AsyncExitStack() as stack:
        tabs = [
            await stack.enter_async_context(Tab(site, f"203.0.113.{number}")) for number in range(6)
        ]
        replies = await asyncio.gather(*(enter(each, path) for each in tabs))
    assert sorted(reply.status for reply in replies) == [303, 403, 403, 403, 403, 403]


async def test_a_link_that_expired_or_is_not_ours_opens_nothing(site: Server, tab: Tab) -> None:
    old = links(site).make(minutes=-1)
    for token in (old, "", "x", links(site).make()[:-1]):
        refused = await tab.get(f"/console/enter?token={token}")
        assert (refused.status, "admin link" in refused.body.decode()) == (403, True)
        csrf = await tab.token(SIGN_IN)
        assert (await tab.post("/console/enter", csrf=csrf, token=token)).status == 403


async def test_the_operators_coming_and_going_is_in_the_audit(site: Server, tab: Tab) -> None:
    await tab.be_operator()
    await tab.post(EVERYWHERE, csrf=await tab.token(EVERYWHERE))
    left, came = await site.core.store.operating.actions(limit=2)
    assert (left.action, left.outcome) == ("admin.sign-out-everywhere", "done")
    assert (came.actor, came.action, came.outcome) == ("console", "admin.sign-in", "done")
    assert "with the password, from 198.51.100." in came.detail
    assert PASSWORD not in came.detail


# Out again


async def test_signing_out_ends_this_session(tab: Tab) -> None:
    await tab.sign_in()
    csrf = await tab.token("/console/playground")
    assert gone_to(await tab.post("/console/sign-out", csrf=csrf)) == SIGN_IN
    assert "calotype_session" not in tab.cookies
    assert gone_to(await tab.get("/console/playground")).startswith(SIGN_IN)
    assert gone_to(await tab.post("/console/sign-out")) == SIGN_IN


async def test_the_cookie_of_whoever_signed_out_is_good_for_nothing_any_more(
    site: Server, tab: Tab
) -> None:
    async with Tab(site) as elsewhere:
        await tab.sign_in()
        await elsewhere.sign_in()
        stolen = tab.cookies["calotype_session"]
        reply = await tab.post("/console/sign-out", csrf=await tab.token("/console/playground"))
        assert reply.headers["Clear-Site-Data"] == '"cache"'
        tab.keep("calotype_session", stolen)
        assert gone_to(await tab.get("/console/playground")).startswith(SIGN_IN)
        assert (await elsewhere.get("/console/playground")).status == 200, "another session"


@pytest.mark.parametrize("path", ["/console/sign-out", EVERYWHERE])
async def test_another_site_signs_nobody_out(site: Server, path: str) -> None:
    async with Tab(site) as without_cookie:  # which is how browsers come from another site
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
            reply = await without_cookie.post(path, headers)
            assert (reply.status, "Set-Cookie" in reply.headers) == (403, False)
        reply = await without_cookie.post(path)
        assert (gone_to(reply), "Set-Cookie" in reply.headers) == (SIGN_IN, False)


async def test_signing_out_everywhere_ends_every_session_of_the_account_and_no_other(
    site: Server, tab: Tab
) -> None:
    stranger = await site.for_account()
    second, _ = await site.core.accounts.create_key("second", account=site.account)
    async with Tab(site, "203.0.113.8") as mine, Tab(stranger, "203.0.113.9") as other:
        await tab.sign_in()
        await mine.sign_in(second)
        await other.sign_in()
        stolen = tab.cookies["calotype_session"]
        await tab.post(EVERYWHERE, csrf=await tab.token(EVERYWHERE))
        assert "calotype_session" not in tab.cookies
        tab.keep("calotype_session", stolen)
        assert gone_to(await tab.get("/console/playground")).startswith(SIGN_IN)
        assert gone_to(await mine.get("/console/playground")).startswith(SIGN_IN)
        assert (await other.get("/console/playground")).status == 200
        assert gone_to(await mine.sign_in(second)) == "/console/playground"
        assert (await mine.get("/console/playground")).status == 200
