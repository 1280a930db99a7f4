"""Every store under the one suite: a new store is one more fixture parameter."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from calotype.store.port import Store
from calotype.store.postgres import PostgresStore
from calotype.store.sqlite import SqliteStore
from postgres import fresh_database


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "sqlite":
        sqlite = SqliteStore(tmp_path / "calotype.db")
        await sqlite.migrate()
        yield sqlite
        await sqlite.close()
    else:
        async with fresh_database(request.getfixturevalue("postgres")) as url:
            store = PostgresStore(url)
            yield store
            await store.close()
