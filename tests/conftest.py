"""Services that tests share: a PostgreSQL server for each process, one S3 server for all."""

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from postgres import PostgresServer, fresh_database, running_postgres
from s3 import S3Server, shared_s3

# A job in the background of a script starts with Ctrl-C ignored, and so would what we start.
signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis.settings.register_profile("calotype", deadline=None)  # machines are shared
hypothesis.settings.load_profile("calotype")

MOST_PROCESSES = 8
"""More would be done no sooner: a few tests take half a minute each."""


@pytest.hookimpl
def pytest_xdist_auto_num_workers() -> int:
    """Two processes a core, as tests of real processes mostly wait for them."""
    return min(2 * len(os.sched_getaffinity(0)), MOST_PROCESSES)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    with (
        tempfile.TemporaryDirectory(prefix="calotype-pg-") as folder,
        running_postgres(Path(folder), "max_connections=200", "fsync=off") as server,
    ):
        yield server


@pytest.fixture
async def postgres_url(postgres: PostgresServer) -> AsyncIterator[str]:
    """A fresh database with Calotype's schema."""
    async with fresh_database(postgres) as url:
        yield url


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[S3Server]:
    """A real S3 server, and this process's environment lets us in."""
    ours = tmp_path_factory.getbasetemp()
    with (
        shared_s3((ours if worker_id == "master" else ours.parent) / "s3") as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in server.variables.items():
            patch.setenv(name, value)
        yield server
