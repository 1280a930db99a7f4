"""Machines on one PostgreSQL: an API without torch, and workers for channels of their own."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from acceptance.cluster import Cluster, Member, eventually, running_cluster
from local.engines import engines_of, has_torch
from local.studio import OWN, STEPS, catalog
from local.weights import tiny
from postgres import PostgresServer, fresh_database

HERE, THERE = 20, 21
CHANNEL = """
[[channels]]
id = {id}
slug = "local-{id}"
name = "Local"
provider = "diffusers"
models = ["{model}"]
options = {{ weights = "{weights}", device = "cpu" }}
"""


@pytest.fixture
async def cluster(
    postgres: PostgresServer, tmp_path: Path, weights_folder: Path
) -> AsyncIterator[Cluster]:
    weights = tiny("sd", weights_folder)
    async with fresh_database(postgres) as url, running_cluster(tmp_path, url) as running:
        running.environment["OMP_NUM_THREADS"] = "1"
        catalog(running.root / "models")
        said = [CHANNEL.format(id=id_, model=OWN, weights=weights) for id_ in (HERE, THERE)]
        (running.root / "calotype.toml").write_text("".join(said))
        yield running


async def drawn(cluster: Cluster, api: Member, task: str) -> dict[str, Any]:
    """A task once it has ended."""
    found: dict[str, Any] = {}

    async def held() -> bool:
        found.update(await cluster.task(api, task))
        return found["state"] in {"success", "fail"}

    await eventually(held, f"{task} ends: {cluster.told()}")
    return found


async def drawing(cluster: Cluster, api: Member, task: str, worker: Member) -> int:
    """The engine of a worker, once it is in the middle of a task."""

    async def held() -> bool:
        return bool((await cluster.task(api, task))["progress"] > 0)

    await eventually(held, f"{task} is drawn: {cluster.told()}")
    (engine,) = engines_of(worker.process.pid)
    return engine


async def loaded_anew(worker: Member, times: int) -> None:
    await eventually(lambda: worker.log.count(" is loaded: ") == times, "its engine has loaded")


async def test_a_task_is_drawn_by_the_worker_that_has_its_channel_and_by_no_other(
    cluster: Cluster,
) -> None:
    api, there = await cluster.api(), await cluster.worker("--channels", f"local-{THERE}")
    waiting = await cluster.submit(api, "a heron", model=OWN, channel_id=HERE)
    other = await cluster.submit(api, "a fern", model=OWN, channel_id=THERE)
    assert (await drawn(cluster, api, other))["state"] == "success"
    assert await cluster.rows("SELECT task_id FROM attempts WHERE channel_id = $1", HERE) == []
    here = await cluster.worker("--channels", f"local-{HERE}")
    assert (await drawn(cluster, api, waiting))["state"] == "success"
    assert [len(engines_of(each.process.pid)) for each in (api, here, there)] == [0, 1, 1]
    assert not has_torch(api.process.pid)
    await cluster.assert_books()
    await cluster.assert_stored_once()


async def test_a_killed_worker_takes_its_engine_along_and_another_draws_anew(
    cluster: Cluster,
) -> None:
    api, first = await cluster.api(), await cluster.worker("--channels", f"local-{HERE}")
    task = await cluster.submit(api, "a heron", model=OWN, channel_id=HERE, steps=STEPS)
    engine = await drawing(cluster, api, task, first)
    await first.kill()
    await eventually(lambda: not Path(f"/proc/{engine}/cmdline").exists(), "its engine ends")
    await cluster.worker("--channels", f"local-{HERE}")
    assert (await drawn(cluster, api, task))["state"] == "success"
    await cluster.assert_books()
    await cluster.assert_stored_once()


async def test_an_engine_that_is_killed_twice_costs_its_task_only(cluster: Cluster) -> None:
    """SIGKILL is what the kernel does to who takes too much memory."""
    api = await cluster.api()
    here = await cluster.worker("--channels", f"local-{HERE}")
    there = await cluster.worker("--channels", f"local-{THERE}")
    task = await cluster.submit(api, "a heron", model=OWN, channel_id=HERE, steps=STEPS)
    engine = await drawing(cluster, api, task, here)
    neighbour = await cluster.submit(api, "a fern", model=OWN, channel_id=THERE, steps=STEPS)
    (calm,) = engines_of(there.process.pid)
    os.kill(engine, signal.SIGKILL)
    await loaded_anew(here, 2)
    (engine,) = engines_of(here.process.pid)
    os.kill(engine, signal.SIGKILL)
    ended = await drawn(cluster, api, task)
    assert (ended["state"], ended["error"]["code"]) == ("fail", "local_out_of_memory")
    assert ended["billing"]["actual_amount_micro_usdc"] == 0
    assert (await drawn(cluster, api, neighbour))["state"] == "success"
    assert engines_of(there.process.pid) == {calm}
    again = await cluster.submit(api, "a heron", model=OWN, channel_id=HERE)
    assert (await drawn(cluster, api, again))["state"] == "success"
    await cluster.assert_books()
