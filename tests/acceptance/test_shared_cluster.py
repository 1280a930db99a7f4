"""API processes and workers on one PostgreSQL: each task once, whoever is killed or held up."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import TypeVar

import aiohttp
import pytest

from acceptance.cluster import (
    FINAL,
    FREE,
    NARROW,
    NARROW_LIMIT,
    PAID,
    Cluster,
    Member,
    eventually,
    running_cluster,
)
from calotype.domain.ids import decode

BACKLOG = 2_000
CLIENTS = 12

T = TypeVar("T")


@pytest.fixture
async def cluster(tmp_path: Path, postgres_url: str) -> AsyncIterator[Cluster]:
    async with running_cluster(tmp_path, postgres_url, sandbox_seconds="1.5") as running:
        yield running


async def test_two_apis_and_two_workers_finish_each_task_once(cluster: Cluster) -> None:
    apis = list(await asyncio.gather(cluster.api(), cluster.api()))
    workers = await asyncio.gather(cluster.worker(), cluster.worker())
    await asyncio.gather(
        cluster.submit_many(apis, 40, "polled"),
        cluster.submit_many(apis, 30, "sandbox:delay=0"),
        cluster.submit_many(apis, 30, "free", channel_id=FREE),
    )
    await cluster.all_final(100)

    assert await cluster.one("SELECT COUNT(*) FROM tasks WHERE state = 'success'") == 100
    attempts = (await cluster.attempts()).values()
    assert [[state for state, _ in each] for each in attempts] == [["done"]] * 100
    assert await cluster.one("SELECT MAX(claim) FROM tasks") == 1
    await cluster.assert_books()
    await cluster.assert_stored_once()
    await eventually(lambda: nothing_queued(cluster), "the queue is empty")
    for member in (*workers, *apis):
        assert await member.terminate() == 0
        assert_quiet(member)


async def test_the_tasks_of_a_killed_worker_go_on_in_another_and_none_is_sent_twice(
    cluster: Cluster,
) -> None:
    api, doomed = await asyncio.gather(cluster.api(), cluster.worker())
    tasks = await cluster.submit_many([api], 30, "with the one")
    await eventually(lambda: standing(cluster, 20, "accepted"), "20 are accepted")
    await cluster.worker()
    tasks += await cluster.submit_many([api], 30, "with either")
    await doomed.kill()
    left = await cluster.attempts()
    await cluster.all_final(len(tasks))

    ends = await cluster.attempts()
    assert {len(attempts) for attempts in ends.values()} == {1}, "something was sent twice"
    for task_id, ((state, upstream_id),) in ends.items():
        before, known_id = left.get(task_id, [("unsent", None)])[0]
        assert upstream_id == (known_id or upstream_id), "an accepted job was sent anew"
        assert state in ({"done", "unknown"} if before == "sending" else {"done"})
    unknown = sum(attempts[0][0] == "unknown" for attempts in ends.values())
    assert (await cluster.states(tasks)).get("fail", 0) == unknown
    assert await cluster.one("SELECT COUNT(*) FROM tasks WHERE claim > 1") >= 1
    assert await cluster.one("SELECT MAX(claim) FROM tasks") <= 2
    await cluster.assert_books()


@pytest.mark.parametrize(
    ("prompt", "channel", "at", "attempts"),
    [
        ("polled", PAID, "accepted", ["done"]),
        ("sandbox:delay=0 paid", PAID, "sending", ["unknown"]),
        ("sandbox:delay=0 free", FREE, "sending", ["unknown", "done"]),
    ],
)
async def test_a_worker_that_was_held_up_past_its_lease_can_not_write_any_more(
    cluster: Cluster, prompt: str, channel: int, at: str, attempts: list[str]
) -> None:
    api, held_up = await asyncio.gather(cluster.api(), cluster.worker())
    tasks = await cluster.submit_many([api], 16, prompt, channel_id=channel)
    await eventually(lambda: standing(cluster, 8, at), f"8 are {at}", pause=0.01)
    held_up.signal(signal.SIGSTOP)
    held = {task_id for task_id, each in (await cluster.attempts()).items() if each[-1][0] == at}
    assert held
    other = await cluster.worker()
    await cluster.all_final(len(tasks))
    before = await everything(cluster)

    held_up.signal(signal.SIGCONT)
    fenced = "was moved on by another worker"
    await eventually(
        lambda: held_up.log.count(fenced) >= len(held), f"it is fenced {len(held)} times"
    )
    assert await everything(cluster) == before
    ends = await cluster.attempts()
    assert [[state for state, _ in ends[task_id]] for task_id in held] == [attempts] * len(held)
    await cluster.assert_books()
    await cluster.assert_stored_once()

    assert await other.terminate() == 0
    last = await cluster.submit(api, "it works on")
    await cluster.all_final(len(tasks) + 1)
    assert await cluster.states([last]) == {"success": 1}
    assert await held_up.terminate() == 0
    assert_quiet(held_up)


async def test_a_channels_limit_holds_over_all_workers(cluster: Cluster) -> None:
    api, *_ = await asyncio.gather(cluster.api(), cluster.worker(), cluster.worker())
    await cluster.submit_many([api], 30, "sandbox:delay=0.3", channel_id=NARROW)
    await cluster.all_final(30)
    spans = await cluster.rows("SELECT started_at, finished_at FROM attempts")
    moments = sorted(
        [(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans],
    )
    at_once, most = 0, 0
    for _, step in moments:
        at_once += step
        most = max(most, at_once)
    assert most == NARROW_LIMIT


async def test_one_accounts_backlog_does_not_hold_up_anothers_single_task(
    cluster: Cluster,
) -> None:
    api = await cluster.api()
    await cluster.submit_many([api], BACKLOG, "sandbox:delay=0.2", channel_id=NARROW)
    await cluster.worker()
    await eventually(lambda: some_final(cluster), "the backlog is being worked on")
    quiet = await cluster.new_key("quiet")
    task_id = await cluster.submit(api, "sandbox:delay=0.2", key=quiet, channel_id=NARROW)

    async def done() -> bool:
        return await cluster.states([task_id]) == {"success": 1}

    await eventually(done, "the quiet account's task is done")
    waiting = await cluster.one("SELECT COUNT(*) FROM tasks WHERE state = 'waiting'")
    assert waiting > BACKLOG * 0.9


async def test_reconciliation_finds_lost_tasks_drops_stale_jobs_and_ends_what_is_overdue(
    cluster: Cluster,
) -> None:
    api, other = await cluster.api(), await cluster.worker("--channels", "paid")
    final = await cluster.submit(api, "sandbox:delay=0")
    await cluster.all_final(1)
    await eventually(lambda: nothing_queued(cluster), "its job is gone")
    assert await other.terminate() == 0
    overdue = await cluster.submit(api, "nobody works for this channel")
    lost = await cluster.submit(api, "lost", channel_id=FREE)
    kept = await cluster.submit(api, "kept", channel_id=NARROW)

    await cluster.change(
        "INSERT INTO pgqueuer (priority, entrypoint, payload, dedupe_key, status) "
        "SELECT 0, $2, convert_to(id::text, 'UTF8'), id::text, 'queued' FROM tasks WHERE id = $1",
        decode("task", final),
        f"channel-{PAID}",
    )
    minute = 60_000
    await cluster.change(
        "UPDATE tasks SET deadline_at = created_at - $2 WHERE id = $1",
        decode("task", overdue),
        minute,
    )
    await cluster.change("DELETE FROM pgqueuer WHERE dedupe_key = $1", str(decode("task", lost)))
    await cluster.change(
        "UPDATE tasks SET updated_at = updated_at - $2 WHERE id = $1",
        decode("task", lost),
        minute,
    )
    worker = await cluster.worker("--channels", "free")
    await cluster.all_final(3)

    told = "reconciled: 1 jobs made anew, 2 dropped, 1 overdue tasks ended"
    await eventually(lambda: told in worker.log, "it tells what it did")
    assert await cluster.states([lost, kept]) == {"success": 1, "waiting": 1}
    ended = await cluster.task(api, overdue)
    assert (ended["state"], ended["error"]["code"]) == ("fail", "deadline_exceeded")
    assert (await cluster.attempts()).get(decode("task", overdue) or 0) is None
    left = await cluster.rows("SELECT entrypoint FROM pgqueuer WHERE status = 'queued'")
    assert left == [(f"channel-{NARROW}",)]
    await cluster.assert_books()


async def test_a_rolling_restart_under_load_fails_no_poll_and_loses_no_task(
    cluster: Cluster,
) -> None:
    apis = list(await asyncio.gather(cluster.api(), cluster.api()))
    workers = await asyncio.gather(cluster.worker(), cluster.worker())
    stopping, numbers = asyncio.Event(), count()
    done: list[str] = []

    async def client(place: int) -> None:
        while not stopping.is_set():
            done.append(await order_and_poll(cluster, apis, place, f"order-{next(numbers)}"))

    async def replace_all() -> None:
        for old in apis[:]:
            apis.append(await cluster.api())
            await progress(done)
            assert await old.terminate() == 0
        for old in workers:
            await cluster.worker()
            await eventually(lambda: standing(cluster, 1, "accepted"), "some are on their way")
            assert await old.terminate() == 0
            await progress(done)
        stopping.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(replace_all())
        for place in range(CLIENTS):
            group.create_task(client(place))

    assert await cluster.states(done) == {"success": len(done)}
    assert await cluster.finals() == len(done)
    assert {len(each) for each in (await cluster.attempts()).values()} == {1}
    for old in workers:
        assert "0 cut off" in old.log
        assert_quiet(old)
    await cluster.assert_books()


async def order_and_poll(cluster: Cluster, apis: list[Member], place: int, order: str) -> str:
    """The id of a task that was ordered and polled to its end.

    What was sent to a server in the instant in which it closed its connections is sent again:
    an order under its idempotency key by us, a poll, being a GET, by aiohttp itself.
    """

    async def submit(api: Member) -> str:
        try:
            return await cluster.submit(api, order, order=order)
        except aiohttp.ServerDisconnectedError:
            return await elsewhere(apis, place, submit)

    task_id = await elsewhere(apis, place, submit)
    while True:
        task = await elsewhere(apis, place, lambda api: cluster.task(api, task_id))
        if task["state"] in FINAL:
            return task_id
        await asyncio.sleep(0.1)


async def elsewhere(apis: list[Member], place: int, ask: Callable[[Member], Awaitable[T]]) -> T:
    """The answer of the first that takes a connection."""
    for turn in range(len(apis)):
        try:
            return await ask(apis[(place + turn) % len(apis)])
        except aiohttp.ClientConnectorError:
            continue
    raise AssertionError("no API takes connections")


async def progress(done: list[str]) -> None:
    """Wait until every client has come a task further."""
    aim = len(done) + CLIENTS
    await eventually(lambda: len(done) >= aim, "the clients go on")


async def standing(cluster: Cluster, number: int, *states: str) -> bool:
    """Whether so many attempts are in one of these states."""
    statement = "SELECT COUNT(*) FROM attempts WHERE state = ANY($1)"
    return await cluster.one(statement, states) >= number


async def some_final(cluster: Cluster) -> bool:
    return await cluster.finals() > 0


async def nothing_queued(cluster: Cluster) -> bool:
    return await cluster.one("SELECT COUNT(*) FROM pgqueuer") == 0


async def everything(cluster: Cluster) -> list[object]:
    """All that a late write could change."""
    return [
        await cluster.rows("SELECT * FROM tasks ORDER BY id"),
        await cluster.rows("SELECT * FROM attempts ORDER BY task_id, number"),
        await cluster.rows("SELECT * FROM ledger ORDER BY id"),
        await cluster.rows("SELECT * FROM assets ORDER BY id"),
        await cluster.rows("SELECT * FROM events ORDER BY task_id, seq"),
    ]


def assert_quiet(member: Member) -> None:
    assert "Traceback" not in member.log, member.log
    assert " ERROR " not in member.log, member.log
