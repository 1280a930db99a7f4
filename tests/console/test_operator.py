"""The operator's overview, channels, queue and unknown outcomes, by plain HTTP."""

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path

import pytest
import pytest_asyncio

from console.operating import (
    LOST,
    MINUTE,
    begun,
    done,
    failed,
    operated_server,
    shut,
    unknown,
)
from console.tabs import Tab, gone_to, words
from harness import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")
OPERATOR = "/console/operator"
CHANNELS, QUEUE, UNKNOWN = (f"{OPERATOR}/{name}" for name in ("channels", "queue", "unknown"))


@pytest_asyncio.fixture(loop_scope="module")
async def site(tmp_path: Path) -> AsyncIterator[Server]:
    """A server of its own, where nothing has happened yet."""
    async with operated_server(tmp_path) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def tab(site: Server) -> AsyncIterator[Tab]:
    """A browser in which the operator has signed in."""
    async with Tab(site) as opened:
        await opened.be_operator()
        yield opened


async def audited(site: Server) -> list[tuple[str, str, str, str]]:
    """The newest two actions: what, with whom, the detail, what came of it."""
    found = await site.core.store.operating.actions(limit=2)
    return [(one.action, one.subject, one.detail, one.outcome) for one in found]


async def test_the_pages_are_for_the_operator_alone(site: Server) -> None:
    task = await unknown(site)
    async with Tab(site) as tab:
        for path in (OPERATOR, CHANNELS, f"{CHANNELS}/main", QUEUE, UNKNOWN, f"{UNKNOWN}/{task}/1"):
            assert gone_to(await tab.get(path)).startswith("/console/sign-in")
        await tab.sign_in()
        for path in (OPERATOR, CHANNELS, f"{CHANNELS}/main", QUEUE, UNKNOWN, f"{UNKNOWN}/{task}/1"):
            assert (await tab.get(path)).status == 403
        for path in (f"{CHANNELS}/main", f"{UNKNOWN}/{task}/1"):
            assert (await tab.send(path, do="off", resolution="free")).status == 403


async def test_what_the_address_asks_in_vain_is_told(tab: Tab) -> None:
    for path, told in (
        (f"{OPERATOR}?day=1", "knows no 'day'"),
        (f"{QUEUE}?x=1", "knows no 'x'"),
        (f"{CHANNELS}?said=all", "said is one of on, off, configured, reset"),
        (f"{CHANNELS}?said=<b>", "not '&lt;b&gt;'"),
        (f"{CHANNELS}/main?said=on&said=off", "came twice"),
        (f"{UNKNOWN}?show=all", "show is one of open, settled"),
        (f"{UNKNOWN}?before=1.task_x.1", "no such place in this list"),
        (f"{UNKNOWN}?before={'9' * 30}.task_0000000000000.1", "no such place in this list"),
    ):
        reply = await tab.get(path)
        assert reply.status == 400
        assert told in reply.body.decode().replace("&#39;", "'"), path
    for path in (f"{CHANNELS}/nobody", f"{UNKNOWN}/task_0000000000000/1", f"{UNKNOWN}/x/1"):
        assert (await tab.get(path)).status == 404


# The overview


async def test_where_nothing_is_wrong_the_overview_says_so(tab: Tab) -> None:
    told = words(await tab.get(OPERATOR))
    assert "All is well" in told
    assert "Succeeded today none yet none yet yesterday" in told


async def test_the_overview_says_what_needs_a_look(site: Server, tab: Tab) -> None:
    await shut(site)
    await shut(site, channel=32, model="gpt-image-2", fault="busy")
    await unknown(site)
    await begun(site, at=site.core.clock() - 20 * MINUTE)
    told = words(await tab.get(OPERATOR))
    assert "main: nothing is sent 401 from the upstream" in told
    assert "spare: 1 model held back" in told
    assert "1 unknown outcome to settle" in told
    assert "A task has not ended for 20 min" in told
    assert "All is well" not in told


async def test_the_overview_says_which_models_nobody_takes(site: Server, tab: Tab) -> None:
    await site.core.operating.switch("cli", "main", enabled=False)
    told = words(await tab.get(OPERATOR))
    assert "No channel takes 2 models" in told
    assert "Whoever asks for flux-2-pro, gpt-image-2 is refused." in told
    assert "main is switched off" in told


