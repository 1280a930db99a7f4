"""Commands run as a person or a script runs them: real processes, a real server."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from calotype.settings import CLIENT_VARIABLES, Settings

COMMAND = (sys.executable, "-m", "calotype")
PATIENCE = 60.0
"""Seconds after which a process is taken never to end; no outcome hangs on its value."""
GENERATE = ("generate", "a lighthouse", "--model", "nano-banana-pro")


class Shared(NamedTuple):
    """One server for all tests that leave it as it is."""

    url: str
    data: Path


def settle(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """From now on commands work on this folder, and nothing else is set."""
    for field in msgspec.structs.fields(Settings):
        patch.delenv(f"CALOTYPE_{field.name.upper()}", raising=False)
    for variable in (*CLIENT_VARIABLES, "FORCE_COLOR"):
        patch.delenv(variable, raising=False)
    patch.setenv("CALOTYPE_DATA_DIR", str(folder))
    patch.setenv("CALOTYPE_SANDBOX_SECONDS", "0")
    return folder


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A command, and that it ended as it should."""
    ended = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended


def run_json(*arguments: str | Path, code: int = 0) -> Any:
    """What a command prints with ``--json``."""
    return json.loads(run(*arguments, "--json", code=code).stdout)


def told(*arguments: str | Path, code: int) -> str:
    """The one line in which a command says why it cannot do what it was asked."""
    lines = run(*arguments, code=code).stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def generate(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run(*GENERATE, *arguments, code=code)


@contextmanager
def serving(log: Path, *arguments: str) -> Iterator[str]:
    """A server on a free port; its address."""
    command = [*COMMAND, "serve", "--port", "0", *arguments]
    with (
        log.open("a") as lines,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=lines, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            ready = re.search(r"listens on (http://\S+)", server.stdout.readline())
            assert ready, log.read_text()
            yield ready[1]
        finally:
            server.terminate()
    assert server.returncode == 0, log.read_text()


def pay(account: str, patch: pytest.MonkeyPatch) -> str:
    """Make an account with a key and credit, which ``calotype generate`` finds."""
    key = run("keys", "create", "--name", account, "--credits", "10").stdout.strip()
    patch.setenv("CALOTYPE_API_KEY", key)
    return account


class Terminal:
    """What a command runs in: it sees what the command writes, and may answer."""

    def __init__(self, *arguments: str, environment: dict[str, str]) -> None:
        self.seen = b""
        inherited = os.environ  # noqa: TID251 -- as a shell hands it on
        told = {**inherited, "TERM": "xterm", "COLUMNS": "100", "LINES": "40", **environment}
        process, self._end = pty.fork()
        if process == 0:  # pragma: no cover -- the command
            os.execve(COMMAND[0], [*COMMAND, *arguments], told)  # noqa: S606 -- our own
        self._process = process

    def until(self, ended: Callable[[bytes], bool]) -> None:
        """Read until that has been seen, or the command has closed the terminal."""
        give_up = time.monotonic() + PATIENCE
        while not ended(self.seen):
            assert select.select([self._end], [], [], give_up - time.monotonic())[0], self.seen
            try:
                self.seen += os.read(self._end, 65_536)
            except OSError:  # the other side is closed
                break

    def answer(self, keys: bytes) -> None:
        os.write(self._end, keys)

    def interrupt(self) -> None:
        os.kill(self._process, signal.SIGINT)

    def ended(self, *, code: int = 0) -> str:
        """All that was written, once the command is over."""
        self.until(lambda _: False)
        os.close(self._end)
        _, status = os.waitpid(self._process, 0)
        assert os.waitstatus_to_exitcode(status) == code, self.seen
        return self.seen.decode()
