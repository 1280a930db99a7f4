"""Cancelling and images one by one while the worker is killed, with either database."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from acceptance.cluster import CREDIT, FINAL, PAID, Cluster, Member, eventually, running_cluster
from calotype.domain.ids import decode
from postgres import fresh_database

PRICE = 10_000
"""Of the small model."""
SEVERAL = "recraft-v4.1"
EACH = 35_000
N = 6


@pytest.fixture(params=["sqlite", "postgres"])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    if request.param == "sqlite":
        async with running_cluster(tmp_path) as running:
            yield running
        return
    async with (
        fresh_database(request.getfixturevalue("postgres")) as url,
        running_cluster(tmp_path, url) as running,
    ):
        yield running


async def up(cluster: Cluster) -> tuple[Member, Member]:
    """An API and a worker; one process where they cannot be two."""
    api = await cluster.api()
    return (api, await cluster.worker()) if cluster.database_url else (api, api)


async def idle(cluster: Cluster) -> Member:
    """An API without any worker."""
    return await cluster.api(*(() if cluster.database_url else ("--no-worker",)))


async def cancelled(cluster: Cluster, api: Member, task_id: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {cluster.key}"}
    url = f"{api.url}/v1/tasks/{task_id}/cancel"
    async with cluster.http.post(url, headers=headers) as response:
        document: dict[str, Any] = await response.json()
        assert response.status == 200, document
        return document


async def reached(cluster: Cluster, api: Member, task_id: str, state: str) -> None:
    async def held() -> bool:
        return bool((await cluster.task(api, task_id))["state"] == state)

    await eventually(held, f"it is {state}: {cluster.told()}")


async def finished(cluster: Cluster, api: Member, task_id: str) -> dict[str, Any]:
    async def held() -> bool:
        return (await cluster.task(api, task_id))["state"] in FINAL

    await eventually(held, f"it ends: {cluster.told()}")
    return await cluster.task(api, task_id)


async def arrived(cluster: Cluster, task_id: str) -> int:
    """How many images the database knows of."""
    number = decode("task", task_id)
    return await cluster.one("SELECT COUNT(*) FROM assets WHERE task_id = $1", number)


async def killed_among_its_images(
    cluster: Cluster, prompt: str
) -> tuple[str, list[dict[str, Any]], Member]:
    """A task whose worker was killed when some images had come; these, and a fresh API."""
    api, worker = await up(cluster)
    task_id = await cluster.submit(api, prompt, model=SEVERAL, n=N)

    async def some() -> bool:
        return await arrived(cluster, task_id) > 0

    await eventually(some, f"an image comes: {cluster.told()}", pause=0.01)
    await worker.kill()
    assert await arrived(cluster, task_id) < N, "it was killed too late"
    api = api if cluster.database_url else await idle(cluster)
    task = await cluster.task(api, task_id)
    assert task["result"] == {}
    shown = task["partial_result"]["data"]
    assert len(shown) == await arrived(cluster, task_id)
    if not cluster.database_url:
        await api.terminate()
    return task_id, shown, api


async def assert_paid(cluster: Cluster, task: dict[str, Any], amount: int) -> None:
    assert task["billing"]["actual_amount_micro_usdc"] == amount
    assert await cluster.one("SELECT balance FROM accounts") == CREDIT - amount
    assert await cluster.one("SELECT reserved FROM accounts") == 0
    assert await cluster.proved() == []


def names(images: list[dict[str, Any]]) -> list[str]:
    return [image["url"].partition("?")[0].rpartition("/")[2] for image in images]


async def attempt(cluster: Cluster, task_id: str) -> tuple[str, str | None]:
    number = decode("task", task_id)
    assert number is not None
    (only,) = (await cluster.attempts())[number]
    return only


async def test_a_mark_that_was_made_while_no_worker_lived_is_seen_by_the_next(
    cluster: Cluster,
) -> None:
    api, worker = await up(cluster)
    task_id = await cluster.submit(api, "sandbox:delay=600")
    await reached(cluster, api, task_id, "generating")
    await worker.kill()
    if not cluster.database_url:
        api = await idle(cluster)
    marked = await cancelled(cluster, api, task_id)
    assert (marked["state"], marked["error"]) == ("generating", {})
    if not cluster.database_url:
        await api.terminate()
    fresh, _ = await up(cluster)
    task = await finished(cluster, fresh, task_id)
    assert (task["state"], task["error"]["code"]) == ("fail", "cancelled")
    assert task["cancel_requested_at"] == marked["cancel_requested_at"]
    assert (await attempt(cluster, task_id))[0] == "failed"
    await assert_paid(cluster, task, 0)


async def test_killed_after_the_mark_the_next_worker_settles_what_was_finished_all_the_same(
    cluster: Cluster,
) -> None:
    api, worker = await up(cluster)
    task_id = await cluster.submit(api, "sandbox:unstoppable sandbox:delay=4")
    await reached(cluster, api, task_id, "generating")
    bought = await attempt(cluster, task_id)
    marked = await cancelled(cluster, api, task_id)
    await worker.kill()
    assert marked["state"] == "generating"
    fresh, _ = await up(cluster)
    task = await finished(cluster, fresh, task_id)
    assert (task["state"], task["error"]["code"]) == ("fail", "cancelled")
    assert await attempt(cluster, task_id) == ("done", bought[1])
    await assert_paid(cluster, task, PRICE)


async def test_a_task_that_no_worker_took_up_is_cancelled_for_good(cluster: Cluster) -> None:
    api = await idle(cluster)
    task_id = await cluster.submit(api, "a boat")
    task = await cancelled(cluster, api, task_id)
    assert (task["state"], task["error"]["code"]) == ("fail", "cancelled")
    await api.terminate()
    fresh, _ = await up(cluster)
    other = await cluster.submit(fresh, "another boat")
    assert (await finished(cluster, fresh, other))["state"] == "success"
    assert (await cluster.task(fresh, task_id))["state"] == "fail"
    number = decode("task", task_id)
    assert await cluster.one("SELECT COUNT(*) FROM attempts WHERE task_id = $1", number) == 0
    await assert_paid(cluster, task | {"billing": {"actual_amount_micro_usdc": PRICE}}, PRICE)


async def test_killed_among_its_images_a_task_goes_on_with_those_that_are_missing(
    cluster: Cluster,
) -> None:
    task_id, shown, _ = await killed_among_its_images(cluster, "a harbour sandbox:delay=0.1")
    fresh, _ = await up(cluster)
    task = await finished(cluster, fresh, task_id)
    assert (task["state"], len(task["result"]["data"])) == ("success", N)
    assert names(task["result"]["data"])[: len(shown)] == names(shown)
    assert await arrived(cluster, task_id) == N, "an image was fetched twice"
    assert (await attempt(cluster, task_id))[0] == "done"
    await assert_paid(cluster, task, N * EACH)


async def test_killed_among_the_images_of_an_answer_a_task_ends_with_those_that_came(
    cluster: Cluster,
) -> None:
    task_id, shown, _ = await killed_among_its_images(cluster, "a harbour sandbox:delay=0")
    fresh, _ = await up(cluster)
    task = await finished(cluster, fresh, task_id)
    assert task["state"] == "success", task["error"]
    assert names(task["result"]["data"]) == names(shown)
    assert task["request"]["channel_id"] == PAID
    assert await attempt(cluster, task_id) == ("unknown", None)
    await assert_paid(cluster, task, len(shown) * EACH)
