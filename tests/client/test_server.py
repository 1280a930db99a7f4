"""The client against a real server, blocking and in asyncio."""

import os
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image as Picture

from calotype.client import (
    AuthenticationError,
    BillingError,
    CalotypeError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    TaskFailed,
    WaitTimeout,
)
from client.speaking import Kind, do, first, names_in, opened
from harness import Server, picture

MODEL = "gpt-image-2"


async def test_an_image_is_made_waited_for_and_written_to_a_file(
    server: Server, kind: Kind, tmp_path: Path
) -> None:
    async with opened(kind, server.key, server.url) as client:
        task = await do(client.generate, "A lighthouse", model=MODEL, aspect_ratio="16:9")
        assert (task.state, task.is_final, task.result, task.model) == ("waiting", False, [], MODEL)
        done = await do(task.wait)
        assert (done.id, done.state, done.progress, done.error) == (task.id, "success", 100, None)
        assert done.request["aspect_ratio"] == "16:9"
        assert done.completed_at >= done.created_at
        assert done.billing.actual_amount_micro_usdc == 60_000
        (image,) = done.result
        assert (image.width, image.height, image.content_type) == (1536, 864, "image/png")
        (path,) = await do(task.save, tmp_path / "lighthouse.png")
        assert path.read_bytes() == await do(client.download, image.url)
        with Picture.open(path) as opened_again:
            assert opened_again.size == (1536, 864)


