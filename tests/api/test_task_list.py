"""GET /v1/tasks: an account's tasks, newest first, by filters and pages."""

import asyncio
from typing import Any
from urllib.parse import urlencode

import pytest

from calotype.domain.ids import decode, encode
from calotype.domain.task import Event, State
from harness import Part, Server, picture, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

TASKS = "/v1/tasks"


async def listed(server: Server, **query: Any) -> dict[str, Any]:
    """A page."""
    reply = await server.call("GET", f"{TASKS}?{urlencode(query)}")
    assert reply.status == 200, reply.body
    page: dict[str, Any] = reply.json
    assert set(page) == {"object", "data", "has_more", "next_cursor"}
    assert page["object"] == "list"
    assert page["has_more"] == (page["next_cursor"] is not None)
    return page


async def ids(server: Server, **query: Any) -> list[str]:
    """The tasks of one page that has them all."""
    page = await listed(server, **query)
    assert not page["has_more"]
    return [task["task_id"] for task in page["data"]]


async def made(server: Server, count: int, **fields: Any) -> list[str]:
    """So many tasks, the newest first."""
    tasks = [(await server.submit(**fields)).json["task_id"] for _ in range(count)]
    return tasks[::-1]


async def brought_to(server: Server, word: str, state: State) -> None:
    """Let a waiting task come to a state."""
    store, now = server.core.store, server.core.clock()
    task_id = decode("task", word)
    assert task_id is not None
    taken = await store.take(task_id, now=now)
    assert taken is not None
    if state is State.GENERATING:
        await store.advance(taken.task, Event.RUN, progress=5, now=now)


async def test_there_is_nothing_in_an_account_without_tasks(idle: Server) -> None:
    assert await listed(idle) == {
        "object": "list",
        "data": [],
        "has_more": False,
        "next_cursor": None,
    }


async def test_tasks_are_shown_as_reading_each_shows_them_the_newest_first(idle: Server) -> None:
    await idle.submit(metadata={"order": "7"}, callback_url="https://example.com/hook")
    mixed: list[Part] = [
        ("image", picture(), "a.png"),
        ("image_input", "https://example.com/b.png"),
        ("image", picture("JPEG"), "c.jpg"),
    ]
    await idle.submit_form(*mixed)
    await idle.submit_form(mixed[0])
    page = await listed(idle)
    moving = {"eta_hint_seconds", "recommended_poll_interval_ms"}
    for task in page["data"]:
        alone = await idle.task(task["task_id"])
        assert {k: v for k, v in task.items() if k not in moving} == {
            k: v for k, v in alone.items() if k not in moving
        }
    shown = [task["request"].get("image_input", []) for task in page["data"]]
    assert [len(each) for each in shown] == [1, 3, 0]
    assert shown[1][1] == "https://example.com/b.png"
    assert (await idle.call("GET", shown[1][2])).body == picture("JPEG")


async def test_a_page_has_twenty_tasks_unless_another_number_is_asked_for(idle: Server) -> None:
    tasks = await made(idle, 22)
    page = await listed(idle)
    assert [task["task_id"] for task in page["data"]] == tasks[:20]
    rest = await listed(idle, cursor=page["next_cursor"])
    assert [task["task_id"] for task in rest["data"]] == tasks[20:]
    assert not rest["has_more"]
    assert await ids(idle, limit=22) == await ids(idle, limit=100) == tasks
    assert (await listed(idle, limit=21))["has_more"]


@pytest.mark.parametrize("limit", [1, 3, 5])
async def test_pages_show_each_task_once_while_others_are_submitted(
    idle: Server, limit: int
) -> None:
    tasks = await made(idle, 7, metadata={"set": "a"})
    for query in ({}, {"metadata.set": "a"}, {"state": "waiting"}, {"model": "gpt-image-2"}):
        before = await ids(idle, limit=100, **query)
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page, _ = await asyncio.gather(
                listed(idle, limit=limit, **query, **cursor), idle.submit(metadata={"set": "a"})
            )
            seen += [task["task_id"] for task in page["data"]]
            if not page["has_more"]:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert len(set(seen)) == len(seen)
        assert seen == sorted(seen, reverse=True)
        assert [task for task in seen if task in set(before)] == before
        assert set(tasks) <= set(before)


async def test_a_cursor_stays_good_when_its_task_goes_on(idle: Server) -> None:
    tasks = await made(idle, 4)
    first = await listed(idle, state="waiting", limit=2)
    for task in tasks[:2]:
        await brought_to(idle, task, State.GENERATING)
    rest = await listed(idle, state="waiting", limit=2, cursor=first["next_cursor"])
    assert [task["task_id"] for task in rest["data"]] == tasks[2:]


async def test_tasks_are_found_by_state_in_any_case(idle: Server) -> None:
    first, second, third = await made(idle, 3)
    await brought_to(idle, second, State.GENERATING)
    await brought_to(idle, third, State.QUEUING)
    assert await ids(idle, state="waiting") == [first]
    assert await ids(idle, state="GENERATING") == [second]
    assert await ids(idle, state="Queuing") == [third]
    assert await ids(idle, state="success") == await ids(idle, state="fail") == []


async def test_tasks_are_found_by_model(idle: Server) -> None:
    (first,), (second,) = await made(idle, 1), await made(idle, 1, model="nano-banana-pro")
    assert await ids(idle, model="gpt-image-2") == [first]
    assert await ids(idle, model="nano-banana-pro") == [second]
    assert await ids(idle, model="gone-since") == []


