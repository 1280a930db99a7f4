"""The guide to many machines, run as it is written: on loopback, behind a real nginx."""

import asyncio
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from calotype.store.postgres import PostgresStore
from postgres import PostgresServer
from programs import installed

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "scale-out.md").read_text(encoding="utf-8")
STEPS = dict(re.findall(r"<!-- test: (\w+) -->\n```sh\n(.*?)```", GUIDE, re.DOTALL))
TASKS = 50
PATIENCE = 100.0
"""Seconds after which a condition is taken never to come; no outcome hangs on its value."""
BODY = {"model": "nano-banana-pro", "output_format": "jpg"}
"""What the sandbox draws fastest."""


@pytest.fixture(scope="module")
def nginx() -> str:
    """The program."""
    return installed("nginx", "nginx-light")


@dataclass
class Cluster:
    """Every machine of the guide, on this one."""

    folder: Path
    nginx: str
    replaced: dict[str, str]
    http: aiohttp.ClientSession
    key: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.replaced["https://images.example.com"]

    def here(self, text: str) -> str:
        """A text of the guide with the addresses of this test."""
        for there, here in self.replaced.items():
            text = text.replace(there, here)
        return text

    def environment(self) -> dict[str, str]:
        path = f"{Path(self.nginx).parent}:{os.environ['PATH']}"  # noqa: TID251 -- for the shell
        return {"PATH": path, "CALOTYPE_SANDBOX_PROCESSES": "1"}

    async def run(self, step: str) -> str:
        """A step that comes to its end; what it printed."""
        ended = await asyncio.to_thread(
            subprocess.run,
            ["/bin/sh", "-ec", self.here(step)],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def start(self, name: str, step: str) -> None:
        """A step that goes on; it is killed at the end of the test at the latest."""
        *before, last = self.here(step).strip().splitlines()
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                ["/bin/sh", "-ec", "\n".join([*before, f"exec {last}"])],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")

    async def says(self, name: str, text: str) -> None:
        """Wait until a process has said something in its log."""
        process = self.processes[name]
        await eventually(
            lambda: text in self.log(name) or process.poll() is not None, f"{name}: {text}"
        )
        assert text in self.log(name), self.log(name)[-3000:]

    async def stop(self, name: str) -> None:
        """SIGTERM, and a good end."""
        process = self.processes[name]
        process.send_signal(signal.SIGTERM)
        await eventually(lambda: process.poll() is not None, f"{name} ends")
        assert process.returncode == 0, self.log(name)[-3000:]

    def end_all(self) -> None:
        for process in self.processes.values():
            try:
                os.killpg(process.pid, signal.SIGKILL)  # its children too
            except ProcessLookupError:
                continue
            finally:
                process.wait()

    async def submit(self, number: int) -> str:
        """The id of an accepted task."""
        body = {"prompt": f"{number}: sandbox:delay={1 + number % 5}", **BODY}
        url = f"{self.url}/v1/images/generations"
        async with self.http.post(url, json=body, headers=self._auth) as response:
            assert response.status == 202, await response.text()
            task_id: str = (await response.json())["task_id"]
            return task_id

    async def poll(self, task_id: str) -> dict[str, Any]:
        """A task; a poll that fails fails the test."""
        url = f"{self.url}/v1/tasks/{task_id}"
        async with self.http.get(url, headers=self._auth) as response:
            assert response.status == 200, await response.text()
            task: dict[str, Any] = await response.json()
            return task

    @property
    def _auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that nothing announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"It never came to this: {what}"
        await asyncio.sleep(0.02)


def free_ports(number: int) -> list[int]:
    """Ports that nobody has."""
    with ExitStack() as held:
        sockets = [
            held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture
async def cluster(tmp_path: Path, nginx: str, postgres: PostgresServer) -> AsyncIterator[Cluster]:
    """The machines, with nothing on them but the package and the configuration of nginx."""
    name = f"scale_out_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(postgres.url())
    await admin.execute(f"CREATE DATABASE {name}")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    first, second, front = free_ports(3)
    replaced = {
        "postgresql://calotype@10.0.0.11/calotype": postgres.url(name),
        "10.0.0.21 --port 8080": f"127.0.0.1 --port {first}",
        "10.0.0.21:8080": f"127.0.0.1:{first}",
        "10.0.0.22 --port 8080": f"127.0.0.1 --port {second}",
        "10.0.0.22:8080": f"127.0.0.1:{second}",
        "https://images.example.com": f"http://127.0.0.1:{front}",
        "listen 80 ": f"listen 127.0.0.1:{front} ",
        "/srv/calotype": str(tmp_path / "shared"),
        "/var/log/nginx/access.log": "off",
    }
    async with aiohttp.ClientSession() as http:
        machines = Cluster(tmp_path, nginx, replaced, http)
        (tmp_path / "deploy").mkdir()
        configuration = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
        (tmp_path / "deploy" / "nginx.conf").write_text(machines.here(configuration))
        try:
            yield machines
        finally:
            machines.end_all()
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
            await admin.close()


async def _move(cluster: Cluster) -> None:
    """Steps 1 to 3: a small machine that has worked for a while, taken over."""
    make = "CALOTYPE_DATA_DIR=calotype-data .venv/bin/calotype keys create --name me --credits 100"
    cluster.key = (await cluster.run(make)).strip()
    (cluster.folder / "calotype-data" / "assets").mkdir()
    settings = STEPS["settings"].replace(
        "the-content-of-the-file-secret-in-your-old-data-folder", secrets.token_urlsafe(36)
    )
    (cluster.folder / "calotype.env").write_text(cluster.here(settings))
    assert "equal on both sides" in await cluster.run(STEPS["move"])


async def _start(cluster: Cluster) -> None:
    """Steps 4 to 7."""
    for number in (1, 2, 3):
        cluster.start(f"worker-{number}", STEPS["worker"])
    cluster.start("api-1", STEPS["api"])
    cluster.start("api-2", STEPS["api"].replace("10.0.0.21", "10.0.0.22"))
    test, run = STEPS["proxy"].strip().splitlines()
    ours = f' -p "$PWD" -e nginx-error.log -g "pid {cluster.folder}/nginx.pid; daemon off;"'
    await cluster.run(test + ours)
    for name in ("api-1", "api-2"):
        await cluster.says(name, "Calotype listens on")
    cluster.start("nginx", run + ours)
    await eventually((cluster.folder / "nginx.pid").exists, "nginx runs")
    await cluster.run(STEPS["look"])


async def test_the_guide_works_as_written_and_no_poll_fails_while_nodes_stop(
    cluster: Cluster,
) -> None:
    await _move(cluster)
    await _start(cluster)
    tasks = await asyncio.gather(*(cluster.submit(number) for number in range(TASKS)))
    done: dict[str, dict[str, Any]] = {}
    changed = asyncio.Event()

    async def follow(task_id: str) -> None:
        """Poll until the task is final, and on while machines come and go."""
        async with asyncio.timeout(PATIENCE):
            while task_id not in done or not changed.is_set():
                task = await cluster.poll(task_id)
                if task["state"] in {"success", "fail"}:
                    done[task_id] = task
                await asyncio.sleep(0.1)

    async def change() -> list[str]:
        """Stop an API node and a worker in the middle, start the node again, stop the other."""
        await eventually(lambda: len(done) > 0, "the first is final")
        await asyncio.gather(cluster.stop("api-1"), cluster.stop("worker-1"))
        late = [await cluster.submit(TASKS)]
        cluster.start("api-1", STEPS["api"])
        await eventually(
            lambda: cluster.log("api-1").count("Calotype listens on") == 2, "api-1 is back"
        )
        await cluster.stop("api-2")
        late.append(await cluster.submit(TASKS + 1))
        changed.set()
        return late

    polling = asyncio.gather(*(follow(task_id) for task_id in tasks))
    late, _ = await asyncio.gather(change(), polling)
    for task_id in late:
        await follow(task_id)

    assert {task["state"] for task in done.values()} == {"success"}
    assert len(done) == TASKS + 2
    assert "the worker has stopped" in cluster.log("worker-1")
    image = done[late[0]]["result"]["data"][0]["url"]
    assert image.startswith(cluster.url)
    async with cluster.http.get(image) as response:
        assert (response.status, response.content_type) == (200, "image/jpeg")
    store = PostgresStore(cluster.replaced["postgresql://calotype@10.0.0.11/calotype"])
    assert await store.prove() == []
    await store.close()
