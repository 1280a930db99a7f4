"""What one machine has kept goes over to PostgreSQL whole, or not at all."""

import asyncio
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from calotype.domain.health import Health
from calotype.domain.ids import decode
from calotype.domain.money import EntryKind
from calotype.domain.task import AttemptState, Event, State
from calotype.store.port import LoggedEvent, StoreError
from calotype.store.postgres import PostgresStore
from calotype.store.sqlite import SqliteStore
from calotype.store.transfer import TABLES, transfer
from conformance.tasks import funded, new_task, read, taken, told
from harness import Server, picture, running_server
from postgres import PostgresServer
from receiver import answer, receiving

ORDER = {"Idempotency-Key": "order-1"}
OPEN = Health(
    channel_id=1,
    model="",
    fault="key",
    until=90_000,
    strikes=1,
    opened_at=5,
    updated_at=6,
    detail="401",
)
FILE, PNG = picture(colour="plum"), {"Content-Type": "image/png"}
FIRST_TASK = "(SELECT MIN(id) FROM tasks)"
BODY = {"model": "gpt-image-2", "prompt": "sandbox:delay=0"}


@dataclass
class Machine:
    """A machine that has worked for a while and was stopped."""

    data: Path
    key: str
    revoked: str
    ordered: str
    """The task of the idempotency key."""
    unfinished: set[int]

    @property
    def database(self) -> Path:
        return self.data / "calotype.db"

    def rows(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self.database)) as database:
            return database.execute(statement).fetchall()

    def change(self, statement: str) -> None:
        with closing(sqlite3.connect(self.database)) as database:
            database.execute(statement)
            database.commit()

    def dump(self) -> list[str]:
        with closing(sqlite3.connect(self.database)) as database:
            return list(database.iterdump())


