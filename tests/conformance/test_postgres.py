"""What only PostgreSQL can get wrong."""

import asyncio
import socket

import asyncpg
import pytest

from calotype.domain.errors import Unavailable
from calotype.store.port import StoreError
from calotype.store.postgres import PostgresStore, connection
from postgres import PostgresServer

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
