"""GET /v1/tasks/{task_id}: the document, from waiting to its end, for its owner alone."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from harness import GENERATIONS, Server, form, picture, running_server, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALWAYS = {
    "task_id",
    "object",
    "request_id",
    "model",
    "type",
    "channel",
    "poll_url",
    "state",
    "request",
    "result",
    "error",
    "progress",
    "last_event",
    "billing",
    "metadata",
    "created_at",
    "updated_at",
}
HINTS = {"recommended_poll_interval_ms", "eta_hint_seconds"}
ORDER = ["waiting", "queuing", "generating", "success"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def idle_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data"), with_worker=False) as running:
        yield running


def assert_common(task: dict[str, Any], *, state: str, accepted: dict[str, Any]) -> None:
    """What holds in every state, typed as the contract types it."""
    expected = {
        "task_id": accepted["task_id"],
        "object": "task",
        "request_id": accepted["request_id"],
        "model": "gpt-image-2",
        "type": "image",
        "channel": {"id": 1, "name": "Sandbox", "slug": "sandbox"},
        "poll_url": f"/v1/tasks/{accepted['task_id']}",
        "state": state,
        "created_at": accepted["created_at"],
    }
    assert {name: task[name] for name in expected} == expected
    assert task["channel"] == {"id": 1, "name": "Sandbox", "slug": "sandbox"}
    times = [task["created_at"], task["updated_at"], task.get("completed_at", task["updated_at"])]
    assert all(type(moment) is int for moment in times)
    assert times == sorted(times)
    assert abs(times[0] - time.time()) < 3600, "seconds, not milliseconds"
    assert type(task["progress"]) is int
    billing = task["billing"]
    assert set(billing) == {
        "status",
        "reserve_amount_micro_usdc",
        "actual_amount_micro_usdc",
        "released_amount_micro_usdc",
    }
    assert all(type(value) is int for name, value in billing.items() if name != "status")


async def test_a_waiting_task_has_the_fields_of_the_contract(idle_server: Server) -> None:
    accepted = (await idle_server.submit()).json
    task = await idle_server.task(accepted["task_id"])
    assert set(task) == ALWAYS | HINTS
    assert_common(task, state="waiting", accepted=accepted)
    assert (task["result"], task["error"], task["progress"]) == ({}, {}, 0)
    assert task["billing"]["status"] == "reserved"
    assert all(type(task[name]) is int for name in HINTS)
    assert 1000 <= task["recommended_poll_interval_ms"] <= 15_000


async def test_a_successful_task_has_the_fields_of_the_contract(server: Server) -> None:
    accepted = (await server.submit()).json
    task = await server.finished(accepted["task_id"])
    assert set(task) == ALWAYS | {"completed_at", "expires_at"}
    assert_common(task, state="success", accepted=accepted)
    assert (task["error"], task["progress"]) == ({}, 100)
    assert set(task["result"]) == {"created", "data"}
    assert task["result"]["created"] == task["completed_at"]
    (item,) = task["result"]["data"]
    assert set(item) == {"url", "expires_at", "width", "height", "content_type", "bytes"}
    assert item["url"].startswith(f"{server.url}/v1/assets/")
    assert item["content_type"] == "image/png"
    assert (item["width"], item["height"]) == (1024, 1024)
    assert item["expires_at"] > time.time() + 86_000
    image = await server.anonymous("GET", item["url"].removeprefix(server.url))
    assert len(image.body) == item["bytes"]
    billing = task["billing"]
    assert billing["status"] == "committed"
    assert billing["reserve_amount_micro_usdc"] == billing["actual_amount_micro_usdc"] == 60_000
    assert billing["released_amount_micro_usdc"] == 0


async def test_a_failed_task_has_the_fields_of_the_contract(server: Server) -> None:
    accepted = (await server.submit(prompt="sandbox:refuse")).json
    task = await server.finished(accepted["task_id"])
    assert set(task) == ALWAYS | {"completed_at"}
    assert_common(task, state="fail", accepted=accepted)
    assert task["result"] == {}
    assert set(task["error"]) == {"code", "message", "type", "retryable"}
    assert task["error"]["code"] == "content_policy_violation"
    assert task["error"]["type"] == "invalid_request_error"
    assert task["error"]["retryable"] is False
    assert task["error"]["message"].endswith(".")
    assert task["progress"] < 100
    billing = task["billing"]
    assert billing["status"] == "released"
    assert billing["reserve_amount_micro_usdc"] == billing["released_amount_micro_usdc"] == 60_000
    assert billing["actual_amount_micro_usdc"] == 0


async def test_states_and_progress_only_go_forward(server: Server) -> None:
    accepted = (await server.submit(prompt="sandbox:delay=1")).json
    seen = [await server.task(accepted["task_id"])]
    while "completed_at" not in seen[-1]:
        seen.append(await server.task(accepted["task_id"]))
    places = [ORDER.index(task["state"]) for task in seen]
    assert places == sorted(places)
    assert {"generating", "success"} <= {task["state"] for task in seen}
    progress = [task["progress"] for task in seen]
    assert progress == sorted(progress)
    assert all(0 <= each <= 100 for each in progress)
    assert len(set(progress)) > 2, "it is seen to move"
    assert all(task["progress"] < 100 for task in seen[:-1] if task["state"] != "success")
    updated = [task["updated_at"] for task in seen]
    assert updated == sorted(updated)
    for task in seen[:-1]:
        assert set(task) == ALWAYS | HINTS
        assert task["billing"]["status"] == "reserved"
        assert (task["result"], task["error"]) == ({}, {})


async def test_a_final_task_stays_as_it_is(server: Server) -> None:
    task = await server.outcome()
    assert await server.task(task["task_id"]) == task


async def test_the_request_is_shown_with_its_defaults(idle_server: Server) -> None:
    task = await idle_server.accepted()
    assert task["request"] == {
        "model": "gpt-image-2",
        "prompt": "a lighthouse",
        "n": 1,
        "response_format": "url",
        "aspect_ratio": "auto",
        "resolution": "1K",
    }
    task = await idle_server.accepted(model="nano-banana-pro", resolution="4K", channel_id=1)
    assert task["request"] == {
        "model": "nano-banana-pro",
        "prompt": "a lighthouse",
        "n": 1,
        "response_format": "url",
        "aspect_ratio": "1:1",
        "resolution": "4K",
        "output_format": "png",
        "channel_id": 1,
    }


async def test_references_are_shown_as_urls_and_never_as_bytes(idle_server: Server) -> None:
    accepted = await idle_server.submit_form(
        ("image", picture(), "a.png"), ("image_input", "https://example.com/b.png?signature=x")
    )
    task = await idle_server.task(accepted.json["task_id"])
    uploaded, named = task["request"]["image_input"]
    assert uploaded.startswith(f"{idle_server.url}/v1/assets/asset_")
    assert named == "https://example.com/b.png?signature=x"


async def test_a_task_is_never_cached(server: Server) -> None:
    task = await server.outcome()
    for task_id, status in ((task["task_id"], 200), ("task_0000000000000", 404)):
        reply = await server.call("GET", f"/v1/tasks/{task_id}")
        assert reply.status == status
    reply = await server.call("GET", task["poll_url"])
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["Content-Type"] == "application/json"


async def test_head_answers_like_get_without_the_document(server: Server) -> None:
    task = await server.outcome()
    head = await server.call("HEAD", task["poll_url"])
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Cache-Control"] == "no-store"


async def test_anothers_task_is_like_one_that_does_not_exist(idle_server: Server) -> None:
    mine = (await idle_server.submit()).json["task_id"]
    stranger = await idle_server.for_account()
    last = "0" if mine[-1] != "0" else "1"
    theirs = await stranger.call("GET", f"/v1/tasks/{mine}")
    nowhere = await stranger.call("GET", f"/v1/tasks/{mine[:-1]}{last}")
    theirs.assert_refused(404, "task_not_found")
    assert theirs.body == nowhere.body
    ignored = {"X-Request-Id", "Date"}
    assert {k: v for k, v in theirs.headers.items() if k.title() not in ignored} == {
        k: v for k, v in nowhere.headers.items() if k.title() not in ignored
    }
    sister = replace(idle_server, key=await idle_server.new_key("test"))
    assert (await sister.task(mine))["task_id"] == mine


@pytest.mark.parametrize(
    "word",
    [
        "task_0000000000000",
        "task_7zzzzzzzzzzzz",
        "task_8000000000000",
        "task_",
        "",
        "0000000000000",
        "asset_0000000000000",
        "TASK_0000000000000",
        "task_000000000000u",
        "task_00000000000000",
        "1 OR 1=1",
        "%00",
        "%ed%a0%80",
        "..",
        "task_%D9%A0" + "0" * 12,
        "x" * 5000,
    ],
    ids=lambda word: word[:24],
)
async def test_a_word_that_names_no_task_is_not_found(idle_server: Server, word: str) -> None:
    path = f"/v1/tasks/{word.replace(' ', '%20')}"
    reply = await idle_server.exchange(f"GET {path}")
    reply.assert_refused(404, "task_not_found")


async def test_a_client_that_hangs_up_after_sending_still_has_its_task(server: Server) -> None:
    server = await server.for_account()
    account = await server.core.accounts.find(server.account)
    assert account is not None
    body = form(("model", "gpt-image-2"), ("prompt", "x"), ("image", picture(), "a.png"))
    head = (
        f"POST {GENERATIONS} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {server.key}\r\n"
        "Content-Type: multipart/form-data; boundary=a-boundary-of-the-tests\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    async with server.connection() as (_, writer):
        writer.write(head.encode() + body)
        await writer.drain()
    async with asyncio.timeout(60):
        while not (tasks := await server.core.store.tasks(account_id=account.id)):
            await asyncio.sleep(0.01)
    assert len(tasks) == 1
    # The picture is made though nobody ever asks for it.
    results = server.data / "assets" / "results"
    await until(lambda: any(results.rglob("*.png")))


async def test_the_books_hold_after_all_of_this(server: Server, idle_server: Server) -> None:
    for each in (server, idle_server):
        assert await each.core.store.prove() == []
