"""One Calotype as the upstream of another: both real, with the sandbox behind the second."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from aiohttp import web

from calotype.domain.channel import Channel, Served
from calotype.domain.clock import system_clock
from calotype.domain.ids import decode
from calotype.domain.outcomes import Accepted, Done, Failed, Fault, Refused
from calotype.domain.secret import Secret
from calotype.domain.task import Attempt, AttemptState
from calotype.net.client import UpstreamClient
from calotype.providers.kind import kind_of
from calotype.providers.line import Tools
from calotype.providers.port import Job, Provider
from harness import CREDIT, Server, picture, running_server, website
from imaging.samples import pixels
from providers.bed import content, followed, job, protocols, reference, references, upstream
from providers.protocol import Example

MODELS: Final = ("nano-banana-pro", "gpt-image-2")
PRICE: Final = 150_000
"""Of an image by ``PLAIN`` or ``PUBLIC``, by the catalog."""
PLAIN: Final = Example(model="nano-banana-pro", reads_model="nano-banana-pro", reads={})
PUBLIC: Final = msgspec.structs.replace(PLAIN, parameters={"output_format": "jpg"}, references=3)
EDIT: Final = Example(
    model="gpt-image-2",
    parameters={"aspect_ratio": "9:16"},
    references=4,
    reads_model="gpt-image-2",
    reads={},
)


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Server]:
    """The upstream; it may fetch references from loopback."""
    async with running_server(tmp_path / "far", reference_allow_hosts=("127.0.0.1",)) as running:
        yield running


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[UpstreamClient]:
    opened = UpstreamClient(tmp_path)
    yield opened
    await opened.close()


def channel_to(far: Server, *, key: str = "") -> Channel:
    """A channel that leads to a server."""
    return Channel(
        id=10,
        slug="far",
        name="Far",
        provider="xenodia",
        base_url=far.url,
        api_key=Secret(key or far.key),
        models=dict.fromkeys(MODELS, Served()),
        idempotent=True,
    )


def provider_to(far: Server, client: UpstreamClient, *, key: str = "") -> Provider:
    """What speaks to a server."""
    tools = Tools(client=client, clock=system_clock)
    return kind_of("xenodia").make(channel_to(far, key=key), upstream("xenodia"), tools)


def asked(example: Example = PLAIN, **changes: object) -> Job:
    """One attempt at an example."""
    return job(protocols()["xenodia"], example, **changes)


def prompted(prompt: str) -> Job:
    """One attempt at another prompt."""
    plain = asked()
    return msgspec.structs.replace(
        plain, request=msgspec.structs.replace(plain.request, prompt=prompt)
    )


async def finished(far: Server, provider: Provider, job: Job) -> tuple[str, Done | Failed]:
    """The upstream's id of a job, and how it ended."""
    accepted = await provider.submit(job)
    assert isinstance(accepted, Accepted), accepted
    await far.finished(accepted.upstream_id)
    ended = await followed(provider, job, accepted.upstream_id)
    assert isinstance(ended, Done | Failed), ended
    return accepted.upstream_id, ended


async def attempts(server: Server, task_id: str) -> Sequence[Attempt]:
    """The purchases of a task, as the operator sees them."""
    number = decode("task", task_id)
    assert number is not None
    return await server.core.store.attempts(number)


async def referred(far: Server, task: dict[str, Any]) -> list[bytes]:
    """The references of a task as its upstream holds them."""
    urls = task["request"]["image_input"]
    return [(await far.call("GET", url, headers={"Authorization": ""})).body for url in urls]


