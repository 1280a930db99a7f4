"""Which task a further try of OpenAI's clients is given, when more than one might be meant."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from calotype.api.openai import held, retries
from calotype.domain.channel import Channel
from harness import Reply, Server, running_server, until

GENERATIONS = "/openai/v1/images/generations"
PAID = Channel(id=7, slug="paid", name="Paid", provider="sandbox", free=False)
FIRST, AGAIN, LAST = [
    {"x-stainless-lang": "python", "x-stainless-retry-count": count} for count in "012"
]
SLOW = "sandbox:delay=1"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server on whose channel a second send would cost again."""
    async with running_server(tmp_path / "data", channels=(PAID,)) as running:
        yield running


async def ask(server: Server, headers: dict[str, str], **fields: Any) -> Reply:
    body = {"model": "gpt-image-2", "prompt": "a lighthouse", **fields}
    return await server.call("POST", GENERATIONS, json=body, headers=headers)


async def asked(server: Server, headers: dict[str, str], **fields: Any) -> str:
    """The task that a request is given."""
    return (await ask(server, headers, **fields)).headers["x-calotype-task-id"]


async def bought(server: Server) -> int:
    return len(await server.core.store.tasks(limit=100))


async def accepted(server: Server, headers: dict[str, str], **fields: Any) -> "asyncio.Task[Reply]":
    """A request on its way whose task is there."""
    before = await bought(server)
    asking = asyncio.create_task(ask(server, headers, **fields))
    while await bought(server) == before:
        await asyncio.sleep(0.01)
    return asking


async def cut(*asking: "asyncio.Task[Reply]") -> None:
    """Break connections, and wait until the server knows."""
    left = in_the_middle_of("Held.until_ended") - len(asking)
    for each in asking:
        each.cancel()
        with suppress(asyncio.CancelledError):
            await each
    await until(lambda: in_the_middle_of("Held.until_ended") <= left)


def in_the_middle_of(name: str) -> int:
    """How many tasks of the server wait inside of a coroutine."""
    found = 0
    for task in asyncio.all_tasks():
        inner: Any = task.get_coro()
        while inner is not None:
            found += getattr(inner, "__qualname__", "") == name
            inner = getattr(inner, "cr_await", None)
    return found


def switch(server: Server, *, on: bool) -> None:
    server.core.router.replace([msgspec.structs.replace(PAID, enabled=on)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"user": "ada"}, {"user": "eve"}),
        ({"metadata": {"order": "1"}}, {"metadata": {"order": "2"}}),
        ({"deadline_seconds": 600}, {"deadline_seconds": 601}),
        ({}, {"callback_url": "http://hooks.example/x"}),
    ],
)
async def test_requests_that_ask_for_other_than_the_image_differ_too(
    server: Server, one: dict[str, Any], other: dict[str, Any]
) -> None:
    lost = await accepted(server, FIRST, prompt=SLOW, **one)
    await cut(lost)
    different = await ask(server, AGAIN, prompt=SLOW, **other)
    assert (different.status, await bought(server)) == (200, 2), different.body
    assert (await ask(server, AGAIN, prompt=SLOW, **one)).status == 200
    assert await bought(server) == 2


async def test_equal_requests_that_broke_off_each_get_an_image_of_their_own(
    server: Server,
) -> None:
    lost = [await accepted(server, FIRST, prompt=SLOW) for _ in range(4)]
    await cut(*lost)
    given = await asyncio.gather(*[asked(server, AGAIN, prompt=SLOW) for _ in lost])
    assert (len(set(given)), await bought(server)) == (4, 4)


async def test_a_further_try_leaves_alone_what_another_waits_for_or_has(server: Server) -> None:
    had = await asked(server, FIRST, prompt=SLOW)
    lost = await accepted(server, FIRST, prompt=SLOW)
    waiting = await accepted(server, FIRST, prompt=SLOW)
    await cut(lost)
    given = await asked(server, AGAIN, prompt=SLOW)
    assert given not in {had, (await waiting).headers["x-calotype-task-id"]}
    assert await bought(server) == 3


