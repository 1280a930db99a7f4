"""What only PostgreSQL can get wrong."""

import asyncio
import socket
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from pgqueuer.domain.models import Job
from pgqueuer.domain.types import QueueEntrypoint, QueueManagerId
from pgqueuer.ports import RepositoryPort
from pgqueuer.ports.repository import EntrypointExecutionParameter

from calotype.domain.errors import Unavailable
from calotype.domain.fairness import priority
from calotype.domain.money import EntryKind
from calotype.domain.task import AttemptState, Event, NewTask, Request, Task
from calotype.store.port import Fenced, StoreError
from calotype.store.postgres import PostgresStore, connection
from postgres import PostgresServer, running_postgres

NOW = 1_760_000_000_000
NEWER = "INSERT INTO calotype_schema (version, works_from) VALUES ($1, $2)"


async def execute(url: str, statement: str, *values: int) -> None:
    database = await asyncpg.connect(url)
    try:
        await database.execute(statement, *values)
    finally:
        await database.close()


async def test_a_schema_that_was_migrated_is_ready_to_work_with(postgres_url: str) -> None:
    await PostgresStore(postgres_url).prepare()


async def test_an_older_schema_is_refused_with_the_command_that_cures_it(
    postgres_url: str,
) -> None:
    await execute(postgres_url, "DELETE FROM calotype_schema")
    with pytest.raises(StoreError, match="run calotype migrate"):
        await PostgresStore(postgres_url).prepare()


async def test_a_newer_schema_is_fine_where_it_says_that_this_code_works_with_it(
    postgres_url: str,
) -> None:
    known = connection.newest()
    await execute(postgres_url, NEWER, known + 1, known)
    await PostgresStore(postgres_url).prepare()
    with pytest.raises(StoreError, match="start the newer Calotype"):
        await PostgresStore(postgres_url).migrate()


async def test_a_newer_schema_is_refused_where_this_code_would_break_it(postgres_url: str) -> None:
    version = connection.newest() + 1
    await execute(postgres_url, NEWER, version, version)
    with pytest.raises(StoreError, match="start the newer Calotype"):
        await PostgresStore(postgres_url).prepare()


async def test_many_processes_may_migrate_at_once(postgres: PostgresServer) -> None:
    await execute(postgres.url(), "CREATE DATABASE migrated_at_once")
    url = postgres.url("migrated_at_once")
    versions = await asyncio.gather(*(PostgresStore(url).migrate() for _ in range(5)))
    assert set(versions) == {connection.newest()}
    await PostgresStore(url).prepare()


BEGUN = "SELECT day FROM key_meters WHERE key_id = 1 FOR UPDATE"  # as a metered submission begins
GOES_ON = (
    "UPDATE tasks SET cancel_at = 1 WHERE id = 1",
    "UPDATE attempts SET detail = '' WHERE task_id = 1",
    "DELETE FROM assets WHERE task_id = 1",
    "UPDATE accounts SET reserved = reserved WHERE id = 2",
    "UPDATE key_meters SET day = day WHERE key_id = 1",
)
WAITS = "SELECT 1 FROM pg_locks WHERE relation = 'key_meters'::regclass AND NOT granted"
"""Of the newest migration, which changes this table."""


