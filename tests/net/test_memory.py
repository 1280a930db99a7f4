import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FLOOD = Path(__file__).with_name("flood.py")
IMAGE_BYTES = 256 * 12_000
CALLS = 200
ROOM = 300_000_000
"""Bytes; the answers hold 800 MB."""


@pytest.fixture
def port() -> Iterator[str]:
    command = [sys.executable, str(FLOOD), "serve", str(IMAGE_BYTES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.kill()


async def test_memory_is_flat_under_hundreds_of_large_answers(port: str, tmp_path: Path) -> None:
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, FLOOD, "fetch", port, str(CALLS), tmp_path),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await client.communicate()
    measured = json.loads(told)
    assert measured["taken"] == [IMAGE_BYTES] * CALLS
    assert measured["growth"] < ROOM
