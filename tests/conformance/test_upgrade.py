"""A database that an older Calotype made goes on whole, and the old code with it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import msgspec
import pytest
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.queries import Queries

from calotype.domain.errors import failure
from calotype.domain.health import Health
from calotype.domain.money import Balance
from calotype.domain.task import AttemptState, Event, Request, State
from calotype.store.port import Store
from calotype.store.postgres import PostgresStore, connection
from calotype.store.sqlite import SqliteStore
from calotype.store.sqlite import connection as sqlite_connection
from conformance.tasks import told
from postgres import PostgresServer

NOW = 1_760_000_000_000
PRICE = 30_000
DONE, ACCEPTED, WAITING, UNKNOWN = 11, 12, 13, 14
EVENTS = [
    (DONE, 1, NOW, "submit", "waiting"),
    (DONE, 2, NOW + 40, "take", "queuing"),
    (DONE, 3, NOW + 20, "complete", "success"),  # a machine whose clock was behind
    (ACCEPTED, 1, NOW + 10, "submit", "waiting"),
    (ACCEPTED, 2, NOW + 30, "run", "generating"),
    (WAITING, 1, NOW + 50, "submit", "waiting"),
]
IN_TURN = [(DONE, 1), (ACCEPTED, 1), (ACCEPTED, 2), (DONE, 2), (DONE, 3), (WAITING, 1)]
TELL = (
    "INSERT INTO events (task_id, seq, at, event, state, progress) VALUES ($1, $2, $3, $4, $5, 0)"
)


class Old(Protocol):
    """A database with an older schema, and code that was written for it."""

    newest: int
    """The version of the schema that it is brought to."""

    def store(self) -> Store: ...

    async def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]: ...


class OldSqlite:
    newest = 10

    def __init__(self, path: Path) -> None:
        self._path = path
        self.connection = sqlite_connection.connect(path)

    def store(self) -> Store:
        return SqliteStore(self._path)

    async def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement.replace("$", "?"), values).fetchall()


class OldPostgres:
    newest = 8

    def __init__(self, url: str, database: "asyncpg.Connection[Any]") -> None:
        self._url = url
        self.connection = database

    def store(self) -> Store:
        return PostgresStore(self._url)

    async def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.connection.fetch(statement, *values)]


def released(engine: str, version: int) -> str:
    """The scripts as they were released; they may never change."""
    folder = Path(sqlite_connection.__file__).parents[1] / engine / "migrations"
    names = ("0001_initial.sql", "0002_channels.sql")[:version]
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


@pytest.fixture(
    params=[(engine, version) for engine in ("sqlite", "postgres") for version in (1, 2)]
)
async def old(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Old]:
    """A database with work of every kind in it."""
    engine, version = request.param
    if engine == "sqlite":
        sqlite = OldSqlite(tmp_path / "calotype.db")
        with closing(sqlite.connection):
            sqlite.connection.executescript(released("sqlite", version))
            sqlite.connection.execute(f"PRAGMA user_version = {version}")
            await fill(sqlite)
            yield sqlite
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    admin = await asyncpg.connect(server.url())
    await admin.execute("CREATE DATABASE upgraded")
    database = await asyncpg.connect(server.url("upgraded"))
    try:
        await database.execute(released("postgres", version))
        await database.execute(
            "CREATE TABLE calotype_schema (version BIGINT PRIMARY KEY, "
            "works_from BIGINT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())"
        )
        for number in range(1, version + 1):
            await database.execute(
                "INSERT INTO calotype_schema (version, works_from) VALUES ($1, 1)", number
            )
        await Queries(AsyncpgDriver(database)).install()
        postgres = OldPostgres(server.url("upgraded"), database)
        await fill(postgres)
        yield postgres
    finally:
        await database.close()
        await admin.execute("DROP DATABASE upgraded WITH (FORCE)")
        await admin.close()


async def insert(old: Old, table: str, **columns: Any) -> None:
    names, places = ", ".join(columns), ", ".join(f"${n + 1}" for n in range(len(columns)))
    statement = f"INSERT INTO {table} ({names}) VALUES ({places})"  # noqa: S608 -- our own names
    await old.run(statement, *columns.values())


async def fill(old: Old) -> None:
    """One account, and a task in each kind of state."""
    await insert(
        old,
        "accounts",
        name="ada",
        balance=5 * PRICE,
        reserved=2 * PRICE,
        unfinished=2,
        created_at=NOW,
    )
    entries = [
        (None, "credit", 6),
        *((task_id, "reserve", 1) for task_id in (DONE, ACCEPTED, WAITING, UNKNOWN)),
        (DONE, "commit", 1),
        (UNKNOWN, "release", 1),
    ]
    for task_id, kind, prices in entries:
        amount = prices * PRICE
        await insert(
            old,
            "ledger",
            account_id=1,
            task_id=task_id,
            kind=kind,
            amount=amount,
            created_at=NOW,
        )
    lost = msgspec.json.encode(failure("upstream_outcome_unknown", "Nobody can say."))
    await task(old, DONE, "success", "committed", actual=PRICE, result=b"[]", completed_at=NOW)
    await task(old, ACCEPTED, "generating", "reserved")
    await task(old, WAITING, "waiting", "reserved", claim=0)
    await task(old, UNKNOWN, "fail", "released", released=PRICE, error=lost, completed_at=NOW)
    await attempt(old, DONE, "done", cost_micro_usdc=9, finished_at=NOW)
    await attempt(old, ACCEPTED, "accepted", upstream_id="up-1")
    await attempt(old, UNKNOWN, "unknown", detail="It broke off.", finished_at=NOW + 5)
    for task_id, seq, at, event, state in EVENTS:
        await old.run(TELL, task_id, seq, at, event, state)


async def task(
    old: Old, task_id: int, state: str, billing: str, *, claim: int = 1, **columns: Any
) -> None:
    fixed = {
        "id": task_id,
        "account_id": 1,
        "key_id": 1,
        "request_id": f"req_{task_id}",
        "state": state,
        "progress": 0,
        "billing": billing,
        "claim": claim,
        "seq": 1 + claim,
        "request": msgspec.json.encode(Request("gpt-image-2", "a cat", 1, {})),
        "refs": b"[]",
        "channel_id": 7,
        "reserved": PRICE,
        "actual": 0,
        "released": 0,
        "deadline_at": NOW + 9,
        "abandon_at": NOW + 99,
        "created_at": NOW,
        "updated_at": NOW,
    }
    await insert(old, "tasks", **{**fixed, **columns})


async def attempt(old: Old, task_id: int, state: str, **columns: Any) -> None:
    fixed = {"task_id": task_id, "number": 1, "channel_id": 7, "state": state, "started_at": NOW}
    await insert(old, "attempts", **fixed, **columns)


async def test_everything_is_there_after_the_upgrade_and_the_books_hold(old: Old) -> None:
    store = old.store()
    assert await store.migrate() == old.newest
    await store.prepare()
    assert await store.prove() == []
    (account,) = await store.accounts()
    assert account.balance == Balance(5 * PRICE, 2 * PRICE)
    states = {each.id: each.state for each in await store.tasks()}
    assert states == {
        DONE: State.SUCCESS,
        ACCEPTED: State.GENERATING,
        WAITING: State.WAITING,
        UNKNOWN: State.FAIL,
    }
    (accepted,) = await store.attempts(ACCEPTED)
    assert (accepted.upstream_id, accepted.code, accepted.fault) == ("up-1", None, None)
    (found,) = await store.operating.unknown(limit=9)
    unknown = found.attempt
    assert (found.task_id, unknown.detail, unknown.finished_at) == (
        UNKNOWN,
        "It broke off.",
        NOW + 5,
    )
    assert await store.unfinished_channels() == [7]
    assert (await store.health(), await store.channel_events(since=0, limit=9)) == ([], [])
    await store.close()


async def test_old_events_are_in_the_log_before_all_new_ones(old: Old) -> None:
    store = old.store()
    await store.migrate()
    end = await store.events_end()
    found = await told(store)
    assert [(event.task_id, event.seq) for event in found] == IN_TURN
    assert {event.account_id for event in found} == {1}
    assert [event.at for event in found][-3:] == [NOW + 40, NOW + 20, NOW + 50]
    taken = await store.take(WAITING, now=NOW)
    assert taken is not None
    new = await told(store, after=end)
    assert [(event.task_id, event.seq, event.account_id) for event in new] == [(WAITING, 2, 1)]
    assert [*found, *new] == await told(store)
    assert await told(store, account_id=1) == await told(store)
    assert [event.seq for event in await told(store, task_id=DONE)] == [1, 2, 3]
    await store.close()


async def test_old_tasks_are_found(old: Old) -> None:
    store = old.store()
    await store.migrate()
    found = await store.search(1, limit=9)
    assert [task.id for task in found] == [UNKNOWN, WAITING, ACCEPTED, DONE]
    assert {tuple(task.metadata) for task in found} == {()}
    for state, model, expected in [
        (None, "gpt-image-2", [UNKNOWN, WAITING, ACCEPTED, DONE]),
        (None, "flux-2", []),
        (State.SUCCESS, None, [DONE]),
        (State.FAIL, "gpt-image-2", [UNKNOWN]),
        (State.WAITING, None, [WAITING]),
    ]:
        found = await store.search(1, state=state, model=model, limit=9)
        assert [task.id for task in found] == expected
    await store.close()


async def test_tasks_go_on_where_they_stood(old: Old) -> None:
    store = old.store()
    await store.migrate()
    taken = await store.take(ACCEPTED, now=NOW)
    assert taken is not None
    await store.complete(taken.task, 1, images=[], actual=PRICE, cost=3, now=NOW)
    taken = await store.take(WAITING, now=NOW)
    assert taken is not None
    number = await store.begin_attempt(taken.task, channel_id=7, event=Event.QUEUE, now=NOW)
    await store.close_attempt(
        taken.task,
        number,
        state=AttemptState.REFUSED,
        detail="401",
        now=NOW,
        code="upstream_rejected",
        fault="key",
    )
    await store.reroute(taken.task, 8, now=NOW)
    await store.fail(taken.task, failure("upstream_failed", "It broke."), now=NOW)
    (closed,) = await store.attempts(WAITING)
    assert (closed.code, closed.fault) == ("upstream_rejected", "key")
    assert await store.prove() == []
    assert await store.next_slot(7, per_minute=1, now=NOW) == NOW
    await store.note_health(
        Health(
            channel_id=7,
            model="",
            fault="key",
            until=NOW + 5,
            strikes=0,
            opened_at=NOW,
            updated_at=NOW,
        )
    )
    assert len(await store.channel_events(since=0, limit=9)) == 1
    await store.close()


BEGIN = (
    "INSERT INTO attempts (task_id, number, channel_id, state, started_at) "
    "VALUES ($1, $2, $3, 'sending', $4)"
)
ACCEPT = (
    "UPDATE attempts SET state = 'accepted', upstream_id = $3 WHERE task_id = $1 AND number = $2"
)
CLOSE = (
    "UPDATE attempts SET state = 'unknown', detail = $3, finished_at = $4 "
    "WHERE task_id = $1 AND number = $2"
)
READ = (
    "SELECT number, channel_id, state, upstream_id, started_at, finished_at, detail, "
    "cost_micro_usdc FROM attempts WHERE task_id = $1 ORDER BY number"
)


async def test_a_process_of_the_version_before_works_on_while_and_after_it_is_upgraded(
    old: Old,
) -> None:
    async def develop(number: int) -> None:
        await old.run(BEGIN, WAITING, number, 7, NOW)
        await old.run(ACCEPT, WAITING, number, f"up-{number}")
        await old.run(CLOSE, WAITING, number, "cut off", NOW + number)

    store = old.store()
    await develop(1)
    expected: Sequence[tuple[Any, ...]] = [
        (number, 7, "unknown", f"up-{number}", NOW, NOW + number, "cut off", None)
        for number in (1, 2)
    ]
    assert await old.run(READ, WAITING) == expected[:1]
    await store.migrate()
    await develop(2)
    assert await old.run(READ, WAITING) == expected
    found = await store.operating.unknown(limit=9)
    assert [(one.task_id, one.attempt.number) for one in found] == [
        (UNKNOWN, 1),
        (WAITING, 2),
        (WAITING, 1),
    ]
    assert await store.prove() == []
    await store.close()


async def test_what_the_version_before_writes_is_found_and_followed(old: Old) -> None:
    store = old.store()
    await store.migrate()
    end = await store.events_end()
    await old.run("UPDATE accounts SET unfinished = unfinished + 1 WHERE id = 1")
    await task(old, 15, "waiting", "reserved", claim=0)
    await old.run(TELL, 15, 1, NOW, "submit", "waiting")
    taken = await store.take(15, now=NOW)
    assert taken is not None
    await old.run(TELL, 15, 3, NOW, "queue", "queuing")
    found = await told(store, after=end)
    assert [(event.task_id, event.seq, event.account_id) for event in found] == [
        (15, seq, 1) for seq in (1, 2, 3)
    ]
    for selection in ({"account_id": 1}, {"task_id": 15}, {"account_id": 1, "task_id": 15}):
        assert await told(store, after=end, **selection) == found
        assert await told(store, after=found[0].cursor, **selection) == found[1:]
    assert await told(store, account_id=2) == []
    assert [one.id for one in await store.search(1, state=State.QUEUING, limit=9)] == [15]
    await store.close()


async def test_the_new_schema_says_that_the_old_code_works_with_it(postgres_url: str) -> None:
    database = await asyncpg.connect(postgres_url)
    assert await connection.version(database) == (8, 1)
    await database.close()
