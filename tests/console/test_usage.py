"""Usage and the ledger: figures, charts, spreadsheets, pages, and whose they are."""

import csv
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from calotype.domain.money import EntryKind, format_usd
from calotype.services.usage import date_of
from console.tabs import Tab, words
from harness import CREDIT, Reply, Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVIL = "=HYPERLINK('x')<script>alert(1)</script>"
DAY_MS = 86_400_000


@asynccontextmanager
async def signed_in(site: Server) -> AsyncIterator[tuple[Server, Tab]]:
    """A new account, and a browser in which it has signed in."""
    own = await site.for_account()
    async with Tab(own) as tab:
        await tab.sign_in()
        yield own, tab


def table(reply: Reply) -> list[list[str]]:
    """The rows of a spreadsheet."""
    assert reply.headers["Content-Type"] == "text/csv; charset=utf-8"
    return list(csv.reader(io.StringIO(reply.body.decode(), newline="")))


async def account_id(site: Server) -> int:
    """The id of an account."""
    owner = await site.core.accounts.find(site.account)
    assert owner is not None
    return owner.id


async def test_what_was_used_is_shown_by_day_model_and_key(site: Server) -> None:
    async with signed_in(site) as (own, tab):
        await own.outcome()
        await own.outcome("a lighthouse sandbox:refuse")
        await own.outcome(model="flux-2-pro")
        page = await tab.get("/console/usage")
        text = words(page)
        assert page.status == 200
        assert "Images 2" in text
        assert "Tasks 3 1 failed" in text
        assert "Success 66.7 %" in text
        assert text.index("By model") < text.index("By key")
        assert {"gpt-image-2", "flux-2-pro", own.account} <= set(text.split())
        assert page.body.count(b'class="chart"') == 2
        balance = await own.core.store.balance(await account_id(own))
        spent = CREDIT - balance.balance
        assert f"Spent {format_usd(spent)} USDC" in text


async def test_nothing_used_leads_to_the_playground(site: Server) -> None:
    async with signed_in(site) as (_, tab):
        page = await tab.get("/console/usage?range=7d")
        assert "Nothing was used in these days" in words(page)
        assert b'href="/console/playground"' in page.body


@pytest.mark.parametrize(("query", "bars"), [("range=7d", 7), ("range=90d", 90), ("", 30)])
async def test_each_day_has_a_bar(site: Server, query: str, bars: int) -> None:
    async with signed_in(site) as (own, tab):
        await own.outcome()
        page = (await tab.get(f"/console/usage?{query}")).body.decode()
        assert page.count('class="hit"') == 2 * bars


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ("since=yesterday", 422, "must be a date such as"),
        ("until=2026-13-01", 422, "must be a date such as"),
        ("since=2026-11-02&until=2026-11-01", 422, "must not be after the last one"),
        ("since=2001-01-01", 422, "must be 731 at most"),
        ("range=9d", 400, "range is one of 7d"),
        ("range=7d&since=2026-11-01", 400, "not for both"),
        ("range=7d&range=7d", 400, "twice"),
        ("week=1", 400, "knows no"),
    ],
)
async def test_days_that_make_no_sense_are_told(
    site: Server, query: str, status: int, told: str
) -> None:
    async with signed_in(site) as (_, tab):
        page = await tab.get(f"/console/usage?{query}")
        assert (page.status, told in words(page)) == (status, True), words(page)


async def test_days_that_make_no_sense_are_kept_in_the_form(site: Server) -> None:
    async with signed_in(site) as (_, tab):
        page = await tab.get('/console/usage?since="><script>')
        assert b'value="&#34;&gt;&lt;script&gt;"' in page.body


async def test_usage_comes_as_a_spreadsheet(site: Server) -> None:
    async with signed_in(site) as (own, tab):
        await own.outcome()
        today = date_of(own.core.clock() // DAY_MS)
        page = await tab.get("/console/usage?range=7d")
        link = re.search(r'href="(/console/usage\.csv[^"]+)"', page.body.decode())
        assert link is not None
        answer = await tab.get(link[1].replace("&amp;", "&"))
        head, row = table(answer)
        assert head[0] == "day"
        assert row[:3] == [str(today), own.account, "gpt-image-2"]
        assert "attachment" in answer.headers["Content-Disposition"]
        assert str(today) in answer.headers["Content-Disposition"]
        assert (await tab.get("/console/usage.csv?since=never")).status == 400


async def test_the_ledger_runs_to_what_is_available(site: Server) -> None:
    async with signed_in(site) as (own, tab):
        task = await own.outcome()
        owner = await account_id(own)
        await own.core.store.book(owner, EntryKind.ADJUST, -5, note=EVIL, now=own.core.clock())
        page = await tab.get("/console/ledger")
        text = words(page)
        assert page.status == 200
        assert "Available 999." in text
        for said in ("Credit added", "Reserved for a task", "Task paid", "Correction"):
            assert said in text
        assert f'href="/console/tasks/{task["task_id"]}"'.encode() in page.body
        assert EVIL.encode() not in page.body
        rows = table(await tab.get("/console/ledger.csv"))
        assert rows[0][:2] == ["at", "kind"]
        assert rows[1][-1] == f"'{EVIL}"
        assert rows[-1][1:4] == ["credit", "1000.00", "1000.00"]


async def test_a_long_ledger_has_pages_that_run_on(site: Server) -> None:
    async with signed_in(site) as (own, tab):
        owner = await account_id(own)
        for number in range(120):
            await own.core.store.book(
                owner, EntryKind.CREDIT, 10**6, note=f"nr {number}", now=own.core.clock()
            )
        found, path = [], "/console/ledger"
        while path:
            page = (await tab.get(path)).body.decode()
            found += re.findall(r"([\d,]+\.00) USDC</td></tr>", page)
            older = re.search(r'href="([^"]+)">Older', page)
            path = older[1] if older else ""
        assert found == [f"{number:,}.00" for number in range(1120, 999, -1)]


@pytest.mark.parametrize("before", ["x", "1", "1.x", "1.2.3", "9" * 40 + ".0", "²³.1", "-1.1"])
async def test_a_place_in_the_ledger_that_is_none_is_told(site: Server, before: str) -> None:
    async with signed_in(site) as (_, tab):
        assert (await tab.get(f"/console/ledger?before={before}")).status == 400


async def test_nobody_sees_what_another_used(site: Server) -> None:
    async with signed_in(site) as (other, _), signed_in(site) as (own, tab):
        await other.outcome()
        owner = await account_id(other)
        await own.core.store.book(owner, EntryKind.CREDIT, 5, note="a secret", now=0)
        for path in ("usage", "usage.csv", "ledger", "ledger.csv"):
            page = (await tab.get(f"/console/{path}")).body.decode()
            assert other.account not in page
            assert "a secret" not in page


async def test_pages_of_an_account_are_for_whoever_signed_in_with_a_key(site: Server) -> None:
    paths = [f"/console/{name}" for name in ("keys", "usage", "usage.csv", "ledger", "ledger.csv")]
    async with Tab(site) as tab:
        assert {(await tab.get(path)).status for path in paths} == {303}
        await tab.be_operator()
        assert {(await tab.get(path)).status for path in paths} == {403}
