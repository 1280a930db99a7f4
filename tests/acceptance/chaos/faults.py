"""Bad networks between a server and its upstreams, with hundreds of tasks in flight.

    PYTHONPATH=tests python -m acceptance.chaos.faults --tasks-in-flight 500 --minutes 10 --seed 7

Seven channels lead to one fake upstream, each through a proxy of its own (``proxy.py``); six of
these go bad after a tenth of the time and are well again for the last two fifths. At the end every
task must have ended rightly and in time, nothing be bought twice, the breakers have opened on bad
channels alone and closed again, memory be flat, and the books proved.
"""

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from acceptance.chaos.proxy import KINDS, FaultProxy, fault_proxy
from acceptance.chaos.telling import counted, some, thinned, told
from acceptance.cluster import MODEL, MODEL_FILE, Cluster, Member, eventually, running_cluster
from calotype.domain.ids import decode
from harness import GENERATIONS, picture, serving
from postgres import fresh_database, running_postgres

MODES: Final = ("sqlite", "postgresql")
FIRST: Final = 20
"""Number of the first channel."""
IDEMPOTENT: Final = frozenset({"reset", "latency"})
"""Channels on which a lost send may be sent again under its reference."""
SEND_SECONDS: Final = 30
LEASE_SECONDS: Final = 12
"""As by itself: a shorter one is lost on a busy machine, and the sends under way with it."""
DEADLINE_SECONDS: Final = 120
GRACE_SECONDS: Final = 60
OVER_SECONDS: Final = 120
"""After deadline and grace: 30 s each for a pause, a poll and a silent result, and some."""
TRIED_MS: Final = 30_000
"""So long after its hold a breaker has been tried, with this much traffic."""
MOST_GROWTH_MIB: Final = 96
PICTURE: Final = picture("JPEG", size=(160, 160))

LOST: Final = "upstream_outcome_unknown"
FAILURES: Final = {
    "corrupt": {
        *("upstream_failed", "upstream_malformed_response", "upstream_rejected"),
        *("upstream_unavailable", "deadline_exceeded", LOST),
    },
    "half-open": {LOST, "deadline_exceeded"},
    "early": {LOST, "deadline_exceeded"},
    "reset": {"deadline_exceeded", "upstream_unavailable", LOST},
}
"""What a task may fail with that was last sent through a proxy; through the others none may."""


@dataclass(frozen=True)
class Plan:
    """How much of it."""

    mode: str
    in_flight: int
    seconds: float
    work_seconds: float
    seed: int


@dataclass
class Report:
    """What came of it."""

    plan: Plan
    ends: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    sends: Counter[str] = field(default_factory=Counter)
    bought: int = 0
    longest_seconds: float = 0.0
    resident_mib: list[int] = field(default_factory=list)
    opened: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = {
            "seed": self.plan.seed,
            "in flight": self.plan.in_flight,
            "ends": counted(self.ends),
            "faults of networks": counted(self.happened),
            "sends": counted(self.sends),
            "bought": self.bought,
            "longest task": f"{self.longest_seconds:.1f} s",
            "memory": f"{thinned(self.resident_mib)} MiB",
            "breakers opened": counted(self.opened),
            "breakers closed": counted(self.closed),
            "faults": some(self.faults),
        }
        return told(self.plan.mode, lines)