KEPT_BY_THE_CONSOLE = (
    "key_meters (key_id, day_limit) VALUES (99, 5000000)",
    "channel_switches VALUES (1, 1, 5, 'console')",
    "audit (at, actor, action, subject, detail, outcome) VALUES (5, 'cli', 'a', 'b', '', 'done')",
    "session_cutoffs VALUES ('admin', 5)",
    "spent_links VALUES ('nonce', 5)",
)


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A database with every kind of row."""
    return asyncio.run(_worked(tmp_path_factory.mktemp("worked") / "data"))


@pytest.fixture
def machine(worked: Machine, tmp_path: Path) -> Machine:
    """A copy of it."""
    return replace(worked, data=shutil.copytree(worked.data, tmp_path / "data"))


async def _worked(data: Path) -> Machine:
    async with (
        receiving(answer(410)) as gone,
        running_server(data, webhook_allow_hosts=("127.0.0.1",)) as server,
    ):
        await server.call("PUT", "/v1/webhooks", json={"url": gone.url})
        ordered = await server.call("POST", "/v1/images/generations", json=BODY, headers=ORDER)
        form = await server.submit_form(
            ("prompt", "sandbox:delay=0"), ("image", picture(), "cat.png")
        )
        for reply in (ordered, form):
            assert (await server.finished(reply.json["task_id"]))["state"] == "success"
        assert (await server.outcome("sandbox:refuse"))["state"] == "fail"
        await server.new_key("quiet")
        while not (await server.call("GET", "/v1/webhooks")).json["disabled_urls"]:
            await asyncio.sleep(0.01)
        await server.call("PUT", "/v1/webhooks", json={"url": None})
        other = await server.for_account(credit=5_000_000)
        accepted = await other.submit(prompt="sandbox:delay=1.5")
        polled = decode("task", accepted.json["task_id"])
        assert polled is not None
        store = server.core.store
        async with asyncio.timeout(60):
            while not any(one.upstream_id for one in await store.attempts(polled)):
                await asyncio.sleep(0.01)
        account = await server.core.accounts.find(other.account)
        assert account is not None
        await server.core.accounts.keep_images(account, results=90, references=7)
        filed = await other.call("POST", "/v1/files", data=FILE, headers=PNG)
        assert filed.status == 201, filed.body
        await store.book(account.id, EntryKind.ADJUST, -1_000, note="a fine", now=1)
        revoked, old = await server.core.accounts.create_key("gone", account=other.account)
        assert await store.revoke_key(old.id, now=2)
    async with running_server(data, with_worker=False, credit=0) as idle:
        sent = await idle.accepted(prompt="sandbox:delay=0")
        task_id = decode("task", sent["task_id"])
        assert task_id is not None
        await idle.accepted(prompt="sandbox:delay=0")
        taken = await idle.core.store.take(task_id, now=sent["created_at"] * 1000)
        assert taken is not None
        await idle.core.store.begin_attempt(taken.task, channel_id=1, event=Event.RUN, now=3)
        await idle.core.store.next_slot(1, per_minute=2, now=4)
        await idle.core.store.note_health(OPEN)
        unfinished = {one.task_id for one in await idle.core.store.unfinished(after=0, limit=10)}
    machine = Machine(data, server.key, revoked, ordered.json["task_id"], unfinished)
    for kept in KEPT_BY_THE_CONSOLE:
        machine.change(f"INSERT INTO {kept}")
    metadata = f"""CAST('{json.dumps({"order": "7"})}' AS BLOB)"""
    machine.change(f"UPDATE tasks SET metadata = {metadata} WHERE id = {FIRST_TASK}")  # noqa: S608 -- our own text
    machine.change(
        "INSERT INTO task_metadata (account_id, key, value, task_id) "  # noqa: S608 -- our own text
        f"SELECT account_id, 'order', '7', id FROM tasks WHERE id = {FIRST_TASK}"
    )
    return machine


@pytest.fixture
async def target(postgres_url: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


async def test_every_table_of_either_database_is_copied(
    machine: Machine, target: "asyncpg.Connection[Any]"
) -> None:
    of_sqlite = machine.rows("SELECT name FROM sqlite_master WHERE type = 'table'")
    of_postgres = await target.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    assert {name for (name,) in of_sqlite} == set(TABLES)
    ours = {row[0] for row in of_postgres if not row[0].startswith("pgqueuer")}
    assert ours == {*TABLES, "calotype_schema"}


async def test_every_row_arrives_and_the_source_stays_as_it_was(
    machine: Machine, postgres_url: str, target: "asyncpg.Connection[Any]"
) -> None:
    states = {row[0] for row in machine.rows("SELECT state FROM attempts")}
    assert states == {
        *(AttemptState.DONE, AttemptState.REFUSED, AttemptState.ACCEPTED, AttemptState.SENDING)
    }
    assert len(machine.unfinished) == 3
    before = machine.dump()

    done = await transfer(machine.database, postgres_url)

    assert machine.dump() == before
    for table in TABLES:
        columns = [row[1] for row in machine.rows(f"PRAGMA table_info({table})")]
        everything = f"SELECT {', '.join(columns)} FROM {table}"  # noqa: S608 -- our own names
        here = sorted(machine.rows(everything), key=repr)
        assert here, f"nothing in {table}"
        assert sorted(map(tuple, await target.fetch(everything)), key=repr) == here
        assert done.rows[table] == len(here)
    jobs = await target.fetch("SELECT payload, entrypoint FROM pgqueuer")
    assert {int(row["payload"]) for row in jobs} == machine.unfinished
    assert {row["entrypoint"] for row in jobs} == {"channel-1"}
    assert done.jobs == 3
    assert done.sums["balance"] == dict(machine.rows("SELECT id, balance FROM accounts"))
    by_account = "SELECT account_id, SUM(amount) FROM ledger GROUP BY account_id"
    assert done.sums["entries"] == dict(machine.rows(by_account))


async def test_files_and_how_long_images_are_kept_go_over(
    machine: Machine, postgres_url: str, target: "asyncpg.Connection[Any]"
) -> None:
    kept = (
        "SELECT id, account_id, key, expires_at, digest FROM assets WHERE task_id = 0",
        "SELECT id, expires_at FROM assets WHERE task_id <> 0 AND expires_at IS NOT NULL",
        "SELECT id, expires_at FROM tasks WHERE expires_at IS NOT NULL",
        "SELECT id, result_days, reference_days FROM accounts WHERE result_days IS NOT NULL",
    )
    await transfer(machine.database, postgres_url)
    for statement in kept:
        here = sorted(machine.rows(statement))
        assert here, statement
        assert sorted(map(tuple, await target.fetch(statement))) == here
    ((id_, owner, _, expires_at, digest),) = machine.rows(kept[0])
    assert digest == hashlib.sha256(FILE).digest()
    assert machine.rows(kept[3]) == [(owner, 90, 7)]
    store = PostgresStore(postgres_url)
    found = await store.files.find(id_, account_id=owner, now=expires_at - 1)
    assert found is not None
    assert found.expires_at == expires_at
    gone = await store.lifetimes.expire(now=expires_at + 1, limit=99)
    assert id_ not in {each.id for each in gone.images}, "its account's task is not over"
    await store.close()


async def test_new_accounts_and_entries_get_ids_above_those_that_were_copied(
    machine: Machine, postgres_url: str
) -> None:
    await transfer(machine.database, postgres_url)
    store = PostgresStore(postgres_url)
    old = {account.id for account in await store.accounts()}
    new = await store.open_account("newcomer", now=1)
    assert new.id == max(old) + 1
    await store.book(new.id, EntryKind.CREDIT, 1, note="", now=1)
    assert await store.prove() == []
    await store.close()


async def test_workers_go_on_and_a_replay_finds_its_task_on_the_other_side(
    machine: Machine, postgres_url: str
) -> None:
    await transfer(machine.database, postgres_url)
    shared = running_server(machine.data, credit=0, database_url=postgres_url)
    async with shared as running:
        server: Server = replace(running, key=machine.key)
        replay = await server.call("POST", "/v1/images/generations", json=BODY, headers=ORDER)
        assert replay.json["task_id"] == machine.ordered
        revoked = {"Authorization": f"Bearer {machine.revoked}"}
        assert (await server.call("GET", "/v1/credits/balance", headers=revoked)).status == 401
        store = server.core.store
        async with asyncio.timeout(30):
            while await store.unfinished(after=0, limit=1):
                await asyncio.sleep(0.05)
        for task_id in machine.unfinished:
            task = await store.task(task_id)
            assert task is not None
            assert task.state is State.SUCCESS, task.error
        document = await server.task(machine.ordered)
        picture_url = document["result"]["data"][0]["url"]
        assert (await server.anonymous("GET", picture_url.removeprefix(server.url))).status == 200
        assert await store.prove() == []


async def test_what_is_known_of_channels_holds_on_the_other_side(
    postgres_url: str, tmp_path: Path
) -> None:
    source = SqliteStore(tmp_path / "calotype.db")
    await source.migrate()
    assert [await source.next_slot(1, per_minute=2, now=at) for at in (4, 5)] == [4, 5]
    await source.note_health(OPEN)
    await source.close()

    done = await transfer(tmp_path / "calotype.db", postgres_url)

    assert {table: done.rows[table] for table in TABLES if table.startswith("channel_")} == {
        "channel_slots": 1,
        "channel_health": 1,
        "channel_events": 1,
        "channel_switches": 0,
    }
    store = PostgresStore(postgres_url)
    assert await store.next_slot(1, per_minute=2, now=6) == 60_004
    assert await store.health() == [OPEN]
    await store.clear_health(1, "", now=7)
    events = await store.channel_events(since=0, limit=9)
    assert [(event.event, event.fault, event.at) for event in events] == [
        ("closed", "key", 7),
        ("opened", "key", 6),
    ]
    await store.close()


async def test_metadata_and_the_order_of_events_are_the_same_on_the_other_side(
    postgres_url: str, tmp_path: Path
) -> None:
    source = SqliteStore(tmp_path / "calotype.db")
    await source.migrate()
    account = await funded(source)
    news = [new_task(account, metadata={"project": "Tee", "page": str(n)}) for n in range(3)]
    await source.submit_batch(news)
    for new in news[::-1]:
        await taken(source, new.id)
    events = await source.events(after="", limit=99)
    await source.close()

    await transfer(tmp_path / "calotype.db", postgres_url)

    store = PostgresStore(postgres_url)
    await store.prepare()
    assert [without_cursor(event) for event in await told(store)] == [
        without_cursor(event) for event in events
    ]
    assert (await read(store, news[1].id)).metadata == {"project": "Tee", "page": "1"}
    found = await store.search(account, metadata={"project": "Tee"}, limit=9)
    assert [task.id for task in found] == [new.id for new in news[::-1]]
    later = await taken(store, news[0].id)
    for place, event in enumerate(events):  # who followed there goes on here
        rest = await told(store, after=event.cursor)
        assert [(one.task_id, one.seq) for one in rest] == [
            *((one.task_id, one.seq) for one in events[place + 1 :]),
            (later.id, later.seq),
        ]
    await store.close()


def without_cursor(event: LoggedEvent) -> LoggedEvent:
    return msgspec.structs.replace(event, cursor="")


async def test_a_target_with_rows_is_refused_and_left_alone(
    machine: Machine, postgres_url: str, target: "asyncpg.Connection[Any]"
) -> None:
    store = PostgresStore(postgres_url)
    await store.open_account("somebody", now=1)
    await store.close()
    with pytest.raises(StoreError, match="not empty: there are rows in 'accounts'"):
        await transfer(machine.database, postgres_url)
    assert await target.fetchval("SELECT COUNT(*) FROM accounts") == 1


async def test_a_source_that_a_worker_uses_is_refused(machine: Machine, postgres_url: str) -> None:
    async with running_server(machine.data, credit=0):
        with pytest.raises(StoreError, match="a server develops tasks in this data folder"):
            await transfer(machine.database, postgres_url)


async def test_a_source_that_any_other_process_has_open_is_refused(
    machine: Machine, postgres_url: str
) -> None:
    store = SqliteStore(machine.database)
    await store.ping()
    with pytest.raises(StoreError, match="another process has it open"):
        await transfer(machine.database, postgres_url)
    await store.close()
    await transfer(machine.database, postgres_url)


@pytest.mark.parametrize(("step", "cure"), [(-1, "bring it up to date first"), (1, "the newer")])
async def test_a_source_of_another_version_is_refused(
    machine: Machine, postgres_url: str, step: int, cure: str
) -> None:
    ((version,),) = machine.rows("PRAGMA user_version")
    machine.change(f"PRAGMA user_version = {version + step}")
    with pytest.raises(StoreError, match=cure):
        await transfer(machine.database, postgres_url)


async def test_a_source_whose_books_do_not_hold_is_refused(
    machine: Machine, postgres_url: str
) -> None:
    machine.change("UPDATE accounts SET balance = balance + 1")
    with pytest.raises(StoreError, match="its books do not hold"):
        await transfer(machine.database, postgres_url)


async def test_what_fails_at_the_last_table_leaves_nothing_behind(
    machine: Machine, postgres_url: str, target: "asyncpg.Connection[Any]"
) -> None:
    machine.change("UPDATE idempotency_keys SET key = 'no' || char(0) || 'text of PostgreSQL'")
    before = machine.dump()
    with pytest.raises(StoreError, match="refused the copy"):
        await transfer(machine.database, postgres_url)
    for table in (*TABLES, "pgqueuer"):
        assert await target.fetchval(f"SELECT COUNT(*) FROM {table}") == 0  # noqa: S608 -- our own names
    assert machine.dump() == before


async def test_a_source_that_is_missing_or_no_database_is_refused(
    tmp_path: Path, postgres_url: str
) -> None:
    with pytest.raises(StoreError, match="there is no such file"):
        await transfer(tmp_path / "none.db", postgres_url)
    (tmp_path / "text.db").write_text("no database, but long enough to be looked at " * 50)
    with pytest.raises(StoreError, match="cannot be read as a SQLite database"):
        await transfer(tmp_path / "text.db", postgres_url)


# The command


def migrate(*arguments: str, data: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "calotype", "migrate", *arguments],
        env={"CALOTYPE_DATA_DIR": str(data)},
        cwd=data,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_the_command_makes_the_schema_and_shows_what_was_copied(
    machine: Machine, postgres: PostgresServer, target: "asyncpg.Connection[Any]"
) -> None:
    await target.execute("CREATE DATABASE bare")
    try:
        ended = await asyncio.to_thread(
            migrate,
            *("--from", f"sqlite:///{machine.database}", "--to", postgres.url("bare")),
            data=machine.data,
        )
        assert ended.returncode == 0, ended.stderr
        lines = [line.split() for line in ended.stdout.splitlines()]
        assert ["tasks", "6"] in lines
        assert ["quiet", *["0.00"] * 7] in lines
        assert "3 unfinished tasks wait for a worker" in ended.stdout
    finally:
        await target.execute("DROP DATABASE bare WITH (FORCE)")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--from", "sqlite:///a.db"], "go together"),
        (["--to", "postgresql://nobody@127.0.0.1:1/x"], "go together"),
        (["--from", "a.db", "--to", "postgresql://nobody@127.0.0.1:1/x"], "sqlite:///path/to"),
        (["--from", "sqlite:///a.db", "--to", "sqlite:///b.db"], "postgresql://user@host/name"),
        (["--from", "sqlite:///a.db", "--to", "postgresql://x@127.0.0.1:1/x"], "no such file"),
    ],
)
async def test_wrong_flags_are_told(tmp_path: Path, arguments: list[str], told: str) -> None:
    ended = await asyncio.to_thread(migrate, *arguments, data=tmp_path)
    assert ended.returncode == 2
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_database_that_does_not_answer_is_told(machine: Machine) -> None:
    with pytest.raises(StoreError, match="cannot be reached"):
        await transfer(machine.database, "postgresql://nobody@127.0.0.1:1/none")
