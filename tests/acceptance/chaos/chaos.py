"""Kills at random while tasks come in, then a look at whether anything was lost or bought twice.

``make chaos`` runs it long, ``test_chaos.py`` short. The seed decides victims, moments (counted in
progress, not in seconds) and prompts; how far each process has come at a kill is chance.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGQUIT
from typing import Any, Final

import aiohttp
import asyncpg

from acceptance.chaos.telling import counted, told
from acceptance.cluster import FREE, MODEL, PAID, Cluster, Member, running_cluster
from calotype.domain.ids import decode
from postgres import PostgresServer, fresh_database, running_postgres

MODES: Final = ("sqlite", "postgresql")
CLIENTS: Final = 12
PATIENCE: Final = 180.0
"""Seconds after which what was accepted is taken never to end."""
OUTAGES: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)

OUTCOMES: Final = {
    "polled": "",
    "polled for longer sandbox:delay=2": "",
    "at once sandbox:delay=0": "",
    "at once, too sandbox:delay=0": "",
    "sandbox:429": "",
    "sandbox:500-before=2": "",
    "sandbox:500-after": "upstream_failed",
    "sandbox:refuse": "content_policy_violation",
    "sandbox:malformed sandbox:delay=0": "upstream_malformed_response",
}
"""What a prompt steers to: the code of its failure, or success."""
UNKNOWN: Final = "upstream_outcome_unknown"


@dataclass(frozen=True)
class Plan:
    """How much of it."""

    mode: str
    tasks: int
    kills: int
    seed: int
    lease_seconds: int


@dataclass
class Report:
    """What happened."""

    plan: Plan
    kills: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    unknown_attempts: int = 0
    sent_again: int = 0
    take_over_seconds: float = 0.0
    """The longest, with the database there all the time."""
    slowest_seconds: float = 0.0
    """The longest with PostgreSQL killed in between, which holds nobody's silence against them."""
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = {
            "seed": self.plan.seed,
            "kill -9": f"{self.kills.total()}: {counted(self.kills)}",
            "tasks accepted": self.accepted,
            "ends": counted(self.ends),
            "unknown attempts": self.unknown_attempts,
            "sent again, being free": self.sent_again,
            "longest take-over": f"{self.take_over_seconds:.1f} s",
            "with the database gone": f"{self.slowest_seconds:.1f} s",
            "in all": f"{self.seconds:.0f} s",
            "proof": "holds" if not self.faults else "\n    ".join(self.faults),
        }
        return told(self.plan.mode, lines)


