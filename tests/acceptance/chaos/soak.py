"""An hour of everything at once: clients, keys, channels and processes come and go.

    make soak ARGS="--minutes 8 --mode sqlite --seed 7"

Clients order, watch, cancel, delete, download and leave in the middle; keys are made and revoked;
channels are switched by SIGHUP; workers die by kill -9, on SQLite the one process, in the first
two fifths; images are collected as if their days were over. What lives on after that must not
grow, in memory, file descriptors or rows for a task; at the end every task is final, the books are
proved, and no file is there that no row names.
"""

import argparse
import asyncio
import random
import re
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGHUP
from typing import Any, Final

import aiohttp

from acceptance.chaos.chaos import MODES, OUTAGES, OUTCOMES
from acceptance.chaos.telling import counted, some, thinned, told
from acceptance.cluster import MODEL, Cluster, Member, eventually, running_cluster
from harness import GENERATIONS
from postgres import fresh_database, running_postgres

CLIENTS: Final = 10
WATCHERS: Final = 6
MOST_MEMORY_MIB: Final = 64
"""Growth of a process, of its life after the kills, from the first two fifths to the last."""
MOST_DESCRIPTORS: Final = 40
"""Of a process once its clients are gone, more than when it had just started."""
MOST_ROWS: Final = {"events": 12.0, "attempts": 9.0, "ledger": 3.0, "assets": 1.0}
"""For a task; eight sends of a free channel and one that lost its worker make nine attempts."""
TABLES: Final = (*MOST_ROWS, "tasks", "api_keys", "idempotency_keys", "channel_events")
ROUNDS: Final = {"keys": 3.0, "reload": 7.0, "kill": 15.0, "retention": 20.0}
"""Seconds between two doings of a kind."""


@dataclass(frozen=True)
class Plan:
    """How much of it."""

    mode: str
    seconds: float
    seed: int


