"""``make bench``: what the hot paths cost, beside the bare server in the same run.

Every figure is of this machine and this run; the ratio to the floor is what can be compared.
Server, load generator and, in part, the floor share the machine's cores.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiohttp
import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from load import Result, drive, request

CALOTYPE: Final = [sys.executable, "-m", "calotype"]
BODY: Final = msgspec.json.encode(
    {
        "model": "nano-banana-pro",
        "prompt": "A lighthouse at dusk, oil on canvas",
        "async": True,
        "aspect_ratio": "16:9",
        "resolution": "1K",
        "response_format": "url",
    }
)
IN_FLIGHT: Final = 1000

console = Console(width=110)


class Process:
    """A server under measurement."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, seconds: float) -> None:
        self._process = process
        self.pid = process.pid
        self.port = port
        self.ready_seconds = seconds

    def memory_mib(self, field: str = "VmRSS") -> float:
        """Resident memory of the process now, or at its peak with ``VmHWM`` (Linux)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) / 1024

    def cpu_seconds(self) -> float:
        """Time on a processor since it began (Linux)."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def started(
    *command: str, environment: dict[str, str] | None = None
) -> AsyncIterator[Process]:
    """Start a server that prints where it listens; stop it at the end."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **(environment or {})},  # noqa: TID251 -- handed on as it is
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    if process.stdout is None:
        raise SystemExit("no output")
    line = (await process.stdout.readline()).decode()
    port = int(line.split("listens on ")[1].split()[0].rsplit(":", 1)[1])
    try:
        yield Process(process, port, time.perf_counter() - began)
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


@asynccontextmanager
async def calotype(
    folder: Path, *options: str, sandbox_seconds: float = 0, database_url: str = ""
) -> AsyncIterator[tuple[Process, str]]:
    """A server with a fresh data folder, and a key with plenty of credit."""
    environment = {
        "CALOTYPE_DATA_DIR": str(folder),
        "CALOTYPE_PORT": "0",
        "CALOTYPE_SANDBOX_SECONDS": str(sandbox_seconds),
        "CALOTYPE_DATABASE_URL": database_url,
    }
    keys = await asyncio.create_subprocess_exec(
        *CALOTYPE,
        *("keys", "create", "--name", "bench", "--credits", "1000000"),
        env={**os.environ, **environment},  # noqa: TID251 -- handed on as it is
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    key = (await keys.communicate())[0].decode().strip()
    async with started(*CALOTYPE, "serve", *options, environment=environment) as process:
        yield process, key


async def submissions_and_reads(folder: Path, rows: "Rows", *, seconds: float) -> None:
    """Durable submissions and task reads, with no worker in the way; the bare server beside."""
    script = str(Path(__file__).parent / "floor_app.py")
    async with started(sys.executable, script) as floor:
        post = request("POST", "/v1/images/generations", key="x" * 46, body=BODY)
        bare_post = await drive(floor.port, lambda: post, seconds=seconds)
        get = request("GET", "/v1/tasks/task_0000000000000", key="x" * 46)
        bare_get = await drive(floor.port, lambda: get, seconds=seconds)
    async with calotype(folder, "--no-worker") as (server, key):
        rows.add("start to ready", f"{server.ready_seconds:.2f} s", goal="≤ 1 s")
        rows.add("idle memory", f"{server.memory_mib():.0f} MiB", goal="≤ 90 MiB")
        post = request("POST", "/v1/images/generations", key=key, body=BODY)
        submits = await drive(server.port, lambda: post, seconds=seconds, expect=202)
        async with client(server, key) as http:
            ids = [(await submit(http))["task_id"] for _ in range(500)]
        reads = [request("GET", f"/v1/tasks/{task_id}", key=key) for task_id in ids]
        retrieved = await drive(server.port, lambda: random.choice(reads), seconds=seconds)  # noqa: S311 -- load
    rows.compare("submit (durable)", submits, bare_post, goal="≥ 6,000/s")
    rows.compare("retrieve", retrieved, bare_get, goal="≥ 20,000/s")


async def whole_tasks(folder: Path, rows: "Rows", *, tasks: int) -> None:
    """From 202 to success with no simulated work: one at a time, so the picture is the cost."""
    async with calotype(folder) as (server, key), client(server, key) as http:
        await finished(http, (await submit(http))["task_id"])  # starts the drawing process
        times, draws = list[float](), list[float]()
        for number in range(tasks):
            accepted = await submit(http, prompt=f"A lighthouse, number {number}")
            began = time.perf_counter()
            await finished(http, accepted["task_id"])
            times.append((time.perf_counter() - began) * 1000)
            began = time.perf_counter()
            refused = await submit(http, prompt=f"sandbox:refuse {number}")
            await finished(http, refused["task_id"])
            draws.append((time.perf_counter() - began) * 1000)
    rows.add("202 → success, 1K picture drawn", f"p50 {median(times):.0f} ms", goal="")
    rows.add("submit → final, nothing drawn", f"p50 {median(draws):.1f} ms", goal="")


async def in_flight(folder: Path, rows: "Rows") -> None:
    """Memory with many tasks generating at once."""
    async with calotype(folder, sandbox_seconds=600) as (server, key), client(server, key) as http:
        idle = server.memory_mib()
        first = (await submit(http))["task_id"]
        for _ in range(IN_FLIGHT // 50):
            await asyncio.gather(*(submit(http) for _ in range(50)))
        last = (await submit(http))["task_id"]
        for task_id in (first, last):
            while (await read(http, task_id))["state"] != "generating":
                await asyncio.sleep(0.1)
        peak = server.memory_mib("VmHWM")
    each = (peak - idle) * 1024 / IN_FLIGHT
    rows.add(
        f"peak memory, {IN_FLIGHT:,} tasks in flight",
        f"{peak:.0f} MiB",
        goal="",
        note=f"{each:.0f} KiB a task over idle",
    )


@asynccontextmanager
async def client(server: Process, key: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A session with the key."""
    headers = {"Authorization": f"Bearer {key}"}
    url = f"http://127.0.0.1:{server.port}"
    async with aiohttp.ClientSession(url, headers=headers) as http:
        yield http


