"""The operator's page of usage: what everybody spent, against what upstreams charged."""

import csv
import io

import pytest

from calotype.domain.limits import DAY_MS
from calotype.domain.task import Asset, Event, NewTask, Request
from calotype.services.usage import date_of
from console.screens import EVERY_LOOK, Opens, Theme
from console.tabs import Tab, gone_to, words
from harness import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")
PAGE = "/console/operator/usage"
PRICE = 30_000


async def ended(
    site: Server,
    *,
    cost: int | None,
    model: str = "flux-2-pro",
    days_ago: int = 0,
    channel: int = 1,
) -> None:
    """A task of an account of its own that ended well, and what its upstream charged."""
    core = site.core
    owner = await core.accounts.find(site.account)
    assert owner is not None
    (key,) = await core.store.keys(account_id=owner.id)
    at = core.clock() - days_ago * DAY_MS
    new = NewTask(
        id=core.ids.next(),
        account_id=owner.id,
        key_id=key.id,
        request_id="req",
        request=Request(model, "a cat", 1, {}),
        references=(),
        uploads=(),
        channel_id=channel,
        price=PRICE,
        deadline_at=at,
        abandon_at=at,
        created_at=at,
    )
    await core.store.submit(new)
    taken = await core.store.take(new.id, now=at)
    assert taken is not None
    number = await core.store.begin_attempt(taken.task, channel_id=channel, event=Event.RUN, now=at)
    image = Asset(core.ids.next(), owner.id, "x", "image/png", 1, 1, 1, at)
    await core.store.complete(taken.task, number, images=[image], actual=PRICE, cost=cost, now=at)


async def test_this_page_is_the_operators_alone(site: Server) -> None:
    async with Tab(site) as anyone:
        assert gone_to(await anyone.get(PAGE)).startswith("/console/sign-in")
    async with Tab(site) as user:
        await user.sign_in()
        assert (await user.get(PAGE)).status == 403
        assert (await user.get(f"{PAGE}.csv")).status == 403


async def test_before_anything_was_used_the_page_says_so(site: Server) -> None:
    async with Tab(site) as tab:
        await tab.be_operator()
        assert "Nothing was used in these days" in words(
            await tab.get(f"{PAGE}?since=2024-01-01&until=2024-01-02")
        )


async def test_what_was_spent_stands_against_what_was_charged(site: Server) -> None:
    ada, bob = await site.for_account(), await site.for_account()
    await ended(ada, cost=7_000, model="seedream-4.5")
    await ended(ada, cost=50_000, model="recraft-v4.1", channel=77)
    await ended(bob, cost=None, model="<script>")
    async with Tab(site) as tab:
        await tab.be_operator()
        page = await tab.get(PAGE)
        text = words(page)
    assert page.status == 200
    assert "seedream-4.5 1 100 % 1 0.03 USDC 0.007 USDC 0.023 USDC" in text
    assert "channel 77 1 100 % 1 0.03 USDC 0.05 USDC -0.02 USDC" in text
    assert "<script> 1 100 % 1 0.03 USDC not told \N{EN DASH}" in text
    assert b"&lt;script&gt;" in page.body
    assert f"{ada.account} 2 100 % 2 0.06 USDC 0.057 USDC 0.003 USDC" in text
    assert f"{bob.account} 1 100 % 1 0.03 USDC not told \N{EN DASH}" in text
    assert "charged beyond" not in text
    assert text.index("By channel") < text.index("By model") < text.index("By account")
    owner = await site.core.accounts.find(ada.account)
    assert owner is not None
    for link in ("channels/sandbox", "catalog/seedream-4.5", f"accounts/{owner.id}"):
        assert f'href="/console/operator/{link}"'.encode() in page.body


async def test_a_day_on_which_upstreams_charged_more_shows_it(site: Server) -> None:
    owner = await site.for_account()
    await ended(owner, cost=PRICE + 5, days_ago=200)
    day = site.core.clock() // DAY_MS - 200
    async with Tab(site) as tab:
        await tab.be_operator()
        page = await tab.get(f"{PAGE}?since={date_of(day)}&until={date_of(day)}")
    assert "charged beyond" in words(page)
    assert "spent 0.03 USDC, charged 0.030005 USDC" in words(page)
    assert b'class="tile bad"' in page.body


async def test_the_spreadsheet_tells_accounts_and_costs(site: Server) -> None:
    owner = await site.for_account()
    await ended(owner, cost=7_000)
    async with Tab(site) as tab:
        await tab.be_operator()
        reply = await tab.get(f"{PAGE}.csv")
    assert reply.headers["Content-Disposition"].startswith('attachment; filename="calotype-usage-')
    rows = list(csv.DictReader(io.StringIO(reply.body.decode(), newline="")))
    (row,) = [row for row in rows if row["account"] == owner.account]
    assert (row["spent_usdc"], row["cost_usdc"], row["images"]) == ("0.03", "0.007", "1")


@pytest.mark.parametrize(
    ("asked", "status"),
    [("range=ever", 400), ("since=x", 422), ("since=2026-01-02&until=2026-01-01", 422)],
)
async def test_days_that_make_no_sense_are_told(site: Server, asked: str, status: int) -> None:
    async with Tab(site) as tab:
        await tab.be_operator()
        assert (await tab.get(f"{PAGE}?{asked}")).status == status


@EVERY_LOOK
async def test_the_page_looks_well(
    site: Server, signed_in_page: Opens, theme: Theme, width: int
) -> None:
    owner = await site.for_account()
    for number in range(12):
        cost = [None, 7_000, 21_000, 40_000][number % 4]
        await ended(owner, cost=cost, days_ago=number * 2, channel=1 + number % 2)
    screen = await signed_in_page("admin", theme, width)
    await screen.open(PAGE)
    await screen.judge("op-usage")
    await screen.open(f"{PAGE}?since=2024-01-01&until=2024-01-02")
    await screen.judge("op-usage-none")
