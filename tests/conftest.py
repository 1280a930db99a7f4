"""Services that tests share: one PostgreSQL server a session, one fresh database a test."""

import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from postgres import PostgresServer, fresh_database, running_postgres

# A job in the background of a script starts with Ctrl-C ignored, and so would what we start.
signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis.settings.register_profile("calotype", deadline=None)  # machines are shared
hypothesis.settings.load_profile("calotype")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    with (
        tempfile.TemporaryDirectory(prefix="calotype-pg-") as folder,
        running_postgres(Path(folder), "max_connections=200") as server,
    ):
        yield server


@pytest.fixture
async def postgres_url(postgres: PostgresServer) -> AsyncIterator[str]:
    """A fresh database with Calotype's schema."""
    async with fresh_database(postgres) as url:
        yield url