async def test_what_clients_have_begun_ends_before_the_newest_migration_goes_on(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await execute(postgres.url(), "CREATE DATABASE migrated_amid_work")
    url = postgres.url("migrated_amid_work")
    known = connection._migrations()
    with monkeypatch.context() as before:
        released = {number: file for number, file in known.items() if number < max(known)}
        before.setattr(connection, "_migrations", lambda: released)
        await connection.migrate(url)
    client = await asyncpg.connect(url)
    async with client.transaction():
        await client.execute(BEGUN)
        migrating = asyncio.create_task(connection.migrate(url))
        while not await client.fetch(WAITS):
            await asyncio.sleep(0.01)
        for statement in GOES_ON:
            await client.execute(statement)
    assert await migrating == max(known)
    await client.close()


@pytest.mark.parametrize("password", ["s3cr3t/more", "s3cr3t#more", "s3cr3t?more"])
async def test_a_password_that_breaks_the_url_is_not_repeated(password: str) -> None:
    with pytest.raises(StoreError) as refused:
        await PostgresStore(f"postgresql://cal:{password}@127.0.0.1:1/db").prepare()
    assert "s3cr3t" not in str(refused.value)


async def test_the_ledger_takes_no_change_and_no_deletion(postgres_url: str) -> None:
    for statement in ("UPDATE ledger SET amount = 6", "DELETE FROM ledger", "TRUNCATE ledger"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await execute(postgres_url, statement)


async def test_a_server_that_takes_connections_and_never_answers_holds_nobody_up() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        store = PostgresStore(f"postgresql://cal@127.0.0.1:{silent.getsockname()[1]}/db")
        async with asyncio.timeout(20):  # one after the other they would take two minutes
            outcomes = await asyncio.gather(
                *(store.find_key(bytes([n])) for n in range(20)),
                *(store.balance(n) for n in range(20)),
                return_exceptions=True,
            )
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        await store.close()


KEYS_LOCKED = "LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE"
KEYS_WAIT = "SELECT 1 FROM pg_locks WHERE relation = 'api_keys'::regclass AND NOT granted"


async def test_however_many_bring_a_key_that_was_forgotten_one_connection_reads_it(
    postgres_url: str,
) -> None:
    store = PostgresStore(postgres_url)
    account = await store.open_account("ada", now=NOW)
    holder = await asyncpg.connect(postgres_url)
    async with holder.transaction():
        await holder.execute(KEYS_LOCKED)
        asking = [asyncio.create_task(store.find_key(b"1")) for _ in range(40)]
        while not await holder.fetch(KEYS_WAIT):
            await asyncio.sleep(0.01)
        assert (await store.balance(account.id)).balance == 0
        assert len(await holder.fetch(KEYS_WAIT)) == 1
    assert set(await asyncio.gather(*asking)) == {None}
    await holder.close()
    await store.close()


# Jobs of the queue


async def picked(
    queue: RepositoryPort, channel: int, *, limit: int = 10, slots: int = 2
) -> list[Job]:
    """The jobs of a channel that a worker takes."""
    return await queue.dequeue(
        limit,
        {QueueEntrypoint(f"channel-{channel}"): EntrypointExecutionParameter(slots)},
        QueueManagerId(uuid.UUID(int=5)),
        None,
        heartbeat_timeout=timedelta(minutes=1),
    )


ADD_JOBS = """
INSERT INTO pgqueuer (priority, entrypoint, payload, execute_after, dedupe_key, headers, status)
SELECT 0, 'channel-7', 'x', now(), n::text, '{}'::jsonb, 'queued' FROM generate_series(1, 300) AS n
"""


async def test_jobs_end_and_give_signs_of_life_at_once(postgres_url: str) -> None:
    await execute(postgres_url, ADD_JOBS)
    store = PostgresStore(postgres_url)
    queue = await store.open_jobs()
    jobs = await picked(queue, 7, limit=300, slots=300)
    backwards = [job.id for job in reversed(jobs)]
    await asyncio.gather(
        *(queue.update_heartbeat(backwards) for _ in range(4)),
        *(queue.log_jobs([(job, "successful", None) for job in jobs[n::6]]) for n in range(6)),
        *(queue.update_heartbeat(sorted(backwards)) for _ in range(4)),
    )
    assert await rows(postgres_url, JOBS) == []
    await store.close()


# Passing tasks on


async def submitted(store: PostgresStore, *task_ids: int) -> list[Task]:
    """Tasks of one account on channel 7, taken up."""
    account = await store.open_account("ada", now=NOW)
    await store.book(account.id, EntryKind.CREDIT, 1_000, note="", now=NOW)
    tasks = []
    for task_id in task_ids:
        new = NewTask(
            id=task_id,
            account_id=account.id,
            key_id=1,
            request_id=f"req_{task_id}",
            request=Request("gpt-image-2", "a cat", 1, {}),
            references=(),
            uploads=(),
            channel_id=7,
            price=30,
            deadline_at=NOW + 1,
            abandon_at=NOW + 2,
            created_at=NOW,
        )
        await store.submit(new)
        taken = await store.take(task_id, now=NOW)
        assert taken is not None
        tasks.append(taken.task)
    return tasks


async def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    database = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await database.fetch(statement)]
    finally:
        await database.close()


JOBS = "SELECT payload, entrypoint, status, priority FROM pgqueuer ORDER BY payload"


async def test_a_task_that_is_passed_on_has_one_job_in_the_other_queue_at_its_old_place(
    postgres_url: str,
) -> None:
    store = PostgresStore(postgres_url)
    _, second = await submitted(store, 1, 2)
    await execute(
        postgres_url, "UPDATE pgqueuer SET status = 'picked', slot = 0 WHERE payload = '2'"
    )
    await store.reroute(second, 8, now=NOW)
    assert await rows(postgres_url, JOBS) == [
        (b"1", "channel-7", "queued", priority(submitted_at=NOW, backlog=0)),
        (b"2", "channel-8", "queued", priority(submitted_at=NOW, backlog=1)),
    ]
    await store.close()


async def test_a_task_whose_job_was_lost_gets_one_when_it_is_passed_on(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    (task,) = await submitted(store, 1)
    await execute(postgres_url, "DELETE FROM pgqueuer")
    await store.reroute(task, 8, now=NOW)
    assert await rows(postgres_url, JOBS) == [
        (b"1", "channel-8", "queued", priority(submitted_at=NOW, backlog=0)),
    ]
    await store.close()


async def test_a_task_that_may_not_be_passed_on_keeps_its_job(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    (task,) = await submitted(store, 1)
    number = await store.begin_attempt(task, channel_id=7, event=Event.QUEUE, now=NOW)
    before = await rows(postgres_url, "SELECT * FROM pgqueuer")
    with pytest.raises(Fenced):
        await store.reroute(task, 8, now=NOW)
    await store.close_attempt(task, number, state=AttemptState.REFUSED, detail="", now=NOW)
    await store.take(1, now=NOW)
    with pytest.raises(Fenced):
        await store.reroute(task, 8, now=NOW)
    assert await rows(postgres_url, "SELECT * FROM pgqueuer") == before
    await store.close()


async def test_whoever_passed_a_task_on_can_neither_end_nor_put_back_its_new_job(
    postgres_url: str,
) -> None:
    store = PostgresStore(postgres_url)
    (task,) = await submitted(store, 1)
    queue = await store.open_jobs()
    (old,) = await picked(queue, 7)
    await store.reroute(task, 8, now=NOW)
    await queue.log_jobs([(old, "successful", None)])
    await queue.retry_job(old, timedelta(0), None)
    assert await picked(queue, 7) == []
    (new,) = await picked(queue, 8)
    await queue.log_jobs([(old, "canceled", None)])
    assert (new.payload, new.entrypoint) == (b"1", "channel-8")
    assert [job[:3] for job in await rows(postgres_url, JOBS)] == [(b"1", "channel-8", "picked")]
    await store.close()


# What processes tell each other


class Ear:
    """What was heard, and waiting for it."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self._news = asyncio.Event()

    def __call__(self, topic: str, payload: str) -> None:
        self.heard.append((topic, payload))
        self._news.set()

    async def hears(self, *expected: tuple[str, str]) -> None:
        async with asyncio.timeout(60):
            while self.heard != list(expected):
                self._news.clear()
                await self._news.wait()


async def until_heard(publish: Callable[[], Awaitable[None]], ear: Ear) -> None:
    """Say it again until it is heard: what is said while nobody listens is lost."""
    async with asyncio.timeout(30):
        while not ear.heard:
            with suppress(Unavailable):
                await publish()
            await asyncio.sleep(0.05)


async def test_what_is_published_is_heard_in_order_by_every_process_that_listens(
    postgres_url: str,
) -> None:
    stores = [PostgresStore(postgres_url) for _ in range(2)]
    ears = [Ear(), Ear()]
    for store, ear in zip(stores, ears, strict=True):
        await store.listen(ear)
    said = [("callback", "7 up-1"), ("health", ""), ("callback", "é " * 1365 + "x")]
    for topic, payload in said:
        await stores[0].publish(topic, payload)
    for ear in ears:
        await ear.hears(*said)
    for store in stores:
        await store.close()


async def test_who_has_ended_listening_hears_nothing_more(postgres_url: str) -> None:
    store, ears = PostgresStore(postgres_url), [Ear(), Ear()]
    end, _ = [await store.listen(ear) for ear in ears]
    await store.publish("health", "before")
    for ear in ears:
        await ear.hears(("health", "before"))
    await end()
    await store.publish("health", "after")
    await ears[1].hears(("health", "before"), ("health", "after"))
    assert ears[0].heard == [("health", "before")]
    await store.close()


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("", "x"),
        ("two words", "x"),
        ("Upper", "x"),
        ("t" * 64, "x"),
        ("line\n", "x"),
        ("health", "x" * 4097),
        ("health", "é" * 2049),
        ("health", "\0"),
    ],
)
async def test_what_is_no_bulletin_is_refused(postgres_url: str, topic: str, payload: str) -> None:
    store = PostgresStore(postgres_url)
    with pytest.raises(ValueError, match=r"is no topic|at most 4096 bytes"):
        await store.publish(topic, payload)
    await store.close()


async def test_a_callback_that_breaks_ends_nothing(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    ear = Ear()

    def hear(topic: str, payload: str) -> None:
        ear(topic, payload)
        if payload == "bad":
            raise ValueError(payload)

    store = PostgresStore(postgres_url)
    await store.listen(hear)
    await store.publish("health", "bad")
    await store.publish("health", "good")
    await ear.hears(("health", "bad"), ("health", "good"))
    assert "a notification could not be dealt with" in caplog.text
    await store.close()


async def test_a_listener_that_lost_its_connection_gets_another(postgres_url: str) -> None:
    store, ear = PostgresStore(postgres_url), Ear()
    await store.listen(ear)
    await execute(
        postgres_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND query LIKE 'LISTEN%'",
    )
    await until_heard(lambda: store.publish("health", "again"), ear)
    await store.close()


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that a test may stop, if it starts it again."""
    with (
        tempfile.TemporaryDirectory(prefix="calotype-pg-") as folder,
        running_postgres(Path(folder)) as server,
    ):
        yield server


async def test_a_listener_outlives_a_restart_of_the_database(own_server: PostgresServer) -> None:
    store, ear = PostgresStore(own_server.url()), Ear()
    await store.listen(ear)
    await asyncio.to_thread(own_server.stop)
    with pytest.raises(Unavailable):
        await store.publish("health", "unheard")
    await asyncio.to_thread(own_server.start)
    await until_heard(lambda: store.publish("health", "again"), ear)
    await store.close()


async def test_who_listens_while_there_is_no_database_hears_once_there_is(
    own_server: PostgresServer,
) -> None:
    store, ear = PostgresStore(own_server.url()), Ear()
    await asyncio.to_thread(own_server.stop)
    await store.listen(ear)
    await asyncio.to_thread(own_server.start)
    await until_heard(lambda: store.publish("health", "at last"), ear)
    await store.close()
