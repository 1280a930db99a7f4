"""Memory stays flat while hundreds of large results come through one worker."""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from acceptance.cluster import running_cluster

FLOOD: Final = Path(__file__).with_name("flood.py")
CROWD: Final = 200
ROOM: Final = 300_000_000
"""Bytes of growth that are allowed."""
CHANNEL: Final = 20
FLOODED: Final = f"""
[[channels]]
id = {CHANNEL}
slug = "flood"
name = "Flood"
provider = "openai-compatible"
base_url = "http://127.0.0.1:{{port}}/v1"
models = {{{{ "gpt-image-2" = "flood" }}}}
"""


@contextmanager
def flooding(side: int, crowd: int = CROWD) -> Iterator[str]:
    command = [sys.executable, str(FLOOD), str(side), str(crowd)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as upstream:
        assert upstream.stdout is not None
        try:
            yield upstream.stdout.readline().strip()
        finally:
            upstream.kill()


def memory(pid: int, what: str) -> int:
    """Bytes, by the kernel's count."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


async def grown(side: int, folder: Path) -> int:
    """Bytes by which a server grows while ``CROWD`` images of this side come in at once."""
    with flooding(side) as port:
        async with running_cluster(folder) as cluster:
            with (folder / "calotype.toml").open("a") as file:
                file.write(FLOODED.format(port=port))
            api = await cluster.api()
            before = memory(api.process.pid, "VmRSS")
            tasks = await cluster.submit_many([api], CROWD, model="gpt-image-2", channel_id=CHANNEL)
            await cluster.all_final(CROWD)
            assert (await cluster.states(tasks)) == {"success": CROWD}, api.log
            return memory(api.process.pid, "VmHWM") - before


async def test_hundreds_of_large_results_at_once_leave_a_workers_memory_flat(
    tmp_path: Path,
) -> None:
    assert await grown(1100, tmp_path) < ROOM  # 3.6 MB each, 730 MB in all


def main() -> None:
    """Measure with images of any size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2600, help="pixels; 2600 makes 20 MB")
    side = parser.parse_args().side
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="calotype-memory-") as folder:
        growth = asyncio.run(grown(side, Path(folder)))
    seconds = time.perf_counter() - began
    sys.stdout.write(
        f"{CROWD} results of {3 * side * side / 1e6:.1f} MB at once: "
        f"{growth / 1e6:.0f} MB of growth, {seconds:.0f} s in all\n"
    )


if __name__ == "__main__":
    main()
