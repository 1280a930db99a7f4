"""An account's tasks are found by state, model, time and metadata; a page costs a page."""

import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from calotype.domain.errors import failure
from calotype.domain.ids import IdSource
from calotype.domain.task import Event, State, Task
from calotype.store import rows
from calotype.store.gallery import NOTHING
from calotype.store.port import Store
from calotype.store.postgres import connection
from calotype.store.postgres import search as postgres_search
from calotype.store.postgres.database import Database
from calotype.store.searching import Search, search_of
from calotype.store.sqlite import SqliteStore
from calotype.store.sqlite import search as sqlite_search
from conformance.tasks import NOW, PRICE, funded, image, new_task, read, taken
from postgres import PostgresServer, fresh_database

MODELS = ("flux-2", "gpt-image-2", "nano-banana-pro")
SINCE = NOW + 7_000
METADATA: Sequence[Mapping[str, str]] = (
    {},
    {"project": "Tee"},
    {"project": "Tee", "order": "7"},
    {"order": "7"},
    {"project": "tee"},
)
WHY = failure("upstream_failed", "It broke.")


async def brought_to(store: Store, task_id: int, state: State) -> None:
    """Let a waiting task come to a state."""
    if state is State.WAITING:
        return
    task = await taken(store, task_id)
    if state is State.QUEUING:
        return
    if state is State.FAIL:
        await store.fail(task, WHY, now=NOW)
        return
    number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW)
    if state is State.SUCCESS:
        picture = image(task.account_id)
        await store.complete(task, number, images=[picture], actual=PRICE, cost=None, now=NOW)


async def every_kind(store: Store, account_id: int) -> list[Task]:
    """A task of each model, state and metadata, a second after each other, the newest first."""
    kinds = list(product(MODELS, State, METADATA))
    made = []
    for second in range(len(kinds)):
        model, state, metadata = kinds[second * 37 % len(kinds)]
        at = NOW + 200 * second
        new = new_task(
            account_id,
            task_id=IdSource(lambda at=at: at).next(),  # type: ignore[misc]  # a default binds it
            model=model,
            metadata=metadata,
            created_at=at,
        )
        await store.submit(new)
        await brought_to(store, new.id, state)
        made.append(await read(store, new.id))
    return made[::-1]


def fits(task: Task, state: State | None, model: str | None, since: int | None) -> bool:
    return (
        state in (None, task.state)
        and model in (None, task.model)
        and (since is None or task.created_at >= since)
    )


async def test_metadata_is_kept_with_the_task(store: Store) -> None:
    account = await funded(store)
    odd = {"k": "", "Straße": "a 'quoted' \\ \"word\"", "x" * 64: "é" * 500}
    with_it, without = new_task(account, metadata=odd), new_task(account)
    await asyncio.gather(store.submit(with_it), store.submit(without))
    assert (await read(store, with_it.id)).metadata == odd
    assert (await read(store, without.id)).metadata == {}
    assert (await taken(store, with_it.id)).metadata == odd
    for key, value in odd.items():
        found = await store.search(account, metadata={key: value}, limit=9)
        assert [task.id for task in found] == [with_it.id]
    assert await store.search(account, metadata={"k": " "}, limit=9) == []


async def test_every_search_finds_what_a_look_at_every_task_would(store: Store) -> None:
    ada = await funded(store, credit=1000 * PRICE)
    bob = await funded(store, credit=1000 * PRICE, name="bob")
    await store.submit(new_task(bob, metadata={"project": "Tee", "order": "7"}))
    made = await every_kind(store, ada)
    for state, model, since, metadata in product(
        (None, *State), (None, MODELS[1], "none"), (None, SINCE), METADATA
    ):
        expected = [
            task.id
            for task in made
            if fits(task, state, model, since) and metadata.items() <= task.metadata.items()
        ]
        found = await store.search(
            ada, state=state, model=model, since=since, metadata=metadata, limit=100
        )
        assert [task.id for task in found] == expected, (state, model, since, metadata)
    newest = await store.search(ada, limit=1)
    assert newest == made[:1]


