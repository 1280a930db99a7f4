"""Progress of ComfyUI's jobs over a WebSocket, without which everything goes on."""

import asyncio
import json
from contextlib import nullcontext
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.outcomes import Accepted, Done, Running
from calotype.providers.comfyui.feed import FORGOTTEN_MS, Feed
from calotype.providers.port import Job
from providers.bed import Bed, developed, followed, protocols
from providers.fakes.base import KEY, Fake, Phase
from providers.fakes.comfyui import ComfyUI
from providers.protocol import Protocol
from providers.scripts import Script
from services.bench import Clock


@pytest.fixture
def protocol() -> Protocol:
    return protocols()["comfyui"]


class Slow(ComfyUI):
    """A server whose jobs run on and on."""

    courses: ClassVar[Any] = {Script.ACCEPT: (Phase.RUNNING,)}


@pytest.fixture
def slow(bed: Bed) -> Bed:
    bed.protocol = msgspec.structs.replace(bed.protocol, fake=Slow)
    return bed


async def told(fake: Fake, kind: str, data: object) -> None:
    """The server says something over every WebSocket."""
    assert isinstance(fake, ComfyUI)
    for socket in list(fake.sockets.values()):
        await socket.send_json({"type": kind, "data": data})


async def shown(provider: Any, job: Job, upstream_id: str, percent: int) -> None:
    """Poll until so much is shown."""
    while True:
        seen = await provider.poll(job, upstream_id)
        assert isinstance(seen, Running)
        if seen.progress == percent:
            return


async def test_progress_comes_over_one_websocket_for_all_jobs(slow: Bed) -> None:
    job, other = slow.job(), slow.job(reference="7d1f3bd5-8f0e-4c9b-9a53-5d0c1f6f8a22")
    async with slow.fake() as fake:
        assert isinstance(fake, ComfyUI)
        provider = slow.provider(slow.channel(fake))
        ids = []
        for each in (job, other):
            accepted = await provider.submit(each)
            assert isinstance(accepted, Accepted)
            ids.append(accepted.upstream_id)
        await fake.connected.acquire()
        (client_id,) = fake.sockets
        assert {order.call.document["client_id"] for order in fake.bought} == {client_id}
        for noise in ("status", "executing", "executed"):
            await told(fake, noise, {"node": None, "prompt_id": job.reference})
        await told(fake, "progress", {"value": 5, "max": 20, "prompt_id": job.reference})
        await shown(provider, job, ids[0], 25)
        nodes = {
            "1": {"value": 1, "max": 1, "state": "running"},
            "2": {"value": 9, "max": 10, "state": "finished"},
            "3": {"value": 8, "max": 10, "state": "running"},
        }
        await told(fake, "progress_state", {"prompt_id": other.reference, "nodes": nodes})
        await shown(provider, other, ids[1], 80)
        # The next node begins anew; what was shown stays.
        await told(fake, "progress", {"value": 1, "max": 20, "prompt_id": job.reference})
        await told(fake, "progress", {"value": 20, "max": 20, "prompt_id": other.reference})
        await shown(provider, other, ids[1], 99)
        await shown(provider, job, ids[0], 25)
    assert len(fake.calls_to("GET", "/ws")) == 1


async def test_the_websocket_is_closed_with_the_last_job(bed: Bed) -> None:
    async with bed.fake() as fake:
        assert isinstance(fake, ComfyUI)
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        await fake.connected.acquire()
        (socket,) = fake.sockets.values()
        assert isinstance(await followed(provider, bed.job(), accepted.upstream_id), Done)
        while fake.sockets:
            await asyncio.sleep(0)
        assert socket.closed
        # The next job opens another one.
        assert isinstance(await provider.submit(bed.job()), Accepted)
        await fake.connected.acquire()


async def test_polls_go_on_without_a_websocket(bed: Bed) -> None:
    async with bed.fake(Script.DELAY) as fake:
        assert isinstance(fake, ComfyUI)
        fake.speaks = False
        outcome = await developed(bed.provider(bed.channel(fake)), bed.job())
        assert isinstance(outcome, Done)


def feed_of(bed: Bed, fake: Fake) -> Feed:
    """One that does not wait before it connects again."""
    headers = {"Authorization": f"Bearer {KEY}"}
    socket = f"{fake.url}/ws?clientId=ours"
    return Feed(lambda: bed.client.websocket(socket, headers=headers), bed.clock, first_pause=0)


async def known(feed: Feed, percent: int) -> None:
    """Until the feed has heard of so much."""
    while feed.percent("a") != percent:
        await asyncio.sleep(0)


async def test_a_websocket_that_breaks_is_opened_again(bed: Bed) -> None:
    async with bed.fake() as fake:
        assert isinstance(fake, ComfyUI)
        feed = feed_of(bed, fake)
        feed.follow("a")
        for percent in (20, 40, 60):
            await fake.connected.acquire()
            await told(fake, "progress", {"value": percent, "max": 100, "prompt_id": "a"})
            await known(feed, percent)
            await fake.sockets["ours"].close()
        await feed.close()


async def test_a_server_that_is_not_there_yet_is_found_when_it_is(bed: Bed) -> None:
    async with bed.fake() as fake:
        assert isinstance(fake, ComfyUI)
        fake.speaks = False
        feed = feed_of(bed, fake)
        feed.follow("a")
        while not fake.calls_to("GET", "/ws"):
            await asyncio.sleep(0)
        fake.speaks = True
        await fake.connected.acquire()
        await told(fake, "progress", {"value": 7, "max": 10, "prompt_id": "a"})
        await known(feed, 70)
        await feed.close()


async def test_a_job_that_nobody_asks_about_is_followed_no_more(bed: Bed) -> None:
    async with bed.fake() as fake:
        assert isinstance(fake, ComfyUI)
        feed = feed_of(bed, fake)
        feed.follow("a")
        feed.follow("left")
        await fake.connected.acquire()
        bed.clock.forward(FORGOTTEN_MS)
        assert feed.percent("a") is None  # which is asking about it
        bed.clock.forward(1)
        for each in ("left", "a"):
            await told(fake, "progress", {"value": 1, "max": 2, "prompt_id": each})
        await known(feed, 50)
        assert feed.percent("left") is None
        bed.clock.forward(FORGOTTEN_MS + 1)
        await told(fake, "status", {})
        while fake.sockets:
            await asyncio.sleep(0)
        await feed.close()


async def test_a_job_that_begins_as_another_ends_is_followed(bed: Bed) -> None:
    async with bed.fake() as fake:
        assert isinstance(fake, ComfyUI)
        feed = feed_of(bed, fake)
        feed.follow("ended")
        await fake.connected.acquire()
        feed.forget("ended")
        feed.follow("a")
        await fake.connected.acquire()
        await told(fake, "progress", {"value": 3, "max": 4, "prompt_id": "a"})
        await known(feed, 75)
        await feed.close()


MESSAGES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "data", "prompt_id", "nodes", "value", "max", "state"]), inner
        )
    ),
    max_leaves=9,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=MESSAGES, kind=st.sampled_from(["progress", "progress_state"]), data=MESSAGES)
def test_no_message_breaks_the_feed(message: Any, kind: str, data: Any) -> None:
    feed = Feed(nullcontext, Clock())  # type: ignore[arg-type]  # it never connects here
    feed._percent["a"] = 0
    feed._note(json.dumps(message))
    known_job = {**data, "prompt_id": "a"} if isinstance(data, dict) else data
    feed._note(json.dumps({"type": kind, "data": known_job}))
    assert 0 <= feed._percent["a"] <= 99