class Upstream:
    """Another gateway, as all channels reach it: it knows an ``Idempotency-Key`` again."""

    def __init__(self, work_seconds: float, chance: random.Random) -> None:
        self.bought: Counter[str] = Counter()
        self._work_seconds = work_seconds
        self._chance = chance
        self._ready_at: dict[str, float] = {}
        self._orders: dict[str, str] = {}

    async def create(self, request: web.Request) -> web.StreamResponse:
        """A send."""
        prompt = str((await request.json())["prompt"])
        order = request.headers.get("Idempotency-Key", "")
        name = self._orders.get(order, "")
        if not name:
            name = f"task_{len(self._ready_at)}"
            self.bought[prompt] += 1
            if order:
                self._orders[order] = name
            seconds = self._work_seconds * self._chance.uniform(0.5, 1.5)
            self._ready_at[name] = time.monotonic() + seconds
        return web.json_response(self._told(name, "waiting"), status=202)

    async def read(self, request: web.Request) -> web.StreamResponse:
        """A question about a job."""
        name = request.match_info["name"]
        if name not in self._ready_at:
            document = {"code": "task_not_found", "message": "There is no such task."}
            return web.json_response(document, status=404)
        if time.monotonic() < self._ready_at[name]:
            return web.json_response({**self._told(name, "generating"), "progress": 10})
        # A relative URL: a corrupt host would be looked up outside.
        result = {"created": 1, "data": [{"url": "picture.jpg"}]}
        return web.json_response({"task_id": name, "state": "success", "result": result})

    def _told(self, name: str, state: str) -> dict[str, Any]:
        interval = int(1000 * self._work_seconds / 4)
        return {"task_id": name, "state": state, "recommended_poll_interval_ms": interval}

    async def picture(self, _request: web.Request) -> web.StreamResponse:
        """A result."""
        return web.Response(body=PICTURE, content_type="image/jpeg")

    def app(self) -> web.Application:
        """What serves it."""
        app = web.Application()
        app.router.add_post("/v1/images/generations", self.create)
        app.router.add_get("/v1/tasks/{name}", self.read)
        app.router.add_get("/picture.jpg", self.picture)
        return app