async def test_tasks_are_found_by_the_time_of_their_submission(idle: Server) -> None:
    (task,) = await made(idle, 1)
    created = (await idle.task(task))["created_at"]
    assert await ids(idle, since=created) == await ids(idle, since=0) == [task]
    assert await ids(idle, since=created + 1) == await ids(idle, since=10**11) == []


async def test_tasks_are_found_by_all_the_pairs_that_are_named(idle: Server) -> None:
    pairs = {"order": "7391", "für wen": "Ada & Böb=?🖼", "a.b": ""}
    await made(idle, 1)
    (other,) = await made(idle, 1, metadata={"order": "7391"})
    (task,) = await made(idle, 1, metadata=pairs)
    assert await ids(idle, **{"metadata.order": "7391"}) == [task, other]
    for key, value in pairs.items():
        query = {"metadata.order": "7391", f"metadata.{key}": value}
        assert await ids(idle, **query) == [task, other][: 1 + (key == "order")]
    everything = {f"metadata.{key}": value for key, value in pairs.items()}
    assert await ids(idle, **everything, state="waiting", model="gpt-image-2", since=1) == [task]
    assert await ids(idle, **everything, model="nano-banana-pro") == []
    assert await ids(idle, **{"metadata.order": "739"}) == []
    assert await ids(idle, **{"metadata.Order": "7391"}) == []
    full = {str(number): "x" for number in range(16)}
    (task,) = await made(idle, 1, metadata=full)
    assert await ids(idle, **{f"metadata.{key}": value for key, value in full.items()}) == [task]


async def test_a_tenant_sees_its_own_tasks_alone(idle: Server) -> None:
    mine = await made(idle, 2, metadata={"order": "7"})
    stranger = await idle.for_account()
    theirs = await made(stranger, 1, metadata={"order": "7"})
    for query in ({}, {"metadata.order": "7"}, {"state": "waiting"}, {"model": "gpt-image-2"}):
        assert await ids(idle, **query) == mine
        assert await ids(stranger, **query) == theirs
    cursor = (await listed(idle, limit=1))["next_cursor"]
    assert await ids(stranger, cursor=cursor) == []
    reply = await idle.anonymous("GET", TASKS)
    reply.assert_refused(401, "missing_api_key")


async def test_the_list_is_never_cached_and_has_a_head(idle: Server) -> None:
    await made(idle, 1)
    reply = await idle.call("GET", TASKS)
    head = await idle.call("HEAD", TASKS)
    assert reply.headers["Cache-Control"] == head.headers["Cache-Control"] == "no-store"
    assert (head.status, head.body) == (200, b"")
    (await idle.call("POST", TASKS)).assert_refused(405, "method_not_allowed")


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("limit=0", "invalid_parameter", "limit"),
        ("limit=101", "invalid_parameter", "limit"),
        ("limit=ten", "invalid_parameter", "limit"),
        ("limit=", "invalid_parameter", "limit"),
        ("limit=-1", "invalid_parameter", "limit"),
        ("limit=%D9%A1", "invalid_parameter", "limit"),
        (f"limit={'9' * 5000}", "invalid_parameter", "limit"),
        ("state=done", "invalid_parameter", "state"),
        ("state=", "invalid_parameter", "state"),
        ("state=waiting,fail", "invalid_parameter", "state"),
        ("state=waiting&state=fail", "invalid_parameter", "state"),
        ("since=yesterday", "invalid_parameter", "since"),
        ("since=1760000000000", "invalid_parameter", "since"),
        ("since=1.5", "invalid_parameter", "since"),
        ("model=a%00b", "invalid_parameter", "model"),
        ("metadata.=x", "invalid_parameter", "metadata"),
        ("metadata.a=%00", "invalid_parameter", "metadata"),
        (f"metadata.{'k' * 65}=x", "invalid_parameter", "metadata"),
        (f"metadata.a={'x' * 513}", "invalid_parameter", "metadata"),
        ("metadata.a=1&metadata.a=2", "invalid_parameter", "metadata.a"),
        ("&".join(f"metadata.{n}=x" for n in range(17)), "invalid_parameter", "metadata"),
        ("metadata=x", "unsupported_parameter", "metadata"),
        ("metadata[a]=x", "unsupported_parameter", "metadata[a]"),
        ("page=2", "unsupported_parameter", "page"),
        ("State=fail", "unsupported_parameter", "State"),
        ("wait=3", "unsupported_parameter", "wait"),
        ("cursor=", "invalid_parameter", "cursor"),
        ("cursor=1", "invalid_parameter", "cursor"),
        ("cursor=page_8000000000000", "invalid_parameter", "cursor"),
        (f"cursor={encode('task', 7)}", "invalid_parameter", "cursor"),
        ("state=%ff", "invalid_parameter", None),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_query_that_cannot_be_is_refused_by_its_name(
    idle: Server, query: str, code: str, param: str | None
) -> None:
    reply = await idle.exchange(f"GET {TASKS}?{query}")
    message = reply.assert_refused(400, code, param)
    if code == "unsupported_parameter":
        assert "state, model, since, limit, cursor" in message
        assert "metadata.<key>" in message


async def test_finished_tasks_are_listed_with_their_images(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with running_server(tmp_path_factory.mktemp("data")) as server:
        for colour in ("red", "green"):
            sent = await server.submit_form(("image", picture(colour=colour), "a.png"))
            await server.finished(sent.json["task_id"])
        page = await listed(server, state="success")
        shown = [task["request"]["image_input"][0] for task in page["data"]]
        bodies = [(await server.call("GET", url)).body for url in shown]
        assert bodies == [picture(colour="green"), picture(colour="red")]
        for task in page["data"]:
            (item,) = task["result"]["data"]
            assert len((await server.call("GET", item["url"])).body) == item["bytes"]
