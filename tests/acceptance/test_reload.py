"""SIGHUP puts other channels in force while tasks are under way."""

import signal
from pathlib import Path
from typing import Any

import pytest

from acceptance.cluster import PAID, Cluster, Member, eventually, running_cluster
from postgres import PostgresServer, fresh_database

MORE = """
[[channels]]
id = 30
slug = "more"
name = "More"
provider = "sandbox"
priority = 5
"""


async def channels(cluster: Cluster, api: Member) -> list[str]:
    async with cluster.http.get(f"{api.url}/v1/models/thumbnail") as response:
        entry: dict[str, Any] = await response.json()
        return [channel["slug"] for channel in entry["available_channels"]]


def rewrite(cluster: Cluster, *changes: tuple[str, str], more: str = "") -> None:
    path = cluster.root / "calotype.toml"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text + more)


async def shows(cluster: Cluster, api: Member, expected: list[str]) -> None:
    async def held() -> bool:
        return await channels(cluster, api) == expected

    await eventually(held, f"discovery shows {expected}: {cluster.told()}")


async def test_channels_come_and_go_without_losing_a_task(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        api = await cluster.api()
        assert await channels(cluster, api) == ["paid", "free", "narrow"]
        under_way = await cluster.submit(api, "sandbox:delay=2", channel_id=PAID)
        rewrite(
            cluster,
            ('slug = "paid"', 'slug = "paid"\nenabled = false'),
            more=MORE,
        )
        api.signal(signal.SIGHUP)
        await shows(cluster, api, ["more", "free", "narrow"])
        fresh = await cluster.submit(api, "at once sandbox:delay=0", channel_id=None)
        await cluster.all_final(2)
        assert await cluster.states([under_way, fresh]) == {"success": 2}
        assert (await cluster.task(api, fresh))["channel"]["slug"] == "more"
        assert (await cluster.task(api, under_way))["channel"]["slug"] == "paid"


async def test_a_mistake_in_the_file_changes_nothing_and_is_told_with_its_cure(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path) as cluster:
        api = await cluster.api()
        rewrite(cluster, more=MORE.replace('"sandbox"', '"sandbocks"'))
        api.signal(signal.SIGHUP)
        await eventually(lambda: "the channels stay as they were" in api.log, "it is told")
        assert "channels[4].provider" in api.log
        assert "did you mean" in api.log
        assert await channels(cluster, api) == ["paid", "free", "narrow"]
        task = await cluster.submit(api, "sandbox:delay=0")
        await cluster.all_final(1)
        assert await cluster.states([task]) == {"success": 1}


async def test_the_first_channel_of_a_model_that_needs_one_waits_for_a_restart(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path) as cluster:
        api = await cluster.api()
        more = MORE.replace('"sandbox"', '"diffusers"\nmodels = ["sd-turbo"]')
        rewrite(cluster, more=more)
        api.signal(signal.SIGHUP)
        await eventually(lambda: "the channels stay as they were" in api.log, "it is told")
        assert "calotype.toml: channels[4].models.sd-turbo: no channel was configured" in api.log
        assert "restart, and it is offered" in api.log
        assert await channels(cluster, api) == ["paid", "free", "narrow"]


@pytest.mark.parametrize("moved", ["removed", "switched off"])
async def test_waiting_tasks_of_a_channel_that_goes_are_done_by_another(
    tmp_path: Path, moved: str
) -> None:
    async with running_cluster(tmp_path) as cluster:
        api = await cluster.api()
        await cluster.submit_many([api], 3, "sandbox:delay=1", channel_id=12)
        waiting = await cluster.submit_many([api], 6, "sandbox:delay=0", channel_id=None)
        text = (cluster.root / "calotype.toml").read_text()
        tables = text.split("[[channels]]")
        if moved == "removed":
            kept = [table for table in tables if 'slug = "paid"' not in table]
            (cluster.root / "calotype.toml").write_text("[[channels]]".join(kept))
        else:
            rewrite(cluster, ('slug = "paid"', 'slug = "paid"\nenabled = false'))
        api.signal(signal.SIGHUP)
        await shows(cluster, api, ["free", "narrow"])
        await cluster.all_final(9)
        assert await cluster.states(waiting) == {"success": 6}


async def test_workers_of_a_shared_database_are_told_too(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    async with fresh_database(postgres) as url, running_cluster(tmp_path, url) as cluster:
        api, worker = await cluster.api(), await cluster.worker()
        rewrite(cluster, more=MORE)
        api.signal(signal.SIGHUP)
        worker.signal(signal.SIGHUP)
        await shows(cluster, api, ["more", "paid", "free", "narrow"])
        await eventually(lambda: "channels in force: paid, free, narrow, more" in worker.log, "it")
        task = await cluster.submit(api, "sandbox:delay=0", channel_id=30)
        await cluster.all_final(1)
        assert await cluster.states([task]) == {"success": 1}
