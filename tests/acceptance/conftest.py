"""Real ``calotype serve`` processes on a data folder of their own, killed and started at will."""

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from acceptance.cluster import Cluster, running_cluster
from acceptance.commands import Shared, pay, serving, settle
from calotype.store.sqlite import SqliteStore
from harness import OUR_CODE
from postgres import fresh_database

PATIENCE = 100.0
"""Seconds after which a condition is taken never to come; no test's outcome hangs on its value."""
TINY = """
id = "tiny"
name = "Tiny"
description = "A model of the operator's own, whose pictures are drawn in no time."
brand = "openai"
upstream_id = "tiny"
created_at = "2026-11-22T00:00:00Z"
updated_at = "2026-11-22T00:00:00Z"
eta_seconds = 1
output_format = "jpg"

[prompt]
max_length = 1000

[pricing]
mode = "fixed"

[[pricing.tiers]]
id = "fixed"
label = "Each"
price_micro_usdc = 30_001

[sizes.default]
default = [256, 192]
"""
_READY = re.compile(r"Calotype listens on (http://\S+)")


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that nothing announces."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"It never came to this: {what}") from None


@dataclass
class Serving:
    """One server process."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path
    url: str = ""

    @property
    def stderr(self) -> str:
        return self.err.read_text(encoding="utf-8")

    async def ended(self) -> int:
        """Its exit code, once it has one."""
        await eventually(lambda: self.process.poll() is not None, f"the server ends: {self.stderr}")
        return self.process.wait()

    async def kill(self) -> None:
        """What a power cut or the out-of-memory killer does; its children are spared."""
        self.process.send_signal(signal.SIGKILL)
        await self.ended()

    async def terminate(self) -> int:
        """What a service manager does; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()


