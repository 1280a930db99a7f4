"""No URL of a stranger's leads inside: every form of the corpus at every door that takes URLs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
import pytest_asyncio
from aiohttp import web

from agents import agent, refusal
from calotype.domain.channel import Channel, Served
from calotype.domain.outcomes import SourceError
from calotype.domain.task import Reference
from calotype.net.client import UpstreamClient
from calotype.net.fetcher import FetchRefused, GuardedFetcher
from calotype.net.webhooks import WebhookClient
from console.tabs import Tab
from harness import Server, running_server, serving
from net.names import Lookup
from security.canary import FIRSTS, FORMS, NAMES, Canary, aimed, listening, lying_dns
from services.bench import CHANNEL, Scripted, done, opened_bench

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODY: frozenset[str] = frozenset()
OUTSIDE = "127.0.0.2"
"""Stands for a public address: it is allowed, with a port."""
STATUSES = (301, 302, 303, 307, 308)
SENDABLE = [form for form in FORMS if not set(form) & set("\r\n\0")]
"""Those that fit into a header."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def canary() -> AsyncIterator[Canary]:
    async with listening() as listens:
        yield listens


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_is_connected_to(canary: Canary) -> AsyncIterator[None]:
    before = canary.connections
    yield
    assert canary.connections == before


async def test_the_corpus_is_as_large_as_is_said_and_says_nothing_twice() -> None:
    assert len(FORMS) >= 290
    assert len(set(FORMS)) == len(FORMS)
    assert len(NAMES) >= 25


async def test_the_canary_tells_of_whoever_comes() -> None:
    async with listening() as heard, GuardedSession() as fetcher:
        await fetcher.fetched(f"http://127.0.0.1:{heard.port}/")
        await fetcher.fetched(f"http://127.9.9.9:{heard.port}/")
        assert heard.connections == 2


class GuardedSession:
    """A fetcher of references that may reach what is listed."""

    def __init__(self, *allowed: str, lookup: Lookup | None = None) -> None:
        listed = frozenset(allowed or {"127.0.0.1", "127.9.9.9"})
        self._fetcher = GuardedFetcher(listed, max_bytes=1000, resolver=lookup)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._fetcher.close()

    async def fetched(self, url: str) -> bytes:
        async with self._fetcher.open(url) as stream:
            return b"".join([chunk async for chunk in stream])

    async def refused(self, url: str) -> FetchRefused:
        with pytest.raises(FetchRefused) as caught:
            await self.fetched(url)
        return caught.value


@asynccontextmanager
async def redirecting() -> AsyncIterator[tuple[str, dict[str, tuple[int, str]]]]:
    """A website outside; where its paths lead is to be written into what comes with its URL."""
    leads: dict[str, tuple[int, str]] = {}

    async def answer(request: web.Request) -> web.Response:
        status, location = leads.get(request.path, (451, ""))
        return web.Response(status=status, headers={"Location": location} if location else {})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, OUTSIDE, 0).start()
        yield f"{OUTSIDE}:{runner.addresses[0][1]}", leads
    finally:
        await runner.cleanup()


# Doors of the API: refused at once


async def test_no_form_is_taken_as_a_reference(site: Server, canary: Canary) -> None:
    for url in (aimed(form, canary) for form in FORMS):
        as_json = await site.submit(image_input=[url])
        as_json.assert_refused(400, "invalid_parameter", "image_input")
        as_form = await site.submit_form(("image_input[]", url))
        as_form.assert_refused(400, "invalid_parameter", "image_input")
    assert await site.newest() is None


async def test_no_form_is_taken_for_webhooks(site: Server, canary: Canary) -> None:
    for url in (aimed(form, canary) for form in FORMS):
        of_task = await site.submit(callback_url=url)
        of_task.assert_refused(400, "invalid_parameter", "callback_url")
        settings = await site.call("PUT", "/v1/webhooks", json={"url": url})
        settings.assert_refused(400, "invalid_parameter", "url")
    assert (await site.call("GET", "/v1/webhooks")).json["url"] is None
    assert await site.newest() is None


async def test_no_form_is_taken_in_a_batch(site: Server, canary: Canary) -> None:
    plain = {"model": "gpt-image-2", "prompt": "x"}
    for url in (aimed(form, canary) for form in FIRSTS):
        requests = [{**plain, "image_input": [url]}, {**plain, "callback_url": url}]
        sent = await site.call("POST", "/v1/images/generations/batch", json={"requests": requests})
        codes = [each["error"]["code"] for each in sent.json["data"]]
        assert codes == ["invalid_parameter", "invalid_parameter"], (url, sent.body)
    assert await site.newest() is None


async def test_no_form_is_taken_as_a_file(site: Server, canary: Canary) -> None:
    for url in (aimed(form, canary) for form in FIRSTS):
        for kind in ("image/png", "text/uri-list"):
            sent = await site.call(
                "POST", "/v1/files", data=url.encode(), headers={"Content-Type": kind}
            )
            assert sent.status in {400, 415}, (url, sent.body)
    assert site.stored_files() == []


async def test_no_form_is_taken_in_the_console(site: Server, canary: Canary) -> None:
    async with Tab(site) as tab:
        await tab.sign_in()
        for url in (aimed(form, canary) for form in FIRSTS):
            said = await tab.send("/console/webhooks", url=url)
            assert said.status == 422, url
    assert (await site.call("GET", "/v1/webhooks")).json["url"] is None


async def test_no_form_is_taken_of_an_agent(site: Server, canary: Canary) -> None:
    async with agent(site.url, site.key) as client:
        for url in (aimed(form, canary) for form in FIRSTS):
            asked = {"prompt": "x", "model": "gpt-image-2", "references": [url]}
            refusal(await client.call_tool("edit_image", {**asked, "wait_seconds": 0}))
    assert await site.newest() is None


