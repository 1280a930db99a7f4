"""The operator's accounts: found, opened, given credit and keys; all of it in the audit."""

import csv
import io
import re
import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from calotype.domain.ids import encode
from calotype.store.operating import AccountRow, AuditEntry
from console.tabs import Tab, gone_to
from harness import Reply, Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

ACCOUNTS = "/console/operator/accounts"
SECRET = re.compile(r"ck_[A-Za-z0-9_-]{43}")
EVIL = "<script>alert(1)</script>"


@pytest_asyncio.fixture(loop_scope="module")
async def own(site: Server) -> Server:
    """The server as an account of its own meets it."""
    return await site.for_account()


@pytest_asyncio.fixture(loop_scope="module")
async def tab(site: Server) -> AsyncIterator[Tab]:
    """The operator's browser."""
    async with Tab(site) as tab:
        await tab.be_operator()
        yield tab


async def row(site: Server) -> AccountRow:
    """An account as it stands."""
    owner = await site.core.accounts.find(site.account)
    assert owner is not None
    found = await site.core.store.operating.account(owner.id)
    assert found is not None
    return found


async def place(site: Server) -> str:
    """The address of an account's page."""
    return f"{ACCOUNTS}/{(await row(site)).id}"


async def change(tab: Tab, site: Server, **fields: str) -> Reply:
    """What comes of the form that changes an account's credit."""
    path = await place(site)
    return await tab.post(f"{path}/credit", None, **{**await tab.marked(path), **fields})


async def last_action(site: Server) -> AuditEntry:
    """The newest entry of the audit."""
    (entry,) = await site.core.store.operating.actions(limit=1)
    return entry


async def test_accounts_are_found_by_a_part_of_their_name(tab: Tab, own: Server) -> None:
    path = await place(own)
    found = await tab.get(f"{ACCOUNTS}?text={own.account[2:10].upper()}")
    assert f'href="{path}"'.encode() in found.body
    assert b"1,000.00 USDC" in found.body
    none = await tab.get(f"{ACCOUNTS}?text={EVIL}")
    assert (none.status, EVIL.encode() in none.body) == (200, False)
    assert b"No account is called so" in none.body


async def test_many_accounts_have_pages(tab: Tab, site: Server) -> None:
    mark = f"many & {secrets.token_hex(4)}"
    for number in range(101):
        await site.core.store.open_account(f"{mark} {number:03}", now=1)
    found, path, pages = [], f"{ACCOUNTS}?text={mark.replace('&', '%26')}", 0
    while path:
        page = (await tab.get(path)).body.decode()
        found += re.findall(r'<th scope="row"><a href="[^"]+">[^<]* (\d+)</a>', page)
        onward = re.search(r'href="([^"]+)">Next', page)
        path, pages = (onward[1].replace("&amp;", "&") if onward else ""), pages + 1
    assert (found, pages) == ([f"{number:03}" for number in range(101)], 3)


async def test_an_account_is_opened_once(tab: Tab, site: Server) -> None:
    name = f"{EVIL} {secrets.token_hex(4)}"
    first = gone_to(await tab.send(ACCOUNTS, name=name))
    assert await last_action(site) == AuditEntry(
        (await last_action(site)).id,
        (await last_action(site)).at,
        "console",
        "account.open",
        f"account {name}",
        "",
        "done",
    )
    page = await tab.get(first)
    assert (page.status, EVIL.encode() in page.body) == (200, False)
    assert b"The account is open" in page.body
    again = gone_to(await tab.send(ACCOUNTS, name=f"  {name} "))
    assert again.partition("?")[0] == first.partition("?")[0]
    assert b"was there already" in (await tab.get(again)).body


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "two\nlines"])
async def test_a_name_that_is_none_is_told_beside_it(tab: Tab, name: str) -> None:
    answer = await tab.send(ACCOUNTS, name=name)
    assert (answer.status, b"A name has 1 to 100" in answer.body) == (422, True)


