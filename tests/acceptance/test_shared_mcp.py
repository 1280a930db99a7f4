"""Agents and real server processes: any process answers, and none is kept waiting by one's end."""

import asyncio
import signal
from pathlib import Path

from acceptance.cluster import MODEL, eventually, running_cluster
from agents import agent, agent_of_2025, pictures, refusal, said, told
from postgres import PostgresServer, fresh_database


async def test_any_process_goes_on_with_what_another_one_was_asked(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    async with fresh_database(postgres) as url, running_cluster(tmp_path, url) as cluster:
        here, there = await cluster.api(), await cluster.api()
        await cluster.worker()
        asked = {"prompt": "sandbox:delay=1", "model": MODEL, "wait_seconds": 0}
        async with agent(here.url, cluster.key) as first, agent(there.url, cluster.key) as second:
            task_id = told(await first.call_tool("generate_image", asked))["task_id"]
            result = await second.call_tool("get_task", {"task_id": task_id})
            assert (told(result)["state"], len(pictures(result))) == ("success", 1)
            edit = {"prompt": "x", "model": MODEL, "references": [task_id]}
            refused = await second.call_tool("edit_image", edit)
            assert "takes no references" in refusal(refused)


async def test_a_stopping_server_tells_its_agents_the_task_and_keeps_none_waiting(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path) as cluster:
        api = await cluster.api()
        asked = {"prompt": "sandbox:never", "model": MODEL, "wait_seconds": 600}
        async with agent(api.url, cluster.key) as new, agent_of_2025(api.url, cluster.key) as old:
            for one in (new, old):
                await one.list_tools()  # or the SDK asks for them once it has a result
            calls = [
                asyncio.create_task(one.call_tool("generate_image", asked)) for one in (new, old)
            ]

            async def both_are_made() -> bool:
                return await cluster.one("SELECT COUNT(*) FROM tasks") == len(calls)

            await eventually(both_are_made, "both agents wait")
            api.signal(signal.SIGTERM)
            results = await asyncio.gather(*calls)
        for result in results:
            assert told(result)["state"] in {"waiting", "queuing", "generating"}
            assert "get_task" in said(result)
        assert await api.ended() == 0
        assert "Traceback" not in api.log
        assert cluster.key not in api.log


async def test_nothing_of_a_call_is_logged_but_what_went_wrong(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, sandbox_seconds="0") as cluster:
        api = await cluster.api()
        asked = {"prompt": "a secret wish", "model": MODEL}
        for way in (agent, agent_of_2025):
            async with way(api.url, cluster.key) as client:
                assert len(pictures(await client.call_tool("generate_image", asked))) == 1
        assert await api.terminate() == 0
        for word in ("a secret wish", "signature=", "session manager", cluster.key):
            assert word not in api.log