@pytest.mark.parametrize("state", [None, State.SUCCESS, State.WAITING])
@pytest.mark.parametrize("metadata", [{}, {"project": "Tee"}])
async def test_pages_join_without_a_gap_while_tasks_come_in(
    store: Store, state: State | None, metadata: Mapping[str, str]
) -> None:
    account = await funded(store, credit=1000 * PRICE)
    made = await every_kind(store, account)
    expected = [
        task.id
        for task in made
        if fits(task, state, None, None) and metadata.items() <= task.metadata.items()
    ]
    pages: list[int] = []
    while page := await store.search(
        account,
        state=state,
        metadata=metadata,
        before=pages[-1] if pages else None,
        limit=4,
    ):
        pages += [task.id for task in page]
        later = IdSource(lambda: NOW + 10**6).next()
        await store.submit(new_task(account, task_id=later, metadata={"project": "Tee"}))
    assert pages == expected


# What a page costs

MANY = 60_000
"""Tasks of one account: nearly all the same, and what is looked for among the oldest."""
PAGE = 20
PROJECT = {"project": "x"}
SEARCHES: Mapping[str, Mapping[str, Any]] = {
    "all": {},
    "deep in the list": {"before": MANY // 2},
    "the other account": {"account_id": 2},
    "the common model": {"model": "common"},
    "the rare model": {"model": "rare"},
    "a model never used": {"model": "none"},
    **{f"state {state}": {"state": state} for state in State},
    "rare and failed": {"state": State.FAIL, "model": "rare"},
    "common and succeeded": {"state": State.SUCCESS, "model": "common"},
    "one pair": {"metadata": PROJECT},
    "a pair that is rare": {"metadata": {"order": "1"}},
    "a common and a rare pair": {"metadata": {**PROJECT, "order": "1"}},
    "a pair that there is not": {"metadata": {**PROJECT, "order": "2"}},
    "failed with a common pair": {"metadata": PROJECT, "state": State.FAIL},
    "a rare model with a common pair": {"metadata": PROJECT, "model": "rare"},
    "open with a common pair": {"metadata": PROJECT, "state": State.GENERATING},
}
NUMBERS = {
    "sqlite": (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many})"
        "{into} SELECT {columns} FROM n"
    ),
    "postgres": "{into} SELECT {columns} FROM generate_series(1, {many}) AS n (i)",
}
TASKS = (
    "INSERT INTO tasks (id, account_id, key_id, request_id, state, progress, request, refs, "
    "channel_id, claim, seq, billing, reserved, actual, released, result, error, deadline_at, "
    "abandon_at, created_at, updated_at, completed_at)"
)
TASK = (
    "i, CASE WHEN i BETWEEN 11 AND 13 THEN 2 ELSE 1 END, 1, 'req', "
    "CASE i WHEN 1 THEN 'fail' WHEN 2 THEN 'waiting' WHEN 3 THEN 'queuing' "
    "WHEN 4 THEN 'generating' ELSE 'success' END, 0, "
    "CASE WHEN i < 9 THEN {rare} ELSE {common} END, {empty}, 7, 1, 1, 'reserved', 0, 0, 0, "
    "CASE WHEN i > 4 THEN {empty} END, CASE i WHEN 1 THEN {why} END, 9, 9, 5, 5, "
    "CASE WHEN i NOT IN (2, 3, 4) THEN 5 END"
)
PAIR = "INSERT INTO task_metadata (account_id, key, value, task_id)"


def filling(engine: str) -> list[str]:
    """Statements that fill a database with tasks in the thousands."""
    request = '{{"model":"{}","prompt":"a cat","n":1,"parameters":{{}}}}'
    blobs = {
        name: f"CAST('{text}' AS {'BLOB' if engine == 'sqlite' else 'BYTEA'})"
        for name, text in {
            "rare": request.format("rare"),
            "common": request.format("common"),
            "empty": "[]",
            "why": msgspec.json.encode(WHY).decode(),
        }.items()
    }
    rows = [
        (TASKS, TASK.format(**blobs)),
        (PAIR, "1, 'project', 'x', i"),
        (PAIR, "1, 'order', CAST(i AS TEXT), i"),
    ]
    return [
        *(NUMBERS[engine].format(many=MANY, into=into, columns=columns) for into, columns in rows),
        "INSERT INTO accounts (name, unfinished, created_at) VALUES ('ada', 3, 1), ('bob', 0, 1)",
    ]


