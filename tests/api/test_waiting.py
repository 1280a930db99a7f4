"""Long-polls and streams: told at once, resumed without a gap, and seen by the owner alone."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import Server, running_server

STEERED = "sandbox:delay=1.5"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running_server(tmp_path) as running:
        yield running


async def get(server: Server, path: str) -> dict[str, Any]:
    async with server.http.get(server.url + path, headers=server.auth) as response:
        document: dict[str, Any] = await response.json()
        assert response.status == 200, document
        return document


async def submitted(server: Server, prompt: str = STEERED, **headers: str) -> dict[str, Any]:
    body = {"model": "gpt-image-2", "prompt": prompt}
    async with server.http.post(
        f"{server.url}/v1/images/generations", json=body, headers={**server.auth, **headers}
    ) as response:
        document: dict[str, Any] = await response.json()
        assert response.status == 202, document
        return {**document, "headers": response.headers}


@asynccontextmanager
async def stream(
    server: Server, path: str, **headers: str
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The events of a stream, as dictionaries of their fields."""
    async with server.http.get(server.url + path, headers={**server.auth, **headers}) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"].startswith("text/event-stream")

        async def events() -> AsyncIterator[dict[str, Any]]:
            fields: dict[str, Any] = {}
            async for line in response.content:
                text = line.decode().rstrip("\n")
                if not text and fields:
                    yield {**fields, "data": json.loads(fields["data"])}
                    fields = {}
                elif text and not text.startswith(":"):
                    name, _, value = text.partition(": ")
                    fields[name] = value

        yield events()


async def test_a_long_poll_is_answered_when_something_changes(server: Server) -> None:
    task = await submitted(server)
    seen = [await get(server, f"{task['poll_url']}?since=0&wait=60")]
    while seen[-1]["state"] not in {"success", "fail"}:
        seen.append(await get(server, f"{task['poll_url']}?wait=60&since={seen[-1]['last_event']}"))
    events = [document["last_event"] for document in seen]
    assert events == sorted(set(events))
    assert seen[-1]["state"] == "success"
    assert [document["progress"] for document in seen] == sorted(
        document["progress"] for document in seen
    )


async def test_a_long_poll_of_a_final_task_is_answered_at_once(server: Server) -> None:
    task = await submitted(server, "sandbox:delay=0")
    await server.finished(task["task_id"])
    async with asyncio.timeout(20):
        assert (await get(server, f"{task['poll_url']}?wait=60&since=99"))["state"] == "success"


async def test_a_long_poll_ends_with_its_time_and_shows_the_task_as_it_is(server: Server) -> None:
    task = await submitted(server, "sandbox:never")
    document = await get(server, f"{task['poll_url']}?wait=1&since=1000")
    assert document["state"] in {"waiting", "queuing", "generating"}


async def test_without_a_query_nothing_is_waited_for(server: Server) -> None:
    task = await submitted(server, "sandbox:never")
    async with asyncio.timeout(10):
        assert (await get(server, task["poll_url"]))["last_event"] >= 1


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("wait=61", "wait"),
        ("wait=-1", "wait"),
        ("wait=ten", "wait"),
        ("wait=", "wait"),
        ("wait=1&since=x", "since"),
        ("wait=1&since=99999999999", "since"),
        ("wait=٣", "wait"),
    ],
)
async def test_a_wait_that_is_no_number_of_seconds_is_refused(
    server: Server, query: str, param: str
) -> None:
    task = await submitted(server, "sandbox:delay=0")
    url = f"{server.url}{task['poll_url']}?{query}"
    async with server.http.get(url, headers=server.auth) as response:
        assert response.status == 400
        error = await response.json()
        assert (error["code"], error["param"]) == ("invalid_parameter", param)


async def test_a_submission_that_prefers_to_wait_is_answered_with_the_final_state(
    server: Server,
) -> None:
    task = await submitted(server, "sandbox:delay=0.5", Prefer="respond-async, wait=30")
    assert task["state"] == "success"
    assert task["headers"]["Preference-Applied"] == "wait=30"
    assert (await submitted(server, "sandbox:never", Prefer="wait=1"))["state"] != "success"
    assert (await submitted(server, "sandbox:never", Prefer="wait=soon"))["state"] == "waiting"


async def test_the_replay_of_a_submission_that_has_ended_waits_for_nothing(server: Server) -> None:
    keyed = {"Idempotency-Key": "once"}
    first = await submitted(server, "sandbox:delay=0", **keyed)
    await server.finished(first["task_id"])
    async with asyncio.timeout(50):
        again = await submitted(server, "sandbox:delay=0", Prefer="wait=60", **keyed)
    assert (again["task_id"], again["state"]) == (first["task_id"], "success")


