"""``make bench-peers``: other gateways and Calotype, side by side in front of one mock upstream.

Sets the peers up outside the repository, once, under ``PEERS_HOME`` (by default in the user's
cache). What drives and measures them is the harness in ``../shared/bench/peers``, which knows
nothing of Calotype: ``peers_harness.py`` adds it there.
"""

import argparse
import asyncio
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from rich.box import MARKDOWN
from rich.table import Table

from programs import installed
from servers import HERE, configured, environment, mock_channel, new_key
from table import console

_HARNESS: Final = HERE.parents[1] / "shared" / "bench" / "peers"
_HOME: Final = Path.home() / ".cache" / "calotype-peers"
_PYTHON: Final = {
    "harness": ("uvloop", "numpy", "pillow", "psutil"),
    "litellm": ("litellm[proxy]",),
    "oforward": ("openai-forward", "pyyaml"),
}
_NODE: Final = {"portkey": "@portkey-ai/gateway"}
_PEERS: Final = "direct,nginx,openai-forward,portkey,litellm"
_OURS: Final = "calotype,calotype-202"
_SCENARIOS: Final = "c32,c256,3m-c32,d200-c512"


def set_up(home: Path) -> None:
    """Install what is missing, by the names its makers publish it under."""
    installed("wrk", "wrk")
    installed("nginx", "nginx-light")
    for name, packages in _PYTHON.items():
        done = home / name / ".installed"
        if not done.exists():
            console.print(f"Installing {', '.join(packages)} into {home / name}")
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(home / name)], check=True)
            pip = [str(home / name / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, *packages], check=True)
            done.touch()
    for name, package in _NODE.items():
        if (home / name / "node_modules" / package).exists():
            continue
        if (npm := shutil.which("npm")) is None:
            raise SystemExit(f"{package} needs npm; install Node.js 20 or newer.")
        console.print(f"Installing {package} into {home / name}")
        (home / name).mkdir(parents=True, exist_ok=True)
        subprocess.run([npm, "init", "--yes"], cwd=home / name, check=True, capture_output=True)
        subprocess.run([npm, "install", package], cwd=home / name, check=True, capture_output=True)


def measure(options: argparse.Namespace, home: Path, folder: Path) -> list[dict[str, Any]]:
    """Run the harness over them all; what it found."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        mock_port = free.getsockname()[1]
    template, results = folder / "template", folder / "results.json"
    template.mkdir()
    # The harness compares the image byte by byte, so ours is not to say where it comes from.
    channel = {**mock_channel(folder, mock_port), "CALOTYPE_PROVENANCE": "false"}
    settings = configured(template, "", **channel)
    key = asyncio.run(new_key(settings))
    ours = {name: value for name, value in settings.items() if name.startswith("CALOTYPE_")}
    said = {
        "python": sys.executable,
        "template": str(template),
        "key": key,
        "settings": {**ours, **channel, "PYTHONPATH": settings.get("PYTHONPATH", "")},
    }
    subprocess.run(
        [
            *(str(home / "harness" / "bin" / "python"), str(HERE / "peers_harness.py")),
            *("--peers", options.peers, "--scenarios", options.scenarios),
            *("--secs", str(options.secs), "--out", str(results)),
        ],
        env=environment(
            PYTHONPATH="",  # ours, in which others would find modules of their names
            PEERS_HOME=str(home),
            PEERS_HARNESS=str(options.harness),
            PEERS_CALOTYPE=json.dumps(said),
            MOCK_PORT=str(mock_port),
        ),
        cwd=folder,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(results.read_text())
    return found


def show(rows: list[dict[str, Any]]) -> None:
    """A table for each scenario; the ratio is our rate to the peer's."""
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        found = {row["peer"]: row for row in rows if row["scenario"] == scenario}
        columns = ("requests", "calotype ÷", "calotype-202 ÷", "p50 / p99", "CPU each")
        table = Table(scenario, *columns, "peak memory", "start", "note", box=MARKDOWN)
        for peer, row in found.items():
            if "failed" in row:
                table.add_row(peer, note := row["failed"])
                continue
            note = "" if row["image_identical"] else "not the same image"
            note += f" {row['errors']}" if row["errors"] else ""
            table.add_row(
                peer,
                f"{row['rps']:,.0f}/s",
                *(_ratio(found.get(ours), row) for ours in _OURS.split(",")),
                f"{row['p50_ms']:.1f} / {row['p99_ms']:.1f} ms",
                f"{row['cpu_ms_per_req']:.2f} ms",
                f"{row['peak_rss_mib']:.0f} MiB",
                f"{row['start_s']:.1f} s",
                note,
            )
        console.print(table)


def _ratio(ours: dict[str, Any] | None, peer: dict[str, Any]) -> str:
    if ours is None or "failed" in ours or not peer["rps"]:
        return ""
    return f"{ours['rps'] / peer['rps']:.2f}"


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--harness", type=Path, default=_HARNESS, help="its folder")
    parser.add_argument("--peers", default=f"{_PEERS},{_OURS}", help=f"{_PEERS},{_OURS}")
    parser.add_argument("--scenarios", default=_SCENARIOS, help=f"{_SCENARIOS}; also c1")
    parser.add_argument("--secs", type=int, default=0, help="of each run; as the harness says")
    options = parser.parse_args()
    if not (options.harness / "run.py").exists():
        raise SystemExit(f"The harness is not at {options.harness}; say --harness FOLDER.")
    home = Path(environment().get("PEERS_HOME", _HOME)).expanduser().absolute()
    if home.is_relative_to(HERE.parent):
        raise SystemExit("PEERS_HOME has to be outside the repository.")
    set_up(home)
    with tempfile.TemporaryDirectory(prefix="calotype-peers-", dir=home) as folder:
        show(measure(options, home, Path(folder)))


if __name__ == "__main__":
    main()
