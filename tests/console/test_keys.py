"""Keys on their page: made and shown once, limited, revoked; whose they are."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from calotype.domain.errors import InvalidKey
from calotype.domain.ids import encode
from calotype.domain.keys import ApiKey
from calotype.domain.money import format_usd
from console.tabs import Tab, gone_to
from harness import CREDIT, Reply, Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = "/console/keys"
SECRET = re.compile(r"ck_[A-Za-z0-9_-]{43}")
EVIL = "<script>alert(1)</script>"


@pytest_asyncio.fixture(loop_scope="module")
async def own(site: Server) -> Server:
    """The server as an account of its own meets it."""
    return await site.for_account()


@pytest_asyncio.fixture(loop_scope="module")
async def tab(own: Server) -> AsyncIterator[Tab]:
    """A browser in which that account has signed in."""
    async with Tab(own) as tab:
        await tab.sign_in()
        yield tab


async def make(tab: Tab, path: str = KEYS, to: str = KEYS, **fields: Any) -> Reply:
    """What comes of the form of a new key."""
    return await tab.post(to, None, **{"name": "a shop", **await tab.marked(path), **fields})


async def keys_of(site: Server) -> list[ApiKey]:
    """The keys of an account, newest first."""
    owner = await site.core.accounts.find(site.account)
    assert owner is not None
    return list(await site.core.store.keys(account_id=owner.id))


async def test_a_new_key_is_shown_once_and_opens_the_account(tab: Tab, own: Server) -> None:
    made = await make(tab)
    assert (made.status, made.headers["Cache-Control"]) == (200, "no-store")
    (secret,) = set(SECRET.findall(made.body.decode()))
    assert (await own.core.accounts.authenticate(secret)).name == "a shop"
    again = await tab.get(KEYS)
    assert SECRET.findall(again.body.decode()) == []
    assert b"a shop" in again.body
    assert secret[:10] in again.body.decode()


async def test_the_form_of_a_key_that_is_sent_twice_makes_one(tab: Tab, own: Server) -> None:
    fields = {"name": "twice", **await tab.marked(KEYS)}
    assert (await tab.post(KEYS, None, **fields)).status == 200
    place = gone_to(await tab.post(KEYS, None, **fields))
    assert b"was sent before" in (await tab.get(place)).body
    assert [key.name for key in await keys_of(own)].count("twice") == 1


async def test_a_form_without_its_mark_is_refused(tab: Tab, own: Server) -> None:
    made = await make(tab, once="")
    assert (made.status, b"not whole" in made.body) == (400, True)
    assert len(await keys_of(own)) == 1


async def test_a_key_has_the_limits_that_were_asked_for(tab: Tab, own: Server) -> None:
    made = await make(
        tab,
        models=["gpt-image-2", "flux-2-pro"],
        channels=[str(own.core.router.channels[0].id)],
        day_limit="1.50",
        month_limit="20",
        per_minute="12",
        max_tasks="7",
        expires="30",
    )
    assert made.status == 200, made.body
    key = (await keys_of(own))[0]
    assert key.models == ("gpt-image-2", "flux-2-pro")
    assert key.channels == (own.core.router.channels[0].id,)
    assert (key.day_limit, key.month_limit) == (1_500_000, 20_000_000)
    assert (key.per_minute, key.max_tasks) == (12, 7)
    assert key.expires_at == key.created_at + 30 * 86_400_000
    page = (await tab.get(KEYS)).body.decode()
    for words in ("gpt-image-2, flux-2-pro", "0.00 of 1.50 USDC", "0.00 of 20.00 USDC", "0 of 7"):
        assert words in page


@pytest.mark.parametrize(
    ("field", "typed", "told"),
    [
        ("name", " ", "A name has 1 to 100"),
        ("name", "x" * 101, "A name has 1 to 100"),
        ("name", "two\nlines", "stands on one line"),
        ("day_limit", "12,50", "is no amount"),
        ("day_limit", "0", "The limit per day must be more than 0"),
        ("day_limit", "-1", "The limit per day must be more than 0"),
        ("month_limit", "0.0000001", "at most six decimals"),
        ("per_minute", "many", "Write a whole number"),
        ("per_minute", "0", "Tasks per minute must be 1 to"),
        ("max_tasks", "10001", "Unfinished tasks must be 1 to 10000"),
        ("per_minute", "9" * 40, "Write a whole number"),
        ("models", "gpt-image-99", "there is no model gpt-image-99"),
        ("channels", "999999", "there is no channel 999999"),
        ("channels", "x", "Write one of the list"),
        ("expires", "-1", "Choose one of the list"),
    ],
)
async def test_what_is_wrong_with_a_key_is_said_and_the_rest_kept(
    tab: Tab, own: Server, field: str, typed: str, told: str
) -> None:
    made = await make(tab, **{"day_limit": "3.25", "name": EVIL, field: typed})
    page = made.body.decode()
    assert (made.status, told in page.replace("&#39;", "'")) == (422, True), page
    assert EVIL not in page
    assert ('value="3.25"' in page) is (field != "day_limit")
    assert len(await keys_of(own)) == 1


async def test_a_limit_of_a_day_above_that_of_a_month_is_told_beside_it(tab: Tab) -> None:
    made = await make(tab, day_limit="5", month_limit="4")
    assert "The limit per day must be at most the limit per month" in made.body.decode()


async def test_a_key_is_revoked_for_good(tab: Tab, own: Server) -> None:
    secret = SECRET.findall((await make(tab, name="short-lived")).body.decode())[0]
    key = (await keys_of(own))[0]
    place = gone_to(
        await tab.post(f"{KEYS}/{encode('key', key.id)}/revoke", **await tab.marked(KEYS))
    )
    assert b"is revoked" in (await tab.get(place)).body
    with pytest.raises(InvalidKey):
        await own.core.accounts.authenticate(secret)
    assert (await keys_of(own))[0].revoked_at is not None
    assert b"1 revoked or expired" in (await tab.get(KEYS)).body


async def test_whoever_revokes_their_own_key_is_signed_out(tab: Tab, own: Server) -> None:
    (key,) = await keys_of(own)
    place = gone_to(
        await tab.post(f"{KEYS}/{encode('key', key.id)}/revoke", **await tab.marked(KEYS))
    )
    assert gone_to(await tab.get(place)).startswith("/console/sign-in")


@pytest.mark.parametrize("word", ["nothing", "key_0000000000000", "task_0000000000000"])
async def test_a_key_that_is_none_of_ones_own_is_not_there(tab: Tab, word: str) -> None:
    assert (await tab.post(f"{KEYS}/{word}/revoke", **await tab.marked(KEYS))).status == 404


async def test_nobody_revokes_the_key_of_another(tab: Tab, site: Server) -> None:
    other = await site.for_account()
    (key,) = await keys_of(other)
    word = encode("key", key.id)
    assert (await tab.post(f"{KEYS}/{word}/revoke", **await tab.marked(KEYS))).status == 404
    assert (await keys_of(other))[0].revoked_at is None
    assert key.prefix not in (await tab.get(KEYS)).body.decode()


@pytest.mark.parametrize(
    "limits",
    [
        {"per_minute": 5},
        {"max_tasks": 5},
        {"models": ["gpt-image-2"]},
        {"day_limit": 1},
        {"expires_in_seconds": 3600},
    ],
    ids=lambda limits: next(iter(limits)),
)
async def test_a_limited_key_neither_makes_nor_revokes_keys(
    own: Server, limits: dict[str, Any]
) -> None:
    secret, key = await own.core.accounts.create_key("limited", account=own.account, **limits)
    async with Tab(own) as tab:
        await tab.sign_in(secret)
        page = (await tab.get(KEYS)).body.decode()
        assert "limited or expires" in page
        assert 'name="once"' not in page
        assert "/revoke" not in page
        token = await tab.token(KEYS)
        made = await tab.post(KEYS, None, csrf=token, name="x", once="x" * 22)
        gone = await tab.post(f"{KEYS}/{encode('key', key.id)}/revoke", csrf=token)
    assert (made.status, gone.status) == (403, 403)
    assert [each.revoked_at for each in await keys_of(own)] == [None, None]


async def test_a_form_of_another_site_makes_no_key(tab: Tab, own: Server) -> None:
    fields = {"name": "x", **await tab.marked(KEYS)}
    foreign = await tab.post(KEYS, {"Sec-Fetch-Site": "cross-site"}, **fields)
    without = await tab.post(KEYS, None, **{**fields, "csrf": "x"})
    assert (foreign.status, without.status) == (403, 403)
    assert len(await keys_of(own)) == 1


async def test_what_is_done_to_keys_stands_in_the_audit(tab: Tab, own: Server) -> None:
    await make(tab, name="audited")
    key = (await keys_of(own))[0]
    await tab.post(f"{KEYS}/{encode('key', key.id)}/revoke", **await tab.marked(KEYS))
    revoked, made = await own.core.store.operating.actions(limit=2)
    assert (made.actor, made.action, made.outcome) == (
        f"account {own.account}",
        "key.create",
        "done",
    )
    assert "audited" in made.detail
    assert (revoked.action, revoked.subject) == ("key.revoke", encode("key", key.id))
    assert not SECRET.search(made.detail + made.subject)


async def test_what_a_key_has_spent_is_shown_against_its_limit(tab: Tab, own: Server) -> None:
    secret, _ = await own.core.accounts.create_key("spender", account=own.account, day_limit=10**6)
    told = await own.call(
        "POST",
        "/v1/images/generations",
        headers={"Authorization": f"Bearer {secret}"},
        json={"model": "gpt-image-2", "prompt": "a lighthouse"},
    )
    await own.finished(told.json["task_id"])
    (owner,) = [each for each in await own.core.store.accounts() if each.name == own.account]
    spent = format_usd(CREDIT - owner.balance.balance)
    assert f"{spent} of 1.00 USDC" in (await tab.get(KEYS)).body.decode()


async def test_an_address_that_makes_no_sense_is_told(tab: Tab) -> None:
    for query in ("?page=2", "?said=nonsense", "?said=revoked&said=made"):
        assert (await tab.get(KEYS + query)).status == 400, query
