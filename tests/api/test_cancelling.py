"""Cancelling over HTTP, and images that come one by one, with either database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from calotype.domain.catalog import Cancellation
from calotype.domain.channel import Channel
from calotype.domain.ids import decode
from calotype.domain.task import AttemptState
from harness import CREDIT, Reply, Server, running_server
from postgres import fresh_database

PRICE = 60_000
SEVERAL = "recraft-v4.1"
EACH = 35_000
PAID = Channel(id=10, slug="paid", name="Paid", provider="sandbox", free=False)


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of the database; empty for the embedded one."""
    if request.param == "sqlite":
        yield ""
        return
    async with fresh_database(request.getfixturevalue("postgres")) as url:
        yield url


@pytest.fixture
async def server(tmp_path: Path, database: str) -> AsyncIterator[Server]:
    async with opened(tmp_path, database, sandbox_seconds=0.3) as running:
        yield running


def opened(folder: Path, database: str, **settings: Any) -> AbstractAsyncContextManager[Server]:
    return running_server(folder, database_url=database, **settings)


async def cancel(server: Server, task_id: str, **options: Any) -> Reply:
    return await server.call("POST", f"/v1/tasks/{task_id}/cancel", **options)


async def cancelled(server: Server, task_id: str) -> dict[str, Any]:
    reply = await cancel(server, task_id)
    assert reply.status == 200, reply.body
    document: dict[str, Any] = reply.json
    return document


async def reached(server: Server, task_id: str, state: str) -> dict[str, Any]:
    """The task as soon as it is seen in a state."""
    task = await server.task(task_id)
    while task["state"] != state:
        assert task["state"] not in {"success", "fail"}, task
        path = f"/v1/tasks/{task_id}?wait=10&since={task['last_event']}"
        task = (await server.call("GET", path)).json
    return task


async def attempt_states(server: Server, task_id: str) -> list[AttemptState]:
    number = decode("task", task_id)
    assert number is not None
    return [each.state for each in await server.core.store.attempts(number)]


async def assert_settled(server: Server, task: dict[str, Any], *, paid: int) -> None:
    """It ended as cancelled, and was charged exactly this."""
    assert (task["state"], task["error"]["code"]) == ("fail", "cancelled"), task
    assert task["result"] == {}
    billing = task["billing"]
    assert billing["actual_amount_micro_usdc"] == paid
    assert billing["released_amount_micro_usdc"] == billing["reserve_amount_micro_usdc"] - paid
    assert billing["status"] == ("committed" if paid else "released")
    assert "completed_at" in task
    assert await server.balance() == {
        "balance_micro_usdc": CREDIT - paid,
        "reserved_micro_usdc": 0,
        "available_micro_usdc": CREDIT - paid,
    }
    assert await server.core.store.prove() == []


async def test_a_task_that_waits_ends_at_once_and_costs_nothing(
    tmp_path: Path, database: str
) -> None:
    async with opened(tmp_path, database, with_worker=False) as server:
        waiting = await server.accepted()
        task = await cancelled(server, waiting["task_id"])
        assert "cancel_requested_at" not in task
        assert await server.task(task["task_id"]) == task
        await assert_settled(server, task, paid=0)
        assert await cancelled(server, task["task_id"]) == task


async def test_a_task_that_is_generating_is_stopped_at_its_upstream(server: Server) -> None:
    task_id = (await server.accepted(prompt="sandbox:delay=600"))["task_id"]
    before = await reached(server, task_id, "generating")
    marked = await cancelled(server, task_id)
    assert marked["state"] in {"generating", "fail"}
    assert marked["cancel_requested_at"] >= marked["created_at"]
    if marked["state"] == "generating":
        assert marked["last_event"] > before["last_event"]
    task = await server.finished(task_id)
    assert task["cancel_requested_at"] == marked["cancel_requested_at"]
    await assert_settled(server, task, paid=0)
    assert await attempt_states(server, task_id) == [AttemptState.FAILED]


async def test_what_is_finished_all_the_same_costs_what_discovery_says(
    tmp_path: Path, database: str
) -> None:
    prompt = "sandbox:unstoppable sandbox:delay=0.8"
    async with opened(tmp_path, database) as server:
        task_id = (await server.accepted(prompt=prompt))["task_id"]
        await reached(server, task_id, "generating")
        await cancelled(server, task_id)
        task = await server.finished(task_id)
        shown = (await server.call("GET", "/v1/models/gpt-image-2")).json
        rule = shown["capabilities"]["cancellation"]
        assert rule["free_in"] == ["waiting", "queuing"]
        assert rule["generating"]["percent_if_finished"] == 100
        prices = [tier["price_micro_usdc"] for tier in rule["generating"]["tiers"]]
        assert PRICE in prices
        await assert_settled(server, task, paid=PRICE)
        assert await attempt_states(server, task_id) == [AttemptState.DONE]
        assert server.stored_files() == []