def asked(search: Mapping[str, Any]) -> Search:
    """A search of the first account's, unless it says otherwise."""
    every: dict[str, Any] = {
        "account_id": 1,
        "state": None,
        "model": None,
        "since": None,
        "metadata": NOTHING,
        "before": None,
        "limit": PAGE,
    }
    return search_of(**{**every, **search})


@pytest.fixture(scope="module")
def filled_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path: Path = tmp_path_factory.mktemp("many") / "calotype.db"
    asyncio.run(SqliteStore(path).migrate())
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in filling("sqlite"):
            database.execute(statement)
        yield database


@pytest.mark.parametrize("name", SEARCHES)
def test_on_sqlite_a_page_costs_a_page(filled_sqlite: sqlite3.Connection, name: str) -> None:
    search, steps = asked(SEARCHES[name]), 0

    def step() -> None:
        nonlocal steps
        steps += 100

    filled_sqlite.set_progress_handler(step, 100)
    sqlite_search.find(filled_sqlite, search)
    filled_sqlite.set_progress_handler(None, 0)
    assert steps < 20_000  # the tasks are 60,000, and a look at one takes several
    for by_pair in {False, bool(search.pairs)}:
        statement = sqlite_search.page(search.shape, by_pair=by_pair)
        plan = filled_sqlite.execute(f"EXPLAIN QUERY PLAN {statement}", search.values()).fetchall()
        assert not [row[3] for row in plan if re.match("SCAN (t|tasks|m)( |$)", row[3])]


@pytest.fixture(scope="module")
def filled_postgres(postgres: PostgresServer) -> Iterator[str]:
    """The URL of such a database."""

    async def fill(url: str) -> None:
        database = await asyncpg.connect(url)
        for statement in filling("postgres"):
            await database.execute(statement)
        await database.execute("ANALYZE")
        await database.close()

    with asyncio.Runner() as loop:
        fresh = fresh_database(postgres)
        url = loop.run(fresh.__aenter__())
        loop.run(fill(url))
        yield url
        loop.run(fresh.__aexit__(None, None, None))


class Recording(Database):
    """Remembers what was asked of it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked: list[tuple[str, tuple[Any, ...]]] = []

    async def fetch(self, statement: str, *values: Any, patient: bool = False) -> list[rows.Row]:
        self.asked.append((statement, values))
        return await super().fetch(statement, *values, patient=patient)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every step of a plan."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", SEARCHES)
async def test_on_postgres_a_page_costs_a_page(filled_postgres: str, name: str, plans: str) -> None:
    searched = Recording(filled_postgres)
    await postgres_search.find(searched, asked(SEARCHES[name]))
    async with searched.connection() as database:
        await database.execute(f"SET plan_cache_mode = {plans}")
        blocks = await blocks_read(database, searched.asked)
    await searched.close()
    assert blocks < 200  # the tasks lie on 1,500, and each has one more in an index


async def blocks_read(
    database: connection.Connection, asked: Sequence[tuple[str, tuple[Any, ...]]]
) -> int:
    blocks = 0
    for place, (statement, values) in enumerate(asked):
        types = ", ".join("text" if isinstance(value, str) else "bigint" for value in values)
        await database.execute(f"PREPARE page_{place} ({types}) AS {statement}")
        explained = await database.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE page_{place} "
            f"({', '.join(map(repr, values))})"
        )
        plan = json.loads(explained)[0]["Plan"]
        blocks += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        whole = {node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"}
        assert whole <= {"accounts"}, explained
    return blocks
