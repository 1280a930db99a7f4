"""Servers under measurement, each started as a person starts it, on a database of its own."""

import asyncio
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from postgres import PostgresServer, fresh_database

CALOTYPE: Final = [sys.executable, "-m", "calotype"]
HERE: Final = Path(__file__).parent
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
_CHANNEL: Final = """
[[channels]]
id = 20
slug = "mock"
name = "Mock"
provider = "openai"
base_url = "http://127.0.0.1:{port}/v1"
api_key_env = "MOCK_KEY"
models = ["gpt-image-2"]
"""


def environment(**more: str) -> dict[str, str]:
    """What a process is started with."""
    return {**os.environ, **more}  # noqa: TID251 -- handed on as it is


class Process:
    """A server, and whatever it starts (Linux)."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, seconds: float) -> None:
        self.pid = process.pid
        self.port = port
        self.ready_seconds = seconds

    def memory_mib(self) -> float:
        """Resident memory now."""
        return self._status("VmRSS")

    def peak_mib(self) -> float:
        """The most since ``reset_peak``, or since it began."""
        return self._status("VmHWM")

    def reset_peak(self) -> None:
        """Count the peak from here on."""
        for pid in self._family():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def cpu_seconds(self) -> float:
        """Time on a processor since it began."""
        ticks = 0
        for pid in self._family():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _status(self, field: str) -> float:
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in self._family()]
        return sum(int(text.split(f"{field}:")[1].split()[0]) for text in texts) / 1024

    def _family(self) -> Iterator[int]:
        waiting = [self.pid]
        while waiting:
            pid = waiting.pop()
            yield pid
            for thread in Path(f"/proc/{pid}/task").iterdir():
                waiting += [int(child) for child in (thread / "children").read_text().split()]


class Server(NamedTuple):
    """Calotype, a key with plenty of credit, and what it was started with."""

    process: Process
    key: str
    folder: Path
    database_url: str
    settings: dict[str, str]


class Engine:
    """One of the two databases; every server gets a fresh one."""

    def __init__(self, name: str, folder: Path, postgres: PostgresServer | None = None) -> None:
        self.name = name
        self._folder = folder
        self._postgres = postgres

    @asynccontextmanager
    async def database(self) -> AsyncIterator[tuple[Path, str]]:
        """A data folder and the URL of a database, which is empty for SQLite."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            if self._postgres is None:
                yield Path(folder), ""
                return
            async with fresh_database(self._postgres) as url:
                yield Path(folder), url

    @asynccontextmanager
    async def server(self, *options: str, mock: Process | None = None) -> AsyncIterator[Server]:
        """A server on a fresh database, with the mock as its one upstream where there is one."""
        async with self.database() as (folder, url):
            more = mock_channel(folder, mock.port) if mock else {}
            settings = configured(folder, url, **more)
            key = await new_key(settings)
            async with serving(settings, *options) as process:
                yield Server(process, key, folder, url, settings)


def mock_channel(folder: Path, port: int) -> dict[str, str]:
    """Settings that make the mock an upstream of ``gpt-image-2``."""
    (folder / "calotype.toml").write_text(_CHANNEL.format(port=port))
    return {"CALOTYPE_CONFIG": str(folder / "calotype.toml"), "MOCK_KEY": "sk-mock"}


@asynccontextmanager
async def started(*command: str, environment: dict[str, str]) -> AsyncIterator[Process]:
    """Start a server that prints where it listens; stop it at the end."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    if process.stdout is None:
        raise SystemExit("no output")
    try:
        line = (await process.stdout.readline()).decode()
        if "listens on " not in line:
            raise SystemExit(f"{' '.join(command)} did not start")
        port = int(line.split("listens on ")[1].split()[0].rsplit(":", 1)[1])
        yield Process(process, port, time.perf_counter() - began)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


@asynccontextmanager
async def script(name: str) -> AsyncIterator[Process]:
    """One of the servers of this folder."""
    async with started(sys.executable, str(HERE / name), environment=environment()) as process:
        yield process


@asynccontextmanager
async def calotype(
    folder: Path, *options: str, database_url: str = "", **more: str
) -> AsyncIterator[tuple[Process, str]]:
    """A server over a data folder, and a key with plenty of credit."""
    settings = configured(folder, database_url, **more)
    key = await new_key(settings)
    async with serving(settings, *options) as process:
        yield process, key


def configured(folder: Path, database_url: str, **more: str) -> dict[str, str]:
    """What a server that is to be measured is started with."""
    return environment(
        CALOTYPE_DATA_DIR=str(folder),
        CALOTYPE_PORT="0",
        CALOTYPE_SANDBOX_SECONDS="0",
        CALOTYPE_DRAIN_SECONDS="1",
        CALOTYPE_DATABASE_URL=database_url,
        **more,
    )


async def new_key(settings: dict[str, str]) -> str:
    """A key with plenty of credit."""
    return (
        await run(settings, "keys", "create", "--name", "bench", "--credits", "1000000")
    ).strip()


def serving(settings: dict[str, str], *options: str) -> AbstractAsyncContextManager[Process]:
    """The server itself."""
    return started(*CALOTYPE, "serve", *options, environment=settings)


@asynccontextmanager
async def worker(settings: dict[str, str]) -> AsyncIterator[None]:
    """A worker beside a server on the same database."""
    process = await asyncio.create_subprocess_exec(
        *(*CALOTYPE, "worker"), env=settings, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def run(settings: dict[str, str], *arguments: str) -> str:
    """Run a command of Calotype and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(*CALOTYPE, *arguments),
        env=settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    return (await process.communicate())[0].decode()


@asynccontextmanager
async def client(server: Process, key: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A session with the key."""
    headers = {"Authorization": f"Bearer {key}"}
    url = f"http://127.0.0.1:{server.port}"
    connector = aiohttp.TCPConnector(keepalive_timeout=1)  # hangs up before the server does
    async with aiohttp.ClientSession(url, headers=headers, connector=connector) as http:
        yield http


async def submit(http: aiohttp.ClientSession, **fields: Any) -> dict[str, Any]:
    """Submit one request."""
    body = {**msgspec.json.decode(BODY), **fields}
    async with http.post("/v1/images/generations", json=body) as response:
        accepted: dict[str, Any] = await response.json()
        if response.status != 202:
            raise SystemExit(f"refused: {accepted}")
        return accepted


async def finished(http: aiohttp.ClientSession, task_id: str) -> None:
    """Wait for the end of a task."""
    while True:
        async with http.get(f"/v1/tasks/{task_id}?wait=60&since=99") as response:
            if (await response.json())["state"] in {"success", "fail"}:
                return


def allow_files() -> None:
    """Let this process and those it starts have as many connections as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