@dataclass
class Report:
    """What came of it."""

    plan: Plan
    done: Counter[str] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    memory: dict[str, list[int]] = field(default_factory=dict)
    """MiB of each process that lived to the end, sampled after the kills."""
    descriptors: dict[str, tuple[int, int]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = {
            "seed": self.plan.seed,
            "minutes": round(self.plan.seconds / 60, 1),
            "done": counted(self.done),
            "answers": counted(self.answers),
            **{f"MiB of {name}": thinned(found) for name, found in self.memory.items()},
            **{f"files of {name}": f"{a} to {b}" for name, (a, b) in self.descriptors.items()},
            "rows": ", ".join(f"{number} {name}" for name, number in self.rows.items()),
            "faults": some(self.faults),
        }
        return told(self.plan.mode, lines)


class Soak:
    """One run of a plan."""

    def __init__(self, plan: Plan, cluster: Cluster) -> None:
        self._plan = plan
        self._cluster = cluster
        self._chance = random.Random(plan.seed)  # noqa: S311 -- to be repeated, not to be secret
        self._core = cluster.core()
        self._keys = [cluster.key]
        self._api: Member
        self._workers: list[Member] = []
        self._ordered = 0
        self._members: dict[str, Member] = {}
        self._before: dict[str, int] = {}
        self._killed_at = 0.0
        self.report = Report(plan)

    async def run(self) -> Report:
        """Start everything, let it come and go, wait for the end and judge."""
        await self._core.store.prepare()
        self._api = await self._cluster.api()
        if self._cluster.database_url:
            self._workers = [await self._cluster.worker() for _ in range(2)]
        over = time.monotonic() + self._plan.seconds
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(CLIENTS):
                    group.create_task(self._until(over, self._client))
                for _ in range(WATCHERS):
                    group.create_task(self._until(over, self._watch))
                group.create_task(self._until(over, self._change_keys, "keys"))
                group.create_task(self._until(over, self._reload, "reload"))
                group.create_task(self._until(over, self._collect, "retention"))
                group.create_task(self._kill_and_sample(over))
            await eventually(self._is_done, "every task is final")
            await self._judge()
        finally:
            await self._core.store.close()
        return self.report

    async def _until(self, over: float, do: Any, kind: str = "") -> None:
        name = kind or do.__name__.strip("_")
        while time.monotonic() < over or not self.report.done[name]:  # however slow the machine
            # A process that is being killed answers nobody; whoever asks comes again.
            with suppress(aiohttp.ClientError, ConnectionError, TimeoutError, *OUTAGES):
                await do()
                self.report.done[name] += 1
            await asyncio.sleep(ROUNDS.get(kind, 0.05))

    async def _is_done(self) -> bool:
        return not await self._cluster.one("SELECT COUNT(*) FROM tasks WHERE completed_at IS NULL")

    # Clients

    async def _ask(
        self, http: aiohttp.ClientSession, method: str, path: str, **options: Any
    ) -> tuple[int, Any]:
        key = self._chance.choice(self._keys)
        headers = {"Authorization": f"Bearer {key}", **options.pop("headers", {})}
        url = path if path.startswith("http") else self._api.url + path
        async with http.request(method, url, headers=headers, **options) as response:
            self.report.answers[response.status] += 1
            if response.status >= 500 and response.status != 503:
                self.report.faults.append(f"{method} {path}: {await response.text()}")
            is_json = response.content_type == "application/json"
            return response.status, await (response.json() if is_json else response.read())

    async def _client(self) -> None:
        """Come, order a few, look after some of them, and leave."""
        chance = self._chance
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
            ids = []
            for _ in range(chance.randint(1, 4)):
                self._ordered += 1
                body = {
                    "model": MODEL,
                    "prompt": f"{self._ordered} {chance.choice(list(OUTCOMES))}",
                }
                order = {"Idempotency-Key": f"soak-{self._ordered}"}
                answers = [
                    await self._ask(http, "POST", GENERATIONS, json=body, headers=order)
                    for _ in range(chance.choice((1, 1, 2)))  # some send it again
                ]
                ids += [answer["task_id"] for status, answer in answers[-1:] if status == 202]
            for task_id in ids:
                await self._look_after(http, f"/v1/tasks/{task_id}")

    async def _look_after(self, http: aiohttp.ClientSession, path: str) -> None:
        match self._chance.randrange(5):
            case 0:
                await self._ask(http, "POST", f"{path}/cancel")
            case 1:
                await self._ask(http, "GET", f"{path}/events")
            case 2 | 3:
                _, task = await self._ask(http, "GET", f"{path}?wait=20&since=1000")
                for image in task.get("result", {}).get("data", ()):
                    if "url" in image:
                        await self._ask(http, "GET", image["url"])
                if self._chance.random() < 0.5:
                    await self._ask(http, "DELETE", path)

    async def _watch(self) -> None:
        """Follow the account's stream for a while, and hang up in the middle."""
        headers = {"Authorization": f"Bearer {self._chance.choice(self._keys)}"}
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self._api.url}/v1/events", headers=headers) as stream,
        ):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._chance.uniform(0.5, 8)):
                    async for _ in stream.content:
                        pass

    # Operators

    async def _change_keys(self) -> None:
        """One key more; of more than eight, the oldest that is not the first goes."""
        secret, _ = await self._core.accounts.create_key("soak", account="test")
        self._keys.append(secret)
        if len(self._keys) > 8:
            old = self._keys.pop(1)
            await self._core.accounts.revoke(await self._core.accounts.authenticate(old))

    async def _reload(self) -> None:
        """Switch the free channel, and tell everyone."""
        path = self._cluster.root / "calotype.toml"
        on, off = 'slug = "free"', 'slug = "free"\nenabled = false'
        text = path.read_text()
        path.write_text(text.replace(off, on) if off in text else text.replace(on, off))
        for member in (self._api, *self._workers):
            member.signal(SIGHUP)

    async def _collect(self) -> None:
        """The days of every image that there is are over."""
        statement = "UPDATE assets SET expires_at = $1 WHERE expires_at > $1"
        now = time.time_ns() // 1_000_000
        if self._cluster.database_url:
            await self._cluster.change(statement, now)
            return

        def change() -> None:
            path = self._cluster.data / "calotype.db"
            with closing(sqlite3.connect(path, timeout=30)) as database:
                database.execute(statement.replace("$", "?"), (now,))
                database.commit()

        await asyncio.to_thread(change)

    async def _kill_and_sample(self, over: float) -> None:
        """Kill now and then in the first two fifths; afterwards look at who lives on."""
        calm = over - self._plan.seconds * 0.6
        while time.monotonic() < calm:
            await asyncio.sleep(min(ROUNDS["kill"], self._plan.seconds / 12))
            self.report.done["kill -9"] += 1
            self._killed_at = time.time()
            if self._workers:
                await self._workers.pop(0).kill()
                self._workers.append(await self._cluster.worker())
            else:
                await self._api.kill()
                port = int(self._api.url.rpartition(":")[2])
                self._api = await self._cluster.api(port=port)
        members = {"api": self._api}
        members |= {f"worker {place}": one for place, one in enumerate(self._workers, start=1)}
        self._members = members
        self._before = {name: _descriptors(member) for name, member in members.items()}
        while True:
            for name, member in members.items():
                self.report.memory.setdefault(name, []).append(_resident_mib(member))
            if time.monotonic() >= over:
                return
            await asyncio.sleep(self._plan.seconds / 200)

    # Judgement

    async def _judge(self) -> None:
        report, cluster = self.report, self._cluster
        for name, samples in report.memory.items():
            fifth = len(samples) // 5
            growth = max(samples[-1 - fifth :]) - max(samples[: 1 + 2 * fifth])
            if growth > MOST_MEMORY_MIB:
                report.faults.append(f"{name} grew by {growth} MiB")
        for name, member in self._members.items():
            report.descriptors[name] = self._before[name], _descriptors(member)
            if report.descriptors[name][1] > self._before[name] + MOST_DESCRIPTORS:
                report.faults.append(f"{name} has {report.descriptors[name]} files open")
            if not member.alive:
                report.faults.append(f"{name} ended on its own: {member.log[-2000:]}")
        for table in TABLES:
            report.rows[table] = await cluster.one(f"SELECT COUNT(*) FROM {table}")  # noqa: S608 -- our own text
        for table, most in MOST_ROWS.items():
            if report.rows[table] > most * report.rows["tasks"] + 100:
                report.faults.append(f"{table} has {report.rows[table]} rows")
        report.faults += await cluster.proved()
        await self._judge_files()

    async def _judge_files(self) -> None:
        """What kill -9 left under way is for ``calotype doctor --assets``; nothing else is left."""
        cluster, report = self._cluster, self.report
        stored = cluster.stored()  # before the rows: a row that goes meanwhile goes before its file
        kept = "SELECT key FROM assets WHERE deleted_at IS NULL"
        named = {key for (key,) in await cluster.rows(kept)}
        report.faults += [f"{key} is gone" for key in named - stored]
        report.rows["files left by kills"] = len(stored - named)
        root = cluster.data / "assets"
        await eventually(
            lambda: not any(self._is_fresh(root / key) for key in stored - named),
            "no file is there that no row names",
        )

    def _is_fresh(self, path: Path) -> bool:
        """Whether it is there, and was made after the last kill."""
        try:
            return path.stat().st_mtime > self._killed_at
        except FileNotFoundError:
            return False


