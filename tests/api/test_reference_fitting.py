"""References made to fit an upstream, over HTTP: what it gets, and what the task says of it."""

from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from calotype.domain.channel import Channel, Served
from calotype.domain.secret import Secret
from console.tabs import Tab
from harness import Server, picture, running_server
from providers.fakes.azure_openai import AzureOpenAI
from providers.fakes.base import KEY, Fake, Order

PLAIN = Channel(id=20, slug="plain", name="Plain", provider="sandbox", priority=-1)


@pytest.fixture
async def azure() -> AsyncIterator[Fake]:
    """An upstream that takes PNG and JPEG."""
    async with AzureOpenAI(plan=()).running() as fake:
        yield fake


@pytest.fixture
async def server(azure: Fake, tmp_path: Path) -> AsyncIterator[Server]:
    """A server that has it, and a channel that takes anything, which comes after it."""
    channel = Channel(
        id=21,
        slug="azure",
        name="Azure",
        provider="azure-openai",
        base_url=azure.base_url,
        api_key=Secret(KEY),
        models={"gpt-image-2": Served(id="our-images")},
        priority=1,
    )
    async with running_server(tmp_path, behind_proxy=True, channels=(channel, PLAIN)) as running:
        yield running


def given(order: Order) -> list[bytes]:
    """The references that the upstream got."""
    return [part.data for part in order.call.parts if part.filename is not None]


async def finished(server: Server, *contents: bytes) -> dict[str, object]:
    files = [("image", content, "reference") for content in contents]
    accepted = await server.submit_form(*files, ("channel_id", "21"))
    assert accepted.status == 202, accepted.body
    return await server.finished(accepted.json["task_id"])


async def test_a_type_that_the_upstream_does_not_take_is_sent_as_another_and_told(
    server: Server, azure: Fake
) -> None:
    webp = picture("WEBP", size=(90, 60))
    task = await finished(server, picture(), webp)
    assert task["state"] == "success", task["error"]
    (order,) = azure.bought
    assert [Image.open(BytesIO(each)).format for each in given(order)] == ["PNG", "JPEG"]
    assert given(order)[0] == picture()
    facts = {"width": 90, "height": 60}
    assert task["reference_changes"] == [
        {
            "index": 1,
            "channel_id": 21,
            "from": {**facts, "content_type": "image/webp", "bytes": len(webp)},
            "to": {**facts, "content_type": "image/jpeg", "bytes": len(given(order)[1])},
            "reason": "It was made to fit the upstream: it takes no reference images of type "
            "image/webp.",
        }
    ]


async def test_a_task_whose_references_fit_says_nothing_of_it(server: Server, azure: Fake) -> None:
    task = await finished(server, picture("JPEG"))
    assert task["state"] == "success", task["error"]
    assert given(azure.bought[0]) == [picture("JPEG")]
    assert "reference_changes" not in task


async def test_copies_go_when_the_task_is_deleted(server: Server) -> None:
    task = await finished(server, picture("WEBP"))
    assert len(server.stored_files()) == 3
    reply = await server.call("DELETE", f"/v1/tasks/{task['task_id']}")
    assert reply.status in {200, 204}, reply.body
    assert server.stored_files() == []


async def test_the_page_of_the_task_tells_what_was_sent_instead(server: Server) -> None:
    task = await finished(server, picture(), picture("WEBP", size=(90, 60)))
    async with Tab(server) as tab:
        await tab.sign_in()
        page = (await tab.get(f"/console/tasks/{task['task_id']}")).body.decode()
    assert "Reference 2 was sent as image/jpeg, 90" in page
    assert "it takes no reference images of type image/webp." in page
    assert "Reference 1 was sent" not in page