async def test_a_tasks_stream_tells_every_event_and_ends_with_the_last(server: Server) -> None:
    task = await submitted(server)
    async with stream(server, f"{task['poll_url']}/events") as events:
        told = [event async for event in events]
    assert [int(event["id"]) for event in told] == list(range(1, len(told) + 1))
    assert told[0]["event"] == "task.waiting"
    assert told[-1]["event"] == "task.success"
    assert all(event["data"]["task_id"] == task["task_id"] for event in told)
    assert told[-1]["data"]["task"]["result"]["data"][0]["url"].startswith("http")
    assert "task" not in told[0]["data"]


async def test_a_stream_goes_on_after_the_event_that_was_last_read(server: Server) -> None:
    task = await submitted(server)
    await server.finished(task["task_id"])
    async with stream(server, f"{task['poll_url']}/events") as events:
        told = [event async for event in events]
    headers = {"Last-Event-ID": told[1]["id"]}
    async with stream(server, f"{task['poll_url']}/events", **headers) as events:
        assert [event["id"] async for event in events] == [event["id"] for event in told[2:]]
    query = f"{task['poll_url']}/events?last_event_id={told[-1]['id']}"
    async with stream(server, query) as events:
        assert [event async for event in events] == []


async def test_an_accounts_stream_tells_of_all_its_tasks_and_of_no_others(server: Server) -> None:
    stranger = await server.for_account()
    async with stream(server, "/v1/events") as events:
        mine = [await submitted(server, "sandbox:delay=0.2") for _ in range(3)]
        await stranger.accepted(model="gpt-image-2", prompt="sandbox:delay=0")
        told, ends = list[dict[str, Any]](), 0
        while ends < len(mine):
            event = await anext(events)
            told.append(event)
            ends += event["event"] == "task.success"
    assert {event["data"]["task_id"] for event in told} == {task["task_id"] for task in mine}
    for task in mine:
        numbers = [
            event["data"]["event"] for event in told if event["data"]["task_id"] == task["task_id"]
        ]
        assert numbers == list(range(1, len(numbers) + 1))
    middle = len(told) // 2
    headers = {"Last-Event-ID": told[middle]["id"]}
    async with stream(server, "/v1/events", **headers) as events:
        again = [await anext(events) for _ in told[middle + 1 :]]
    assert [event["id"] for event in again] == [event["id"] for event in told[middle + 1 :]]


async def test_another_accounts_task_has_no_stream_and_no_wait(server: Server) -> None:
    task = await submitted(server, "sandbox:never")
    stranger = await server.for_account()
    for path in (f"{task['poll_url']}/events", f"{task['poll_url']}?wait=1"):
        async with stranger.http.get(stranger.url + path, headers=stranger.auth) as response:
            assert response.status == 404
            assert (await response.json())["code"] == "task_not_found"


@pytest.mark.parametrize("path", ["/v1/events", "{task}/events"])
async def test_an_event_id_that_is_none_is_refused(server: Server, path: str) -> None:
    task = await submitted(server, "sandbox:delay=0")
    url = server.url + path.format(task=task["poll_url"])
    headers = {**server.auth, "Last-Event-ID": "no such thing"}
    async with server.http.get(url, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["param"] == "Last-Event-ID"


@pytest.mark.parametrize("path", ["/v1/events", "{task}/events"])
async def test_an_event_id_in_the_query_is_judged_beside_one_in_the_header(
    server: Server, path: str
) -> None:
    task = await submitted(server, "sandbox:delay=0")
    url = server.url + path.format(task=task["poll_url"]) + "?last_event_id=none"
    headers = {**server.auth, "Last-Event-ID": "1"}
    async with server.http.get(url, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["param"] == "last_event_id"


async def test_a_stream_that_begins_far_back_tells_all_that_came_since(server: Server) -> None:
    tasks = [await submitted(server, "sandbox:refuse") for _ in range(60)]
    for task in tasks:
        await server.finished(task["task_id"])
    ends = set[str]()
    async with stream(server, "/v1/events", **{"Last-Event-ID": "0"}) as events:
        while len(ends) < len(tasks):
            event = await anext(events)
            if event["event"] == "task.fail":
                ends.add(event["data"]["task"]["task_id"])
    assert ends == {task["task_id"] for task in tasks}


async def test_streams_want_a_key(server: Server) -> None:
    (await server.anonymous("GET", "/v1/events")).assert_refused(401, "missing_api_key")


async def test_many_wait_and_all_are_woken_by_one_reader(server: Server) -> None:
    task = await submitted(server, "sandbox:delay=1")
    document = await get(server, f"{task['poll_url']}?since=1&wait=30")
    path = f"{task['poll_url']}?wait=60&since={document['last_event'] + 100}"
    async with asyncio.timeout(50):
        ends = await asyncio.gather(*(get(server, path) for _ in range(150)))
    assert {end["state"] for end in ends} == {"success"}