class Storm:
    """One run of a plan on a cluster.

    Args:
        server: the PostgreSQL server; None on SQLite.

    """

    def __init__(self, plan: Plan, cluster: Cluster, server: PostgresServer | None) -> None:
        self._plan = plan
        self._cluster = cluster
        self._server = server
        self._chance = random.Random(plan.seed)  # noqa: S311 -- to be repeated, not to be secret
        self._prompts = [self._chance.choice(list(OUTCOMES)) for _ in range(plan.tasks)]
        self._channels = [self._chance.choice((PAID, PAID, FREE)) for _ in range(plan.tasks)]
        self._accepted: dict[int, str] = {}
        self._killed_at: list[int] = []
        self._crashed_at: list[int] = []
        self._members: dict[str, Member] = {}
        self.report = Report(plan)

    async def run(self) -> Report:
        """Start everything, let it storm, wait for the end and judge."""
        began = time.monotonic()
        kinds = ["api-1", "api-2", "worker-1", "worker-2"] if self._server else ["api-1"]
        await asyncio.gather(*(self._start(name) for name in kinds))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._kill_all())
            for place in range(CLIENTS):
                group.create_task(self._client(place))
        await self._until(lambda done: done == 2 * self._plan.tasks, "all tasks are final")
        await self._judge()
        self.report.seconds = time.monotonic() - began
        return self.report

    # Load

    async def _client(self, first: int) -> None:
        """Order its share of the tasks, each until it is accepted, and look at one in between."""
        for place in range(first, self._plan.tasks, CLIENTS):
            while place not in self._accepted:
                document = await self._ask(
                    "POST",
                    "/v1/images/generations",
                    expected=202,
                    headers={"Idempotency-Key": f"order-{place}"},
                    json={
                        "model": MODEL,
                        "prompt": f"{place} {self._prompts[place]}",
                        "channel_id": self._channels[place],
                    },
                )
                if document is not None:
                    self._accepted[place] = document["task_id"]
            known = self._accepted[self._chance.choice(list(self._accepted))]
            await self._ask("GET", f"/v1/tasks/{known}", expected=200)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        expected: int,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> Any:
        """The answer of whichever API answers; None, after a moment, when it does not or cannot."""
        api = self._chance.choice([name for name in self._members if name.startswith("api")])
        sent = {"Authorization": f"Bearer {self._cluster.key}", **(headers or {})}
        try:
            async with self._cluster.http.request(
                method, self._members[api].url + path, headers=sent, **options
            ) as response:
                if response.status != 503:
                    assert response.status == expected, await response.text()
                    return await response.json()
        except (aiohttp.ClientError, ConnectionError):
            pass
        await asyncio.sleep(0.05)
        return None

    # Kills

    async def _kill_all(self) -> None:
        """Kill at random moments, up to two at a time, and start again at once."""
        whole = 2 * self._plan.tasks
        while (left := self._plan.kills - self.report.kills.total()) > 0:
            names = [*self._members, *(["postgresql"] if self._server else [])]
            victims = self._chance.sample(
                names, min(left, len(names), self._chance.choice((1, 1, 2)))
            )
            done = self.report.kills.total() + self._chance.random()
            moment = int(whole * (0.05 + 0.85 * done / self._plan.kills))
            await self._until(lambda now, moment=moment: now >= moment, "it goes on")
            now = time.time_ns() // 1_000_000
            if not self._server or any(victim.startswith("worker") for victim in victims):
                self._killed_at.append(now)
            if "postgresql" in victims:
                self._crashed_at.append(now)
            self.report.kills.update(victim.partition("-")[0] for victim in victims)
            await asyncio.gather(*(self._kill(victim) for victim in victims))

    async def _kill(self, name: str) -> None:
        if name == "postgresql":
            assert self._server is not None
            await asyncio.to_thread(self._server.stop, SIGQUIT)
            await asyncio.to_thread(self._server.start)
            return
        await self._members[name].kill()
        await self._start(name)

    async def _start(self, name: str) -> None:
        """Start a member, again and again while the database does not let it."""
        old = self._members.get(name)
        port = int(old.url.rpartition(":")[2]) if old and old.url else 0
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(AssertionError):
                    starting = (
                        self._cluster.api(port=port)
                        if name.startswith("api")
                        else self._cluster.worker()
                    )
                    self._members[name] = await starting
                    return

    async def _until(self, enough: Any, what: str) -> None:
        """Wait for progress: every acceptance counts one, every end another."""
        done = 0
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    with suppress(*OUTAGES):
                        done = len(self._accepted) + await self._cluster.finals()
                        if enough(done):
                            return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"It never came to this: {what}; {done}") from None

    # Judgement

    async def _judge(self) -> None:
        report, cluster = self.report, self._cluster
        tasks = {
            task_id: (state, (error or b"").decode(), actual)
            for task_id, state, error, actual in await cluster.rows(
                "SELECT id, state, error, actual FROM tasks WHERE completed_at IS NOT NULL"
            )
        }
        attempts = await cluster.attempts()
        report.accepted = len(set(self._accepted.values()))
        report.faults += await cluster.proved()
        total = await cluster.one("SELECT COUNT(*) FROM tasks")
        if not self._plan.tasks == report.accepted == len(tasks) == total:
            report.faults.append(
                f"{self._plan.tasks} ordered, {report.accepted} accepted, {total} stored, "
                f"{len(tasks)} final"
            )
        for place, name in self._accepted.items():
            task_id = decode("task", name) or 0
            fault = self._judge_one(place, tasks.get(task_id), attempts.get(task_id, []))
            report.faults += [f"{name} ({self._prompts[place]}): {fault}"] if fault else []
        report.faults += await self._settled_once()
        stored = cluster.stored()
        for (key,) in await cluster.rows("SELECT key FROM assets WHERE kind = 'result'"):
            report.faults += [f"{key} is not in the asset store"] if key not in stored else []
        for name, member in self._members.items():
            if not member.alive:
                report.faults.append(f"{name} ended on its own: {member.log[-2000:]}")
        await self._measure_take_over()

    def _judge_one(
        self,
        place: int,
        task: tuple[str, str, int] | None,
        attempts: Sequence[tuple[str, str | None]],
    ) -> str:
        """What is wrong with a task; empty is nothing."""
        if task is None:
            return "lost"
        state, error, paid = task
        code = OUTCOMES[self._prompts[place]]
        states = [state for state, _ in attempts]
        bought = [state for state in states if state != "refused"]
        found = next((known for known in (UNKNOWN, code) if known and f'"{known}"' in error), "")
        self.report.ends[found or state] += 1
        self.report.unknown_attempts += states.count("unknown")
        self.report.sent_again += max(0, len(bought) - 1)
        if len(bought) > 1 and self._channels[place] == PAID:
            return f"bought twice: {states}"
        right = {
            "success": not code and paid > 0 and states.count("done") == 1,
            UNKNOWN: paid == 0 and bought == ["unknown"] and self._channels[place] == PAID,
            code: paid == 0 and "done" not in states,
        }
        held = right.get(found or state, False)
        return "" if held else f"{state} {error}, paid {paid}, attempts {states}"

    async def _settled_once(self) -> list[str]:
        found = await self._cluster.rows(
            "SELECT task_id, COUNT(*) FROM ledger WHERE kind IN ('commit', 'release') "
            "GROUP BY task_id HAVING COUNT(*) <> 1"
        )
        return [f"task {task_id} was settled {times} times" for task_id, times in found]

    async def _measure_take_over(self) -> None:
        """Seconds from a kill until a task goes on that nothing had happened to in between.

        The kill is the earliest one after the task's last sign of life, so this is never too low.
        """
        last, taken = dict[int, int](), set[int]()
        for task_id, at, event in await self._cluster.rows(
            "SELECT task_id, at, event FROM events ORDER BY task_id, seq"
        ):
            alive, last[task_id] = last.get(task_id, at), at
            if event != "take":
                continue
            kills = [killed for killed in self._killed_at if alive <= killed <= at]
            if task_id in taken and kills:
                seconds = (at - kills[0]) / 1000
                if any(alive <= crashed <= at for crashed in self._crashed_at):
                    self.report.slowest_seconds = max(self.report.slowest_seconds, seconds)
                else:
                    self.report.take_over_seconds = max(self.report.take_over_seconds, seconds)
            taken.add(task_id)


