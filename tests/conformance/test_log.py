"""Every event has a place in one order, and a reader who follows it misses none."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from calotype.domain.errors import failure
from calotype.domain.task import Event, State
from calotype.store.port import LoggedEvent, Store, StoreError
from calotype.store.postgres import PostgresStore, log
from calotype.store.sqlite import SqliteStore
from calotype.store.sqlite import log as sqlite_log
from conformance.tasks import NOW, PRICE, funded, image, new_task, submitted, taken, told
from harness import until
from postgres import PostgresServer, fresh_database

WHY = failure("upstream_failed", "It broke.")


async def success(store: Store, account_id: int) -> int:
    """A task's whole life."""
    task = await taken(store, await submitted(store, account_id))
    number = await store.begin_attempt(task, channel_id=7, event=Event.QUEUE, now=NOW + 2)
    await store.advance(task, Event.RUN, progress=40, now=NOW + 3)
    picture = image(account_id)
    await store.complete(task, number, images=[picture], actual=PRICE, cost=None, now=NOW + 4)
    return task.id


async def followed(store: Store, after: str = "", *, page: int = 3) -> list[LoggedEvent]:
    """All there is after a cursor, read page by page."""
    found: list[LoggedEvent] = []
    while more := await told(store, after=found[-1].cursor if found else after, limit=page):
        found += more
    return found


async def test_a_life_is_told_event_by_event(store: Store) -> None:
    account = await funded(store)
    task_id = await success(store, account)
    events = await told(store)
    assert [
        (event.seq, event.event, event.state, event.progress, event.at) for event in events
    ] == [
        (1, "submit", State.WAITING, 0, NOW),
        (2, "take", State.QUEUING, 0, NOW + 1),
        (3, "queue", State.QUEUING, 0, NOW + 2),
        (4, "run", State.GENERATING, 40, NOW + 3),
        (5, "complete", State.SUCCESS, 100, NOW + 4),
    ]
    assert {(event.task_id, event.account_id) for event in events} == {(task_id, account)}


async def test_the_log_is_read_of_all_of_an_account_and_of_a_task(store: Store) -> None:
    ada, bob = await funded(store), await funded(store, name="bob")
    first, second, third = [await success(store, owner) for owner in (ada, bob, ada)]
    task = await taken(store, await submitted(store, bob))
    await store.fail(task, WHY, now=NOW)
    everything = await told(store)
    assert len(everything) == 18
    assert everything == await followed(store)
    assert len({event.cursor for event in everything}) == 18

    for account_id, task_id in [
        (ada, None),
        (bob, None),
        (None, third),
        (bob, second),
        (bob, first),
    ]:
        expected = [
            event
            for event in everything
            if account_id in (None, event.account_id) and task_id in (None, event.task_id)
        ]
        read = await told(store, account_id=account_id, task_id=task_id)
        assert read == expected
        for place, event in enumerate(expected):
            rest = await store.events(
                after=event.cursor, limit=2, account_id=account_id, task_id=task_id
            )
            assert rest == expected[place + 1 : place + 3]


async def test_after_the_end_comes_only_what_is_new(store: Store) -> None:
    end_of_nothing = await store.events_end()
    account = await funded(store)
    await success(store, account)
    end = await store.events_end()
    assert await told(store, after=end) == []
    later = await submitted(store, account)
    assert [event.task_id for event in await told(store, after=end)] == [later]
    assert len(await told(store, after=end_of_nothing)) == 6
    assert end == str(end)


@pytest.mark.parametrize(
    "cursor", ["x", "1-", "-1", "1-2", "1-2-3-4", " 1", "1\n", "²", "9" * 19, "1-2-" + "9" * 19]
)
async def test_what_is_no_cursor_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(ValueError, match="is no cursor of the event log"):
        await store.events(after=cursor, limit=9)


async def test_many_writers_at_once_and_a_reader_who_misses_nothing(store: Store) -> None:
    account = await funded(store, credit=10**9)
    read: list[LoggedEvent] = []
    writers = [asyncio.create_task(success(store, account)) for _ in range(40)]

    async def follow() -> None:
        while len(read) < 200:
            after = read[-1].cursor if read else ""
            read.extend(await store.events(after=after, limit=7))
            await asyncio.sleep(0)

    async with asyncio.timeout(30):
        await asyncio.gather(follow(), *writers)
    assert read == await told(store)
    assert len({(event.task_id, event.seq) for event in read}) == 200


# News


class Bell:
    """What rings, and waiting for it."""

    def __init__(self) -> None:
        self.rung = 0
        self._rings = asyncio.Event()

    def __call__(self) -> None:
        self.rung += 1
        self._rings.set()

    async def rings(self) -> None:
        async with asyncio.timeout(60):
            await self._rings.wait()
        self._rings.clear()


