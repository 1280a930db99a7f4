"""Any number of API and worker processes on one database, started, stopped and killed at will.

On PostgreSQL the processes share a server; on SQLite one process is both API and worker.
"""

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg

from calotype.core import Core, build_core
from calotype.domain.ids import decode
from calotype.settings import Settings
from harness import OUR_CODE

PATIENCE: Final = 60.0
"""Seconds after which a condition is taken never to come; no outcome hangs on its value."""
CREDIT: Final = 1_000_000_000
FINAL: Final = frozenset({"success", "fail"})

PAID: Final = 10
"""A channel on which a second send would cost again."""
FREE: Final = 11
NARROW: Final = 12
"""A channel with a limit."""
NARROW_LIMIT: Final = 3
WIDE_LIMIT: Final = 24

_CHANNELS: Final = f"""
[[channels]]
id = {PAID}
slug = "paid"
name = "Paid"
provider = "sandbox"
free = false
concurrency = {WIDE_LIMIT}

[[channels]]
id = {FREE}
slug = "free"
name = "Free"
provider = "sandbox"
concurrency = {WIDE_LIMIT}

[[channels]]
id = {NARROW}
slug = "narrow"
name = "Narrow"
provider = "sandbox"
free = false
concurrency = {NARROW_LIMIT}
"""
MODEL: Final = "thumbnail"
MODEL_FILE: Final = f"""
id = "{MODEL}"
name = "Thumbnail"
description = "A small picture, drawn in no time."
brand = "test"
upstream_id = "thumbnail"
created_at = "2026-11-22T00:00:00Z"
updated_at = "2026-11-22T00:00:00Z"
eta_seconds = 1

[prompt]
max_length = 1000

[n]
maximum = 1

[[parameters]]
name = "aspect_ratio"
type = "string"
enum = ["1:1"]
default = "1:1"
description = "Width to height."

[[parameters]]
name = "output_format"
type = "string"
enum = ["jpg"]
default = "jpg"
description = "File format of the image."

[pricing]
mode = "fixed"

[[pricing.tiers]]
id = "flat"
label = "Flat"
unit = "image"
price_micro_usdc = 10_000

[sizes]
"1:1" = {{ default = [160, 160] }}
"""
_BEGUN: Final = "the worker has begun"
_READY: Final = re.compile(r"Calotype listens on (http://\S+)")


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], what: str, *, pause: float = 0.05
) -> None:
    """Wait for a condition that nothing announces."""
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                held = condition()
                if held if isinstance(held, bool) else await held:
                    return
                await asyncio.sleep(pause)
    except TimeoutError:
        raise AssertionError(f"It never came to this: {what}") from None