class Weather:
    """One run of a plan."""

    def __init__(
        self, plan: Plan, cluster: Cluster, upstream: Upstream, proxies: dict[int, FaultProxy]
    ) -> None:
        self._plan = plan
        self._cluster = cluster
        self._upstream = upstream
        self._proxies = proxies
        self._api: Member
        self._documents: dict[str, dict[str, Any]] = {}
        self._healed_at = 0
        self.report = Report(plan)

    async def run(self) -> Report:
        """Start everything, let the networks go bad and well again, and judge."""
        alone = not self._cluster.database_url
        self._api = await self._cluster.api()
        for _ in range(0 if alone else 2):
            await self._cluster.worker()
        over = asyncio.Event()
        watching = asyncio.create_task(self._watch())
        async with asyncio.TaskGroup() as group:
            for place in range(self._plan.in_flight):
                group.create_task(self._client(place, over))
            await asyncio.sleep(self._plan.seconds * 0.1)
            for proxy in self._proxies.values():
                proxy.worsen()
            await asyncio.sleep(self._plan.seconds * 0.5)
            await eventually(self._has_shown, "every network is bad, and a breaker opens")
            for proxy in self._proxies.values():
                proxy.heal()
            self._healed_at = _now()
            await asyncio.sleep(self._plan.seconds * 0.4)
            over.set()
        watching.cancel()
        await self._judge()
        return self.report

    async def _client(self, place: int, over: asyncio.Event) -> None:
        """Have one task after another developed until it is over."""
        number = 0
        while not over.is_set():
            prompt = f"order {place}-{number}"
            number += 1
            document = await self._insist("POST", GENERATIONS, prompt)
            while document.get("state") not in {"success", "fail"}:
                path = f"/v1/tasks/{document['task_id']}?wait=60&since=1000000"
                document = await self._insist("GET", path)
            self._documents[prompt] = document

    async def _insist(self, method: str, path: str, prompt: str = "") -> dict[str, Any]:
        """The answer, asked for again where a connection was closed that had been idle."""
        headers = {"Authorization": f"Bearer {self._cluster.key}"}
        body = {"model": MODEL, "prompt": prompt} if prompt else None
        if prompt:
            headers["Idempotency-Key"] = prompt
        while True:
            with suppress(aiohttp.ClientConnectionError):
                async with self._cluster.http.request(
                    method, self._api.url + path, headers=headers, json=body
                ) as response:
                    document: dict[str, Any] = await response.json()
                    assert response.status in {200, 202}, document
                    return document

    async def _has_shown(self) -> bool:
        if not all(
            proxy.happened.total() or proxy.kind == "well" for proxy in self._proxies.values()
        ):
            return False
        return await self._cluster.one("SELECT COUNT(*) FROM channel_events") > 0

    async def _watch(self) -> None:
        """Sample the memory of all processes together."""
        while True:
            members = self._cluster.members
            self.report.resident_mib.append(sum(_resident_mib(one) for one in members))
            await asyncio.sleep(self._plan.seconds / 120)

    # Judgement

    async def _judge(self) -> None:
        report, cluster = self.report, self._cluster
        attempts = await self._attempts()
        for prompt, document in self._documents.items():
            sent = attempts.get(decode("task", document["task_id"]) or 0, [])
            fault = self._judge_one(prompt, document, sent)
            report.faults += [f"{document['task_id']}: {fault}"] if fault else []
        if len(self._documents) != await cluster.finals():
            report.faults.append(f"{len(self._documents)} ended for clients, but not as stored")
        strangers = self._upstream.bought.keys() - self._documents.keys()
        report.faults += [f"bought for nobody: {prompt!r}" for prompt in strangers]
        report.bought = self._upstream.bought.total()
        for proxy in self._proxies.values():
            report.happened += proxy.happened
        report.faults += await cluster.proved()
        await self._judge_breakers()
        self._judge_memory()
        for member in cluster.members:
            if not member.alive:
                report.faults.append(f"{member.name} ended on its own: {member.log[-2000:]}")

    async def _attempts(self) -> dict[int, list[tuple[str, str, str]]]:
        """Kind of the network, state and detail of each attempt, by task."""
        found: dict[int, list[tuple[str, str, str]]] = {}
        for task_id, channel_id, state, detail in await self._cluster.rows(
            "SELECT task_id, channel_id, state, detail FROM attempts ORDER BY task_id, number"
        ):
            kind = self._proxies[channel_id].kind
            found.setdefault(task_id, []).append((kind, state, detail))
            self.report.sends[kind] += 1
        return found

    def _judge_one(
        self, prompt: str, document: dict[str, Any], sent: list[tuple[str, str, str]]
    ) -> str:
        """What is wrong with a task; empty is nothing."""
        code, paid = document["error"].get("code"), document["billing"]["actual_amount_micro_usdc"]
        self.report.ends[code or document["state"]] += 1
        seconds = document["completed_at"] - document["created_at"]
        self.report.longest_seconds = max(self.report.longest_seconds, seconds)
        if seconds > DEADLINE_SECONDS + GRACE_SECONDS + OVER_SECONDS:
            return f"took {seconds} s"
        states = [state for _, state, _ in sent]
        lost = states.count("unknown")
        if self._upstream.bought[prompt] > 1:
            return f"bought {self._upstream.bought[prompt]} times: {sent}"
        if document["state"] == "success":
            right = paid > 0 and states.count("done") == 1 and self._upstream.bought[prompt] == 1
        else:
            allowed = FAILURES.get(sent[-1][0], set()) if sent else set()
            right = paid == 0 and "done" not in states and code in allowed
            right = right and (lost > 0 or code != LOST)
        return "" if right else f"{document['state']} {code}, paid {paid}, attempts {sent}"

    async def _judge_breakers(self) -> None:
        """They open on bad channels alone, and are tried and closed once these are well."""
        core, report = self._cluster.core(), self.report
        try:
            events = list(reversed(await core.store.channel_events(since=0, limit=10_000)))
            standing = await core.store.health()
        finally:
            await core.store.close()
        for event in events:
            kind = self._proxies[event.channel_id].kind
            if event.event == "opened":
                report.opened[kind] += 1
                if kind in {"well", "narrow"}:
                    report.faults.append(f"a breaker opened on {kind}: {event.detail}")
            elif event.event == "closed":
                report.closed[kind] += 1
        report.faults += [
            f"never tried again: {self._proxies[health.channel_id].kind} {health.fault}"
            for health in standing
            if health.until + TRIED_MS < self._healed_at + 400 * self._plan.seconds  # the end
        ]

    def _judge_memory(self) -> None:
        """The last fifth holds against the first two, when all were under way already."""
        samples = self.report.resident_mib
        fifth = len(samples) // 5
        growth = max(samples[-1 - fifth :]) - max(samples[: 1 + 2 * fifth])
        if growth > MOST_GROWTH_MIB:
            self.report.faults.append(f"the memory grew by {growth} MiB")


