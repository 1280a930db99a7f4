"""A real server whose work is counted from outside and inside, and raw connections to it."""

import asyncio
import base64
import json
import os
import re
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
from aiohttp import web

from harness import GENERATIONS, OUR_CODE, Reply, noise, serving
from programs import installed

MODEL: Final = "gpt-image-2"
SIDE: Final = 147
"""Of a picture of 65 KB."""
_READY: Final = re.compile(rb"listens on http://127\.0\.0\.1:(\d+)")
_CHANNEL: Final = """
[[channels]]
id = 10
slug = "upstream"
name = "Upstream"
provider = "openai"
base_url = "{url}/v1"
api_key_env = "UPSTREAM_KEY"
concurrency = 4096
models = ["{model}"]
"""
_STATEMENTS: Final = r"""
SELECT COALESCE(SUM(calls) FILTER (WHERE query ~ '\y(tasks|attempts|accounts|ledger|events)\y'), 0),
    SUM(wal_records)
FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
AND query NOT LIKE '%pg_stat_statements%' AND toplevel
"""
"""Statements about tasks: how often the queue looks for jobs hangs on the time."""


@dataclass
class Site:
    """A server process, and how its work is read.

    Args:
        root: its folder.
        database_url: PostgreSQL's; empty is SQLite in the data folder.

    """

    root: Path
    database_url: str
    key: str = ""
    port: int = 0
    pid: int = 0
    """Of the server itself, which strace watches."""
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is not set, the upstream lets everyone wait."""
    held: int = 0
    """Calls that the upstream lets wait."""
    _process: asyncio.subprocess.Process | None = None
    _watching: "asyncpg.Connection[Any] | None" = None
    _lines: "list[Line]" = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.root / "data" / "calotype.db"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "CALOTYPE_DATA_DIR": str(self.root / "data"),
            "CALOTYPE_DATABASE_URL": self.database_url,
            "CALOTYPE_CONFIG": str(self.root / "calotype.toml"),
            "CALOTYPE_SANDBOX_SECONDS": "0",
            "UPSTREAM_KEY": "a key",
            **OUR_CODE,
        }

    # The process

    async def fund(self) -> None:
        """Make the key."""
        making = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "calotype", "keys", "create", "--name", "test"),
            *("--credits", "1000000"),
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        out, _ = await making.communicate()
        self.key = out.decode().strip()

    async def serve(self, *arguments: str) -> None:
        """Start the server and wait until it is ready."""
        program = str(Path(__file__).with_name("counted.py"))
        with (self.root / "err").open("ab") as err:
            self._process = await asyncio.create_subprocess_exec(
                *(installed("strace", "strace"), "-f", "--seccomp-bpf", "-qq", "-e", "signal=none"),
                *("-e", "trace=fsync,fdatasync", "-o", str(self.root / "syncs")),
                *(sys.executable, program, "serve", "--port", "0", *arguments),
                env=self.environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=err,
                limit=1 << 26,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        ready = _READY.search(await self._process.stdout.readline())
        assert ready is not None, (self.root / "err").read_text()
        self.port = int(ready[1])
        self.pid = int(_children(self._process.pid)[0])
        if self.database_url:
            self._watching = await asyncpg.connect(self.database_url)

    async def stop(self) -> None:
        """Stop it, if it runs."""
        for line in self._lines:
            line.close()
        self._lines.clear()
        if self._watching is not None:
            await self._watching.close()
            self._watching = None
        if self._process is not None:
            os.kill(self.pid, signal.SIGTERM)
            await self._process.communicate()
            self._process = None

    async def ask(self, what: str) -> Any:
        """What the process tells of itself."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n".encode())
        return json.loads(await self._process.stdout.readline())

    # Its work

    async def counts(self) -> Counter[str]:
        """All that was done so far."""
        told: Counter[str] = Counter(await self.ask("counts"))
        told["syncs"] = (self.root / "syncs").read_bytes().count(b"sync(")
        if self._watching is not None:
            found = await self._watching.fetchrow(_STATEMENTS)
            assert found is not None
            told["statements"], told["wal_records"] = int(found[0]), int(found[1])
            del told["rows"], told["steps"]
            told["commits"] = await self._watching.fetchval(
                "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
            )
        return told

    async def unfinished(self) -> int:
        """How many tasks are not final, without asking the server."""
        question = "SELECT COUNT(*) FROM tasks WHERE completed_at IS NULL"
        if self._watching is not None:
            return int(await self._watching.fetchval(f"{question} /* pg_stat_statements */"))
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as database:
            return int(database.execute(question).fetchone()[0])

    # Requests

    async def connect(self, number: int) -> "Sequence[Line]":
        """So many connections, made once."""
        while len(self._lines) < number:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            self._lines.append(Line(reader, writer))
        return self._lines[:number]

    def submission(self, prompt: str) -> bytes:
        """A request for an image."""
        return self._request("POST", GENERATIONS, {"model": MODEL, "prompt": prompt})

    def retrieval(self, task_id: str) -> bytes:
        """A request for a task."""
        return self._request("GET", f"/v1/tasks/{task_id}")

    def _request(self, method: str, path: str, content: Any = None) -> bytes:
        body = b"" if content is None else json.dumps(content).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def one(self, request: bytes) -> Any:
        """The answer's document, asked for while nobody else asks."""
        (line,) = await self.connect(1)
        line.send(request)
        return await line.answer()

    async def at_once(self, requests: Sequence[bytes]) -> list[Any]:
        """The answers' documents, where all the requests are there before the server looks."""
        lines = await self.connect(len(requests))
        os.kill(self.pid, signal.SIGSTOP)
        while _status(self.pid) not in "tT":
            await asyncio.sleep(0)
        for line, request in zip(lines, requests, strict=True):
            line.send(request)
        os.kill(self.pid, signal.SIGCONT)
        return [await line.answer() for line in lines]


@dataclass
class Line:
    """A connection that is kept alive."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, request: bytes) -> None:
        self.writer.write(request)

    async def answer(self) -> Any:
        """The document of the next answer."""
        reply = await Reply.read(self.reader)
        assert reply.status in {200, 202}, reply.body
        return reply.json

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def opened(root: Path, *, database_url: str = "") -> AsyncIterator[Site]:
    """A site with a key, and an upstream that answers with a picture of 65 KB."""
    site = Site(root, database_url)
    site.answering.set()
    picture = base64.b64encode(noise(SIDE)).decode()
    answer = json.dumps({"created": 1, "data": [{"b64_json": picture}]}).encode()

    async def create(request: web.Request) -> web.Response:
        await request.read()
        site.held += 1
        await site.answering.wait()
        site.held -= 1
        return web.Response(body=answer, content_type="application/json")

    upstream = web.Application()
    upstream.router.add_post("/v1/images/generations", create)
    async with serving(upstream) as url:
        _settle(root, _CHANNEL.format(url=url, model=MODEL))
        await site.fund()
        try:
            yield site
        finally:
            await site.stop()


def _settle(root: Path, config: str) -> None:
    root.mkdir(exist_ok=True)
    (root / "calotype.toml").write_text(config)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _status(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