@dataclass
class Site:
    """A data folder, the servers on it, and a client with a key."""

    root: Path
    http: aiohttp.ClientSession
    key: str = ""
    url: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    started: list[Serving] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def database(self) -> Path:
        return self.data / "calotype.db"

    # Processes

    def command(self, *arguments: str) -> Serving:
        """Start a command; it is killed at the end of the test at the latest."""
        number = len(self.started)
        out, err = self.root / f"{number}.out", self.root / f"{number}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "calotype", *arguments],
                cwd=self.root,
                env={
                    "CALOTYPE_DATA_DIR": str(self.data),
                    "CALOTYPE_CATALOG_DIR": str(self.root / "catalog"),
                    "TMPDIR": str(self.root / "tmp"),
                    **OUR_CODE,
                    **self.environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self.started.append(Serving(process, out, err))
        return self.started[-1]

    async def serve(self, *arguments: str) -> Serving:
        """A server that is ready for requests."""
        server = self.command("serve", "--port", "0", *arguments)
        await eventually(
            lambda: (
                _READY.search(server.out.read_text()) is not None
                or server.process.poll() is not None
            ),
            "the server starts",
        )
        ready = _READY.search(server.out.read_text())
        assert ready is not None, server.stderr
        self.url = server.url = ready[1]
        return server

    async def eventually(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition that nothing announces."""
        await eventually(condition, f"{what}\n{self.started[-1].stderr[-4000:]}")

    async def interrupt(self, server: Serving) -> None:
        """What Ctrl-C does: the whole group is told."""
        os.killpg(server.process.pid, signal.SIGINT)

    async def refused(self, *arguments: str) -> str:
        """A command that must not do what it was told; returns the one line in which it says so."""
        refused = self.command(*arguments)
        assert await refused.ended() == 2, refused.stderr
        assert refused.out.read_text() == ""
        (line,) = refused.stderr.splitlines()
        return line

    async def fund(self) -> None:
        """Make the key."""
        made = self.command("keys", "create", "--name", "test", "--credits", "1000")
        assert await made.ended() == 0, made.stderr
        self.key = made.out.read_text().strip()

    def easels(self) -> list[int]:
        """The drawing processes that work for this site, whoever their parent is by now."""
        mine = f"TMPDIR={self.root / 'tmp'}\0".encode()  # one of the few that they are told
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                drawing = b"sandbox.easel" in (folder / "cmdline").read_bytes()
                if drawing and mine in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # it ended while we looked
                continue
        return found

    def end_all(self) -> None:
        """Kill whatever was started and whatever that started."""
        for server in self.started:
            if server.process.poll() is None:
                os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
        for number in self.easels():
            os.kill(number, signal.SIGKILL)

    # The API

    async def get(self, path: str) -> Any:
        """A JSON document."""
        async with self.http.get(self.url + path, headers=self._auth) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def submit(self, prompt: str, *, key: str | None = None, **fields: Any) -> str:
        """The id of a task that was accepted."""
        headers = self._auth | ({"Idempotency-Key": key} if key else {})
        body = {"model": "tiny", "prompt": prompt, **fields}
        url = f"{self.url}/v1/images/generations"
        async with self.http.post(url, json=body, headers=headers) as response:
            document = await response.json()
            assert response.status == 202, document
            task_id: str = document["task_id"]
            return task_id

    async def finished(self, task_id: str) -> dict[str, Any]:
        """A task once it is final."""
        async with asyncio.timeout(PATIENCE):
            while True:
                task: dict[str, Any] = await self.get(f"/v1/tasks/{task_id}")
                if task["state"] in {"success", "fail"}:
                    return task
                await asyncio.sleep(0.1)

    async def download(self, url: str) -> bytes:
        """A result, without the key."""
        async with self.http.get(url) as response:
            assert response.status == 200, await response.text()
            return await response.read()

    @property
    def _auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    # The database, read from outside

    def rows(self, statement: str, *values: object) -> list[Any]:
        """What a query finds in the database right now."""
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as database:
            return database.execute(statement, values).fetchall()

    def count(self, condition: str, table: str = "tasks") -> int:
        """How many rows a condition holds for."""
        (number,) = self.rows(f"SELECT COUNT(*) FROM {table} WHERE {condition}")[0]  # noqa: S608 -- our own text
        return int(number)

    def finals(self) -> int:
        """How many tasks are final."""
        return self.count("completed_at IS NOT NULL")

    def change(self, statement: str) -> None:
        """Write to the database behind everyone's back."""
        with closing(sqlite3.connect(self.database)) as database:
            database.execute(statement)
            database.commit()

    async def proved(self) -> Sequence[str]:
        """What the books have against themselves."""
        store = SqliteStore(self.database)
        try:
            return await store.prove()
        finally:
            await store.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A fresh data folder with a funded key; every process is gone afterwards."""
    async with aiohttp.ClientSession() as http:
        opened = Site(tmp_path, http)
        (tmp_path / "catalog").mkdir()
        (tmp_path / "tmp").mkdir()
        (tmp_path / "catalog" / "tiny.toml").write_text(TINY)
        try:
            yield opened
        finally:
            opened.end_all()


# Commands, one after another


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test stands in a folder of its own, and its commands work on ``data`` in it."""
    monkeypatch.chdir(tmp_path)
    return settle(tmp_path / "data", monkeypatch)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        data = settle(folder / "data", patch)
        with serving(folder / "server.log") as url:
            yield Shared(url, data)


@pytest.fixture
def account(
    shared: Shared, data: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> str:
    """An account of its own with credit at the shared server, which ``generate`` finds."""
    assert not data.exists()  # from here on it is the server's
    monkeypatch.setenv("CALOTYPE_DATA_DIR", str(shared.data))
    monkeypatch.setenv("CALOTYPE_BASE_URL", shared.url)
    name: str = request.node.name
    return pay(name.removeprefix("test_")[:100], monkeypatch)


@pytest.fixture(params=["sqlite", "postgres"])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Both storage modes; receivers on this machine may be sent to."""
    settings = {"webhook_allow_hosts": "127.0.0.1"}
    if request.param == "sqlite":
        async with running_cluster(tmp_path, **settings) as running:
            yield running
        return
    async with (
        fresh_database(request.getfixturevalue("postgres")) as url,
        running_cluster(tmp_path, url, **settings) as running,
    ):
        yield running
