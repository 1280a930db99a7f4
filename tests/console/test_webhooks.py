"""Webhooks in the console: the URL, the secrets, the deliveries."""

import html
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from calotype.domain.secret import Secret
from console.screens import EVERY_LOOK, Opens, Theme
from console.tabs import PASSWORD, Tab, gone_to
from harness import Server, running_server
from receiver import Receiver, answer, receiving

pytestmark = pytest.mark.asyncio(loop_scope="module")
WEBHOOKS = "/console/webhooks"
SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{40,}={0,2}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server that may send to this machine."""
    data = tmp_path_factory.mktemp("data")
    async with running_server(
        data, behind_proxy=True, admin_password=Secret(PASSWORD), webhook_allow_hosts=("127.0.0.1",)
    ) as running:
        yield running


async def page_of(tab: Tab, path: str, words: str) -> str:
    """A page once it says so."""
    body = ""
    while words not in body:
        reply = await tab.get(path)
        assert reply.status == 200, reply.body
        body = html.unescape(reply.body.decode())
    return body


async def told(server: Server, receiver: Receiver, *prompts: str) -> list[str]:
    """Tasks whose receiver has answered, by their public ids."""
    words = []
    for prompt in prompts:
        task = await server.outcome(prompt, callback_url=receiver.url)
        words.append(task["task_id"])
    await receiver.received(len(prompts))
    return words


async def test_the_url_is_set_and_taken_away_by_a_form(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab, receiving() as receiver:
        await tab.sign_in()
        assert gone_to(await tab.send(WEBHOOKS, url=receiver.url)) == f"{WEBHOOKS}?said=set"
        page = await page_of(tab, f"{WEBHOOKS}?said=set", "Saved.")
        assert f'value="{receiver.url}"' in page
        await owner.outcome()
        await receiver.received(1)
        for fields in ({"url": ""}, {"url": receiver.url, "remove": "1"}):
            assert gone_to(await tab.send(WEBHOOKS, **fields)) == f"{WEBHOOKS}?said=cleared"
            assert (await owner.call("GET", "/v1/webhooks")).json["url"] is None
            await tab.send(WEBHOOKS, url=receiver.url)


async def test_a_url_that_cannot_be_told_is_refused_beside_its_field(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab:
        await tab.sign_in()
        for url in ("ftp://example.com", "http://10.0.0.1/hook", '"><script>alert(1)</script>'):
            reply = await tab.send(WEBHOOKS, url=url)
            body = reply.body.decode()
            assert reply.status == 422, body
            assert 'aria-invalid="true"' in body
            assert f'value="{html.escape(url).replace("&quot;", "&#34;")}"' in body
            assert "<script>alert" not in body
        assert (await owner.call("GET", "/v1/webhooks")).json["url"] is None


async def test_a_form_without_its_token_changes_nothing(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab:
        await tab.sign_in()
        before = (await owner.call("GET", "/v1/webhooks")).json
        for path, fields in (
            (WEBHOOKS, {"url": "https://example.com/"}),
            (f"{WEBHOOKS}/rotate", {"overlap_seconds": "0"}),
        ):
            assert (await tab.post(path, **fields)).status == 403
            assert (await tab.post(path, csrf="guessed", **fields)).status == 403
        assert (await owner.call("GET", "/v1/webhooks")).json == before


async def test_a_new_secret_signs_beside_the_old_one_for_as_long_as_was_chosen(
    site: Server,
) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab:
        await tab.sign_in()
        (first,) = set(SECRET.findall(await page_of(tab, WEBHOOKS, "Secret")))
        token = await tab.token(WEBHOOKS)
        rotate = f"{WEBHOOKS}/rotate"
        done = await tab.post(rotate, csrf=token, overlap_seconds="3600")
        assert gone_to(done) == f"{WEBHOOKS}?said=rotated"
        page = await page_of(tab, f"{WEBHOOKS}?said=rotated", "There is a new secret")
        secrets = SECRET.findall(page)
        assert len(set(secrets)) == 2
        assert first in secrets
        assert "signs until" in page
        await tab.post(rotate, csrf=token, overlap_seconds="0")
        (last,) = set(SECRET.findall(await page_of(tab, WEBHOOKS, "Secret")))
        assert last not in secrets
        refused = await tab.post(rotate, csrf=token, overlap_seconds="a day")
        assert refused.status == 422
        assert b"overlap_seconds must be" in refused.body
        assert (await tab.get(WEBHOOKS)).headers["cache-control"] == "no-store"


async def test_deliveries_are_listed_by_state_with_each_try_on_a_page(site: Server) -> None:
    owner = await site.for_account()
    async with (
        Tab(owner) as tab,
        receiving(answer(200, body=b"merci"), answer(503, body=b"<b>later</b>")) as receiver,
    ):
        await tab.sign_in()
        assert "Nothing was sent yet" in await page_of(tab, WEBHOOKS, "Deliveries")
        good, bad = await told(owner, receiver, "sandbox:delay=0", "sandbox:refuse")
        page = await page_of(tab, WEBHOOKS, "last answer 503")
        assert page.index(bad) < page.index(good)
        assert "task.fail" in page
        of_good = await page_of(tab, f"{WEBHOOKS}?state=delivered", good)
        assert bad not in of_good
        assert "None is failed" in await page_of(tab, f"{WEBHOOKS}?state=failed", "Deliveries")
        one = await page_of(tab, f"{WEBHOOKS}/{good}", "merci")
        assert receiver.url in one
        assert "none is needed" in one
        other = (await tab.get(f"{WEBHOOKS}/{bad}")).body
        assert b"&lt;b&gt;later&lt;/b&gt;" in other
        assert b"<b>later" not in other


async def test_a_delivery_is_sent_again(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab, receiving(answer(410), answer(200)) as receiver:
        await tab.sign_in()
        (word,) = await told(owner, receiver, "sandbox:delay=0")
        await page_of(tab, WEBHOOKS, "last answer 410")
        page = await page_of(tab, WEBHOOKS, "Switched off")
        assert f"/console/tasks/{word}/redeliver" in page
        path = f"{WEBHOOKS}/{word}"
        page = await page_of(tab, path, "answered 410 Gone")
        back = re.search(r'name="next" value="([^"]+)"', page)
        assert back is not None
        again = f"/console/tasks/{word}/redeliver"
        done = await tab.post(again, csrf=await tab.token(path), next=back[1])
        assert gone_to(done) == f"{path}?said=redelivering"
        await receiver.received(2)
        assert "on its way again" in await page_of(tab, gone_to(done), "delivered")
        assert "Switched off" not in await page_of(tab, WEBHOOKS, "Deliveries")


async def test_a_receiver_that_is_switched_off_is_switched_on_by_a_button(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab, receiving(answer(410)) as receiver:
        await tab.sign_in()
        await tab.send(WEBHOOKS, url=receiver.url)
        await owner.outcome()
        await page_of(tab, WEBHOOKS, "Your receiver is switched off")
        await tab.send(WEBHOOKS, url=receiver.url)
        assert "switched off" not in await page_of(tab, WEBHOOKS, "Deliveries")


async def test_nobody_sees_anothers_deliveries(site: Server) -> None:
    owner = await site.for_account()
    async with (
        Tab(site) as other,
        Tab(site) as stranger,
        receiving() as receiver,
    ):
        (word,) = await told(owner, receiver, "sandbox:delay=0")
        await other.sign_in()
        assert (await other.get(f"{WEBHOOKS}/{word}")).status == 404
        assert (await other.get(f"{WEBHOOKS}/task_none")).status == 404
        assert word.encode() not in (await other.get(WEBHOOKS)).body
        assert gone_to(await stranger.get(WEBHOOKS)).startswith("/console/sign-in")
        await stranger.be_operator()
        assert (await stranger.get(WEBHOOKS)).status == 403


async def test_a_task_without_a_webhook_has_no_delivery(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab:
        await tab.sign_in()
        word = (await owner.outcome())["task_id"]
        reply = await tab.get(f"{WEBHOOKS}/{word}")
        assert reply.status == 404
        assert b"has no webhook" in reply.body


async def test_a_query_that_makes_no_sense_is_told(site: Server) -> None:
    async with Tab(site) as tab:
        await tab.sign_in()
        for query, words in (
            ("state=lost", "state is one of pending"),
            ("state=waiting", "not 'waiting'"),
            ("before=5", "not whole"),
            ("limit=5", "knows no 'limit'"),
            ("state=failed&state=pending", "state came twice"),
            ("said=hello", "said is one of set"),
        ):
            reply = await tab.get(f"{WEBHOOKS}?{query}")
            assert (reply.status, words in html.unescape(reply.body.decode())) == (400, True), query


async def test_older_deliveries_are_a_page_away(site: Server) -> None:
    owner = await site.for_account()
    async with Tab(owner) as tab, receiving() as receiver:
        await tab.sign_in()
        words = await told(owner, receiver, *["sandbox:refuse"] * 52)
        shown = set[str]()
        while len(shown) < 2:  # the last ones are still being written down
            page = (await tab.get(f"{WEBHOOKS}?state=delivered")).body.decode()
            older = re.search(r'href="(/console/webhooks\?[^"]+before=[^"]+)">Older', page)
            if older is not None:
                last = await page_of(tab, html.unescape(older[1]), "Newest")
                shown = set(re.findall(r'href="/console/webhooks/(task_\w+)"', last))
        assert shown == set(words[:2])


@EVERY_LOOK
async def test_the_webhooks_look_right(
    site: Server, signed_in_page: Opens, theme: Theme, width: int
) -> None:
    owner = await site.for_account()
    screen = await signed_in_page("account", theme, width, key=owner.key)
    page = await screen.open(WEBHOOKS)
    await screen.judge("webhooks-empty")
    screen.expected.append("status of 422")
    await page.fill("#url", "http://10.0.0.1/hook")
    await page.get_by_role("button", name="Save").click()
    await page.locator(".wrong").wait_for()
    await screen.judge("webhooks-wrong")
    reply = answer(
        503, "Retry-After: 3600", body=b"Traceback (most recent call last):\n" + b"x" * 300
    )
    async with receiving(answer(200, body=b"ok"), reply, answer(410)) as receiver:
        await page.fill("#url", receiver.url)
        await page.get_by_role("button", name="Save").click()
        await page.get_by_text("Saved.").wait_for()
        for number in range(3):
            await owner.outcome(f"A lighthouse, number {number}")
            await receiver.received(number + 1)
        async with Tab(owner) as tab:
            await tab.sign_in()
            await page_of(tab, WEBHOOKS, "last answer 410")
    await screen.open(WEBHOOKS)
    await page.get_by_text("New secret", exact=True).click()
    await page.get_by_role("button", name="Make a new secret").click()
    await page.get_by_text("There is a new secret").wait_for()
    await page.get_by_text("Show").first.click()
    await screen.judge("webhooks")
    await page.locator("tr", has_text="last answer 503").get_by_role("link").click()
    await page.get_by_text("Traceback").wait_for()
    await screen.judge("webhooks-delivery")