async def test_in_a_folder_an_image_is_named_by_its_task(
    server: Server, kind: Kind, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    async with opened(kind, server.key, server.url) as client:
        task = await do(client.generate, "A lighthouse", model=MODEL)
        assert await do(task.save, tmp_path / "images") == [tmp_path / f"images/{task.id}.png"]
    assert [path.name for path in (tmp_path / "images").iterdir()] == [f"{task.id}.png"]


async def test_deleted_images_are_gone_and_their_task_stays(
    server: Server, kind: Kind, tmp_path: Path
) -> None:
    async with opened(kind, server.key, server.url) as client:
        task = await do((await do(client.generate, "A lighthouse", model=MODEL)).wait)
        (image,) = task.result
        await do(client.delete, task.id)
        await do(task.delete)
        with pytest.raises(NotFoundError, match="asset_not_found"):
            await do(client.download, image.url)
        left = await do(task.refresh)
        assert (left.state, left.result, left.billing) == ("success", [], task.billing)
        with pytest.raises(CalotypeError, match=rf"The images of {task.id} were deleted\."):
            await do(left.save, tmp_path / "lighthouse.png")
        with pytest.raises(NotFoundError, match="task_not_found"):
            await do(client.delete, "task_0000000000000")


async def test_what_is_not_final_is_not_deleted(idle_server: Server, kind: Kind) -> None:
    async with opened(kind, idle_server.key, idle_server.url) as client:
        task = await do(client.generate, "x", model=MODEL)
        with pytest.raises(ConflictError, match="task_not_final"):
            await do(task.delete)


async def test_references_of_every_kind_keep_their_order(
    idle_server: Server, kind: Kind, tmp_path: Path
) -> None:
    url = "https://example.com/a.png"
    shades = [picture(colour=colour) for colour in ("red", "green", "blue", "white")]
    (tmp_path / "r.png").write_bytes(shades[0])
    read_before = BytesIO(shades[2])
    read_before.seek(0, os.SEEK_END)
    reading, writing = os.pipe()
    os.write(writing, shades[3])
    os.close(writing)
    with os.fdopen(reading, "rb") as unseekable:
        references = [tmp_path / "r.png", url, shades[1], read_before, unseekable]
        async with opened(kind, idle_server.key, idle_server.url) as client:
            task = await do(client.generate, "x", model=MODEL, references=references)
            given = (await do(task.refresh)).request["image_input"]
            assert given[1] == url
            fetched = [await do(client.download, one) for one in given if one != url]
    assert fetched == shades


async def test_references_by_url_need_no_form(idle_server: Server, kind: Kind) -> None:
    urls = ["https://example.com/b.png", "https://example.com/a.png"]
    async with opened(kind, idle_server.key, idle_server.url) as client:
        task = await do(client.generate, "x", model=MODEL, references=urls)
        assert (await do(client.task, task.id)).request["image_input"] == urls


async def test_the_events_of_a_task_come_in_order_and_end_with_it(
    server: Server, kind: Kind
) -> None:
    async with opened(kind, server.key, server.url) as client:
        # A line separator of Unicode's is none of the stream's.
        task = await do(client.generate, "two\u2028lines", model=MODEL)
        events = await do(task.events)
    assert [event.id for event in events] == [str(place + 1) for place in range(len(events))]
    assert (events[0].state, events[-1].state) == ("waiting", "success")
    assert [event.task is None for event in events] == [True] * (len(events) - 1) + [False]
    assert events[-1].task.request["prompt"] == "two\u2028lines"
    assert {event.task_id for event in events} == {task.id}


async def test_the_events_of_the_account_go_on_after_the_last_one_seen(
    server: Server, kind: Kind
) -> None:
    async with opened(kind, server.key, server.url) as client:
        one = await do(client.generate, "one", model=MODEL)
        cursor = await server.core.store.events_end()
        two = await do(client.generate, "two", model=MODEL)
        await do(one.wait)
        await do(two.wait)
        (event,) = await first(1, client.events, cursor)
        (again, after) = await first(2, client.events, cursor)
        (further,) = await first(1, client.events, event.id)
    assert event == again
    assert (further.id, further.state) == (after.id, after.state)


async def test_discovery_and_balance_are_typed(server: Server, kind: Kind) -> None:
    async with opened(kind, server.key, server.url) as client:
        models = await do(client.models)
        assert await do(client.model, MODEL) in models
        assert (await do(client.model, MODEL)).capabilities["reference_input"]["max_items"] == 16
        before = await do(client.balance)
        await do((await do(client.generate, "x", model=MODEL)).wait)
        after = await do(client.balance)
    assert before.available_micro_usdc - after.balance_micro_usdc == 60_000


async def test_a_refusal_is_an_error_of_its_family(server: Server, kind: Kind) -> None:
    poor = await server.new_key("poor")
    async with opened(kind, server.key, server.url) as client:
        with pytest.raises(InvalidRequestError) as refused:
            await do(client.generate, "x", model=MODEL, aspect_ratio="7:1")
        error = refused.value
        assert (error.status, error.code, error.param) == (400, "invalid_parameter", "aspect_ratio")
        assert (error.type, error.retry_after) == ("invalid_request_error", None)
        assert error.request_id
        assert str(error) == f"{error.message} (invalid_parameter)"
        with pytest.raises(NotFoundError, match="task_not_found"):
            await do(client.task, "task_0000000000000")
        with pytest.raises(NotFoundError, match="unknown_route"):
            await do(client.task, "../models")
        await do(client.generate, "x", model=MODEL, idempotency_key="once")
        with pytest.raises(ConflictError):
            await do(client.generate, "y", model=MODEL, idempotency_key="once")
        with pytest.raises(PermissionDeniedError, match="invalid_signature"):
            await do(client.download, f"{server.url}/v1/assets/asset_0000000000000.png?expires=9")
    async with opened(kind, "ck_unknown", server.url) as client:
        with pytest.raises(AuthenticationError):
            await do(client.balance)
    async with opened(kind, poor, server.url) as client:
        with pytest.raises(BillingError, match="insufficient_balance"):
            await do(client.generate, "x", model=MODEL)


async def test_the_same_idempotency_key_gives_the_same_task(server: Server, kind: Kind) -> None:
    async with opened(kind, server.key, server.url) as client:
        one, two = [
            await do(client.generate, "x", model=MODEL, idempotency_key="mine") for _ in range(2)
        ]
        other = await do(client.generate, "x", model=MODEL)
    assert one.id == two.id != other.id


async def test_a_failed_task_is_raised_with_what_it_tells(
    server: Server, kind: Kind, tmp_path: Path
) -> None:
    async with opened(kind, server.key, server.url) as client:
        task = await do(client.generate, "sandbox:refuse", model=MODEL)
        with pytest.raises(TaskFailed) as failed:
            await do(task.wait)
        error = failed.value.task.error
        assert error is not None
        assert (error.code, error.retryable) == ("content_policy_violation", False)
        assert str(failed.value) == f"{task.id} failed: {error.message} ({error.code})"
        with pytest.raises(TaskFailed):
            await do(task.save, tmp_path / "x.png")
        failed_task = await do(client.task, task.id)
        with pytest.raises(TaskFailed):
            await do(failed_task.wait)
    assert names_in(tmp_path) == ["data"]


async def test_waiting_ends_in_time_with_the_task_as_it_stands(
    idle_server: Server, kind: Kind
) -> None:
    async with opened(kind, idle_server.key, idle_server.url) as client:
        task = await do(client.generate, "x", model=MODEL)
        for seconds in (0, 0.01, 1):
            with pytest.raises(WaitTimeout, match="is not final yet: waiting, 0 %") as late:
                await do(task.wait, seconds)
            assert late.value.task.last_event == 1
