"""OpenAI's own Python client, unmodified and with its defaults, against real servers."""

import asyncio
import base64
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from io import BytesIO
from pathlib import Path
from typing import Any, Final, TypeVar

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image

from acceptance.cluster import MODEL, PAID, Cluster, Member, eventually, running_cluster
from harness import picture
from postgres import fresh_database, running_postgres

T = TypeVar("T")

PINNED: Final = {"channel_id": PAID}
"""On a channel where a second send would cost again."""


BOTH: Final = pytest.mark.parametrize("cluster", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A folder for SQLite, or for the storage that the test names."""
    async with AsyncExitStack() as stack:
        url = ""
        if getattr(request, "param", "sqlite") == "postgres":
            url = await stack.enter_async_context(
                fresh_database(request.getfixturevalue("postgres"))
            )
        yield await stack.enter_async_context(running_cluster(tmp_path, url, sandbox_seconds="0.2"))


async def started(cluster: Cluster, *, port: int = 0) -> Member:
    """An API and a worker."""
    api = await cluster.api(port=port)
    if cluster.database_url:
        await cluster.worker()
    return api


@pytest.fixture
async def api(cluster: Cluster) -> Member:
    return await started(cluster)


@pytest.fixture
async def client(cluster: Cluster, api: Member) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{api.url}/openai/v1", api_key=cluster.key) as opened:
        yield opened


async def blocking(cluster: Cluster, api: Member, use: Callable[[OpenAI], T]) -> T:
    """What the synchronous client comes to."""

    def run() -> T:
        with OpenAI(base_url=f"{api.url}/openai/v1", api_key=cluster.key) as opened:
            return use(opened)

    return await asyncio.to_thread(run)


def image_of(data: str | None) -> Image.Image:
    assert data is not None
    return Image.open(BytesIO(base64.b64decode(data, validate=True)))


def only(response: Any) -> Any:
    assert response.data is not None
    (item,) = response.data
    return item


async def purchases(cluster: Cluster) -> list[str]:
    """The state of every attempt there ever was."""
    return [state for each in (await cluster.attempts()).values() for state, _ in each]


@BOTH
async def test_an_image_is_generated_inline_and_as_a_link(
    cluster: Cluster, client: AsyncOpenAI
) -> None:
    inline = await client.images.generate(
        model=MODEL, prompt="a boat", size="160x160", extra_body=PINNED
    )
    assert (inline.size, inline.output_format) == ("160x160", "jpeg")
    with image_of(only(inline).b64_json) as image:
        assert (image.format, image.size) == ("JPEG", (160, 160))
    linked = await client.images.generate(model=MODEL, prompt="a boat", response_format="url")
    async with cluster.http.get(only(linked).url) as response:
        assert (response.status, response.content_type) == (200, "image/jpeg")
    assert await cluster.one("SELECT COUNT(*) FROM tasks WHERE state = 'success'") == 2
    await cluster.assert_books()


@BOTH
async def test_images_are_edited_in_their_order(cluster: Cluster, client: AsyncOpenAI) -> None:
    sent = [picture(colour="red"), picture("JPEG", colour="blue"), picture("WEBP", colour="green")]
    edited = await client.images.edit(
        model="gpt-image-2", prompt="together", image=list(sent), size="1024x1024", quality="auto"
    )
    assert image_of(only(edited).b64_json).size == (1024, 1024)
    alone = await client.images.edit(model="gpt-image-2", prompt="alone", image=sent[0])
    assert only(alone).b64_json
    stored = await cluster.rows(
        "SELECT key FROM assets WHERE kind = 'reference' ORDER BY id LIMIT 3"
    )
    assert [(cluster.data / "assets" / key).read_bytes() for (key,) in stored] == sent


async def test_an_edit_takes_metadata_as_the_client_flattens_it(
    cluster: Cluster, api: Member, client: AsyncOpenAI
) -> None:
    edited = await client.images.with_raw_response.edit(
        model="gpt-image-2",
        prompt="a boat",
        image=picture(),
        user="ada",
        extra_body={"metadata": {"order": "7"}},
    )
    task = await cluster.task(api, edited.headers["x-calotype-task-id"])
    assert task["metadata"] == {"user": "ada", "order": "7"}


async def test_a_stream_ends_with_the_finished_image(client: AsyncOpenAI) -> None:
    generated = await client.images.generate(
        model=MODEL, prompt="a boat", stream=True, partial_images=2
    )
    (event,) = [event async for event in generated]
    assert event.type == "image_generation.completed"
    assert (event.size, event.output_format, event.usage.total_tokens) == ("160x160", "jpeg", 0)
    assert image_of(event.b64_json).size == (160, 160)
    edited = await client.images.edit(
        model="gpt-image-2", prompt="a boat", image=picture(), stream=True
    )
    assert [event.type async for event in edited] == ["image_edit.completed"]
    refused = await client.images.generate(model=MODEL, prompt="sandbox:refuse", stream=True)
    with pytest.raises(openai.APIError, match="content policy") as caught:
        _ = [event async for event in refused]
    assert caught.value.code == "content_policy_violation"


async def test_models_are_listed_and_found(client: AsyncOpenAI) -> None:
    listed = [model async for model in client.models.list()]
    assert {model.id for model in listed} >= {MODEL, "gpt-image-2", "nano-banana-pro"}
    found = await client.models.retrieve(MODEL)
    assert (found.object, found.owned_by) == ("model", "test")
    with pytest.raises(openai.NotFoundError, match="There is no model"):
        await client.models.retrieve("dall-e-3")


async def test_the_synchronous_client_does_the_same(cluster: Cluster, api: Member) -> None:
    def use(client: OpenAI) -> None:
        assert MODEL in {model.id for model in client.models.list()}
        generated = client.images.generate(model=MODEL, prompt="a boat", extra_body=PINNED)
        assert image_of(only(generated).b64_json).size == (160, 160)
        edited = client.images.edit(
            model="gpt-image-2", prompt="x", image=[("a.png", picture()), ("b.png", picture())]
        )
        assert only(edited).b64_json
        stream = client.images.generate(model=MODEL, prompt="a boat", stream=True)
        assert [event.type for event in stream] == ["image_generation.completed"]
        with pytest.raises(openai.BadRequestError):
            client.images.generate(model=MODEL, prompt="a boat", size="1024x1024")

    await blocking(cluster, api, use)


async def test_refusals_are_the_clients_own_exceptions(
    cluster: Cluster, client: AsyncOpenAI
) -> None:
    generate: Any = client.images.generate
    for refused, kind, code, param in (
        ({"size": "1x1"}, openai.BadRequestError, "invalid_parameter", "size"),
        ({"model": "dall-e-3"}, openai.BadRequestError, "unknown_model", "model"),
        ({"style": "vivid"}, openai.BadRequestError, "unsupported_parameter", "style"),
        (
            {"prompt": "sandbox:refuse"},
            openai.BadRequestError,
            "content_policy_violation",
            None,
        ),
    ):
        with pytest.raises(kind) as caught:
            await generate(**{"model": MODEL, "prompt": "a boat", **refused})
        assert (caught.value.code, caught.value.param) == (code, param)
        assert caught.value.request_id
    with pytest.raises(openai.BadRequestError, match="mask"):
        await client.images.edit(
            model="gpt-image-2", prompt="x", image=picture(), mask=("mask.png", picture())
        )
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="sk-unknown").images.generate(model=MODEL, prompt="x")
    assert await cluster.one("SELECT COUNT(*) FROM tasks") == 1


@pytest.mark.parametrize(
    ("word", "code", "state"),
    [
        ("unknown", "upstream_outcome_unknown", "unknown"),
        ("500-after", "upstream_failed", "failed"),
    ],
)
async def test_what_failed_after_it_was_accepted_is_not_sent_again(
    cluster: Cluster, client: AsyncOpenAI, word: str, code: str, state: str
) -> None:
    assert client.max_retries == 2
    with pytest.raises(openai.APIStatusError) as caught:
        await client.images.generate(model=MODEL, prompt=f"sandbox:{word}", extra_body=PINNED)
    assert (caught.value.status_code, caught.value.code) == (424, code)
    assert await purchases(cluster) == [state]


@BOTH
async def test_a_client_that_loses_patience_tries_again_and_buys_once(
    cluster: Cluster, client: AsyncOpenAI
) -> None:
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=1.5).images.generate(
            model=MODEL, prompt="sandbox:delay=60", extra_body=PINNED
        )
    assert await cluster.one("SELECT COUNT(*) FROM tasks") == 1
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=1.5).images.edit(
            model="gpt-image-2", prompt="sandbox:delay=60", image=picture(), extra_body=PINNED
        )
    assert await cluster.one("SELECT COUNT(*) FROM tasks") == 2
    await eventually(lambda: sent(cluster, 2), "both are sent")
    assert await purchases(cluster) == ["accepted"] * 2


async def sent(cluster: Cluster, number: int) -> bool:
    return len(await purchases(cluster)) == number


@BOTH
async def test_a_server_killed_in_the_middle_is_asked_again_for_the_same_image(
    cluster: Cluster,
) -> None:
    api = await started(cluster)
    async with AsyncOpenAI(
        base_url=f"{api.url}/openai/v1", api_key=cluster.key, max_retries=20
    ) as client:
        asking = asyncio.create_task(
            client.images.generate(model=MODEL, prompt="sandbox:delay=2", extra_body=PINNED)
        )
        await eventually(lambda: sent(cluster, 1), "it is sent")
        await api.kill()
        again = await cluster.api(port=int(api.url.rpartition(":")[2]))
        assert only(await asking).b64_json, again.log
    assert await purchases(cluster) == ["done"]
    await cluster.assert_books()


async def test_a_database_that_goes_away_meanwhile_is_waited_for(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="calotype-pg-") as folder,
        running_postgres(Path(folder)) as postgres,
    ):
        async with fresh_database(postgres) as url, running_cluster(tmp_path, url) as cluster:
            api = await started(cluster)
            async with AsyncOpenAI(
                base_url=f"{api.url}/openai/v1", api_key=cluster.key, max_retries=0
            ) as client:
                asking = asyncio.create_task(
                    client.images.generate(model=MODEL, prompt="sandbox:delay=3", extra_body=PINNED)
                )
                await eventually(lambda: sent(cluster, 1), "it is sent")
                postgres.stop()
                await eventually(lambda: unready(cluster, api), "the database is missed")
                postgres.start()
                assert only(await asking).b64_json, cluster.told()
            assert await purchases(cluster) == ["done"]


async def unready(cluster: Cluster, api: Member) -> bool:
    async with cluster.http.get(f"{api.url}/readyz") as response:
        return response.status == 503


@BOTH
async def test_a_server_told_to_stop_says_that_the_task_goes_on(cluster: Cluster) -> None:
    api = await started(cluster)
    async with AsyncOpenAI(
        base_url=f"{api.url}/openai/v1", api_key=cluster.key, max_retries=0
    ) as client:
        asking = asyncio.create_task(
            client.images.generate(model=MODEL, prompt="sandbox:never", extra_body=PINNED)
        )
        streaming = await client.images.generate(
            model=MODEL, prompt="sandbox:never", stream=True, extra_body=PINNED
        )
        await eventually(lambda: sent(cluster, 2), "both are sent")
        assert await api.terminate() == 0
        with pytest.raises(openai.APIStatusError, match="goes on") as caught:
            await asking
        assert caught.value.response.headers["x-should-retry"] == "true"
        with pytest.raises(openai.APIError, match="goes on"):
            _ = [event async for event in streaming]
    assert "Traceback" not in api.log


@BOTH
async def test_the_same_key_gives_the_same_image_and_a_lost_client_finds_its_task(
    cluster: Cluster, api: Member, client: AsyncOpenAI
) -> None:
    order = {"Idempotency-Key": "cover-1"}
    asking = asyncio.create_task(
        client.images.generate(
            model=MODEL, prompt="sandbox:delay=1", extra_headers=order, extra_body=PINNED
        )
    )
    await eventually(lambda: sent(cluster, 1), "it is sent")
    asking.cancel()
    await cluster.all_final(1)
    ((task_id,),) = await cluster.rows("SELECT id FROM tasks WHERE state = 'success'")
    first = await client.images.generate(
        model=MODEL, prompt="sandbox:delay=1", extra_headers=order, extra_body=PINNED
    )
    again = await client.images.generate(
        model=MODEL, prompt="sandbox:delay=1", extra_headers=order, extra_body=PINNED
    )
    assert only(first).b64_json == only(again).b64_json
    with pytest.raises(openai.ConflictError) as caught:
        await client.images.generate(
            model=MODEL, prompt="another", extra_headers=order, extra_body=PINNED
        )
    assert caught.value.code == "idempotency_conflict"
    assert await cluster.rows("SELECT id FROM tasks") == [(task_id,)]
    await cluster.assert_books()
    assert api.alive