async def test_sqlite_tells_of_events_that_it_committed_and_of_nothing_else(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path / "calotype.db")
    await store.migrate()
    account = await funded(store)
    first, second = Bell(), Bell()
    end_first, end_second = store.watch(first), store.watch(second)
    end = await store.events_end()
    task_id = await submitted(store, account)
    await first.rings()
    await second.rings()
    assert [event.task_id for event in await told(store, after=end)] == [task_id]
    end_second()
    end_second()
    before = first.rung
    await store.ping()
    await funded(store, name="bob")
    task = await taken(store, task_id)
    await first.rings()
    assert (first.rung, second.rung) == (before + 1, 1)
    end_first()
    await store.advance(task, Event.RUN, progress=9, now=NOW)
    await asyncio.sleep(0)
    assert first.rung == before + 1
    await store.close()


async def test_a_watcher_that_breaks_disturbs_nobody(tmp_path: Path) -> None:
    store, bell, told = SqliteStore(tmp_path / "calotype.db"), Bell(), list[str]()

    def broken() -> None:
        raise ValueError("broken")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(str(context.get("exception"))))
    await store.migrate()
    account = await funded(store)
    store.watch(broken)
    store.watch(bell)
    await submitted(store, account)
    await bell.rings()
    assert told == ["broken"]
    await store.close()


LISTENERS = """
SELECT COUNT(*) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'idle' AND query LIKE 'LISTEN %'
"""


async def listening(postgres_url: str, listeners: int) -> None:
    """Wait until the database has this many listeners: what is told before is lost on them."""
    database = await asyncpg.connect(postgres_url)
    async with asyncio.timeout(60):
        while await database.fetchval(LISTENERS) != listeners:
            await asyncio.sleep(0.01)
    await database.close()


async def test_who_watches_a_shared_store_is_told_of_its_own_events_and_of_others(
    postgres_url: str,
) -> None:
    store, other = PostgresStore(postgres_url), PostgresStore(postgres_url)
    account, own, others = await funded(store), Bell(), Bell()
    end_own, end_others = store.watch(own), other.watch(others)
    await listening(postgres_url, 2)
    task_id = await submitted(store, account)
    await own.rings()
    await others.rings()
    await taken(other, task_id)
    await own.rings()
    end_own()
    end_others()
    rung = own.rung
    await submitted(store, account)
    await asyncio.sleep(0)
    assert own.rung == rung
    await store.close()
    await other.close()


async def test_a_watcher_of_a_shared_store_that_breaks_disturbs_no_writer(
    postgres_url: str,
) -> None:
    store, bell, told = PostgresStore(postgres_url), Bell(), list[str]()

    def broken() -> None:
        raise ValueError("broken")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(str(context.get("exception"))))
    account = await funded(store)
    store.watch(broken)
    store.watch(bell)
    await submitted(store, account)
    await bell.rings()
    await store.close()
    assert set(told) == {"broken"}