def _resident_mib(member: Member) -> int:
    status = Path(f"/proc/{member.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) // 1024 if found else 0


def _descriptors(member: Member) -> int:
    return len(list(Path(f"/proc/{member.process.pid}/fd").iterdir()))


async def soak(plan: Plan, folder: Path) -> Report:
    """Run a plan in a folder."""
    async with AsyncExitStack() as stack:
        url = ""
        if plan.mode == "postgresql":
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="calotype-pg-"))
            server = stack.enter_context(running_postgres(Path(place), "max_connections=200"))
            url = await stack.enter_async_context(fresh_database(server))
        running = running_cluster(folder, url, sandbox_seconds="1")
        return await Soak(plan, await stack.enter_async_context(running)).run()


def main() -> None:
    """Run as the command line says, print what came of it, and fail where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=MODES, help="one of the databases; both if left out")
    parser.add_argument("--minutes", type=float, default=60.0, help="of each")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    chosen = parser.parse_args()
    wrong = False
    for mode in [chosen.mode] if chosen.mode else MODES:
        with tempfile.TemporaryDirectory(prefix="calotype-soak-") as folder:
            plan = Plan(mode, 60 * chosen.minutes, chosen.seed)
            report = asyncio.run(soak(plan, Path(folder)))
        sys.stdout.write(f"{report}\n")
        sys.stdout.flush()
        wrong = wrong or bool(report.faults)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