async def test_after_a_restart_equal_requests_still_get_images_of_their_own(
    tmp_path: Path,
) -> None:
    async with running_server(tmp_path, channels=(PAID,)) as before:
        lost = [await accepted(before, FIRST, prompt=SLOW) for _ in range(3)]
        await cut(*lost)
    async with running_server(tmp_path, channels=(PAID,)) as server:
        given = await asyncio.gather(*[asked(server, AGAIN, prompt=SLOW) for _ in lost])
        assert (len(set(given)), await bought(server)) == (3, 3)


async def test_a_try_that_is_not_accepted_yet_is_found_by_the_next(server: Server) -> None:
    with closing(sqlite3.connect(server.data / "calotype.db", isolation_level=None)) as blocking:
        blocking.execute("BEGIN IMMEDIATE")
        trying = [asyncio.create_task(ask(server, FIRST))]
        await until(lambda: in_the_middle_of("Submission.submit") == 1)
        trying.append(asyncio.create_task(ask(server, AGAIN)))
        await until(lambda: in_the_middle_of("Submission.submit") == 2)
        blocking.execute("ROLLBACK")
    first, again = await asyncio.gather(*trying)
    assert first.headers["x-calotype-task-id"] == again.headers["x-calotype-task-id"]
    assert await bought(server) == 1


async def test_an_image_that_was_had_is_given_again_for_a_moment_only(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = await asked(server, FIRST)
    assert await asked(server, AGAIN) == had, "its answer may have been lost on the way"
    monkeypatch.setattr(retries, "TOLD_MS", 0)
    assert await asked(server, AGAIN) != had


async def test_a_failure_that_was_told_is_not_told_to_the_next_request(server: Server) -> None:
    first = await asked(server, FIRST, prompt="sandbox:500-after")
    assert await asked(server, AGAIN, prompt="sandbox:500-after") != first


@pytest.mark.parametrize(("name", "same"), [("FAILED_MS", False), ("RETRIED_MS", True)])
async def test_a_failure_that_was_not_told_is_kept_for_less_long_than_an_image(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str, *, same: bool
) -> None:
    monkeypatch.setattr(held, "PATIENCE_SECONDS", 0.1)
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(server, FIRST, prompt="sandbox:500-after sandbox:delay=1")
    monkeypatch.setattr(retries, name, 0)
    monkeypatch.setattr(held, "PATIENCE_SECONDS", 9)
    again = await ask(server, AGAIN, prompt="sandbox:500-after sandbox:delay=1")
    assert again.status == 424
    assert (await bought(server) == 1) is same


async def test_a_request_that_was_refused_for_now_is_given_no_others_image(server: Server) -> None:
    waiting = await accepted(server, FIRST, prompt=SLOW)
    switch(server, on=False)
    assert (await ask(server, FIRST, prompt=SLOW)).status == 503
    assert (await ask(server, AGAIN, prompt=SLOW)).status == 503
    switch(server, on=True)
    given = await asked(server, LAST, prompt=SLOW)
    assert given != (await waiting).headers["x-calotype-task-id"]
    assert await bought(server) == 2


async def test_a_request_that_was_refused_for_good_leaves_nothing_to_a_further_try(
    server: Server,
) -> None:
    poor = await server.for_account(credit=100_000)
    waiting = await accepted(poor, FIRST, prompt=SLOW)
    assert (await ask(poor, FIRST, prompt=SLOW)).status == 402
    assert await asked(poor, AGAIN, prompt=SLOW) == (await waiting).headers["x-calotype-task-id"]


async def test_what_is_remembered_of_requests_is_bounded(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "TOLD_MS", 0)
    monkeypatch.setattr(retries, "_MAX_KEPT", 2)
    made = [await asked(server, FIRST, prompt=f"number {number}") for number in range(6)]
    assert await asked(server, AGAIN, prompt="number 5") not in made
    assert await asked(server, AGAIN, prompt="number 0") == made[0], "nobody knows who has it"