async def test_the_overview_warns_of_a_full_disk(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calotype.console.pages.overview.LITTLE_FREE", 2**60)
    assert "free on the disk of the images" in words(await tab.get(OPERATOR))


async def test_the_overview_counts_today(site: Server, tab: Tab) -> None:
    for _ in range(3):
        await done(site, ago=0, took=0)
    await failed(site)
    told = words(await tab.get(OPERATOR))
    assert "Tasks today 4 0 yesterday" in told
    assert "Succeeded today 75 %" in told
    assert "Clients spent today 0.09 USDC" in told
    assert "Upstreams charged today 0.06 USDC" in told


async def test_a_page_that_refreshes_itself_gets_that_piece_alone(tab: Tab) -> None:
    for path, piece in ((OPERATOR, '<div id="now"'), (QUEUE, '<div id="queue"')):
        reply = await tab.get(path, {"HX-Request": "true"})
        assert reply.body.decode().strip().startswith(piece)
        assert b"<html" not in reply.body
        assert reply.headers["Vary"] == "HX-Request"


# Channels


async def test_channels_are_told_with_how_they_do(site: Server, tab: Tab) -> None:
    for took in (1_000, 3_000, 9_000):
        await done(site, took=took)
    await done(site, took=3_000, cost=None, model="flux-2-pro")
    await failed(site)
    await begun(site, at=site.core.clock())
    told = words(await tab.get(CHANNELS))
    assert "The main one main · sandbox · 2 models healthy 1 of 8 2 of 60 80 %" in told
    assert "3 s p95 9 s" in told
    assert "33.3 % 0.06 USDC of 0.09 USDC cost of 1 unknown" in told
    assert "Spare spare · sandbox · 1 model off" in told


async def test_a_channel_tells_of_its_models_failures_and_breakers(site: Server, tab: Tab) -> None:
    await done(site, model="flux-2-pro", cost=None)
    task = await failed(site, "<script>alert(1)</script>" + "x" * 1000)
    await shut(site, model="gpt-image-2", fault="busy")
    reply = await tab.get(f"{CHANNELS}/main")
    told = words(reply)
    assert "flux/two-pro" in told
    assert "0.000009 USDC" in told
    assert "refused upstream rejected <script>alert(1)</script>xxx" in told
    assert b"<script>alert" not in reply.body
    assert f'href="{OPERATOR}/tasks/{task}"'.encode() in reply.body
    assert "Opened for gpt-image-2" in told
    assert "Nothing is sent: it had no room, or we asked too often." in told
    assert "It opened 2 times in a row." in told
    assert "sk-of-the-upstream" not in told


async def test_a_channel_is_switched_and_left_to_the_configuration(site: Server, tab: Tab) -> None:
    main, router = f"{CHANNELS}/main", site.core.router
    channel = next(each for each in router.channels if each.slug == "main")

    there = gone_to(await tab.send(main, do="off"))
    told = words(await tab.get(there))
    assert "The channel takes no new tasks; those that it was given go on." in told
    assert "Switched off by console, just now" in told
    assert not router.takes_new(channel)

    there = gone_to(await tab.send(main, do="configured", **{"from": "list"}))
    assert there == f"{CHANNELS}?said=configured"
    assert "The channel goes by its configuration again." in words(await tab.get(there))
    assert router.takes_new(channel)
    assert await audited(site) == [
        ("channel.as_configured", "channel main", "", "done"),
        ("channel.disable", "channel main", "", "done"),
    ]


async def test_a_channel_that_is_not_enabled_is_switched_on(site: Server, tab: Tab) -> None:
    spare = f"{CHANNELS}/spare"
    assert "It is not enabled in the configuration." in words(await tab.get(spare))
    await tab.send(spare, do="on")
    told = words(await tab.get(spare))
    assert "Switched on by hand" in told
    assert [each.slug for each in site.core.router.serving("gpt-image-2")] == ["main", "spare"]


async def test_breakers_are_reset(site: Server, tab: Tab) -> None:
    await shut(site)
    there = gone_to(await tab.send(f"{CHANNELS}/main", do="reset"))
    told = words(await tab.get(there))
    assert "The channel is sent to again: its breakers are closed." in told
    assert "Closed" in told
    assert await site.core.store.health() == []


async def test_what_no_button_sends_is_refused(site: Server, tab: Tab) -> None:
    assert (await tab.post(f"{CHANNELS}/main", do="off")).status == 403
    csrf = await tab.token(CHANNELS)
    assert (await tab.post(f"{CHANNELS}/main", csrf=csrf, do="delete")).status == 400
    assert (await tab.post(f"{CHANNELS}/main", csrf=csrf)).status == 400
    assert (await tab.post(f"{CHANNELS}/nobody", csrf=csrf, do="off")).status == 404
    assert (await tab.post(f"{CHANNELS}/nobody", csrf=csrf, do="reset")).status == 404
    assert await site.core.store.operating.switches() == []


# The queue


async def test_the_queue_counts_what_has_not_ended(site: Server, tab: Tab) -> None:
    assert "Nothing waits" in words(await tab.get(QUEUE))
    now = site.core.clock()
    await begun(site, at=now - 5 * MINUTE)
    await begun(site, at=now - MINUTE)
    await begun(site, at=now, channel=99)
    told = words(await tab.get(QUEUE))
    assert "Generating 3" in told
    assert "Oldest 5 min" in told
    assert "The main one 0 0 2 of 8 5 min ago" in told
    assert "Channel 99, not configured any more 0 0 1" in told


# Unknown outcomes


async def test_unknown_outcomes_are_listed_and_settled(site: Server, tab: Tab) -> None:
    assert "Nothing to settle" in words(await tab.get(UNKNOWN))
    task = await unknown(site)
    told = words(await tab.get(UNKNOWN))
    assert f"ada main gpt-image-2 {LOST} up-" in told
    assert "paid nothing got back 0.03 USDC" in told

    form = f"{UNKNOWN}/{task}/1"
    there = gone_to(await tab.send(form, resolution="billed", cost="0.04", note="invoice 7"))
    assert "It is settled" in words(await tab.get(there))
    assert (await audited(site))[0] == (
        "attempt.resolve",
        f"{task}, attempt 1",
        "billed, 0.04 USDC; invoice 7",
        "done",
    )
    settled = words(await tab.get(f"{UNKNOWN}?show=settled"))
    assert "billed 0.04 USDC, just now" in settled
    page = await tab.get(form)
    assert "billed 0.04 USDC" in words(page)
    assert b"Settle it" not in page.body

    csrf = await tab.token(UNKNOWN)
    again = await tab.post(form, csrf=csrf, resolution="free")
    assert (again.status, b"Settled already" in again.body) == (409, True)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "Say which of the two"),
        ({"resolution": "maybe"}, "Say which of the two"),
        ({"resolution": "billed", "cost": "<b>cheap"}, "'<b>cheap' is no amount"),
        ({"resolution": "billed", "cost": "-1"}, "A cost is 0 or more."),
        ({"resolution": "free", "cost": "0.04"}, "What was free has no cost"),
        ({"resolution": "free", "note": "x" * 301}, "At most 300 characters; this has 301."),
    ],
)
async def test_what_cannot_be_is_said_beside_its_field_and_kept(
    site: Server, tab: Tab, fields: dict[str, str], told: str
) -> None:
    form = f"{UNKNOWN}/{await unknown(site)}/1"
    reply = await tab.send(form, **fields)
    page = reply.body.decode()
    assert reply.status == 422
    assert told in unescape(page)
    assert "<b>cheap" not in page
    assert 'aria-invalid="true"' in page
    for name in fields.keys() & {"cost", "note"}:
        assert fields[name] in unescape(page)
    assert not await site.core.store.operating.unknown(resolved=True, limit=1)


async def test_an_attempt_that_ended_otherwise_is_none_to_settle(site: Server, tab: Tab) -> None:
    task = await failed(site)
    assert (await tab.get(f"{UNKNOWN}/{task}/1")).status == 404
    assert (await tab.get(f"{UNKNOWN}/{await unknown(site)}/2")).status == 404
    csrf = await tab.token(UNKNOWN)
    assert (await tab.post(f"{UNKNOWN}/{task}/1", csrf=csrf, resolution="free")).status == 404


async def test_unknown_outcomes_are_read_a_page_at_a_time(
    site: Server, tab: Tab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.console.pages.unknown.PAGE", 2)
    made = [await unknown(site, f"number {n}", ended=n) for n in range(5)]
    seen: list[str] = []
    path: str | None = UNKNOWN
    while path:
        page = (await tab.get(path)).body.decode()
        seen += re.findall(r"/console/operator/unknown/(task_\w+)/1", page)
        older = re.search(r'href="([^"]*before=[^"]*)"', page)
        path = unescape(older[1]) if older else None
    assert seen == made[::-1]