@asynccontextmanager
async def losing_an_answer(far: Server) -> AsyncIterator[str]:
    """The URL of a way to a server on which the first answer is lost."""
    connections = 0

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        async with far.connection() as (far_reader, far_writer):
            there = asyncio.create_task(pass_on(reader, far_writer))
            if connections == 1:
                await far_reader.read(1)
            else:
                await pass_on(far_reader, writer)
            writer.close()
            await there

    server = await asyncio.start_server(lead, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything that comes, to its end."""
    while chunk := await reader.read(65536):
        writer.write(chunk)
    writer.close()


async def test_references_by_url_are_fetched_there(far: Server, client: UpstreamClient) -> None:
    async def serve(request: web.Request) -> web.Response:
        number = int(request.path.strip("/").partition(".")[0])
        return web.Response(body=reference(number), content_type="image/png")

    provider = provider_to(far, client)
    async with website(serve) as site:
        public = tuple(
            msgspec.structs.replace(each, url=f"{site}/{number}.png")
            for number, each in enumerate(references(3))
        )
        upstream_id, ended = await finished(far, provider, asked(PUBLIC, references=public))
    task = await far.task(upstream_id)
    assert isinstance(ended, Done)
    assert ended.cost_micro_usdc == PRICE == task["billing"]["actual_amount_micro_usdc"]
    assert task["request"]["image_input"] == [reference.url for reference in public]
    assert (await content(ended.images[0])).startswith(b"\xff\xd8")  # as JPEG, as asked


async def test_references_without_a_url_are_streamed_in_a_form(
    far: Server, client: UpstreamClient
) -> None:
    upstream_id, ended = await finished(far, provider_to(far, client), asked(EDIT))
    task = await far.task(upstream_id)
    assert isinstance(ended, Done)
    assert await referred(far, task) == [reference(index) for index in range(4)]
    fields = ("model", "prompt", "aspect_ratio", "resolution")
    request = asked(EDIT).request
    assert [task["request"].get(name) for name in fields] == [
        request.model,
        request.prompt,
        *request.parameters.values(),
    ]


@pytest.mark.parametrize("example", [PLAIN, EDIT])
async def test_one_purchase_sent_twice_is_one_task_there(
    far: Server, client: UpstreamClient, example: Example
) -> None:
    provider = provider_to(far, client)
    first = await provider.submit(asked(example))
    again = await provider.submit(asked(example, attempt=2))
    other = await provider.submit(asked(example, reference="3f5a0f3e-0a52-4b0e-8a5e-0c1f6d2f4b77"))
    assert isinstance(first, Accepted)
    assert isinstance(again, Accepted)
    assert isinstance(other, Accepted)
    assert first.upstream_id == again.upstream_id != other.upstream_id


async def test_a_refusal_there_is_told_by_its_code(far: Server, client: UpstreamClient) -> None:
    _, ended = await finished(far, provider_to(far, client), prompted("x sandbox:refuse"))
    assert isinstance(ended, Failed)
    assert (ended.code, ended.fault) == ("content_policy_violation", Fault.POLICY)
    assert ended.cost_micro_usdc == 0


async def test_a_key_that_is_unknown_or_poor_is_the_operators_matter(
    far: Server, client: UpstreamClient
) -> None:
    poor = await far.new_key("poor")
    for key, fault in (("ctp_unknown", Fault.KEY), (poor, Fault.ACCOUNT)):
        refused = await provider_to(far, client, key=key).submit(asked())
        assert isinstance(refused, Refused)
        assert (refused.fault, refused.code) == (fault, "upstream_unavailable")


async def test_a_task_goes_the_whole_way_through_two_servers(far: Server, tmp_path: Path) -> None:
    picture_sent = picture(size=(80, 60), colour="navy")
    async with running_server(tmp_path / "near", channels=(channel_to(far),)) as near:
        accepted = await near.submit_form(
            ("model", "nano-banana-pro"),
            ("aspect_ratio", "16:9"),
            ("image", picture_sent, "a.png"),
            ("image", reference(1), "b.png"),
        )
        assert accepted.status == 202, accepted.body
        task = await near.finished(accepted.json["task_id"])
        assert task["state"] == "success", task["error"]
        (shown,) = task["result"]["data"]
        here = await near.call("GET", shown["url"])
        (attempt,) = await attempts(near, accepted.json["task_id"])
    there = await far.task(attempt.upstream_id or "")
    assert await referred(far, there) == [picture_sent, reference(1)]
    assert attempt.cost_micro_usdc == there["billing"]["actual_amount_micro_usdc"] == PRICE
    made = await far.call("GET", there["result"]["data"][0]["url"])
    assert pixels(here.body) == pixels(made.body), "each says in it where it comes from"
    assert (await far.balance())["balance_micro_usdc"] == CREDIT - PRICE


@asynccontextmanager
async def two_servers(root: Path) -> AsyncIterator[tuple[Server, Server]]:
    """One server, and another to which it is the upstream."""
    async with (
        running_server(root / "upstream", sandbox_seconds=0.6) as there,
        running_server(root / "near", channels=(channel_to(there),)) as near,
    ):
        yield near, there


async def generating(near: Server, prompt: str) -> tuple[dict[str, Any], str]:
    """A task that the other server is at, and the id that it has there."""
    task = await near.accepted(prompt=prompt, model="nano-banana-pro")
    while task["state"] != "generating":
        path = f"/v1/tasks/{task['task_id']}?wait=10&since={task['last_event']}"
        task = (await near.call("GET", path)).json
    (attempt,) = await attempts(near, task["task_id"])
    return task, attempt.upstream_id or ""


async def test_a_task_that_is_cancelled_here_is_cancelled_there(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (near, there):
        task, far_id = await generating(near, "x sandbox:delay=600")
        marked = await near.call("POST", f"/v1/tasks/{task['task_id']}/cancel")
        assert (marked.status, marked.json["task_id"]) == (200, task["task_id"])
        ended, gone = await near.finished(task["task_id"]), await there.finished(far_id)
        (attempt,) = await attempts(near, task["task_id"])
        assert attempt.state is AttemptState.FAILED
        assert attempt.cost_micro_usdc == 0
        for each, server in ((ended, near), (gone, there)):
            assert (each["state"], each["error"]["code"]) == ("fail", "cancelled")
            assert each["billing"]["status"] == "released"
            assert (await server.balance())["balance_micro_usdc"] == CREDIT
            assert await server.core.store.prove() == []


async def test_what_the_other_server_charges_all_the_same_is_the_operators_cost(
    tmp_path: Path,
) -> None:
    async with two_servers(tmp_path) as (near, there):
        task, far_id = await generating(near, "x sandbox:unstoppable sandbox:delay=1.5")
        await near.call("POST", f"/v1/tasks/{task['task_id']}/cancel")
        ended, gone = await near.finished(task["task_id"]), await there.finished(far_id)
        (attempt,) = await attempts(near, task["task_id"])
        assert attempt.cost_micro_usdc == PRICE
        for each, server, paid in ((ended, near, 0), (gone, there, PRICE)):
            assert (each["state"], each["error"]["code"]) == ("fail", "cancelled")
            assert (await server.balance())["balance_micro_usdc"] == CREDIT - paid
            assert await server.core.store.prove() == []


async def test_an_answer_lost_between_two_servers_buys_once(far: Server, tmp_path: Path) -> None:
    async with losing_an_answer(far) as url:
        channel = msgspec.structs.replace(channel_to(far), base_url=url)
        async with running_server(tmp_path / "near", channels=(channel,)) as near:
            task = await near.outcome(model="nano-banana-pro")
            assert task["state"] == "success", task["error"]
            bought = await attempts(near, task["task_id"])
    assert [attempt.state for attempt in bought] == [AttemptState.UNKNOWN, AttemptState.DONE]
    assert (await far.balance())["balance_micro_usdc"] == CREDIT - PRICE
