"""Sends a real server requests that are wrong on purpose, byte for byte, and judges its answers.

Each case has a connection of its own, and a sound request behind it that asks to close it. Every
answer must be sound HTTP and none of 5xx; an error has the contract's shape; no connection hangs.
At the end the memory is bounded, everything accepted is there, all of it can be cancelled to the
last cent, the books are proved, and no file is there that no row names.
"""

import asyncio
import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from multidict import CIMultiDict

from fuzzing.mutating import Case, Mutator
from fuzzing.samples import samples
from harness import CREDIT, Reply, Server, running_server

AT_ONCE: Final = 32
QUIET_SECONDS: Final = 0.25
"""So long without a byte, and the client hangs up: the case waits for what never comes."""
HANG_SECONDS: Final = 180.0
"""So long after that, and the connection hangs."""
MOST_GROWTH_MIB: Final = 256
LAST: Final = (
    b"GET /healthz HTTP/1.1\r\nHost: test\r\nX-Request-Id: the-last\r\nConnection: close\r\n\r\n"
)
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [A-Za-z' -]*")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t\x20-\x7e\x80-\xff]*)")
_BODILESS: Final = frozenset({204, 304})


class Wrong(AssertionError):
    """The server did what it must not do."""


@dataclass
class Verdict:
    """What became of the cases."""

    cases: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    cut: int = 0
    """Conversations in which the server was waiting for more when the client hung up."""
    accepted: set[str] = field(default_factory=set)
    """Tasks."""
    growth_mib: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rate = self.cases / max(self.processor_seconds, 0.001)
        pace = f"{rate:.0f} cases/s; a million would take {1e6 / rate / 60:.0f} min"
        spent = f"{self.seconds:.0f} s, {self.processor_seconds:.0f} s of processor"
        answers = ", ".join(
            f"{number} x {status}" for status, number in sorted(self.answers.items())
        )
        return "\n".join(
            [
                f"cases      {self.cases} in {spent}: {pace}",
                f"answers    {answers}",
                f"hung up    {self.cut}",
                f"accepted   {len(self.accepted)} tasks",
                f"growth     {self.growth_mib} MiB",
                *(f"WRONG      {fault}" for fault in self.faults[:20]),
                f"faults     {len(self.faults)}",
            ]
        )


def answers_in(data: bytes, *, cut: bool) -> Iterator[Reply]:
    """Every answer in what a connection brought; when it was ``cut``, the last may be unfinished.

    Raises:
        Wrong: this is no HTTP.

    """
    while data:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found and cut:
            return
        status, headers = _head(head)
        if status < 200:
            data = rest
            continue
        body, data = _body(status, headers, rest, cut=cut)
        if body is None:
            return
        yield Reply(status, headers, body)


def _head(head: bytes) -> tuple[int, CIMultiDict[str]]:
    first, *lines = head.split(b"\r\n")
    told, fields = _STATUS.fullmatch(first), [_FIELD.fullmatch(line) for line in lines]
    if told is None or None in fields:
        raise Wrong(f"no HTTP: {head[:400]!r}")
    pairs = [(each[1].decode(), each[2].decode("latin-1")) for each in fields if each]
    return int(told[1]), CIMultiDict(pairs)


def _body(
    status: int, headers: CIMultiDict[str], rest: bytes, *, cut: bool
) -> tuple[bytes | None, bytes]:
    """The body, None for one that was cut off, and what follows it."""
    if status in _BODILESS:
        return b"", rest
    if headers.get("Transfer-Encoding") == "chunked":
        return _dechunked(rest, cut=cut)
    length = int(headers["Content-Length"])
    if len(rest) < length:
        if not cut:
            raise Wrong(f"{status} with {len(rest)} bytes of {length}")
        return None, b""
    return rest[:length], rest[length:]


def _dechunked(rest: bytes, *, cut: bool) -> tuple[bytes | None, bytes]:
    body = b""
    while True:
        size, found, rest = rest.partition(b"\r\n")
        length = int(size, 16) if found else 0
        if not found or len(rest) < length + 2:
            if not cut:
                raise Wrong("chunks without an end")
            return None, b""
        chunk, end, rest = rest[:length], rest[length : length + 2], rest[length + 2 :]
        if end != b"\r\n":
            raise Wrong(f"a chunk that ends in {end!r}")
        if not length:
            return body, rest
        body += chunk


class Fuzzer:
    """Sends cases to a server and judges what comes back."""

    def __init__(self, server: Server, mutator: Mutator) -> None:
        self._server = server
        self._mutator = mutator
        host, _, port = server.url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        self.verdict = Verdict()

    async def run(self, *, cases: int, seconds: float = 10**9) -> None:
        """Send so many cases, and begin none after so many seconds."""
        began, processor = time.monotonic(), time.process_time()
        left = iter(range(cases))

        async def client() -> None:
            for _ in left:
                if time.monotonic() - began > seconds:
                    return
                await self._judge(self._mutator.case())

        before = _resident_mib()
        await asyncio.gather(*(client() for _ in range(AT_ONCE)))
        self.verdict.growth_mib = _resident_mib() - before
        self.verdict.seconds = time.monotonic() - began
        self.verdict.processor_seconds = time.process_time() - processor

    async def _judge(self, case: Case) -> None:
        verdict = self.verdict
        verdict.cases += 1
        try:
            data, cut = await self._converse(case)
            verdict.cut += cut
            replies = list(answers_in(data, cut=cut))
            assert cut or replies, "closed without an answer"
            for reply in replies:
                verdict.answers[reply.status] += 1
                self._look(reply)
        except (AssertionError, ValueError, LookupError) as error:
            sent = b"".join(case.pieces)
            verdict.faults.append(f"{case.recipe}: {error!r}: {sent[:2000]!r}")

    async def _converse(self, case: Case) -> tuple[bytes, bool]:
        """Everything that came back, and whether the client had to hang up first."""
        reader, writer = await asyncio.open_connection(*self._address)
        received, cut = bytearray(), False
        try:
            with suppress(ConnectionError):  # refused and closed in the middle
                for piece in (*case.pieces, LAST):
                    writer.write(piece)
                    await writer.drain()
            while True:
                try:
                    async with asyncio.timeout(HANG_SECONDS if cut else QUIET_SECONDS):
                        chunk = await reader.read(1 << 16)
                except TimeoutError:
                    if cut:
                        raise Wrong("the connection hangs") from None
                    cut = True
                    with suppress(OSError):
                        writer.write_eof()
                    continue
                except ConnectionError:
                    cut = True
                    break
                if not chunk:
                    break
                received += chunk
        finally:
            writer.close()
        return bytes(received), cut

    def _look(self, reply: Reply) -> None:
        """Judge one answer."""
        if reply.status >= 500:
            raise Wrong(f"{reply.status}: {reply.body[:400]!r}")
        if reply.status >= 400:
            _look_at_error(reply)
        elif reply.body and reply.headers["Content-Type"].startswith("application/json"):
            document = json.loads(reply.body)
            if reply.status == 202 and "task_id" in document:
                self.verdict.accepted.add(document["task_id"])
            for each in document.get("data", ()) if reply.status == 202 else ():
                if "task_id" in each:
                    self.verdict.accepted.add(each["task_id"])

    # The end

    async def prove(self) -> None:
        """Hold what is left against what was told."""
        faults, server = self.verdict.faults, self._server
        if self.verdict.growth_mib > MOST_GROWTH_MIB:
            faults.append(f"the memory grew by {self.verdict.growth_mib} MiB")
        found = [task async for task in _tasks(server)]
        if lost := self.verdict.accepted - {task["task_id"] for task in found}:
            faults.append(f"accepted and lost: {sorted(lost)[:5]}")
        named = self._named()
        stored = {path.name for path in server.stored_files()}
        if named != stored:
            faults.append(f"files of no row {stored - named}, rows of no file {named - stored}")
        for task in found:
            reply = await server.call("POST", f"/v1/tasks/{task['task_id']}/cancel")
            if reply.status != 200 or reply.json["billing"]["status"] != "released":
                faults.append(f"half done: {reply.body!r}")
        balance = await server.balance()
        if set(balance.values()) != {CREDIT, 0} or balance["reserved_micro_usdc"]:
            faults.append(f"with everything cancelled there is {balance}")
        faults += await server.core.store.prove()

    def _named(self) -> set[str]:
        """The names of all files that the database knows."""
        with closing(sqlite3.connect(self._server.data / "calotype.db")) as database:
            keys = database.execute("SELECT key FROM assets").fetchall()
        return {Path(key).name for (key,) in keys}


def _look_at_error(reply: Reply) -> None:
    """An error in the contract's shape, or in that of the surface that was asked."""
    document = json.loads(reply.body)
    if document.get("jsonrpc") == "2.0":
        if not {"code", "message"} <= set(document["error"]):
            raise Wrong(f"{reply.status}: {reply.body!r}")
    elif isinstance(document["error"], dict):
        if set(document["error"]) != {"message", "type", "param", "code"}:
            raise Wrong(f"{reply.status}: {reply.body!r}")
    else:
        reply.assert_refused(reply.status, document["code"], document.get("param"))


async def _tasks(server: Server) -> Any:
    cursor = ""
    while cursor is not None:
        page = (await server.call("GET", f"/v1/tasks?limit=100{cursor}")).json
        for task in page["data"]:
            yield task
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"


def _resident_mib() -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) // 1024 if found else 0


async def fuzz(folder: Path, *, seed: int, cases: int = 10**9, seconds: float = 10**9) -> Verdict:
    """Send cases to a server of its own in a folder: so many, or for so many seconds."""
    async with running_server(folder, with_worker=False) as server:
        fuzzer = Fuzzer(server, Mutator(await samples(server), seed=seed))
        await fuzzer.run(cases=cases, seconds=seconds)
        await fuzzer.prove()
        return fuzzer.verdict
