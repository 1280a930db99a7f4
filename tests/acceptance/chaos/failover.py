"""Three upstreams, one flapping, one slow, one refusing: is every task done, and bought once?

``make chaos`` runs it long, ``test_failover.py`` short. The upstreams speak the protocol of
another Calotype on loopback; the server is whole, with its queue, breakers and ledger.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from calotype.domain.channel import Channel, Served
from calotype.domain.secret import Secret
from harness import Server, picture, running_server, serving

MODEL: Final = "gpt-image-2"
PICTURE: Final = picture()
CLIENTS: Final = 24
SPELL: Final = 40
"""Sends of one kind of weather at the flapping upstream."""
SLOW_SECONDS: Final = 2.0
CREDIT: Final = 10**9


class Weather:
    """An upstream that takes jobs, or does not, as its weather is."""

    def __init__(self, kind: str, chance: random.Random) -> None:
        self.kind = kind
        self.sends = 0
        self.bought: Counter[str] = Counter()
        self._chance = chance
        self._ready_at: dict[str, float] = {}

    def forecast(self) -> int:
        """The status of the next answer to a send; 0 hangs up without one."""
        self.sends += 1
        if self.kind == "refusing":
            return 401
        if self.kind == "flapping" and (self.sends // SPELL) % 2:
            return self._chance.choice([429, 429, 429, 0])
        return 202

    async def create(self, request: web.Request) -> web.StreamResponse:
        """A send."""
        prompt = str((await request.json())["prompt"])
        status = self.forecast()
        if status == 0:
            self.bought[prompt] += 1  # whoever hangs up may have taken it
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if status != 202:
            return web.json_response({"code": "rate_limited", "message": "No."}, status=status)
        self.bought[prompt] += 1
        name = f"task_{self.kind}{self.sends}"
        delay = SLOW_SECONDS if self.kind == "slow" else 0.05
        self._ready_at[name] = asyncio.get_running_loop().time() + delay
        return web.json_response(
            {"task_id": name, "state": "waiting", "recommended_poll_interval_ms": 100}, status=202
        )

    async def read(self, request: web.Request) -> web.StreamResponse:
        """A question about a job."""
        name = request.match_info["name"]
        if asyncio.get_running_loop().time() < self._ready_at[name]:
            return web.json_response({"task_id": name, "state": "generating", "progress": 10})
        result = {"created": 1, "data": [{"url": f"{request.url.origin()}/picture.png"}]}
        return web.json_response({"task_id": name, "state": "success", "result": result})

    async def picture(self, _request: web.Request) -> web.StreamResponse:
        """A result."""
        return web.Response(body=PICTURE, content_type="image/png")

    def running(self) -> AbstractAsyncContextManager[str]:
        """Serve on loopback; yields the URL."""
        app = web.Application()
        app.router.add_post("/v1/images/generations", self.create)
        app.router.add_get("/v1/tasks/{name}", self.read)
        app.router.add_get("/picture.png", self.picture)
        return serving(app)


@dataclass
class Report:
    """What came of it."""

    tasks: int
    ends: Counter[str] = field(default_factory=Counter)
    sends: dict[str, int] = field(default_factory=dict)
    bought: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    timeline: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        twice = sum(count > 1 for count in self.bought.values())
        lines = [
            f"tasks            {self.tasks}",
            f"success rate     {self.ends['success'] / self.tasks:.1%} ({dict(self.ends)})",
            f"sends            {self.sends}",
            f"bought           {self.bought.total()} for {len(self.bought)} tasks, {twice} twice",
            f"unknown attempts {self.unknown}",
            "breakers",
            *(f"  {line}" for line in self.timeline),
            f"faults           {self.faults or 'none'}",
        ]
        return "\n".join(lines)


async def weathered(tasks: int, *, seed: int, folder: Path) -> Report:
    """Send so many tasks through the weather."""
    chance = random.Random(seed)  # noqa: S311 -- repeatable on purpose
    skies = [Weather(kind, chance) for kind in ("flapping", "slow", "refusing")]
    report = Report(tasks)
    async with AsyncExitStack() as stack:
        channels = [
            Channel(
                id=10 + place,
                slug=sky.kind,
                name=sky.kind.title(),
                provider="xenodia",
                base_url=await stack.enter_async_context(sky.running()),
                api_key=Secret("ck_weather"),
                models={MODEL: Served()},
            )
            for place, sky in enumerate(skies)
        ]
        server = await stack.enter_async_context(
            running_server(folder, credit=CREDIT, channels=tuple(channels))
        )
        numbers = iter(range(tasks))
        await asyncio.gather(*(_client(server, numbers, report) for _ in range(CLIENTS)))
        await _judge(server, report)
    for sky in skies:
        report.sends[sky.kind] = sky.sends
        report.bought += sky.bought
    report.faults += [
        f"{prompt!r} was bought {count} times"
        for prompt, count in report.bought.items()
        if count > 1
    ]
    return report


async def _client(server: Server, numbers: Any, report: Report) -> None:
    for number in numbers:
        accepted = await server.accepted(model=MODEL, prompt=f"storm {number}")
        task = await server.finished(accepted["task_id"])
        report.ends[task["error"].get("code") or task["state"]] += 1


async def _judge(server: Server, report: Report) -> None:
    store = server.core.store
    unknown = await store.operating.unknown(limit=report.tasks)
    report.unknown = len(unknown)
    report.faults += await store.prove()
    lost = report.ends["upstream_outcome_unknown"]
    if lost != report.unknown:
        report.faults.append(f"{lost} tasks of unknown outcome, {report.unknown} such attempts")
    if report.ends["success"] + lost != report.tasks:
        report.faults.append(f"tasks failed that need not have: {dict(report.ends)}")
    events = list(reversed(await store.channel_events(since=0, limit=1000)))
    names = {channel.id: channel.slug for channel in server.core.router.channels}
    report.timeline = [
        f"{(event.at - events[0].at) / 1000:7.2f} s  {names[event.channel_id]:9} "
        f"{event.model or 'all models':12} {event.event:9} {event.fault}: {event.detail}"
        for event in events
    ]


def main() -> None:
    """Run as the command line says, print what happened, and fail where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="calotype-chaos-") as folder:
        report = asyncio.run(weathered(chosen.tasks, seed=chosen.seed, folder=Path(folder)))
    sys.stdout.write(f"seed             {chosen.seed}\n{report}\n")
    sys.exit(bool(report.faults))


if __name__ == "__main__":
    main()