@asynccontextmanager
async def _cluster_of(
    plan: Plan, folder: Path
) -> AsyncIterator[tuple[Cluster, PostgresServer | None]]:
    """Everything in a folder of its own, and ended with the context."""
    settings = {
        "sandbox_seconds": "1",
        "worker_lease_seconds": str(plan.lease_seconds),
    }
    root = folder / "cluster"
    root.mkdir()
    if plan.mode == "sqlite":
        async with running_cluster(root, **settings) as cluster:
            yield cluster, None
        return
    with (
        tempfile.TemporaryDirectory(prefix="calotype-pg-") as place,  # open to PostgreSQL's user
        running_postgres(Path(place), "max_connections=200") as server,
    ):
        async with (
            fresh_database(server) as url,
            running_cluster(root, url, **settings) as cluster,
        ):
            yield cluster, server


async def storm(plan: Plan, folder: Path) -> Report:
    """Run a plan in a folder."""
    async with _cluster_of(plan, folder) as (cluster, server):
        return await Storm(plan, cluster, server).run()


def main() -> None:
    """Run as the command line says, print what happened, and fail where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=MODES, help="one of the databases; both if left out")
    parser.add_argument("--tasks", type=int, default=2_000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--lease-seconds", type=int, default=12)
    chosen = parser.parse_args()
    wrong = False
    for mode in [chosen.mode] if chosen.mode else MODES:
        plan = Plan(mode, chosen.tasks, chosen.kills, chosen.seed, chosen.lease_seconds)
        with tempfile.TemporaryDirectory(prefix="calotype-chaos-") as folder:
            report = asyncio.run(storm(plan, Path(folder)))
        sys.stdout.write(f"{report}\n")
        sys.stdout.flush()
        wrong = wrong or bool(report.faults)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
