"""Memory stays flat while large images go out as base64 to many clients at once."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from acceptance.cluster import Cluster, Member, running_cluster
from acceptance.test_memory import CHANNEL, FLOODED, flooding, memory

CROWD: Final = 20
ROOM: Final = 150_000_000
"""Bytes of growth that are allowed."""


async def taken(cluster: Cluster, api: Member, number: int) -> int:
    """The bytes of one answer, read in pieces."""
    body = {"model": "gpt-image-2", "prompt": "x", "channel_id": CHANNEL}
    headers = {
        "Authorization": f"Bearer {cluster.key}",
        "Idempotency-Key": f"number-{number}",
    }
    url, size = f"{api.url}/openai/v1/images/generations", 0
    async with cluster.http.post(url, json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        async for piece in response.content.iter_any():
            size += len(piece)
    return size


async def grown(side: int, folder: Path) -> tuple[int, int, int, float]:
    """Growth while images come in, growth while they go out again, bytes of all, seconds out."""
    with flooding(side, CROWD) as port:
        async with running_cluster(folder) as cluster:
            with (folder / "calotype.toml").open("a") as file:
                file.write(FLOODED.format(port=port))
            api = await cluster.api()
            before = memory(api.process.pid, "VmRSS")
            await asyncio.gather(*(taken(cluster, api, number) for number in range(CROWD)))
            within = memory(api.process.pid, "VmHWM") - before
            began = time.perf_counter()
            sizes = await asyncio.gather(*(taken(cluster, api, number) for number in range(CROWD)))
            seconds = time.perf_counter() - began
            return within, memory(api.process.pid, "VmHWM") - before, sum(sizes), seconds


async def test_large_images_inline_to_many_clients_leave_memory_flat(tmp_path: Path) -> None:
    _, growth, size, _ = await grown(1100, tmp_path)  # 3.6 MB each
    assert size > CROWD * 3_600_000 * 4 // 3
    assert growth < ROOM


def main() -> None:
    """Measure with images of any size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2600, help="pixels; 2600 makes 20 MB")
    side = parser.parse_args().side
    with tempfile.TemporaryDirectory(prefix="calotype-memory-") as folder:
        within, growth, size, seconds = asyncio.run(grown(side, Path(folder)))
    sys.stdout.write(
        f"{CROWD} answers, {size / 1e6:.0f} MB in all: {within / 1e6:.0f} MB of growth with the "
        f"images coming in, {growth / 1e6:.0f} MB at most; out again in {seconds:.1f} s\n"
    )


if __name__ == "__main__":
    main()