async def submit(http: aiohttp.ClientSession, **fields: Any) -> dict[str, Any]:
    """Submit one request."""
    body = {**msgspec.json.decode(BODY), **fields}
    async with http.post("/v1/images/generations", json=body) as response:
        accepted: dict[str, Any] = await response.json()
        if response.status != 202:
            raise SystemExit(f"refused: {accepted}")
        return accepted


async def read(http: aiohttp.ClientSession, task_id: str) -> dict[str, Any]:
    """Read one task."""
    async with http.get(f"/v1/tasks/{task_id}") as response:
        task: dict[str, Any] = await response.json()
        return task


async def finished(http: aiohttp.ClientSession, task_id: str) -> None:
    """Wait for the end of a task by tight polling."""
    while (await read(http, task_id))["state"] not in {"success", "fail"}:
        await asyncio.sleep(0.001)


class Rows:
    """The table that is printed at the end."""

    def __init__(self) -> None:
        self._table = Table("path", "result", "p50 / p99", "bare server", "ratio", "goal", "note")

    def add(self, path: str, result: str, *, goal: str, note: str = "") -> None:
        """A single figure."""
        self._table.add_row(path, result, "", "", "", goal, note)
        console.print(f"  {path}: {result} {note}")

    def compare(self, path: str, ours: Result, floor: Result, *, goal: str) -> None:
        """A throughput beside the floor's."""
        self._table.add_row(
            path,
            f"{ours.per_second:,.0f}/s",
            f"{ours.p50_ms:.1f} / {ours.p99_ms:.1f} ms",
            f"{floor.per_second:,.0f}/s",
            f"{ours.per_second / floor.per_second:.2f}",
            goal,
            f"{ours.bad} wrong answers" if ours.bad else "",
        )
        console.print(f"  {path}: {ours.per_second:,.0f}/s")

    def beside(
        self,
        path: str,
        result: str,
        *,
        latency: str,
        floor: str,
        ratio: str,
        goal: str,
        note: str,
    ) -> None:
        """A figure beside a floor's, every column as it is to stand there."""
        self._table.add_row(path, result, latency, floor, ratio, goal, note)
        console.print(f"  {path}: {result}, floor {floor}, ratio {ratio} ({note})")

    def show(self) -> None:
        """Print the table."""
        console.print(self._table)


async def embedded(folder: Path, rows: Rows, options: argparse.Namespace) -> None:
    """Every figure on SQLite."""
    import cleaning
    import images
    import pages
    import waiters

    if options.assets:
        await images.measure(folder / "i", rows)
        return
    if options.console:
        await pages.embedded(folder / "g", rows)
        return
    if not options.waiters:
        await submissions_and_reads(folder / "a", rows, seconds=options.seconds)
        await whole_tasks(folder / "b", rows, tasks=options.tasks)
        await in_flight(folder / "c", rows)
        cleaning.measure(rows)
    await waiters.embedded(folder / "e", rows)


async def over_postgres(folder: Path, rows: Rows, options: argparse.Namespace) -> None:
    """Every figure on PostgreSQL."""
    import pages
    import shared
    import waiters

    if options.console:
        await pages.shared(folder / "h", rows)
        return
    if not options.waiters:
        await shared.measure(folder / "d", rows, seconds=options.seconds)
    await waiters.shared(folder / "f", rows)


async def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each throughput run")
    parser.add_argument("--tasks", type=int, default=30, help="whole tasks to time")
    parser.add_argument("--only", choices=["embedded", "shared"], help="one database only")
    parser.add_argument("--waiters", action="store_true", help="nothing but those who wait")
    parser.add_argument("--console", action="store_true", help="nothing but the console's pages")
    parser.add_argument("--assets", action="store_true", help="nothing but images in and out")
    options = parser.parse_args()
    rows = Rows()
    with tempfile.TemporaryDirectory(prefix="calotype-bench-", dir=".") as folder:
        if options.only != "shared":
            await embedded(Path(folder), rows, options)
        if options.only != "embedded" and not options.assets:
            await over_postgres(Path(folder), rows, options)
    console.print(f"\n{os.cpu_count()} cores shared by server and load; 64 connections.")
    rows.show()


if __name__ == "__main__":
    uvloop.run(main())
