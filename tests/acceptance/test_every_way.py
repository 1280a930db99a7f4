"""One task, and every way to order, follow, stop and be told of it, on both storages."""

import asyncio
import json
from typing import Any

import pytest

from acceptance.cluster import Cluster, Member, eventually
from agents import agent, refusal, told
from calotype.client import AsyncCalotype, TaskFailed

SLOW = "sandbox:delay=60"


async def api_of(cluster: Cluster) -> Member:
    """An API, with somebody who develops; commands find it and the key."""
    api = await cluster.api()
    cluster.environment |= {"CALOTYPE_API_KEY": cluster.key, "CALOTYPE_BASE_URL": api.url}
    if cluster.database_url:
        cluster.environment["CALOTYPE_PUBLIC_URL"] = api.url  # a worker has no address of its own
        await cluster.worker()
    return api


async def listening(cluster: Cluster) -> tuple[Member, str]:
    """``calotype webhooks listen``, and the URL that it listens on."""
    listener = cluster.start("listen", "webhooks", "listen", "--json")

    async def ready() -> bool:
        return " as callback_url" in listener.log

    await eventually(ready, f"the listener is ready: {listener.log}")
    return listener, listener.log.partition("Give ")[2].partition(" as callback_url")[0]


async def heard(listener: Member, number: int) -> list[dict[str, Any]]:
    """The first messages that the listener printed."""

    def lines() -> list[str]:
        return listener.out.read_text(encoding="utf-8").splitlines()

    async def held() -> bool:
        return len(lines()) >= number

    await eventually(held, f"{number} webhooks arrive: {listener.log}")
    return [json.loads(line) for line in lines()]


async def command(cluster: Cluster, *arguments: str) -> str:
    """What a command prints."""
    member = cluster.start("command", *arguments)
    assert await member.ended() == 0, member.log
    return member.out.read_text(encoding="utf-8")


async def test_a_task_is_ordered_found_and_told_of_and_told_of_again(cluster: Cluster) -> None:
    api = await api_of(cluster)
    listener, url = await listening(cluster)
    async with AsyncCalotype(api_key=cluster.key, base_url=api.url) as client:
        task = await client.generate(
            "A lighthouse", model="gpt-image-2", callback_url=url, metadata={"order": "7391"}
        )
        done = await task.wait()
        (message,) = await heard(listener, 1)
        assert message["body"]["event"] == "task.success"
        assert message["body"]["task_id"] == done.id
        assert message["body"]["metadata"] == {"order": "7391"}
        found = [one.id async for one in client.tasks(metadata={"order": "7391"})]
        assert found == [task.id]
        images = message["body"]["result"]["data"]
        assert len(await client.download(images[0]["url"])) == images[0]["bytes"]
        await client.redeliver(task.id)
        _, again = await heard(listener, 2)
        assert again["body"]["task_id"] == task.id
    printed = json.loads(await command(cluster, "webhooks", "deliveries", "--json"))
    assert [one["task_id"] for one in printed] == [task.id]
    assert await cluster.proved() == []


async def test_a_task_is_stopped_from_the_command_line_and_its_end_is_told(
    cluster: Cluster,
) -> None:
    api = await api_of(cluster)
    listener, url = await listening(cluster)
    async with AsyncCalotype(api_key=cluster.key, base_url=api.url) as client:
        task = await client.generate(SLOW, model="gpt-image-2", callback_url=url)
        waiting = asyncio.create_task(task.wait())
        await command(cluster, "tasks", "cancel", task.id)
        with pytest.raises(TaskFailed, match="cancelled"):
            await waiting
        (message,) = await heard(listener, 1)
    assert message["body"]["event"] == "task.fail"
    assert message["body"]["error"]["code"] == "cancelled"
    assert message["body"]["billing"]["actual_amount_micro_usdc"] == 0
    assert await cluster.proved() == []


async def test_an_agent_stops_a_task_and_finds_it_in_its_list(cluster: Cluster) -> None:
    api = await api_of(cluster)
    order = {"prompt": SLOW, "model": "gpt-image-2", "wait_seconds": 0}
    async with agent(api.url, cluster.key) as client:
        task_id = told(await client.call_tool("generate_image", order))["task_id"]
        await client.call_tool("cancel_task", {"task_id": task_id})
        asked = {"task_id": task_id, "wait_seconds": 30}
        assert "(cancelled) Nothing was charged" in refusal(
            await client.call_tool("get_task", asked)
        )
        listed = told(await client.call_tool("list_tasks", {}))
    assert [one["task_id"] for one in listed["tasks"]] == [task_id]