async def test_credit_is_added_and_stands_in_ledger_and_audit(tab: Tab, own: Server) -> None:
    done = gone_to(await change(tab, own, amount="12.50", note=EVIL, way="add"))
    assert (await row(own)).balance.available == 1_012_500_000
    entry = await last_action(own)
    assert (entry.actor, entry.action, entry.subject) == (
        "console",
        "credit.add",
        f"account {own.account}",
    )
    assert (entry.detail, entry.outcome) == (f"12.50 USDC: {EVIL}", "done")
    page = (await tab.get(done)).body.decode()
    assert "The credit is added" in page
    assert "+12.50 USDC" in page
    assert EVIL not in page


async def test_the_form_of_credit_that_is_sent_twice_adds_once(tab: Tab, own: Server) -> None:
    path = await place(own)
    fields = {**await tab.marked(path), "amount": "5", "way": "add"}
    await tab.post(f"{path}/credit", None, **fields)
    again = gone_to(await tab.post(f"{path}/credit", None, **fields))
    assert b"nothing was done twice" in (await tab.get(again)).body
    assert (await row(own)).balance.available == 1_005_000_000


async def test_credit_is_taken_away_once_that_was_asked_twice(tab: Tab, own: Server) -> None:
    asked = await change(tab, own, amount="400", note="a mistake", way="take")
    assert (asked.status, (await row(own)).balance.available) == (200, 10**9)
    assert b"600.00 USDC are left" in asked.body
    done = await change(tab, own, amount="400", note="a mistake", way="take", sure="1")
    assert b"is taken away" in (await tab.get(gone_to(done))).body
    assert (await row(own)).balance.available == 600_000_000
    assert (await last_action(own)).detail == "-400.00 USDC: a mistake"


async def test_no_more_is_taken_away_than_is_available(tab: Tab, own: Server) -> None:
    for sure in ("", "1"):
        answer = await change(tab, own, amount="1000.01", way="take", sure=sure)
        assert (answer.status, b"Only 1000.00 USDC are available" in answer.body) == (422, True)
    assert (await row(own)).balance.available == 10**9


@pytest.mark.parametrize(
    ("field", "typed", "told"),
    [
        ("amount", "", "is no amount"),
        ("amount", "1,5", "is no amount"),
        ("amount", "NaN", "is no amount"),
        ("amount", "0", "above 0"),
        ("amount", "-5", "above 0"),
        ("amount", "0.0000001", "at most six decimals"),
        ("amount", "9" * 30, "is more than"),
        ("note", "x" * 501, "at most 500"),
        ("note", "two\nlines", "Write one line"),
    ],
)
async def test_an_amount_that_is_none_is_told_beside_it(
    tab: Tab, own: Server, field: str, typed: str, told: str
) -> None:
    answer = await change(tab, own, **{"amount": "5", "note": "kept", "way": "add", field: typed})
    assert (answer.status, told in answer.body.decode()) == (422, True)
    assert (b'value="kept"' in answer.body) is (field == "amount")
    assert (await row(own)).balance.available == 10**9


async def test_the_operator_makes_and_revokes_keys_of_an_account(tab: Tab, own: Server) -> None:
    path = await place(own)
    sent = {**await tab.marked(path), "name": "from above", "day_limit": "3"}
    made = await tab.post(f"{path}/keys", None, **sent)
    (secret,) = set(SECRET.findall(made.body.decode()))
    key = await own.core.accounts.authenticate(secret)
    assert (key.account, key.name, key.day_limit) == (own.account, "from above", 3_000_000)
    assert secret not in (await tab.get(path)).body.decode()
    again = gone_to(await tab.post(f"{path}/keys", None, **sent))
    assert b"was sent before" in (await tab.get(again)).body
    gone = await tab.post(f"{path}/keys/{encode('key', key.id)}/revoke", csrf=await tab.token(path))
    assert b"is revoked" in (await tab.get(gone_to(gone))).body
    revoked, created = await own.core.store.operating.actions(limit=2)
    assert (created.action, revoked.action) == ("key.create", "key.revoke")
    assert {created.actor, revoked.actor} == {"console"}


