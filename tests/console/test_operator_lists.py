"""The operator's lists: everyone's tasks, the catalog, the settings, the audit."""

import re
from collections.abc import AsyncIterator
from urllib.parse import quote

import msgspec
import pytest
import pytest_asyncio

from calotype.console.pages import all_tasks, audit
from calotype.console.pages.settings import WORDS
from calotype.domain.channel import Channel, Served
from calotype.domain.errors import TaskNotFound
from calotype.domain.ids import encode
from calotype.domain.secret import Secret
from calotype.settings import Settings
from console.screens import EVERY_LOOK, Opens, Theme
from console.tabs import PASSWORD, Tab, gone_to
from harness import Server, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")
TASKS = "/console/operator/tasks"
CATALOG = "/console/operator/catalog"
SETTINGS = "/console/operator/settings"
AUDIT = "/console/operator/audit"
PAGES = (TASKS, CATALOG, f"{CATALOG}/gpt-image-2", SETTINGS, AUDIT)
HIDDEN = "sk-not-to-be-shown"
OWN = """
id = "house-style"
name = "House <style>"
description = "Ours."
brand = "our-own"
upstream_id = "house/style"
created_at = "2026-11-22T00:00:00Z"
updated_at = "2026-11-22T00:00:00Z"
eta_seconds = 4
enabled = false
prompt = { max_length = 500 }
pricing = { mode = "fixed", tiers = [{ id = "image", label = "Image", price_micro_usdc = 9_000 }] }
sizes = { default = { default = [64, 64] } }
"""
KIE = Channel(
    id=10,
    slug="kie-one",
    name="kie.ai",
    provider="kie",
    api_key=Secret(HIDDEN),
    priority=5,
    models={
        "nano-banana-2": Served(cost=20_000, price=31_000),
        "nano-banana-pro": Served(id="ours/nano", price={"1k_2k": 70_000, "4k": 90_000}),
    },
)
RESTING = Channel(
    id=11,
    slug="bfl-resting",
    name="Black Forest Labs",
    provider="bfl",
    api_key=Secret(HIDDEN),
    models={"flux-2-pro": Served()},
    enabled=False,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server with channels, a model of its own, and settings that were set."""
    data, models = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("models")
    (models / "house-style.toml").write_text(OWN)
    async with running_server(
        data,
        behind_proxy=True,
        admin_password=Secret(PASSWORD),
        channels=(KIE, RESTING),
        catalog_dir=models,
        said_by={
            "catalog_dir": "CALOTYPE_CATALOG_DIR",
            "admin_password": "CALOTYPE_ADMIN_PASSWORD",
        },
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def tab(site: Server) -> AsyncIterator[Tab]:
    """A browser in which the operator has signed in."""
    async with Tab(site) as opened:
        await opened.be_operator()
        yield opened


async def text(tab: Tab, path: str, status: int = 200) -> str:
    """A page as the browser gets it."""
    reply = await tab.get(path)
    assert reply.status == status, reply.body
    return reply.body.decode()


def shown(page: str) -> list[str]:
    """The tasks of a list, in its order."""
    return re.findall(rf'href="{TASKS}/(task_\w+)"', page)


@pytest.mark.parametrize("path", PAGES)
async def test_these_pages_are_the_operators_alone(site: Server, path: str) -> None:
    async with Tab(site) as anyone:
        assert gone_to(await anyone.get(path)) == f"/console/sign-in?next={path}"
    async with Tab(site) as user:
        await user.sign_in()
        assert (await user.get(path)).status == 403


async def test_everyones_tasks_are_listed_newest_first(site: Server, tab: Tab) -> None:
    ada, bob = await site.for_account(), await site.for_account()
    first = await ada.outcome("<script>alert(1)</script>" + "x" * 1000)
    second = await bob.outcome("a boat", model="seedream-4.5")
    page = await text(tab, TASKS)
    assert shown(page)[:2] == [second["task_id"], first["task_id"]]
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert page.count("Older") == 0


async def test_tasks_are_found_by_account_state_model_and_channel(site: Server, tab: Tab) -> None:
    owner = await site.for_account()
    done = await owner.outcome("a harbour")
    failed = await owner.outcome("sandbox:refuse a harbour", model="seedream-4.5")
    assert [done["state"], failed["state"]] == ["success", "fail"]
    mine = f"{TASKS}?account={owner.account}"
    assert shown(await text(tab, mine)) == [failed["task_id"], done["task_id"]]
    assert shown(await text(tab, f"{mine}&state=fail")) == [failed["task_id"]]
    assert shown(await text(tab, f"{mine}&model=gpt-image-2&state=")) == [done["task_id"]]
    both = await text(tab, f"{mine}&channel=sandbox")
    assert shown(both) == [failed["task_id"], done["task_id"]]
    nobodys = await text(tab, f"{mine}&channel=kie-one")
    assert "No task is like that" in nobodys
    assert f'value="{owner.account}"' in nobodys


async def test_a_task_is_gone_to_by_its_id(site: Server, tab: Tab) -> None:
    task_id = (await site.outcome())["task_id"]
    assert gone_to(await tab.get(f"{TASKS}?task=+{task_id}+")) == f"{TASKS}/{task_id}"
    page = await text(tab, f"{TASKS}?task={encode('task', 1)}", 422)
    assert "There is no task with this id." in page
    assert "A task&#39;s id begins with task_" in await text(tab, f"{TASKS}?task=task_x", 422)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("account=nobody", "There is no account"),
        ("state=done", "There is no state"),
        ("channel=<b>", "There is no channel"),
        ("state=fail&state=fail", "state came twice"),
        ("before=page_1", "is not whole"),
        ("colour=red", "This page knows no"),
        ("model=%00", "holds a NUL"),
        ("model=%ff", "not text in UTF-8"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_told(tab: Tab, asked: str, told: str) -> None:
    page = await text(tab, f"{TASKS}?{asked}", 422)
    assert told in page
    assert "Nothing was looked for" in page
    assert "<b>" not in page.replace("<b>Operator</b>", "")


async def test_a_long_list_goes_on_where_the_page_ends(
    site: Server, tab: Tab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_tasks, "LIMIT", 2)
    owner = await site.for_account()
    made = [(await owner.outcome(f"number {number}"))["task_id"] for number in range(3)]
    page = await text(tab, f"{TASKS}?account={owner.account}")
    assert shown(page) == [made[2], made[1]]
    (older,) = re.findall(r'href="([^"]+before=[^"]+)">Older', page)
    rest = await text(tab, older.replace("&amp;", "&"))
    assert shown(rest) == [made[0]]
    assert f'href="{TASKS}?account={owner.account}">Newest' in rest


async def test_a_task_whose_channel_is_gone_is_still_listed(site: Server, tab: Tab) -> None:
    task = await site.outcome("a lost lamp")
    router = site.core.router
    sandbox = next(each for each in router.channels if each.slug == "sandbox")
    channels = router.channels
    try:
        router.replace([msgspec.structs.replace(sandbox, id=99, slug="other")])
        router._retired.clear()
        page = await text(tab, TASKS)
    finally:
        router.replace(channels)
    assert shown(page)[0] == task["task_id"]
    assert f"channel {sandbox.id}, gone" in page


async def test_the_catalog_lists_every_model_with_who_offers_it(site: Server, tab: Tab) -> None:
    page = await text(tab, CATALOG)
    listed = re.findall(rf'href="{CATALOG}/([^"]+)"', page)
    assert sorted(listed) == sorted(site.core.catalog.models)
    assert "House &lt;style&gt;" in page
    assert "house-style.toml" in page
    assert "switched off" in page
    assert page.count("no channel takes it") == 1
    assert "bfl-resting (off)" in page
    assert HIDDEN not in page


async def test_a_model_shows_what_a_channel_says_of_it_itself(tab: Tab) -> None:
    page = await text(tab, f"{CATALOG}/nano-banana-2")
    assert "0.031 USDC" in page
    assert "0.02 USDC" in page
    named = await text(tab, f"{CATALOG}/nano-banana-pro")
    assert "ours/nano" in named
    assert all(f"0.0{price} USDC" in named for price in (7, 9))
    resting = await text(tab, f"{CATALOG}/flux-2-pro")
    assert "No channel takes it" in resting
    assert "as in the catalog" in resting


async def test_every_model_can_be_shown(site: Server, tab: Tab) -> None:
    for model in site.core.catalog.models.values():
        page = await text(tab, f"{CATALOG}/{quote(model.id)}")
        missing = [
            each.name for each in model.parameters if f"<code>{each.name}</code>" not in page
        ]
        assert missing == [], model.id


async def test_a_model_that_there_is_not_is_not_found(tab: Tab) -> None:
    assert "There is no model &#39;&lt;b&gt;&#39;." in await text(tab, f"{CATALOG}/%3Cb%3E", 404)


async def test_settings_are_shown_with_where_they_were_set_and_no_secret(tab: Tab) -> None:
    page = await text(tab, SETTINGS)
    assert page.index("CALOTYPE_CATALOG_DIR") < page.index("Defaults") < page.index("log_level")
    assert PASSWORD not in page
    assert HIDDEN not in page


async def test_every_setting_has_words_on_its_page() -> None:
    fields = {field.name for field in msgspec.structs.fields(Settings)}
    assert fields - {"said_by", "channels"} == WORDS.keys()


async def test_the_audit_tells_who_did_what_and_what_came_of_it(site: Server, tab: Tab) -> None:
    log = site.core.audit
    async with log.action("account ada", "key.create", "account ada", "key '<b>'"):
        pass
    await site.core.store.operating.begin_action(
        actor="cli", action="credit.add", subject="account bob", detail="5.00 USDC", now=1
    )
    with pytest.raises(TaskNotFound):
        async with log.action("console", "attempt.resolve", "task_1"):
            raise TaskNotFound("There is no task <1>.")
    page = await text(tab, AUDIT)
    places = [page.index(words) for words in ("task &lt;1&gt;", "5.00 USDC", "&#39;&lt;b&gt;&#39;")]
    assert places == sorted(places)
    assert page.count(">admin.sign-in</a>") > 0
    assert "no end was written down" in page
    only = await text(tab, f"{AUDIT}?action=key.create")
    assert "5.00 USDC" not in only
    assert '<option value="key.create" selected>' in only
    assert "No such action" in await text(tab, f"{AUDIT}?action=<b>")


async def test_the_audit_goes_on_where_the_page_ends(
    site: Server, tab: Tab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "LIMIT", 2)
    for number in range(3):
        async with site.core.audit.action("cli", "channel.reset", f"channel nr-{number}"):
            pass
    asked = f"{AUDIT}?action=channel.reset"
    page = await text(tab, asked)
    assert re.findall(r"nr-\d", page) == ["nr-2", "nr-1"]
    (older,) = re.findall(r'href="([^"]+before=[^"]+)">Older', page)
    rest = await text(tab, older.replace("&amp;", "&"))
    assert re.findall(r"nr-\d", rest) == ["nr-0"]
    assert f'href="{asked}">Newest' in rest
    assert "That was all" in await text(tab, f"{AUDIT}?before={encode('page', 0)}")


@pytest.mark.parametrize("asked", ["before=1", "action=a&action=b", "who=me"])
async def test_an_address_of_the_audit_that_makes_no_sense_is_told(tab: Tab, asked: str) -> None:
    assert "Nothing was looked for" in await text(tab, f"{AUDIT}?{asked}", 422)


@EVERY_LOOK
async def test_the_lists_look_well(
    site: Server, signed_in_page: Opens, theme: Theme, width: int
) -> None:
    async with site.core.audit.action("account ada", "key.revoke", "x" * 300, "y" * 300):
        pass
    await site.accepted(prompt="sandbox:never a harbour " + "x" * 900)
    await site.outcome("sandbox:refuse a harbour")
    screen = await signed_in_page("admin", theme, width)
    for name, path in (
        ("tasks", TASKS),
        ("tasks-wrong", f"{TASKS}?state=done&account=nobody"),
        ("catalog", CATALOG),
        ("model", f"{CATALOG}/gpt-image-2"),
        ("model-channels", f"{CATALOG}/nano-banana-pro"),
        ("model-off", f"{CATALOG}/house-style"),
        ("settings", SETTINGS),
        ("audit", AUDIT),
        ("audit-none", f"{AUDIT}?action=nothing"),
    ):
        screen.expected.append("status of 422")
        page = await screen.open(path)
        await screen.judge(f"op-{name}")
        if name.startswith("model"):
            await page.locator("details.fold summary").click()
            await screen.judge(f"op-{name}-sizes")


async def test_a_filter_is_chosen_and_taken_back(site: Server, signed_in_page: Opens) -> None:
    failed = await site.outcome("sandbox:refuse a harbour")
    screen = await signed_in_page("admin")
    page = await screen.open(TASKS)
    await page.get_by_label("State").select_option("fail")
    await page.get_by_label("Account").fill(site.account)
    await page.get_by_role("button", name="Filter").click()
    await page.wait_for_url(re.compile(r"state=fail"))
    assert await page.locator(f'a[href="{TASKS}/{failed["task_id"]}"]').count() == 1
    await page.get_by_role("link", name="Clear").click()
    await page.wait_for_url(f"{site.url}{TASKS}")