def _now() -> int:
    return time.time_ns() // 1_000_000


def _resident_mib(member: Member) -> int:
    status = Path(f"/proc/{member.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) // 1024 if found else 0


def _channel(number: int, proxy: FaultProxy) -> str:
    return f"""
[[channels]]
id = {number}
slug = "{proxy.kind}"
name = "{proxy.kind.title()}"
provider = "xenodia"
base_url = "http://127.0.0.1:{proxy.port}"
api_key_file = "key"
timeout_seconds = {SEND_SECONDS}
idempotent = {"true" if proxy.kind in IDEMPOTENT else "false"}
models = {{ "{MODEL}" = "{MODEL}" }}
"""


@asynccontextmanager
async def _cluster_of(plan: Plan, folder: Path) -> AsyncIterator[Cluster]:
    root = folder / "cluster"
    root.mkdir()
    async with AsyncExitStack() as stack:
        url = ""
        if plan.mode == "postgresql":
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="calotype-pg-"))
            server = stack.enter_context(running_postgres(Path(place), "max_connections=200"))
            url = await stack.enter_async_context(fresh_database(server))
        running = running_cluster(root, url, worker_lease_seconds=str(LEASE_SECONDS))
        yield await stack.enter_async_context(running)


async def weather(plan: Plan, folder: Path) -> Report:
    """Run a plan in a folder."""
    chance = random.Random(plan.seed)  # noqa: S311 -- to be repeated, not to be secret
    upstream = Upstream(plan.work_seconds, chance)
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(serving(upstream.app()))
        port = int(site.rpartition(":")[2])
        proxies = {
            FIRST + place: await stack.enter_async_context(fault_proxy(port, kind, chance))
            for place, kind in enumerate(KINDS)
        }
        cluster = await stack.enter_async_context(_cluster_of(plan, folder))
        times = f"deadline_seconds = {DEADLINE_SECONDS}\ngrace_seconds = {GRACE_SECONDS}\n"
        (cluster.root / "models" / f"{MODEL}.toml").write_text(times + MODEL_FILE)
        channels = "".join(_channel(number, proxy) for number, proxy in proxies.items())
        (cluster.root / "calotype.toml").write_text(channels)
        (cluster.root / "key").write_text("ck_weather")
        connector = aiohttp.TCPConnector(limit=0)
        cluster.http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        return await Weather(plan, cluster, upstream, proxies).run()


def main() -> None:
    """Run as the command line says, print what came of it, and fail where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=MODES, default="sqlite")
    parser.add_argument("--tasks-in-flight", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--work-seconds", type=float, default=20.0, help="of the upstream")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    chosen = parser.parse_args()
    plan = Plan(
        chosen.mode, chosen.tasks_in_flight, 60 * chosen.minutes, chosen.work_seconds, chosen.seed
    )
    with tempfile.TemporaryDirectory(prefix="calotype-faults-") as folder:
        report = asyncio.run(weather(plan, Path(folder)))
    sys.stdout.write(f"{report}\n")
    sys.exit(bool(report.faults))


if __name__ == "__main__":
    main()