@dataclass
class Member:
    """One process."""

    name: str
    process: subprocess.Popen[bytes]
    out: Path
    err: Path
    url: str = ""

    @property
    def log(self) -> str:
        return self.err.read_text(encoding="utf-8")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it has one."""
        await eventually(lambda: not self.alive, f"{self.name} ends")
        return self.process.wait()

    async def kill(self) -> None:
        """What a power cut or the out-of-memory killer does."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def terminate(self) -> int:
        """What a service manager does; returns the exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended()


@dataclass
class Cluster:
    """The processes, and a client that holds a key."""

    root: Path
    http: aiohttp.ClientSession
    database_url: str = ""
    """Empty is SQLite in the data folder."""
    environment: dict[str, str] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    key: str = ""
    _numbers: Any = field(default_factory=count)

    @property
    def data(self) -> Path:
        return self.root / "data"

    # Processes

    def start(self, name: str, *arguments: str) -> Member:
        """Start a command; it is killed with its children at the end at the latest."""
        place = self.root / f"{next(self._numbers)}-{name}"
        out, err = place.with_suffix(".out"), place.with_suffix(".err")
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "calotype", *arguments],
                cwd=self.root,
                env={
                    "CALOTYPE_DATA_DIR": str(self.data),
                    "CALOTYPE_DATABASE_URL": self.database_url,
                    "CALOTYPE_CATALOG_DIR": str(self.root / "models"),
                    "CALOTYPE_WORKER_LEASE_SECONDS": "4",
                    "CALOTYPE_SANDBOX_PROCESSES": "1",
                    **OUR_CODE,
                    **self.environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self.members.append(Member(name, process, out, err))
        return self.members[-1]

    async def api(self, *arguments: str, port: int = 0) -> Member:
        """An API process that is ready; with its own worker where the database is not shared."""
        alone = ("--no-worker",) if self.database_url else ()
        member = self.start("api", "serve", "--port", str(port), *alone, *arguments)
        await eventually(
            lambda: bool(_READY.search(member.out.read_text())) or not member.alive, "it starts"
        )
        ready = _READY.search(member.out.read_text())
        assert ready is not None, member.log
        member.url = ready[1]
        return member

    async def worker(self, *arguments: str) -> Member:
        """A worker process that has begun."""
        member = self.start("worker", "worker", *arguments)
        await eventually(lambda: _BEGUN in member.log or not member.alive, "it begins")
        assert member.alive, member.log
        return member

    def end_all(self) -> None:
        """Kill whatever was started and whatever that started."""
        for member in self.members:
            with suppress(ProcessLookupError):
                os.killpg(member.process.pid, signal.SIGKILL)
            member.process.wait()

    # The API

    async def submit(
        self, api: Member, prompt: str, *, key: str = "", order: str = "", **fields: Any
    ) -> str:
        """The id of a task that was accepted, under an idempotency key where ``order`` is one."""
        body = {"prompt": prompt, "model": MODEL, "channel_id": PAID, **fields}
        url = f"{api.url}/v1/images/generations"
        headers = {"Authorization": f"Bearer {key or self.key}"}
        if order:
            headers["Idempotency-Key"] = order
        async with self.http.post(url, json=body, headers=headers) as response:
            document = await response.json()
            assert response.status == 202, document
            task_id: str = document["task_id"]
            return task_id

    async def submit_many(
        self, apis: Sequence[Member], number: int, prompt: str = "", **fields: Any
    ) -> list[str]:
        """The ids of so many tasks, submitted side by side to each API in turn."""
        return await asyncio.gather(
            *(
                self.submit(apis[place % len(apis)], f"{prompt} number {place}", **fields)
                for place in range(number)
            )
        )

    async def task(self, api: Member, task_id: str) -> dict[str, Any]:
        """A task as its owner sees it."""
        headers = {"Authorization": f"Bearer {self.key}"}
        async with self.http.get(f"{api.url}/v1/tasks/{task_id}", headers=headers) as response:
            assert response.status == 200, await response.text()
            document: dict[str, Any] = await response.json()
            return document

    # The database, read from outside

    async def rows(self, statement: str, *values: object) -> list[Any]:
        """What a query finds in the database right now; parameters are ``$1``, ``$2``."""
        if self.database_url:
            connection = await asyncpg.connect(self.database_url)
            try:
                return [tuple(row) for row in await connection.fetch(statement, *values)]
            finally:
                await connection.close()
        path = self.data / "calotype.db"
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            return database.execute(re.sub(r"\$(\d)", r"?\1", statement), values).fetchall()

    async def one(self, statement: str, *values: object) -> int:
        """The number that a query finds."""
        return int((await self.rows(statement, *values))[0][0])

    async def finals(self) -> int:
        """How many tasks are final."""
        return await self.one("SELECT COUNT(*) FROM tasks WHERE completed_at IS NOT NULL")

    async def all_final(self, number: int) -> None:
        """Wait until so many tasks are there and final."""

        async def held() -> bool:
            return await self.finals() == number

        await eventually(held, f"{number} tasks are final: {self.told()}")

    async def attempts(self) -> dict[int, list[tuple[str, str | None]]]:
        """State and upstream's id of each attempt, by task."""
        found: dict[int, list[tuple[str, str | None]]] = {}
        for task_id, state, upstream_id in await self.rows(
            "SELECT task_id, state, upstream_id FROM attempts ORDER BY task_id, number"
        ):
            found.setdefault(task_id, []).append((state, upstream_id))
        return found

    async def states(self, task_ids: Sequence[str]) -> dict[str, int]:
        """How many of these tasks are in each state."""
        states = dict(await self.rows("SELECT id, state FROM tasks"))
        found: dict[str, int] = {}
        for task_id in task_ids:
            state = states[decode("task", task_id)]
            found[state] = found.get(state, 0) + 1
        return found

    async def change(self, statement: str, *values: object) -> str:
        """Write to the database behind everyone's back; PostgreSQL only."""
        connection = await asyncpg.connect(self.database_url)
        try:
            return await connection.execute(statement, *values)
        finally:
            await connection.close()

    def core(self) -> Core:
        """What a command of this cluster works with."""
        return build_core(
            Settings(
                data_dir=self.data,
                database_url=self.database_url,
                catalog_dir=self.root / "models",
            )
        )

    async def new_key(self, account: str) -> str:
        """A key of an account with credit."""
        core = self.core()
        try:
            await core.store.prepare()
            key, _ = await core.accounts.create_key(account, account=account)
            owner = await core.accounts.find(account)
            assert owner is not None
            await core.accounts.add_credit(owner, CREDIT, note="test")
            return key
        finally:
            await core.store.close()

    async def proved(self) -> Sequence[str]:
        """What the books have against themselves."""
        core = self.core()
        try:
            return await core.store.prove()
        finally:
            await core.store.close()

    async def assert_books(self) -> None:
        """Every balance is proved, each final task settled once, paid as its state says."""
        assert await self.proved() == []
        assert (
            await self.rows(
                "SELECT task_id FROM ledger WHERE kind IN ('commit', 'release') "
                "GROUP BY task_id HAVING COUNT(*) <> 1"
            )
            == []
        )
        assert (
            await self.rows(
                "SELECT id, state, actual, released FROM tasks WHERE completed_at IS NOT NULL "
                "AND (actual, released) <> (CASE state WHEN 'success' THEN reserved ELSE 0 END, "
                "CASE state WHEN 'fail' THEN reserved ELSE 0 END)"
            )
            == []
        )

    async def assert_stored_once(self) -> None:
        """Each image of a success is on disk, and no other."""
        keys = {key for (key,) in await self.rows("SELECT key FROM assets WHERE kind = 'result'")}
        assert self.stored() == keys

    def stored(self) -> set[str]:
        """The names of what lies in the asset store."""
        root = self.data / "assets"
        files = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
        return {str(path) for path in files if path.parts[0] != "incoming"}

    def told(self) -> str:
        """The last lines of everyone's log."""
        return "\n".join(
            f"--- {member.name} {member.process.pid}\n{member.log[-1500:]}"
            for member in self.members
        )


@asynccontextmanager
async def running_cluster(
    root: Path, database_url: str = "", **environment: str
) -> AsyncIterator[Cluster]:
    """A folder with channels, a small model and a funded key; every process is gone afterwards."""
    (root / "calotype.toml").write_text(_CHANNELS)
    (root / "models").mkdir()
    (root / "models" / f"{MODEL}.toml").write_text(MODEL_FILE)
    settings = {f"CALOTYPE_{name.upper()}": value for name, value in environment.items()}
    async with aiohttp.ClientSession() as http:
        cluster = Cluster(root, http, database_url, settings)
        try:
            cluster.key = await cluster.new_key("test")
            yield cluster
        finally:
            cluster.end_all()
