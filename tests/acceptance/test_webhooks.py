"""Every end is told at least once, whoever is killed on the way, and once by two workers."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from standardwebhooks.webhooks import Webhook as Verifier

from acceptance.cluster import Cluster, Member, eventually, running_cluster
from calotype.domain.ids import decode
from receiver import OK, Receiver, hang, receiving

TASKS = 24


async def worker_of(cluster: Cluster, api: Member) -> Member:
    """The process that develops tasks and sends webhooks."""
    return await cluster.worker() if cluster.database_url else api


async def ask(
    cluster: Cluster, api: Member, method: str, path: str, document: Any = None
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {cluster.key}"}
    async with cluster.http.request(
        method, api.url + path, json=document, headers=headers
    ) as response:
        answered: dict[str, Any] = await response.json()
        assert response.status in {200, 202}, answered
        return answered


async def delivered(cluster: Cluster) -> int:
    return await cluster.one("SELECT COUNT(*) FROM webhooks WHERE state = 'delivered'")


async def all_delivered(cluster: Cluster, number: int) -> None:
    async def held() -> bool:
        return await delivered(cluster) == number

    await eventually(held, f"{number} webhooks are delivered: {cluster.told()}")


def ids_of(receiver: Receiver) -> Counter[str]:
    return Counter(message.id for message in receiver.got)


async def test_what_a_killed_process_was_sending_or_was_to_send_arrives(
    cluster: Cluster,
) -> None:
    async with receiving(hang) as receiver:
        api = await cluster.api()
        doomed = await worker_of(cluster, api)
        settings = await ask(cluster, api, "PUT", "/v1/webhooks", {"url": receiver.url})
        tasks = await cluster.submit_many([api], TASKS, "sandbox:delay=0")
        await cluster.all_final(TASKS)
        await receiver.received(8)
        await doomed.kill()
        rows = await cluster.rows("SELECT state, attempts FROM webhooks")
        assert {state for state, _ in rows} == {"pending"}
        assert {attempts for _, attempts in rows} == {0, 1}, "some were being sent, others not yet"
        sent_before = ids_of(receiver)

        receiver.then(OK)
        if cluster.database_url:
            await cluster.worker()
        else:
            api = await cluster.api()
        await all_delivered(cluster, TASKS)

        words = {f"msg_{task.removeprefix('task_')}" for task in tasks}
        assert set(ids_of(receiver)) == words
        assert all(ids_of(receiver)[word] == 1 + sent_before[word] for word in words)
        secret = settings["secrets"][0]["secret"]
        told = {
            Verifier(secret).verify(message.body, message.headers)["task_id"]
            for message in receiver.got
        }
        assert told == set(tasks)
        one = await ask(cluster, api, "GET", f"/v1/tasks/{tasks[0]}")
        assert one["webhook_delivery"]["state"] == "delivered"
        shown = cluster.start("show", "tasks", "show", tasks[0])
        assert await shown.ended() == 0, shown.log
        assert "webhook: delivered (task.success to http://127.0.0.1:" in shown.out.read_text()
        assert await cluster.proved() == []


async def test_two_workers_tell_of_each_end_once(tmp_path: Path, postgres_url: str) -> None:
    settings = {"webhook_allow_hosts": "127.0.0.1"}
    async with running_cluster(tmp_path, postgres_url, **settings) as cluster, receiving() as one:
        api = await cluster.api()
        workers = await asyncio.gather(cluster.worker(), cluster.worker())
        await ask(cluster, api, "PUT", "/v1/webhooks", {"url": one.url})
        tasks = await cluster.submit_many([api], 60, "sandbox:delay=0")
        await all_delivered(cluster, len(tasks))
        assert set(ids_of(one).values()) == {1}
        assert len(one.got) == len(tasks)
        again = tasks[0]
        await ask(cluster, api, "POST", f"/v1/tasks/{again}/webhook/redeliver")
        await one.received(len(tasks) + 1)
        assert one.got[-1].id == f"msg_{again.removeprefix('task_')}"
        await all_delivered(cluster, len(tasks))
        assert decode("task", again) is not None
        for worker in workers:
            assert await worker.terminate() == 0
            assert "Traceback" not in worker.log
        assert await cluster.proved() == []
