"""Tasks that move at once: each holds or is fenced on its own, whoever it goes together with."""

import asyncio

import asyncpg
import pytest

from calotype.domain.errors import failure
from calotype.domain.money import Balance
from calotype.domain.task import Asset, Event, State, Task
from calotype.store.port import Fenced, Store
from calotype.store.postgres import PostgresStore, log, transitions
from calotype.store.postgres.connection import HOT_SESSION
from calotype.store.postgres.submission import SUBMIT, SUBMIT_WITH_METADATA
from conformance.tasks import NOW, PRICE, funded, image, new_task, read, submitted, taken

MANY = 40


async def complete(
    store: Store, task: Task, *, actual: int = 20_000, made: Asset | None = None
) -> None:
    images = [made or image(task.account_id)]
    await store.complete(task, 1, images=images, actual=actual, cost=None, now=NOW + 3)


async def begun(store: Store, account_id: int) -> Task:
    task = await taken(store, await submitted(store, account_id))
    await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW + 2)
    return task


async def test_many_are_taken_begun_and_completed_at_once(store: Store) -> None:
    account = await funded(store, credit=MANY * PRICE)
    ids = await asyncio.gather(*(submitted(store, account) for _ in range(MANY)))
    tasks = await asyncio.gather(*(taken(store, task_id) for task_id in ids))
    assert [task.id for task in tasks] == ids
    begin = [
        store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW + 2) for task in tasks
    ]
    assert set(await asyncio.gather(*begin)) == {1}
    await asyncio.gather(*(complete(store, task) for task in tasks))
    ended = await asyncio.gather(*(read(store, task_id) for task_id in ids))
    assert {(task.state, len(task.result), task.actual) for task in ended} == {
        (State.SUCCESS, 1, 20_000)
    }
    assert await store.balance(account) == Balance(balance=MANY * (PRICE - 20_000), reserved=0)
    assert await store.prove() == []


async def test_one_that_was_fenced_or_broken_takes_nobody_with_it(store: Store) -> None:
    account = await funded(store)
    fine, lost, broken, last = [await begun(store, account) for _ in range(4)]
    await taken(store, lost.id)
    results = await asyncio.gather(
        complete(store, fine),
        complete(store, lost),
        complete(store, broken, actual=2 * PRICE),  # more than was reserved
        complete(store, last),
        return_exceptions=True,
    )
    assert (results[0], type(results[1]), results[3]) == (None, Fenced, None)
    assert isinstance(results[2], Exception)
    states = [(await read(store, task.id)).state for task in (fine, lost, broken, last)]
    ended, open_ = State.SUCCESS, State.GENERATING
    assert states == [ended, open_, open_, ended]
    assert (await store.balance(account)).reserved == 2 * PRICE
    assert await store.prove() == []


async def test_of_two_tasks_with_one_image_only_one_ends_and_so_do_their_neighbours(
    store: Store,
) -> None:
    account = await funded(store)
    tasks = [await begun(store, account) for _ in range(4)]
    one = image(account)
    first, *both, last = await asyncio.gather(
        *(
            complete(store, task, made=made)
            for task, made in zip(tasks, (None, one, one, None), strict=True)
        ),
        return_exceptions=True,
    )
    assert (first, last) == (None, None)
    assert sorted(isinstance(result, Exception) for result in both) == [False, True]
    assert await store.balance(account) == Balance(balance=10 * PRICE - 3 * 20_000, reserved=PRICE)
    assert await store.prove() == []


async def test_two_steps_of_one_task_are_both_made_though_they_were_asked_for_at_once(
    store: Store,
) -> None:
    task = await begun(store, await funded(store))
    await asyncio.gather(
        *(store.advance(task, Event.RUN, progress=done, now=NOW + 3) for done in (10, 40, 20))
    )
    moved = await read(store, task.id)
    assert (moved.progress, moved.seq) == (40, 6)


async def test_of_two_ends_of_one_task_the_first_holds(store: Store) -> None:
    account = await funded(store)
    task = await begun(store, account)
    results = await asyncio.gather(
        *(complete(store, task) for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), Fenced, Fenced]
    assert (await store.balance(account)).balance == 10 * PRICE - 20_000


async def test_processes_that_settle_the_same_accounts_at_once_never_wait_in_a_circle(
    postgres_url: str,
) -> None:
    first, second = PostgresStore(postgres_url), PostgresStore(postgres_url)
    accounts = [await funded(first, credit=MANY * PRICE, name=f"a{each}") for each in range(5)]
    tasks = [await begun(first, accounts[each % 5]) for each in range(MANY)]
    why = failure("deadline_exceeded", "No worker came to it in time.")
    work = [complete(first, task) for task in tasks[::2]]
    work += [second.fail(task, why, now=NOW + 3) for task in reversed(tasks[1::2])]
    news = [new_task(account) for account in accounts * 4]
    await asyncio.gather(*work, *(second.submit(new) for new in reversed(news)))
    (row,) = await first._db.fetch(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert row[0] == 0
    assert await first.prove() == []
    await first.close()
    await second.close()


HOT = {
    "take": transitions.TAKE.statement,
    "keep_references": transitions.KEEP_REFERENCES.statement,
    "advance": transitions.MOVE[Event.RUN].statement,
    "begin_attempt": transitions.BEGIN_ATTEMPT[Event.QUEUE].statement,
    "accept_attempt": transitions.ACCEPT_ATTEMPT.statement,
    "close_attempt": transitions.CLOSE_ATTEMPT.statement,
    "keep_arrived": transitions.KEEP_ARRIVED.statement,
    "complete": transitions.COMPLETE.statement,
    "fail": transitions.FAIL.statement,
    "submit": SUBMIT,
    "submit with metadata": SUBMIT_WITH_METADATA,
    "events": log.OF_ALL,
    "events of an account": log.OF_ACCOUNT,
    "events of a task": log.OF_TASK,
}


@pytest.mark.parametrize("name", HOT)
async def test_what_every_task_needs_looks_rows_up_by_keys_and_reads_no_table_through(
    name: str, postgres_url: str
) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(HOT_SESSION)
    number = len((await connection.prepare(HOT[name])).get_parameters())
    await connection.execute(f"PREPARE hot AS {HOT[name]}")
    values = ", ".join(["NULL"] * number)
    plan = [row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE hot ({values})")]
    await connection.close()
    assert not [line for line in plan if "Seq Scan" in line]
    looked_up = [line for line in plan if "Index Scan" in line or "Index Only Scan" in line]
    assert looked_up
    assert sum("Index Cond" in line for line in plan) == len(looked_up)
