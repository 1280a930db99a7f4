"""Servers for the API tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness import Server, running_server
from postgres import fresh_database


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server whose sandbox answers at once."""
    async with running_server(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def idle_server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that accepts and answers but develops nothing."""
    async with running_server(tmp_path / "data", with_worker=False) as running:
        yield running


@pytest_asyncio.fixture(params=["sqlite", "postgres"], scope="module", loop_scope="module")
async def either_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """A server of each storage mode that develops nothing, for a whole module."""
    data = tmp_path_factory.mktemp("data")
    if request.param == "sqlite":
        async with running_server(data, with_worker=False) as running:
            yield running
        return
    async with (
        fresh_database(request.getfixturevalue("postgres")) as url,
        running_server(data, with_worker=False, database_url=url) as running,
    ):
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def idle(either_server: Server) -> Server:
    """That server, as an account of the test's own meets it."""
    return await either_server.for_account()