async def test_others_are_told_again_once_the_database_takes_notifications_again(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, other, bell = PostgresStore(postgres_url), PostgresStore(postgres_url), Bell()
    account = await funded(store)
    task_id = await submitted(other, account)
    database = await asyncpg.connect(postgres_url)
    await database.execute("ALTER FUNCTION pg_notify RENAME TO pg_notify_gone")
    await taken(store, task_id)
    await until(lambda: "other processes are not told of events now" in caplog.text)
    await database.execute("ALTER FUNCTION pg_catalog.pg_notify_gone RENAME TO pg_notify")
    other.watch(bell)
    await listening(postgres_url, 1)
    await submitted(store, account)
    await bell.rings()
    await database.close()
    await store.close()
    await other.close()


# What only PostgreSQL can get wrong


TELL = (
    "INSERT INTO events (task_id, account_id, seq, at, event, state, progress) "
    "VALUES ($1, 1, 1, 5, 'submit', 'waiting', 0)"
)


async def test_a_reader_waits_for_a_transaction_that_began_earlier_and_ends_later(
    postgres_url: str,
) -> None:
    store = PostgresStore(postgres_url)
    early, late = await asyncpg.connect(postgres_url), await asyncpg.connect(postgres_url)
    first = early.transaction()
    await first.start()
    await early.execute(TELL, 1)
    end = await store.events_end()
    second = late.transaction()
    await second.start()
    await late.execute(TELL, 2)
    await second.commit()
    assert await late.fetchval("SELECT COUNT(*) FROM events") == 1
    for selection in ({}, {"account_id": 1}, {"task_id": 2}):
        assert await store.events(after="", limit=9, **selection) == []
    assert await store.events_end() == end
    await first.commit()
    assert [event.task_id for event in await followed(store, page=1)] == [1, 2]
    assert [event.task_id for event in await followed(store, end)] == [1, 2]
    await early.close()
    await late.close()
    await store.close()


async def test_a_transaction_that_is_undone_holds_nobody_up(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    early = await asyncpg.connect(postgres_url)
    undone = early.transaction()
    await undone.start()
    await early.execute(TELL, 1)
    account = await funded(store)
    task_id = await submitted(store, account)
    assert await store.events(after="", limit=9) == []
    await undone.rollback()
    assert [event.task_id for event in await told(store)] == [task_id]
    await early.close()
    await store.close()


async def test_many_events_of_one_transaction_are_read_in_pages(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    account = await funded(store, credit=100 * PRICE)
    news = [new_task(account) for _ in range(10)]
    await store.submit_batch(news)
    assert [event.task_id for event in await followed(store)] == [new.id for new in news]
    await store.close()


async def test_a_restored_copy_is_not_worked_with_until_its_log_can_go_on(
    postgres: PostgresServer,
) -> None:
    """In a cluster that has seen fewer transactions, new events would stand before the old."""
    async with fresh_database(postgres) as url:
        store = PostgresStore(url)
        account = await funded(store)
        old = await submitted(store, account)
        database = await asyncpg.connect(url)
        await database.execute("UPDATE events SET place = place + 1000000000")
        await database.close()
        with pytest.raises(StoreError, match=r"was restored from a copy.*run calotype migrate"):
            await store.prepare()
        assert await store.events(after="", limit=9) == []
        await store.migrate()
        await store.prepare()
        (known,) = await told(store)
        assert known.task_id == old
        place = int(known.cursor.partition("-")[0])
        lost = f"{place + 10**6}-5-5"
        new = await submitted(store, account)
        assert [event.task_id for event in await told(store, after=lost)] == [new]
        assert await store.migrate() > 0
        last = await submitted(store, account)
        events = await told(store)
        assert [event.task_id for event in events] == [old, new, last]
        await store.close()


# What a page costs

MANY = 50_000
FILL = (
    "INSERT INTO events (place, account_id, task_id, seq, at, event, state, progress) "
    "SELECT i, CASE WHEN i BETWEEN 100 AND 102 THEN 2 ELSE 1 END, i / 5, i % 5, 9, 'run', "
    "'generating', 1 FROM {numbers}"
)
READS: list[dict[str, Any]] = [
    {"after": ""},
    {"after": str(MANY - 30)},
    {"after": "", "account_id": 1},
    {"after": "", "account_id": 2},
    {"after": "", "account_id": 3},
    {"after": str(MANY - 30), "account_id": 1},
    {"after": "", "task_id": 7000},
    {"after": "", "task_id": MANY},
    {"after": "", "task_id": 7000, "account_id": 2},
]


def asked(read: dict[str, Any]) -> dict[str, Any]:
    return {"limit": 20, "account_id": None, "task_id": None, **read}


async def test_on_sqlite_a_page_of_the_log_costs_a_page(tmp_path: Path) -> None:
    await SqliteStore(tmp_path / "c.db").migrate()
    with closing(sqlite3.connect(tmp_path / "c.db", isolation_level=None)) as database:
        numbers = f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {MANY})"  # noqa: S608 -- our own text
        database.execute(f"{numbers} {FILL.format(numbers='n')}")
        for read in READS:
            steps = 0

            def step() -> None:
                nonlocal steps
                steps += 100

            database.set_progress_handler(step, 100)
            statement, values = sqlite_log.page(**asked(read))
            database.execute(statement, values).fetchall()
            database.set_progress_handler(None, 0)
            assert steps < 2_000, read


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
async def test_on_postgres_a_page_of_the_log_costs_a_page(postgres_url: str, plans: str) -> None:
    database = await asyncpg.connect(postgres_url)
    await database.execute(FILL.format(numbers=f"generate_series(1, {MANY}) AS n (i)"))
    await log.move_on(database)
    await database.execute("ANALYZE")
    await database.execute(f"SET plan_cache_mode = {plans}")
    for number, read in enumerate(READS):
        statement, values = log.page(**asked(read))
        types = ", ".join("bigint" for _ in values)
        given = ", ".join("NULL" if value is None else str(value) for value in values)
        await database.execute(f"PREPARE read_{number} ({types}) AS {statement}")
        explained = await database.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE read_{number} ({given})"
        )
        plan = json.loads(explained)[0]["Plan"]
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 50, explained
        assert "Seq Scan" not in explained
    await database.close()
