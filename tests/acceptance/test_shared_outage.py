"""The database or the disk goes away under load: 503 meanwhile, and nothing accepted is lost."""

import asyncio
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import geteuid
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest

from acceptance.cluster import MODEL, PAID, Cluster, Member, eventually, running_cluster
from calotype.cli.faults import FAILED
from harness import Reply, picture
from postgres import PostgresServer, fresh_database, running_postgres

CLIENTS = 6
DISK_MIB = 16
"""Of the small disk; the server's own files take less than one."""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    with (
        tempfile.TemporaryDirectory(prefix="calotype-pg-") as folder,
        running_postgres(Path(folder), "max_connections=100") as running,
    ):
        yield running


@pytest.fixture
async def cluster(tmp_path: Path, server: PostgresServer) -> AsyncIterator[Cluster]:
    async with (
        fresh_database(server) as url,
        running_cluster(tmp_path, url, sandbox_seconds="1") as running,
    ):
        yield running


@dataclass
class Load:
    """Clients that order and read without a pause and take nothing but success and 503."""

    cluster: Cluster
    api: Member
    accepted: list[str] = field(default_factory=list)
    refused: int = 0
    _stopping: bool = False
    _clients: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._clients = [asyncio.create_task(self._client(place)) for place in range(CLIENTS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._clients)

    async def accepts(self, more: int = 10) -> None:
        """Wait until so many more were accepted."""
        aim = len(self.accepted) + more
        await self._comes(lambda: len(self.accepted) >= aim, f"{more} more are accepted")

    async def refuses(self, more: int = 10) -> None:
        """Wait until so many more were refused."""
        aim = self.refused + more
        await self._comes(lambda: self.refused >= aim, f"{more} more are refused")

    async def _comes(self, condition: Any, what: str) -> None:
        def held() -> bool:
            for client in self._clients:
                if client.done():
                    client.result()
            return bool(condition())

        await eventually(held, f"{what}\n{self.cluster.told()}")

    async def _client(self, place: int) -> None:
        turn = 0
        while not self._stopping:
            order = f"{place} sandbox:delay={turn % 2} order {turn}"
            reply = await call(self.cluster, self.api, "POST", "/v1/images/generations", order)
            if reply.status == 202:
                self.accepted.append(reply.json["task_id"])
                turn += 1
            else:
                self._take_no(reply)
            for task_id in self.accepted[-1:]:
                reply = await call(self.cluster, self.api, "GET", f"/v1/tasks/{task_id}")
                if reply.status != 200:
                    self._take_no(reply)
            await asyncio.sleep(0.05)

    def _take_no(self, reply: Reply) -> None:
        assert_unavailable(reply)
        self.refused += 1


async def call(
    cluster: Cluster, api: Member, method: str, path: str, order: str = "", **options: Any
) -> Reply:
    """One request; ``order`` is the idempotency key and the prompt of a submission."""
    headers = {"Authorization": f"Bearer {cluster.key}"}
    if order:
        headers["Idempotency-Key"] = order
        options["json"] = {"prompt": order, "model": MODEL, "channel_id": PAID}
    async with cluster.http.request(method, api.url + path, headers=headers, **options) as answer:
        return Reply(answer.status, answer.headers, await answer.read())


async def readiness(cluster: Cluster, api: Member) -> tuple[int, Any]:
    """Status and checks of /readyz."""
    reply = await call(cluster, api, "GET", "/readyz")
    return reply.status, reply.json["checks"]


async def ready(cluster: Cluster, api: Member) -> bool:
    return (await readiness(cluster, api))[0] == 200


def assert_unavailable(reply: Reply) -> None:
    """503 in the contract's shape, with a time to come back."""
    reply.assert_refused(503, "service_unavailable")
    assert int(reply.headers["Retry-After"]) > 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
async def test_postgresql_goes_away_under_load_and_comes_back(
    cluster: Cluster, server: PostgresServer, how: signal.Signals
) -> None:
    api, *workers = await asyncio.gather(cluster.api(), cluster.worker(), cluster.worker())
    async with Load(cluster, api) as load:
        await load.accepts()
        assert await readiness(cluster, api) == (200, {"database": "ok", "assets": "ok"})

        await asyncio.to_thread(server.stop, how)
        await load.refuses()
        status, checks = await readiness(cluster, api)
        assert (status, checks["assets"]) == (503, "ok")
        assert checks["database"] != "ok"
        assert_unavailable(await call(cluster, api, "GET", "/v1/credits/balance"))
        assert (await call(cluster, api, "GET", "/healthz")).status == 200
        silence = "the queue does not answer"  # once a second: longer than a lease
        for worker in workers:
            await eventually(lambda: worker.log.count(silence) > 5, "it notices")  # noqa: B023 -- awaited here

        await asyncio.to_thread(server.start)
        await load.accepts()
        assert await ready(cluster, api)
    await assert_all_well(cluster, load, workers)


async def test_every_connection_is_cut_again_and_again(cluster: Cluster) -> None:
    api, worker = await asyncio.gather(cluster.api(), cluster.worker())
    async with Load(cluster, api) as load:
        for _ in range(5):
            await load.accepts(5)
            await cluster.change(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        await load.accepts()
        await eventually(lambda: ready(cluster, api), "it is ready")
    await assert_all_well(cluster, load, [worker])


async def test_whoever_is_told_to_stop_ends_though_postgresql_is_frozen(
    cluster: Cluster, server: PostgresServer
) -> None:
    cluster.environment["CALOTYPE_DRAIN_SECONDS"] = "0"
    members = await asyncio.gather(cluster.api(), cluster.worker())
    async with Load(cluster, members[0]) as load:
        await load.accepts()
    with server.frozen():
        assert await asyncio.gather(*(member.terminate() for member in members)) == [FAILED] * 2
    for member in members:
        assert member.log.count("not stopped after 15 s") == 1
        assert "Traceback" not in member.log
    worker = await cluster.worker()
    await cluster.all_final(len(load.accepted))
    await cluster.assert_books()
    assert await worker.terminate() == 0


async def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data") as disk:
        async with running_cluster(tmp_path, sandbox_seconds="1") as cluster:
            api = await cluster.api()
            async with Load(cluster, api) as load:
                await load.accepts()
                filler = disk / "filler"
                fill(filler)
                await load.refuses()
                status, checks = await readiness(cluster, api)
                assert status == 503
                assert checks["assets"] != "ok"
                assert_unavailable(await upload(cluster, api))
                assert (await call(cluster, api, "GET", "/healthz")).status == 200
                filler.unlink()
                await load.accepts()
                await eventually(lambda: ready(cluster, api), "it is ready")
                assert (await upload(cluster, api)).status == 202
            await assert_all_well(cluster, load, [], more=1)


async def upload(cluster: Cluster, api: Member) -> Reply:
    """A submission with a picture of its own."""
    form = aiohttp.FormData({"prompt": "like this", "model": "nano-banana-2-lite"})
    form.add_field("image", picture(size=(512, 512)), filename="this.png")
    return await call(cluster, api, "POST", "/v1/images/generations", data=form)


async def assert_all_well(
    cluster: Cluster, load: Load, workers: list[Member], *, more: int = 0
) -> None:
    """Everyone lived through it, and each accepted task came to a right end, bought once."""
    await cluster.all_final(len(load.accepted) + more)
    assert len(set(load.accepted)) == len(load.accepted)
    assert all(member.alive for member in cluster.members)
    for task_id, attempts in (await cluster.attempts()).items():
        bought = [state for state, _ in attempts if state != "refused"]
        assert len(bought) == 1, (task_id, attempts)
    failed = await cluster.rows("SELECT id, error FROM tasks WHERE state = 'fail'")
    for task_id, error in failed:
        assert b"upstream_outcome_unknown" in error, (task_id, error)
    assert len(failed) < len(load.accepted) / 2
    await cluster.assert_books()
    for member in (*workers, load.api):
        assert await member.terminate() == 0


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of its own for a folder."""
    if geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(["/bin/mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["/bin/umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until the disk takes no more."""
    with path.open("wb", buffering=0) as file:
        try:
            for size in (65_536, 512):
                while file.write(bytes(size)) == size:
                    continue
        except OSError as error:
            assert error.errno == 28, error  # noqa: PT017 -- no space left is what we are after