@pytest.mark.parametrize("percent", [0, 33])
async def test_the_share_is_the_models(tmp_path: Path, percent: int) -> None:
    async with opened(tmp_path, "", sandbox_seconds=0.8) as server:
        models = dict(server.core.catalog.models)
        changed = msgspec.structs.replace(
            models["gpt-image-2"], cancellation=Cancellation(percent=percent)
        )
        server.core.catalog.models["gpt-image-2"] = changed  # type: ignore[index]  # a dict at heart
        task_id = (await server.accepted(prompt="sandbox:unstoppable"))["task_id"]
        await reached(server, task_id, "generating")
        await cancelled(server, task_id)
        await assert_settled(server, await server.finished(task_id), paid=PRICE * percent // 100)


async def test_asking_again_and_again_and_all_at_once_is_asking_once(server: Server) -> None:
    task_id = (await server.accepted(prompt="sandbox:delay=600"))["task_id"]
    await reached(server, task_id, "generating")
    replies = await asyncio.gather(*(cancelled(server, task_id) for _ in range(8)))
    assert len({reply["cancel_requested_at"] for reply in replies}) == 1
    task = await server.finished(task_id)
    await assert_settled(server, task, paid=0)
    assert await cancelled(server, task_id) == task


async def test_a_success_stays_a_success(server: Server) -> None:
    task = await server.outcome()
    after = await cancelled(server, task["task_id"])
    assert (after["state"], after["billing"]) == ("success", task["billing"])
    assert "cancel_requested_at" not in after


async def test_anothers_task_is_none(server: Server) -> None:
    task_id = (await server.accepted(prompt="sandbox:delay=600"))["task_id"]
    other = await server.for_account()
    for word in (task_id, "task_0000000000000", "nonsense"):
        (await cancel(other, word)).assert_refused(404, "task_not_found")
    assert "cancel_requested_at" not in await server.task(task_id)
    await cancelled(server, task_id)
    await server.finished(task_id)


async def test_a_key_is_needed_and_a_body_means_nothing(server: Server) -> None:
    task_id = (await server.accepted(prompt="sandbox:delay=600"))["task_id"]
    anonymous = await server.anonymous("POST", f"/v1/tasks/{task_id}/cancel")
    anonymous.assert_refused(401, "missing_api_key")
    reply = await server.call("GET", f"/v1/tasks/{task_id}/cancel")
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")
    for body in (b"", b"{}", b"not json", b"x" * 100_000):
        assert (await cancel(server, task_id, data=body)).status == 200
    await server.finished(task_id)


async def test_whoever_waits_for_a_task_hears_that_it_is_cancelled(server: Server) -> None:
    prompt = "sandbox:never sandbox:unstoppable"
    task_id = (await server.accepted(prompt=prompt))["task_id"]
    before = await reached(server, task_id, "generating")
    path = f"/v1/tasks/{task_id}?wait=30&since={before['last_event']}"
    while "cancel_requested_at" not in before:
        waiting = asyncio.create_task(server.call("GET", path))
        await cancelled(server, task_id)
        before = (await waiting).json
    assert before["state"] == "generating"


# Several images


async def test_images_are_shown_as_they_come_and_charged_when_all_are_there(
    server: Server,
) -> None:
    task = await server.accepted(model=SEVERAL, n=4)
    seen: list[list[dict[str, Any]]] = []
    while task["state"] not in {"success", "fail"}:
        assert task["result"] == {}
        seen.append(task.get("partial_result", {}).get("data", []))
        path = f"/v1/tasks/{task['task_id']}?wait=10&since={task['last_event']}"
        task = (await server.call("GET", path)).json
    assert "partial_result" not in task
    images = task["result"]["data"]
    counts = [len(each) for each in seen]
    assert counts == sorted(counts)
    assert max(counts) > 0, "no image was seen before the end"
    for partial in seen:
        assert [each["url"] for each in partial] == [each["url"] for each in images[: len(partial)]]
        assert all(set(each) == set(images[0]) for each in partial)
    bodies = [(await server.call("GET", each["url"])).body for each in images]
    assert len(set(bodies)) == 4, "each is a picture of its own"
    assert task["billing"]["actual_amount_micro_usdc"] == 4 * EACH
    assert (await server.balance())["balance_micro_usdc"] == CREDIT - 4 * EACH
    assert await server.core.store.prove() == []


async def test_images_of_no_use_are_left_out_and_not_charged(server: Server) -> None:
    task = await server.outcome("sandbox:malformed=1", model=SEVERAL, n=3)
    assert (task["state"], len(task["result"]["data"])) == ("success", 2)
    billing = task["billing"]
    assert billing["actual_amount_micro_usdc"] == 2 * EACH
    assert billing["released_amount_micro_usdc"] == EACH
    number = decode("task", task["task_id"])
    assert number is not None
    (attempt,) = await server.core.store.attempts(number)
    assert attempt.state is AttemptState.DONE
    assert (attempt.detail or "").startswith("1 of 3 images were of no use: ")
    none = await server.outcome("sandbox:malformed=3", model=SEVERAL, n=3)
    assert none["error"]["code"] == "upstream_malformed_response"
    assert none["billing"]["status"] == "released"


async def test_more_images_than_a_model_makes_are_refused_with_its_limit(server: Server) -> None:
    said = (await server.submit(model=SEVERAL, n=7)).assert_refused(400, "invalid_parameter", "n")
    assert "6" in said


async def test_cancelled_among_its_images_a_task_pays_for_those_that_were_made(
    tmp_path: Path, database: str
) -> None:
    async with opened(tmp_path, database, sandbox_processes=1) as server:
        task_id = (await server.accepted(model=SEVERAL, n=6))["task_id"]
        task = await server.task(task_id)
        while "partial_result" not in task:
            assert task["state"] not in {"success", "fail"}, "it was too quick to be cancelled"
            path = f"/v1/tasks/{task_id}?wait=10&since={task['last_event']}"
            task = (await server.call("GET", path)).json
        arrived = task["partial_result"]["data"]
        await cancelled(server, task_id)
        ended = await server.finished(task_id)
        await assert_settled(server, ended, paid=6 * EACH)
        assert "partial_result" not in ended
        reply = await server.call("GET", arrived[0]["url"], headers={"Authorization": ""})
        assert reply.status == 200