# DNS that lies, and redirects


async def test_no_name_leads_inside(canary: Canary) -> None:
    async with GuardedSession(OUTSIDE, lookup=lying_dns()) as fetcher:
        for name in NAMES:
            refused = await fetcher.refused(f"http://{name}:{canary.port}/")
            assert "does not resolve to a public address" in refused.message
            assert not refused.retryable


async def test_a_task_whose_reference_leads_inside_fails_and_costs_nothing(
    tmp_path: Path, canary: Canary
) -> None:
    fetcher = GuardedFetcher(NOBODY, max_bytes=1000, resolver=lying_dns())
    async with opened_bench(tmp_path) as opened:
        bench = replace(opened, fetcher=fetcher)
        for name in NAMES:
            url = f"http://{name}:{canary.port}/"
            task_id = await bench.submitted(references=[Reference(url=url)])
            task = await bench.ran(Scripted([done()]), channel=CHANNEL, task_id=task_id)
            await bench.assert_released(task, "reference_fetch_failed")
    await fetcher.close()


async def test_no_redirect_leads_inside_whatever_its_status(canary: Canary) -> None:
    names = [f"http://{name}:{{port}}/" for name in NAMES]
    async with redirecting() as (outside, leads):
        for turn, form in enumerate([*SENDABLE, *names]):
            leads[f"/{turn}"] = (STATUSES[turn % len(STATUSES)], aimed(form, canary))
        for status in STATUSES:
            leads[f"/status/{status}"] = (status, f"http://127.0.0.1:{canary.port}/")
        async with GuardedSession(outside, lookup=lying_dns()) as fetcher:
            for path in leads:
                refused = await fetcher.refused(f"http://{outside}{path}")
                assert not refused.retryable, leads[path]


async def test_a_name_that_is_public_first_and_private_next_is_refused_the_second_time(
    tmp_path: Path, canary: Canary
) -> None:
    async with redirecting() as (outside, leads):
        port = outside.partition(":")[2]
        leads["/again"] = (302, f"http://rebinding.example:{canary.port}/")
        url = f"http://rebinding.example:{port}/again"

        def rebinding() -> Lookup:
            lookup = Lookup()
            lookup.answers = {"rebinding.example": [[OUTSIDE], ["127.0.0.1"]]}
            return lookup

        async with GuardedSession(outside, lookup=rebinding()) as fetcher:
            refused = await fetcher.refused(url)
        assert "does not resolve to a public address" in refused.message

        client = UpstreamClient(tmp_path, allow_hosts=frozenset({outside}), resolver=rebinding())
        with pytest.raises(SourceError, match="does not resolve to a public address"):
            async with client.result(url).open():
                pass
        await client.close()

        hooks = WebhookClient(frozenset({outside}), resolver=rebinding())
        first, second = [await hooks.post(url, b"{}", {}) for _ in range(2)]
        await hooks.close()
        assert first.status == 302
        assert second.status is None
        assert "does not resolve to a public address" in (second.error or "")


async def test_no_form_is_sent_a_webhook(canary: Canary) -> None:
    names = [f"http://{name}:{{port}}/" for name in NAMES]
    hooks = WebhookClient(NOBODY, resolver=lying_dns())
    for url in (aimed(form, canary) for form in [*FORMS, *names]):
        answer = await hooks.post(url, b"{}", {})
        assert answer.status is None, url
        assert answer.error, url
    await hooks.close()


# Results of an upstream that hands out such URLs


async def test_no_result_is_fetched_from_inside(tmp_path: Path, canary: Canary) -> None:
    """The upstream itself is on loopback, and no other port of it is reached all the same."""
    wanted = [aimed(form, canary) for form in FORMS]

    async def create(request: web.Request) -> web.Response:
        number = int((await request.json())["prompt"])
        return web.json_response({"created": 1, "data": [{"url": wanted[number]}]})

    async def elsewhere(_request: web.Request) -> web.Response:
        return web.Response(status=451)  # a form without a scheme is a path of the upstream's

    app = web.Application()
    app.router.add_post("/v1/images/generations", create)
    app.router.add_get("/{path:.*}", elsewhere)
    async with serving(app) as url:
        channel = Channel(
            id=10,
            slug="handing-out",
            name="Handing out",
            provider="openai-compatible",
            base_url=f"{url}/v1",
            concurrency=64,
            models={"gpt-image-2": Served()},
        )
        async with running_server(tmp_path, channels=(channel,)) as server:
            turns = asyncio.Semaphore(32)

            async def outcome(number: int) -> dict[str, Any]:
                async with turns:
                    return await server.outcome(str(number), channel_id=10)

            tasks = await asyncio.gather(*map(outcome, range(len(wanted))))
            assert await server.core.store.prove() == []
    for task, url in zip(tasks, wanted, strict=True):
        assert task["state"] == "fail", (url, task)
        assert task["billing"]["actual_amount_micro_usdc"] == 0
        assert "inside" not in task["error"]["message"]


async def test_no_result_is_fetched_where_a_name_or_a_redirect_leads_inside(
    tmp_path: Path, canary: Canary
) -> None:
    names = [f"http://{name}:{canary.port}/" for name in NAMES]
    async with redirecting() as (outside, leads):
        client = UpstreamClient(tmp_path, resolver=lying_dns())
        for turn, form in enumerate(SENDABLE):
            leads[f"/{turn}"] = (STATUSES[turn % len(STATUSES)], aimed(form, canary))
        for url in [*names, *(f"http://{outside}{path}" for path in leads)]:
            with pytest.raises(SourceError) as caught:
                async with client.result(url, own_host=outside).open():
                    pass
            assert not caught.value.retryable, url
        await client.close()
