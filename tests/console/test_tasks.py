"""The list of tasks."""

import html
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from calotype.console.filters import usd
from console.screens import EVERY_LOOK, Opens, Theme
from console.tabs import Tab, gone_to
from harness import Server, running_server
from receiver import answer, receiving

pytestmark = pytest.mark.asyncio(loop_scope="module")
TASKS = "/console/tasks"
MANY = "recraft-v4.1"
"""A model that makes several at a time."""
HTMX = {"HX-Request": "true"}


@pytest_asyncio.fixture(loop_scope="module")
async def idle(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that develops nothing."""
    async with running_server(tmp_path / "data", behind_proxy=True, with_worker=False) as running:
        yield running


def shown(body: bytes) -> list[str]:
    """The tasks of a page, by their public ids."""
    return re.findall(r'<a id="(task_\w+)"', body.decode())


async def test_the_list_shows_an_accounts_own_tasks_newest_first(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab, Tab(site) as other:
        await tab.sign_in()
        await other.sign_in()
        assert b"No tasks yet" in (await tab.get(TASKS)).body
        tasks = [await owner.outcome(f"picture {nr}") for nr in range(3)]
        page = await tab.get(TASKS)
        words = [task["task_id"] for task in reversed(tasks)]
        assert (page.status, shown(page.body)) == (200, words)
        assert not set(words).intersection(shown((await other.get(TASKS)).body))


async def test_a_line_says_how_a_task_stands_and_what_it_cost(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab:
        await tab.sign_in()
        await owner.outcome("sandbox:refuse")
        done = await owner.outcome("a lighthouse", model=MANY, n=2)
        good, bad = (await tab.get(TASKS)).body.decode().split("<tr>")[2:]
    assert re.search(r"/console/images/asset_\w+/160\.webp", good)
    assert "· 2 pictures" in good
    assert f">{usd(done['billing']['actual_amount_micro_usdc'])}<" in good
    assert "<small>content policy violation<" in bad
    assert ">0.00 USDC<" in bad
    for line in (good, bad):
        assert "/cancel" not in line
        assert "/redeliver" not in line


async def test_filters_narrow_the_list_and_stay_in_their_fields(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab:
        await tab.sign_in()
        await owner.outcome("Ein MÄRCHEN", metadata={"order": "7391"})
        await owner.outcome("sandbox:refuse")
        for query, found in (
            ("state=fail", 1),
            ("state=success", 1),
            ("state=waiting", 0),
            ("state=success&text=märchen", 1),
            ("state=fail&text=märchen", 0),
            ("metadata=order%3D7391", 1),
            ("model=gpt-image-2&text=", 2),
            ("model=gone-since", 0),
            ("to=2020-12-31", 0),
        ):
            reply = await tab.get(f"{TASKS}?{query}")
            assert (reply.status, len(shown(reply.body))) == (200, found), query
        page = (await tab.get(f"{TASKS}?state=waiting&metadata=order%3D7391")).body
        assert b"No task is like that" in page
        assert b'<option value="waiting" selected>' in page
        assert b'value="order=7391"' in page


async def test_what_cannot_be_looked_for_is_told(site: Server) -> None:
    async with Tab(site) as tab:
        await tab.sign_in()
        for query, words in (
            ("state=lost", "There is no state 'lost'"),
            ("metadata=order", "Write key=value"),
            ("from=2026-11-23&to=2026-11-22", "swap them"),
            ("limit=5", "knows no 'limit'"),
            ("before=5", "begin with the newest"),
            ("said=%3Cscript%3E", "said is one of"),
        ):
            reply = await tab.get(f"{TASKS}?{query}")
            assert reply.status == 422, query
            assert words in html.unescape(reply.body.decode()), query
            assert b"<script>" not in reply.body


async def test_a_hostile_prompt_is_only_text_in_the_list(idle: Server) -> None:
    async with Tab(idle) as tab:
        await tab.sign_in()
        await idle.accepted(prompt='"><script>alert(1)</script><img src=x onerror=alert(2)>')
        body = (await tab.get(TASKS)).body
        assert b"<script>alert" not in body
        assert b"<img src=x" not in body
        assert b"&lt;script&gt;alert(1)" in body


async def test_the_list_needs_a_session_of_an_account(site: Server) -> None:
    async with Tab(site) as tab:
        reply = await tab.get(f"{TASKS}?state=fail")
        assert gone_to(reply) == "/console/sign-in?next=/console/tasks%3Fstate%3Dfail"
        await tab.be_operator()
        assert (await tab.get(TASKS)).status == 403


async def test_older_tasks_are_a_page_away_with_the_same_filter(idle: Server) -> None:
    async with Tab(idle) as tab:
        await tab.sign_in()
        words = [(await idle.accepted(prompt=f"picture {nr}"))["task_id"] for nr in range(53)]
        first = (await tab.get(f"{TASKS}?state=waiting")).body
        assert shown(first) == words[:2:-1]
        older = re.search(r'href="(/console/tasks\?[^"]+before=[^"]+)">Older', first.decode())
        assert older is not None
        page = (await tab.get(html.unescape(older[1]))).body
        assert shown(page) == words[2::-1]
        assert b'href="/console/tasks?state=waiting">Newest' in page
        assert b"sse-connect" not in page
        assert b'sse-connect="/console/live"' in first


async def test_a_piece_of_the_list_is_its_rows(idle: Server) -> None:
    async with Tab(idle) as tab:
        await tab.sign_in()
        word = (await idle.accepted())["task_id"]
        piece = (await tab.get(TASKS, HTMX)).body
        assert shown(piece) == [word]
        assert b"<html" not in piece
        assert b"sse-connect" not in piece


async def test_a_task_is_cancelled_from_its_line(idle: Server) -> None:
    async with Tab(idle) as tab:
        await tab.sign_in()
        word = (await idle.accepted())["task_id"]
        page = (await tab.get(f"{TASKS}?text=lighthouse")).body.decode()
        assert f'action="{TASKS}/{word}/cancel"' in page
        back = re.search(r'name="next" value="([^"]+)"', page)
        assert back is not None
        token = await tab.token(TASKS)
        done = await tab.post(f"{TASKS}/{word}/cancel", csrf=token, next=html.unescape(back[1]))
        assert gone_to(done) == f"{TASKS}?text=lighthouse&said=cancel"
        page = (await tab.get(gone_to(done))).body.decode()
        assert "was asked to stop" in page
        assert "<small>cancelled</small>" in page
        assert f"{word}/cancel" not in page


async def test_a_webhook_that_nobody_took_is_sent_again_from_its_line(tmp_path: Path) -> None:
    async with (
        running_server(
            tmp_path / "data", behind_proxy=True, webhook_allow_hosts=("127.0.0.1",)
        ) as server,
        receiving(answer(410), answer(200)) as receiver,
        Tab(server) as tab,
    ):
        await tab.sign_in()
        task = await server.outcome(callback_url=receiver.url)
        word = task["task_id"]
        await receiver.received(1)
        page = b""
        while b"webhook disabled" not in page:
            page = (await tab.get(TASKS)).body
        assert f"{word}/redeliver".encode() in page
        done = await tab.post(
            f"{TASKS}/{word}/redeliver",
            csrf=await tab.token(TASKS),
            next=f"{TASKS}?said=redeliver",
        )
        assert "is on its way again" in (await tab.get(gone_to(done))).body.decode()
        await receiver.received(2)
        while b"webhook disabled" in page:
            page = (await tab.get(TASKS)).body


async def test_the_list_follows_its_tasks(site: Server, signed_in_page: Opens) -> None:
    """New ones appear and states change, but not under an open question."""
    owner = await site.for_account()
    screen = await signed_in_page(key=owner.key)
    page = await screen.open(TASKS)
    await page.get_by_text("No tasks yet").wait_for()
    slow = await owner.accepted(prompt="the slow one sandbox:delay=600")
    line = page.locator("tr", has_text="the slow one")
    await line.get_by_text("generating").wait_for()
    await line.get_by_text("Cancel", exact=True).click()
    asked = page.locator("details.confirm[open]")
    await asked.wait_for()
    async with page.expect_response(lambda answer: answer.url.endswith(TASKS)):
        await owner.accepted(prompt="the quick one")
    await asked.wait_for()
    await page.keyboard.press("Escape")
    await page.get_by_role("link", name="the quick one").wait_for()
    assert await page.evaluate("document.activeElement.id") == f"stop-{slow['task_id']}"
    await owner.call("POST", f"/v1/tasks/{slow['task_id']}/cancel")
    await line.get_by_text("cancelled", exact=True).wait_for()


@EVERY_LOOK
async def test_the_list_looks_right(
    site: Server, signed_in_page: Opens, theme: Theme, width: int
) -> None:
    owner = await site.for_account()
    screen = await signed_in_page("account", theme, width, key=owner.key)
    page = await screen.open(TASKS)
    await page.get_by_text("No tasks yet").wait_for()
    await screen.judge("tasks-empty")
    await owner.outcome("A lighthouse in the fog, oil on canvas", model=MANY, n=2)
    await owner.outcome("sandbox:refuse A harbour")
    await owner.outcome("w" * 1000)
    await owner.accepted(prompt="A boat, slowly sandbox:delay=600")
    await page.get_by_role("link", name="A boat, slowly").wait_for()
    await page.get_by_text("generating").wait_for()
    await page.locator("img.thumb").nth(1).wait_for()
    await screen.judge("tasks")
    await page.get_by_text("Cancel", exact=True).click()
    await page.get_by_role("button", name="Cancel the task").wait_for()
    await screen.judge("tasks-cancel")
    await owner.accepted(prompt="A newer one sandbox:delay=600")
    await page.keyboard.press("Escape")
    await page.get_by_role("link", name="A newer one").wait_for()
    await page.locator("tr", has_text="A boat").get_by_text("Cancel", exact=True).click()
    await page.get_by_role("button", name="Cancel the task").click()
    await page.get_by_text("was asked to stop").wait_for()
    await page.locator("tr", has_text="A boat").get_by_text("cancelled", exact=True).wait_for()
    await screen.judge("tasks-cancelled")
    screen.expected.append("status of 422")
    await screen.open(f"{TASKS}?from=2026-11-23&to=2026-11-22&metadata=order")
    await screen.judge("tasks-wrong")
