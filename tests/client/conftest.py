"""Both clients, and a server for them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client.speaking import KINDS, Kind
from harness import Server, running_server


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """The blocking client, and the one for asyncio."""
    chosen: Kind = request.param
    return chosen


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
