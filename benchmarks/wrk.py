"""The load generator: wrk, one thread, as many requests in flight as it has connections.

A generator in Python would be slower than what it measures.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from programs import installed
from servers import HERE, environment


class RefusedError(Exception):
    """An answer that leads nowhere; the measurement means nothing."""


class Load(msgspec.Struct, frozen=True):
    """What a run came to."""

    per_second: float
    p50_ms: float
    p99_ms: float
    finished: int
    bad: int
    """Answers that were errors, and connections that broke."""


async def post(
    port: int, key: str, path: str, body: bytes, *, seconds: float, connections: int = 64
) -> Load:
    """The same request again and again."""
    asked = {"BENCH_PATH": path, "BENCH_BODY": body.decode()}
    return await _drive(port, key, asked, seconds=seconds, connections=connections)


async def get(
    port: int, key: str, paths: Sequence[str], *, seconds: float, connections: int = 64
) -> Load:
    """One path after the other, from the first again after the last."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("\n".join(paths))
        file.flush()
        asked = {"BENCH_PATHS": file.name}
        return await _drive(port, key, asked, seconds=seconds, connections=connections)


async def _drive(
    port: int, key: str, asked: dict[str, str], *, seconds: float, connections: int
) -> Load:
    process = await asyncio.create_subprocess_exec(
        installed("wrk", "wrk"),
        *("-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "60s"),
        *("-s", str(Path(HERE / "wrk.lua")), f"http://127.0.0.1:{port}"),
        env=environment(BENCH_KEY=key, **asked),
        stdout=asyncio.subprocess.PIPE,
    )
    text = (await process.communicate())[0].decode()
    load = msgspec.json.decode(text.rpartition("JSON ")[2] or "null", type=Load)
    if load.bad:
        raise RefusedError(f"{load.bad} requests went wrong:\n{text}")
    return load
