"""On PostgreSQL, whoever waits at one machine is told what another machine's worker does."""

import asyncio
import json
from pathlib import Path

from acceptance.cluster import PAID, Cluster, Member, running_cluster
from postgres import PostgresServer, fresh_database


async def events_of(cluster: Cluster, api: Member, path: str, *, ends: int) -> list[str]:
    """The ids of a stream's events until so many tasks have ended."""
    told: list[str] = []
    headers = {"Authorization": f"Bearer {cluster.key}"}
    async with cluster.http.get(f"{api.url}{path}", headers=headers) as response:
        assert response.status == 200
        async for line in response.content:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "id":
                told.append(value)
            elif name == "data" and json.loads(value)["state"] in {"success", "fail"}:
                ends -= 1
                if ends == 0:
                    break
    return told


async def test_waits_and_streams_are_told_of_another_processs_work(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    async with fresh_database(postgres) as url, running_cluster(tmp_path, url) as cluster:
        here, there = await cluster.api(), await cluster.api()
        await cluster.worker()
        all_of_them = asyncio.create_task(events_of(cluster, there, "/v1/events", ends=4))
        await asyncio.sleep(0)
        tasks = await cluster.submit_many([here], 3, "sandbox:delay=1", channel_id=PAID)
        headers = {"Authorization": f"Bearer {cluster.key}"}
        seen, known = "waiting", 0
        while seen not in {"success", "fail"}:
            path = f"{there.url}/v1/tasks/{tasks[0]}?wait=30&since={known}"
            async with cluster.http.get(path, headers=headers) as response:
                document = await response.json()
            assert document["last_event"] > known
            seen, known = document["state"], document["last_event"]
        assert seen == "success"
        told = await events_of(cluster, there, f"/v1/tasks/{tasks[1]}/events", ends=1)
        assert told == [str(number) for number in range(1, len(told) + 1)]
        await cluster.submit(here, "sandbox:delay=0", channel_id=PAID)
        assert len(await all_of_them) >= 4 * 3


async def test_a_stopping_server_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        api = await cluster.api()
        task = await cluster.submit(api, "sandbox:never")
        headers = {"Authorization": f"Bearer {cluster.key}"}
        poll = f"{api.url}/v1/tasks/{task}?wait=60&since=1000"
        waiting = asyncio.create_task(cluster.http.get(poll, headers=headers))
        streaming = asyncio.create_task(events_of(cluster, api, f"/v1/tasks/{task}/events", ends=1))
        async with cluster.http.get(f"{api.url}/v1/tasks/{task}?wait=1", headers=headers) as first:
            assert first.status == 200
        async with asyncio.timeout(30):
            assert await api.terminate() == 0
            async with await waiting as response:
                assert response.status == 200
            assert await streaming