async def test_a_key_that_is_wrong_is_told_and_the_form_stays_open(tab: Tab, own: Server) -> None:
    path = await place(own)
    answer = await tab.post(f"{path}/keys", None, **await tab.marked(path), name="")
    page = answer.body.decode()
    assert (answer.status, "A name has 1 to 100" in page) == (422, True)
    assert re.search(r'<details class="[^"]*account-new"[^>]* open', page)


async def test_a_key_is_revoked_only_on_the_page_of_its_account(
    tab: Tab, own: Server, site: Server
) -> None:
    other = await site.for_account()
    (key,) = await other.core.store.keys(account_id=(await row(other)).id)
    path = await place(own)
    answer = await tab.post(
        f"{path}/keys/{encode('key', key.id)}/revoke", csrf=await tab.token(path)
    )
    assert answer.status == 404


async def test_an_account_shows_its_tasks_usage_and_ledger(tab: Tab, own: Server) -> None:
    task = await own.outcome(prompt=f"{EVIL} {'y' * 900}")
    path = await place(own)
    page = (await tab.get(path)).body.decode()
    assert page.count(f'href="/console/operator/tasks/{task["task_id"]}"') > 1
    assert "charged by upstreams" in page
    assert EVIL not in page
    ledger = await tab.get(f"{path}/ledger")
    assert b"Task paid" in ledger.body
    rows = list(csv.reader(io.StringIO((await tab.get(f"{path}/ledger.csv")).body.decode())))
    assert rows[-1][1:4] == ["credit", "1000.00", "1000.00"]


async def test_everybodys_usage_comes_as_a_spreadsheet(tab: Tab, own: Server) -> None:
    await own.outcome()
    answer = await tab.get(f"{ACCOUNTS}.csv")
    rows = list(csv.reader(io.StringIO(answer.body.decode())))
    assert rows[0][1] == "account"
    assert own.account in [line[1] for line in rows]


@pytest.mark.parametrize("word", ["0", "-1", "x", "9" * 18, "9" * 40, "1.0", "²"])
async def test_an_account_that_is_none_is_not_there(tab: Tab, word: str) -> None:
    for path in (word, f"{word}/ledger", f"{word}/ledger.csv"):
        assert (await tab.get(f"{ACCOUNTS}/{path}")).status == 404, path


async def test_addresses_that_make_no_sense_are_told(tab: Tab, own: Server) -> None:
    path = await place(own)
    for query in (
        f"{ACCOUNTS}?page=2",
        f"{ACCOUNTS}?text=%00",
        f"{ACCOUNTS}.csv?since=x",
        f"{path}?said=nonsense",
        f"{path}/ledger?before=x",
        f"{path}/ledger.csv?before=x",
    ):
        assert (await tab.get(query)).status == 400, query


async def test_accounts_are_for_the_operator_alone(own: Server) -> None:
    path = await place(own)
    pages = [ACCOUNTS, f"{ACCOUNTS}.csv", path, f"{path}/ledger", f"{path}/ledger.csv"]
    async with Tab(own) as tab:
        assert {(await tab.get(page)).status for page in pages} == {303}
        await tab.sign_in()
        assert {(await tab.get(page)).status for page in pages} == {403}
        token = await tab.token("/console/keys")
        for page in (ACCOUNTS, f"{path}/credit", f"{path}/keys"):
            sent = await tab.post(page, csrf=token, once="x" * 22, amount="5", way="add", name="x")
            assert sent.status == 403
    assert (await row(own)).balance.available == 10**9


async def test_a_form_of_another_site_changes_nothing(tab: Tab, own: Server) -> None:
    path = await place(own)
    fields = {**await tab.marked(path), "amount": "5", "way": "add"}
    foreign = await tab.post(f"{path}/credit", {"Sec-Fetch-Site": "cross-site"}, **fields)
    without = await tab.post(f"{path}/credit", None, **{**fields, "csrf": ""})
    assert (foreign.status, without.status) == (403, 403)
    assert (await row(own)).balance.available == 10**9
