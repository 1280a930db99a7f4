"""Starting a command is quick because it imports no more than it needs."""

import subprocess
import sys

import pytest

HEAVY = (
    "aiohttp",
    "httpx2",
    "mcp",
    "obstore",
    "pgqueuer",
    "PIL",
    "pydantic",
    "rich",
    "starlette",
    "uvicorn",
)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["serve", "--help"], ["mcp", "--help"]]
)
def test_the_command_line_is_there_without_the_server_behind_it(arguments: list[str]) -> None:
    script = (
        "import sys, calotype.cli\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "calotype.cli.main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "alotype" in ended.stdout or "--no-worker" in ended.stdout
