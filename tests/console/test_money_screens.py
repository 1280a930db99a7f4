"""Keys, usage, the ledger and the operator's accounts, as people see and use them."""

import re
import secrets
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import expect

from calotype.domain.money import EntryKind
from calotype.domain.task import Asset, Event, NewTask, Request
from console.screens import EVERY_LOOK, Opens, Theme
from harness import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY_MS: Final = 86_400_000
MODELS: Final = (
    "gpt-image-2",
    "flux-2-pro",
    "nano-banana-pro",
    "seedream-5-pro",
    "ideogram-v4",
    "recraft-v4.1",
    "qwen-image-3.0",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def own(site: Server) -> Server:
    """An account with a past: keys of every kind, and tasks on many days."""
    own = await site.for_account()
    core, now = site.core, site.core.clock()
    _, shop = await core.accounts.create_key(
        "shop front",
        account=own.account,
        models=MODELS[:6],
        day_limit=5_000_000,
        month_limit=60_000_000,
        per_minute=60,
        expires_in_seconds=40 * 86_400,
    )
    _, old = await core.accounts.create_key("x" * 100, account=own.account, day_limit=10**9)
    await core.accounts.revoke(old)
    owner = await core.accounts.find(own.account)
    assert owner is not None
    for day in reversed(range(25)):  # a meter never goes back
        for place, model in enumerate(MODELS[: 3 + day % 5]):
            at = now - day * DAY_MS - 60_000 * (9 - place)
            await _task(own, owner.id, shop.id, model, at, 40_000 * (place + day % 4 + 1))
    note = "a correction with a note that is long enough to need two lines on a telephone"
    await core.store.book(owner.id, EntryKind.ADJUST, -250_000, note=note, now=now)
    return own


async def _task(own: Server, account_id: int, key_id: int, model: str, at: int, price: int) -> None:
    store, ids = own.core.store, own.core.ids
    new = NewTask(
        id=ids.next(),
        account_id=account_id,
        key_id=key_id,
        request_id="req_test",
        request=Request(model, "a lighthouse " * 20 if at % 2 else "a" * 1000, 1, {}),
        references=(),
        uploads=(),
        channel_id=own.core.router.channels[0].id,
        price=price,
        deadline_at=at,
        abandon_at=at,
        created_at=at,
        metered=True,
    )
    await store.submit(new)
    taken = await store.take(new.id, now=at)
    assert taken is not None
    number = await store.begin_attempt(
        taken.task, channel_id=new.channel_id, event=Event.RUN, now=at
    )
    image = Asset(ids.next(), account_id, "x", "image/png", 1, 1, 1, at)
    await store.complete(taken.task, number, images=[image], actual=price, cost=price // 2, now=at)


async def number_of(site: Server) -> int:
    """The id of an account."""
    owner = await site.core.accounts.find(site.account)
    assert owner is not None
    return owner.id


@EVERY_LOOK
async def test_an_accounts_pages_of_money_are_sound(
    own: Server, signed_in_page: Opens, theme: Theme, width: int
) -> None:
    screen = await signed_in_page("account", theme, width, key=own.key)
    page = await screen.open("/console/keys")
    await screen.judge("keys")
    await page.get_by_text("revoked or expired").click()
    await page.locator(".confirm summary").first.click()
    await screen.judge("keys-open")
    await page.keyboard.press("Escape")
    screen.expected.append("status of 4")
    await page.get_by_label("Name").fill("telephone")
    await page.get_by_label("Spend per day").fill("a lot")
    await page.get_by_role("button", name="Make the key").click()
    await page.get_by_text("is no amount").wait_for()
    await screen.judge("keys-wrong")
    await page.get_by_label("Spend per day").fill("2.5")
    await page.get_by_role("button", name="Make the key").click()
    await page.get_by_text("Copy it now").wait_for()
    await screen.judge("keys-made")
    page = await screen.open("/console/usage")
    await screen.judge("usage")
    await screen.open("/console/usage?since=2026-11-30&until=2026-11-01")
    await screen.judge("usage-wrong")
    await screen.open("/console/usage?since=2025-06-01&until=2026-12-31")
    await screen.judge("usage-months")
    await screen.open("/console/ledger")
    await screen.judge("ledger")


@EVERY_LOOK
async def test_the_pages_of_an_account_without_a_past_are_sound(
    site: Server, signed_in_page: Opens, theme: Theme, width: int
) -> None:
    key = await site.new_key(f"new {theme} {width}")
    screen = await signed_in_page("account", theme, width, key=key)
    for name in ("keys", "usage", "ledger"):
        await screen.open(f"/console/{name}")
        await screen.judge(f"{name}-empty")


@EVERY_LOOK
async def test_the_operators_pages_of_accounts_are_sound(
    site: Server, own: Server, signed_in_page: Opens, theme: Theme, width: int
) -> None:
    empty = await site.core.store.open_account("y" * 90 + secrets.token_hex(5), now=1)
    screen = await signed_in_page("admin", theme, width)
    await screen.open("/console/operator/accounts")
    await screen.judge("accounts")
    await screen.open("/console/operator/accounts?text=nobody")
    await screen.judge("accounts-none")
    place = f"/console/operator/accounts/{await number_of(own)}"
    page = await screen.open(place)
    await screen.judge("account")
    await page.get_by_label("Amount").fill("5")
    await page.get_by_label("Note").fill("a mistake")
    await page.get_by_role("button", name="Take away").click()
    await page.get_by_role("button", name="Take it away").wait_for()
    await screen.judge("account-taking")
    await page.get_by_role("button", name="Take it away").click()
    await page.get_by_text("The credit is taken away").wait_for()
    screen.expected.append("status of 4")
    await page.get_by_label("Amount").fill("1000000")
    await page.get_by_role("button", name="Take away").click()
    await page.get_by_text("are available; take that or less").wait_for()
    await screen.judge("account-too-much")
    await screen.open(f"{place}/ledger")
    await screen.judge("account-ledger")
    await screen.open(f"/console/operator/accounts/{empty.id}")
    await screen.judge("account-empty")


async def test_a_key_is_made_and_copied_and_revoked_by_hand(
    site: Server, signed_in_page: Opens
) -> None:
    new = await site.for_account()
    screen = await signed_in_page(key=new.key, permissions=["clipboard-write", "clipboard-read"])
    page = await screen.open("/console/keys")
    await page.get_by_label("Name").fill("by hand")
    await page.get_by_label("GPT Image 2", exact=True).check()
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Copy").first.click()
    await expect(page.locator("#toast")).to_have_text("Copied")
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert (await new.core.accounts.authenticate(copied)).models == ("gpt-image-2",)
    await screen.open("/console/keys")
    assert copied not in await page.content()
    row = page.get_by_role("row").filter(has_text="by hand")
    await row.get_by_text("Revoke", exact=True).click()
    await row.get_by_role("button", name="Revoke it").click()
    await page.wait_for_url(re.compile("said=revoked"))
    await expect(page.get_by_text("1 revoked or expired")).to_be_visible()


async def test_keys_are_made_without_scripts(site: Server, signed_in_page: Opens) -> None:
    new = await site.for_account()
    screen = await signed_in_page(key=new.key, java_script_enabled=False)
    page = await screen.open("/console/keys")
    await page.get_by_label("Name").fill("plain")
    await page.get_by_role("button", name="Make the key").click()
    await expect(page.locator("#new-key")).to_have_text(re.compile("^ck_"))
