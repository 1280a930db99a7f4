"""An account's limits over several API processes on one PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from acceptance.cluster import MODEL, PAID, Cluster, Member, running_cluster

EACH = 20
"""Requests to each process, all at once."""
RATE = 6
QUEUE = 9


@pytest.fixture
async def cluster(tmp_path: Path, postgres_url: str) -> AsyncIterator[Cluster]:
    async with running_cluster(tmp_path, postgres_url) as running:
        yield running


async def limited(cluster: Cluster, name: str, *, tasks: int, per_minute: int) -> str:
    """A key of an account with these limits; 0 is none."""
    key = await cluster.new_key(name)
    core = cluster.core()
    try:
        account = await core.accounts.find(name)
        assert account is not None
        await core.accounts.limit(account, tasks=tasks, per_minute=per_minute)
    finally:
        await core.store.close()
    return key


async def answers(cluster: Cluster, apis: list[Member], key: str) -> list[str]:
    """What became of each request: ``accepted``, or the code of its refusal."""

    async def one(api: Member) -> str:
        url = f"{api.url}/v1/images/generations"
        body = {"model": MODEL, "channel_id": PAID, "prompt": "a lighthouse"}
        headers = {"Authorization": f"Bearer {key}"}
        async with cluster.http.post(url, json=body, headers=headers) as response:
            if response.status == 202:
                return "accepted"
            assert response.status == 429, await response.text()
            assert int(response.headers["Retry-After"]) > 0
            return str((await response.json())["code"])

    return await asyncio.gather(*(one(api) for _ in range(EACH) for api in apis))


async def test_three_processes_keep_an_accounts_limits_together(cluster: Cluster) -> None:
    apis = list(await asyncio.gather(*(cluster.api() for _ in range(3))))
    queue = await limited(cluster, "queue", tasks=QUEUE, per_minute=0)
    rate = await limited(cluster, "rate", tasks=0, per_minute=RATE)

    told = await answers(cluster, apis, queue)
    assert sorted(told) == ["accepted"] * QUEUE + ["queue_full"] * (3 * EACH - QUEUE)

    begun = time.monotonic()
    told = await answers(cluster, apis, rate)
    refilled = int((time.monotonic() - begun) * RATE / 60) + 1
    assert set(told) == {"accepted", "rate_limit_reached"}
    assert RATE <= told.count("accepted") <= RATE + refilled
    assert await cluster.proved() == []
