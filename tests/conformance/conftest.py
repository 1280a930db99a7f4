"""Every store under the one suite: a new store is one more fixture parameter."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from calotype.store.port import Store
from calotype.store.sqlite import SqliteStore


@pytest.fixture(params=["sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    assert request.param == "sqlite"
    opened: Store = SqliteStore(tmp_path / "calotype.db")
    await opened.migrate()
    yield opened
    await opened.close()
