"""The page of one task, for its account and for the operator."""

import asyncio
import html
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from calotype.console.filters import usd
from calotype.domain.secret import Secret
from console.screens import EVERY_LOOK, Opens, Theme
from console.tabs import PASSWORD, Tab, gone_to
from harness import Server, picture, running_server
from receiver import OK, answer, receiving

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEN = """state => {
    Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
    Object.defineProperty(document, "hidden", {value: state === "hidden", configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""
"""Has a page believe that somebody sees it, or nobody."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server that sends webhooks to this machine."""
    async with running_server(
        tmp_path_factory.mktemp("data"),
        behind_proxy=True,
        admin_password=Secret(PASSWORD),
        webhook_allow_hosts=("127.0.0.1",),
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def owner(site: Server) -> Server:
    """The server as a new account meets it."""
    return await site.for_account()


@pytest_asyncio.fixture(loop_scope="module")
async def tab(owner: Server) -> AsyncIterator[Tab]:
    """A browser in which this account has signed in."""
    async with Tab(owner) as opened:
        await opened.sign_in()
        yield opened


def page_of(task: dict[str, object], *, operator: bool = False) -> str:
    return f"/console/{'operator/' if operator else ''}tasks/{task['task_id']}"


async def words(tab: Tab, path: str) -> str:
    """What a page says, as text."""
    reply = await tab.get(path)
    assert reply.status == 200, reply.body
    return html.unescape(reply.body.decode())


async def test_a_task_is_shown_whole(owner: Server, tab: Tab) -> None:
    task = await owner.outcome(
        "a lighthouse & more", resolution="2K", aspect_ratio="1:1", metadata={"order": "7391"}
    )
    page = await words(tab, page_of(task))
    for each in (
        "a lighthouse & more",
        task["task_id"],
        task["request_id"],
        "7391",
        "<span>resolution</span> 2K",
        "GPT Image 2",
        "Accepted",
        "Taken up",
        "Done",
        usd(task["billing"]["actual_amount_micro_usdc"]),
        '"object": "task"',
    ):
        assert each in page, each
    assert "Cancel" not in page


async def test_another_accounts_task_is_not_there(site: Server, owner: Server, tab: Tab) -> None:
    theirs = await site.outcome()
    for path in (page_of(theirs), "/console/tasks/task_none", page_of(theirs) + "/nothing"):
        assert (await tab.get(path)).status == 404, path
    csrf = await tab.token("/console/gallery")
    for deed in ("cancel", "delete", "redeliver"):
        assert (await tab.post(f"{page_of(theirs)}/{deed}", csrf=csrf)).status == 404
    assert (await tab.get(page_of(theirs, operator=True))).status == 403
    assert (await tab.get(page_of(await owner.outcome()))).status == 200


async def test_deeds_need_the_token_of_the_form(owner: Server, tab: Tab) -> None:
    task = await owner.outcome()
    for deed in ("cancel", "delete", "redeliver"):
        assert (await tab.post(f"{page_of(task)}/{deed}")).status == 403
        assert (await tab.post(f"{page_of(task)}/{deed}", csrf="another")).status == 403


async def test_a_hostile_prompt_and_metadata_are_only_text(owner: Server, tab: Tab) -> None:
    hostile = '</p><script>alert(1)</script><img src=x onerror="alert(2)">'
    task = await owner.outcome(hostile, metadata={"<b>": "</dd><script>alert(3)</script>"})
    body = (await tab.get(page_of(task))).body
    assert b"<script>alert" not in body
    assert b"<img src=x" not in body
    assert b"<b>" not in body.partition(b'id="metadata"')[2].partition(b"</section>")[0]


async def test_a_task_that_waits_can_be_cancelled_for_nothing(owner: Server, tab: Tab) -> None:
    task = await owner.accepted(prompt="sandbox:delay=60 a slow one")
    page = page_of(task)
    csrf = await tab.token("/console/gallery")
    gone = gone_to(await tab.post(f"{page}/cancel", csrf=csrf))
    assert gone in {f"{page}?said=cancelled", f"{page}?said=stopping"}
    await owner.finished(task["task_id"])
    said = await words(tab, gone)
    assert "The task is" in said
    assert "It cost nothing." in said
    again = gone_to(await tab.post(f"{page}/cancel", csrf=csrf))
    assert again == f"{page}?said=over"


async def test_without_scripts_one_can_look_at_a_task_again(owner: Server, tab: Tab) -> None:
    task = await owner.accepted(prompt="sandbox:delay=60 a slow one")
    again = f'<p class="without-js"><a class="button small" href="{page_of(task)}">'
    assert again.encode() in (await tab.get(page_of(task))).body
    assert b"Look again" not in (await tab.get(page_of(await owner.outcome()))).body


async def test_a_deed_can_lead_back_to_where_it_was_done(owner: Server, tab: Tab) -> None:
    task = await owner.outcome()
    csrf = await tab.token("/console/gallery")
    for wanted, gone in (
        ("/console/tasks?state=fail", "/console/tasks?state=fail"),
        ("https://evil.example/", f"{page_of(task)}?said=over"),
    ):
        reply = await tab.post(f"{page_of(task)}/cancel", csrf=csrf, next=wanted)
        assert gone_to(reply) == gone


async def test_what_the_query_cannot_mean_is_told(owner: Server, tab: Tab) -> None:
    task = await owner.outcome()
    for query, told in (("said=nonsense", b"said is one of"), ("page=2", b"knows no")):
        reply = await tab.get(f"{page_of(task)}?{query}")
        assert (reply.status, told in reply.body) == (400, True)


async def test_references_are_shown_small(owner: Server, tab: Tab) -> None:
    reply = await owner.submit_form(("image", picture(), "one.png"), ("prompt", "like this"))
    assert reply.status == 202, reply.body
    await owner.finished(reply.json["task_id"])
    page = (await tab.get(page_of(reply.json))).body.decode()
    image = page.partition('<ul class="references">')[2].partition('src="')[2].partition('"')[0]
    assert (await tab.get(image)).headers["content-type"] == "image/webp"


async def test_a_failure_says_why_and_what_it_cost(owner: Server, tab: Tab) -> None:
    task = await owner.outcome("sandbox:refuse")
    page = await words(tab, page_of(task))
    assert task["error"]["code"] in page
    assert task["error"]["message"] in page
    assert "It cost nothing." in page


async def test_a_webhook_is_shown_with_its_tries_and_sent_again(owner: Server, tab: Tab) -> None:
    async with receiving(answer(400, body=b"<b>not today</b>"), OK) as receiver:
        task = await owner.outcome(callback_url=receiver.url)
        await receiver.received(1)
        while "not today" not in (page := await words(tab, page_of(task))):
            await asyncio.sleep(0.02)
        assert receiver.url in page
        assert "Next try" in page
        path = f"{page_of(task)}/redeliver"
        gone = gone_to(await tab.post(path, csrf=await tab.token(page_of(task))))
        await receiver.received(2)
        assert "on its way again" in await words(tab, gone)


async def test_images_are_deleted_for_good(owner: Server, tab: Tab) -> None:
    before = set(owner.stored_files())
    reply = await owner.submit_form(("image", picture(), "one.png"), ("prompt", "like this"))
    task = await owner.finished(reply.json["task_id"])
    page = page_of(task)
    shown = (await tab.get(page)).body.decode()
    reference = shown.partition('<ul class="references">')[2].partition('src="')[2]
    copy = reference.partition('"')[0]
    assert (await tab.get(copy)).status == 200
    gone = gone_to(await tab.post(f"{page}/delete", csrf=await tab.token(page)))
    said = await words(tab, gone)
    assert "deleted for good" in said
    assert "Delete images" not in said
    assert copy not in said
    assert (await tab.get(copy)).status == 404
    assert set(owner.stored_files()) == before
    again = await tab.post(f"{page}/delete", csrf=await tab.token("/console/gallery"))
    assert gone_to(again) == f"{page}?said=deleted"
    assert b"No pictures yet" in (await tab.get("/console/gallery")).body


async def test_a_task_under_way_is_not_deleted(owner: Server, tab: Tab) -> None:
    task = await owner.accepted(prompt="sandbox:delay=60 a slow one")
    page = page_of(task)
    assert "Delete images" not in await words(tab, page)
    reply = await tab.post(f"{page}/delete", csrf=await tab.token("/console/gallery"))
    assert (reply.status, b"cancel it first" in reply.body) == (409, True)


async def test_a_task_without_a_webhook_has_none_to_send(owner: Server, tab: Tab) -> None:
    task = await owner.outcome()
    reply = await tab.post(f"{page_of(task)}/redeliver", csrf=await tab.token("/console/gallery"))
    assert (reply.status, b"has no webhook" in reply.body) == (404, True)


async def test_the_operator_sees_attempts_and_may_cancel_with_a_note_of_it(
    site: Server, owner: Server
) -> None:
    async with Tab(site) as operator:
        await operator.be_operator()
        done = await owner.outcome()
        page = await words(operator, page_of(done, operator=True))
        assert "Attempts" in page
        account = await site.core.accounts.find(owner.account)
        assert account is not None
        assert f'/console/operator/accounts/{account.id}">{owner.account}</a>' in page
        slow = await owner.accepted(prompt="sandbox:delay=60 a slow one")
        path = page_of(slow, operator=True)
        csrf = await operator.token(path)
        assert gone_to(await operator.post(f"{path}/cancel", csrf=csrf)).startswith(path)
        assert (await owner.finished(slow["task_id"]))["error"]["code"] == "cancelled"
        audit = await site.core.store.operating.actions(limit=5, action="task.cancel")
        assert [each.subject for each in audit] == [slow["task_id"]]
        assert (await operator.get(page_of(done))).status == 403


@EVERY_LOOK
async def test_the_page_of_a_task_looks_right(
    owner: Server, signed_in_page: Opens, theme: Theme, width: int
) -> None:
    screen = await signed_in_page("account", theme, width, key=owner.key)
    pairs = {"order": "7391", "customer": "a-rather-long-name-" * 8}
    task = await owner.outcome("A lighthouse in the fog. " + "w" * 1000, metadata=pairs)
    page = await screen.open(page_of(task))
    await page.wait_for_load_state("networkidle")
    await screen.judge("task")
    failed = await owner.outcome("sandbox:refuse")
    await screen.open(page_of(failed))
    await screen.judge("task-failed")
    url = "http://127.0.0.1:9/" + "hook" * 30
    reply = await owner.submit_form(("image", picture(), "one.png"), ("callback_url", url))
    await owner.finished(reply.json["task_id"])
    await screen.open(page_of(reply.json))
    await page.wait_for_load_state("networkidle")
    await page.click("summary:has-text('Delete images')")
    await page.click("summary:has-text('as the API tells it')")
    await screen.judge("task-webhook")
    several = await owner.outcome("three boats", model="recraft-v4.1", n=3)
    await screen.open(page_of(several))
    await page.wait_for_load_state("networkidle")
    await screen.judge("task-several")


@EVERY_LOOK
async def test_the_operators_page_of_a_task_looks_right(
    owner: Server, signed_in_page: Opens, theme: Theme, width: int
) -> None:
    screen = await signed_in_page("admin", theme, width)
    task = await owner.outcome("A lighthouse in the fog")
    page = await screen.open(page_of(task, operator=True))
    await page.wait_for_load_state("networkidle")
    await screen.judge("task-operator")


async def test_a_task_that_ends_changes_its_page(owner: Server, signed_in_page: Opens) -> None:
    screen = await signed_in_page("account", key=owner.key)
    task = await owner.accepted(prompt="sandbox:delay=60 a slow one")
    page = await screen.open(page_of(task))
    await screen.judge("task-live")
    await page.click("summary:has-text('Cancel')")
    await screen.judge("task-cancel")
    await owner.call("POST", f"/v1/tasks/{task['task_id']}/cancel")
    await page.get_by_text("It cost nothing.").wait_for()
    await page.locator("#deeds summary").wait_for(state="detached")
    await page.locator("#told", has_text="The task has ended: fail.").wait_for()
    await page.locator("#about").get_by_text("Given back", exact=True).last.wait_for()


async def test_a_page_that_nobody_sees_keeps_no_connection(
    owner: Server, signed_in_page: Opens
) -> None:
    screen = await signed_in_page("account", key=owner.key)
    task = await owner.accepted(prompt="sandbox:delay=60 a slow one")
    first = await screen.open(page_of(task))
    for page in [first, *[await first.context.new_page() for _ in range(6)]]:
        async with page.expect_request("**/live"):
            await page.goto(owner.url + page_of(task))
        await page.evaluate(SEEN, "hidden")
    await owner.call("POST", f"/v1/tasks/{task['task_id']}/cancel")
    await owner.finished(task["task_id"])
    await expect(first.locator(".task-live")).not_to_contain_text("Cancelled")
    await first.evaluate(SEEN, "visible")
    await expect(first.locator(".task-live")).to_contain_text("Cancelled")


async def test_times_stand_at_the_right_of_what_happened(
    owner: Server, signed_in_page: Opens
) -> None:
    screen = await signed_in_page("account", key=owner.key)
    page = await screen.open(page_of(await owner.outcome("sandbox:delay=0.6 a lighthouse")))
    assert await page.locator(".timeline p").count() > 0
    ends = await page.evaluate(
        "[...document.querySelectorAll('.timeline time')].map(t => t.getBoundingClientRect().right)"
    )
    assert len(set(ends)) == 1
