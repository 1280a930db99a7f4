"""Servers for the API tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness import Server, running_server


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
