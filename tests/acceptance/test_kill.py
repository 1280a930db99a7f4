"""Nothing that was accepted is lost and nothing is bought twice, however the server ends."""

import asyncio
import os
import random
import re
import socket
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from PIL import Image

from calotype.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from acceptance.conftest import Site

TASKS = 200
KILLS = 3
COPIES = 6000
"""Expired images: sixty batches, so that a kill comes in the middle."""
CREDIT = 1_000_000_000

OUTCOMES = {
    "sandbox:delay=0": "",
    "sandbox:delay=2.5": "",
    "sandbox:429": "",
    "sandbox:500-before": "",
    "sandbox:500-after": "upstream_failed",
    "sandbox:refuse": "content_policy_violation",
    "sandbox:malformed": "upstream_malformed_response",
    "plain": "",
    "also plain": "",
    "plain too": "",
}
"""What a prompt steers to: the code of its failure, or success."""

PAID = """
[[channels]]
id = 10
slug = "paid"
name = "Paid"
provider = "sandbox"
free = false
models = { "gpt-image-2" = "gpt-image-2" }
"""

WAVE = [f"{place} {'sandbox:delay=0' * (place % 2)}" for place in range(30)]
"""Half of these are answered with their picture, so they are being sent until it is drawn."""


async def test_killed_again_and_again_every_task_ends_and_is_billed_once(site: "Site") -> None:
    site.environment["CALOTYPE_SANDBOX_SECONDS"] = "1"
    await site.fund()
    await site.serve()
    prompts = [f"{place} {list(OUTCOMES)[place % len(OUTCOMES)]}" for place in range(TASKS)]
    accepted: dict[int, str] = {}
    at_once = asyncio.Semaphore(16)

    async def client(place: int) -> None:
        """Submit, and again under the same key while there is no answer."""
        fields = {"model": "gpt-image-2"} if place % 20 == 9 else {}
        async with at_once, asyncio.timeout(100):
            while place not in accepted:
                try:
                    key = f"order-{place}"
                    accepted[place] = await site.submit(prompts[place], key=key, **fields)
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)

    async def chaos() -> None:
        """Kill while tasks come in, while they are worked on, and shortly before the end."""
        chance = random.Random()  # noqa: S311 -- moments, no secrets
        early, middle, late = (
            chance.randint(*within) for within in ((20, 150), (20, 90), (100, 170))
        )
        await site.eventually(lambda: len(accepted) >= early, f"{early} tasks are accepted")
        await site.started[-1].kill()
        await site.serve()
        for ended in (middle, late):
            drawn = partial(drawn_so_far, site, ended)
            await site.eventually(drawn, f"{ended} tasks are final and others are drawn")
            await site.started[-1].kill()
            await site.eventually(lambda: not site.easels(), "the drawing processes end")
            await site.serve()

    await asyncio.gather(chaos(), *(client(place) for place in range(TASKS)))
    await site.eventually(lambda: site.finals() == site.count("TRUE"), "all tasks are final")

    assert len(set(accepted.values())) == site.count("TRUE") == TASKS
    tasks = {place: await site.finished(task_id) for place, task_id in accepted.items()}
    for place, task in tasks.items():
        code = OUTCOMES[list(OUTCOMES)[place % len(OUTCOMES)]]
        assert (task["state"], task["error"].get("code", "")) == (
            "fail" if code else "success",
            code,
        )
        assert_billed(task)
    spent = sum(task["billing"]["actual_amount_micro_usdc"] for task in tasks.values())
    assert spent > 0
    assert (await site.get("/v1/credits/balance"))["balance_micro_usdc"] == CREDIT - spent
    assert (
        site.rows(
            "SELECT task_id FROM ledger WHERE kind IN ('commit', 'release') "
            "GROUP BY task_id HAVING COUNT(*) <> 1"
        )
        == []
    )
    assert site.count("kind = 'commit'", "ledger") == sum(
        not task["error"] for task in tasks.values()
    )
    assert await site.proved() == []
    await asyncio.gather(*(assert_downloadable(site, task) for task in tasks.values()))
    assert "Traceback" not in site.started[-1].stderr
    assert await site.started[-1].terminate() == 0
    left = list((site.root / "tmp").iterdir())
    assert len(left) <= KILLS * 2, "more is left than what was being drawn when a kill came"


async def test_killed_while_it_removes_images_a_server_leaves_none_of_them_half(
    site: "Site",
) -> None:
    site.environment["CALOTYPE_SANDBOX_SECONDS"] = "0"
    await site.fund()
    await site.serve()
    tasks = [await site.finished(await site.submit(f"a pier {place}")) for place in range(3)]
    assert await site.started[-1].terminate() == 0
    assets = site.data / "assets"
    ((over, key),) = site.rows("SELECT task_id, key FROM assets ORDER BY task_id LIMIT 1")
    for place in range(1, COPIES):
        os.link(assets / key, assets / f"{key}.{place}")
    site.change(
        "INSERT INTO assets (id, account_id, task_id, kind, key, content_type, bytes, width, "  # noqa: S608 -- our own text
        f"height, created_at) WITH RECURSIVE more (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM "
        f"more WHERE n < {COPIES - 1}) SELECT id + n, account_id, task_id, kind, key || '.' || n, "
        f"content_type, bytes, width, height, created_at FROM assets, more WHERE task_id = {over}"
    )
    for table, name in (("assets", "task_id"), ("tasks", "id")):
        site.change(f"UPDATE {table} SET expires_at = created_at - 3600000 WHERE {name} = {over}")  # noqa: S608 -- our own text

    def whole() -> None:
        rows = dict(site.rows("SELECT key, deleted_at IS NOT NULL FROM assets"))
        shown = {name for name, is_marked in rows.items() if not is_marked}
        there = {str(each.relative_to(assets)) for each in assets.glob("results/*/asset_*")}
        assert shown <= there, "an image that is shown has lost its file"
        assert there <= set(rows), "a file has lost its row"

    left = COPIES
    condition = f"task_id = {over}"
    for _ in range(KILLS):
        await site.serve()
        await site.eventually(partial(fewer, site, condition, left), "some are gone")
        await site.started[-1].kill()
        left = site.count(condition, "assets")
        assert left, "the kill came after the last was removed"
        whole()
    await site.serve()
    await site.eventually(lambda: not site.count(condition, "assets"), "all are gone")
    whole()
    assert len(list(assets.glob("results/*/asset_*"))) == len(tasks) - 1
    shown = [await site.get(f"/v1/tasks/{task['task_id']}") for task in tasks]
    assert [len(task["result"]["data"]) for task in shown] == [1] * len(tasks)
    gone = [task for task in shown if "url" not in task["result"]["data"][0]]
    assert [task["result"]["data"][0]["expired"] for task in gone] == [True]
    for task in shown:
        if task not in gone:
            await assert_downloadable(site, task)
    assert await site.proved() == []
    assert await site.started[-1].terminate() == 0


async def test_killed_with_a_paid_upstream_nothing_is_ever_sent_twice(site: "Site") -> None:
    (site.root / "calotype.toml").write_text(PAID)
    site.environment["CALOTYPE_SANDBOX_SECONDS"] = "1"
    await site.fund()
    await site.serve()
    tasks, unknown = list[str](), set[int]()
    for _ in range(2):
        tasks += await asyncio.gather(
            *(site.submit(prompt, model="gpt-image-2") for prompt in WAVE)
        )
        await site.eventually(lambda: on_their_way(site), "some are done, others on their way")
        await site.started[-1].kill()
        left = attempts(site)
        cut_off = {task_id for task_id, (state, _) in left.items() if state == "sending"}
        assert cut_off, "the kill came when nothing was on its way"
        unknown |= cut_off
        await site.serve()
        await site.eventually(partial(settled, site, cut_off), "what was cut off is settled")
        for task_id, (state, upstream_id) in attempts(site).items():
            assert upstream_id == left.get(task_id, (state, upstream_id))[1]
            assert (state == "unknown") == (task_id in unknown)
    await site.eventually(lambda: site.finals() == len(tasks), "all tasks are final")

    ends = attempts(site)
    assert len(ends) == site.count("TRUE", "attempts") == len(tasks), "one attempt each"
    assert {state for state, _ in ends.values()} == {"unknown", "done"}
    documents = [await site.finished(task_id) for task_id in tasks]
    failed = [task for task in documents if task["state"] == "fail"]
    assert {task["error"]["code"] for task in failed} == {"upstream_outcome_unknown"}
    assert len(failed) == len(unknown)
    for task in documents:
        assert_billed(task)
    assert await site.proved() == []
    assert await site.started[-1].terminate() == 0


async def test_stopped_a_server_parks_its_tasks_and_the_next_one_finishes_them(
    site: "Site",
) -> None:
    site.environment["CALOTYPE_SANDBOX_SECONDS"] = "3"
    await site.fund()
    server = await site.serve()
    quick = await site.submit("sandbox:delay=0")
    await site.finished(quick)
    tasks = await asyncio.gather(*(site.submit(f"lighthouse {place}") for place in range(12)))
    await site.eventually(
        lambda: site.count("state = 'accepted'", "attempts") == len(tasks), "all are accepted"
    )
    before = attempts(site)
    assert await server.terminate() == 0
    assert_stopped_quietly(site)
    assert site.count("completed_at IS NULL") == len(tasks)
    assert attempts(site) == before

    # Ctrl-C reaches the drawing processes too.
    server = await site.serve()
    await site.interrupt(server)
    assert await server.ended() == 0
    assert_stopped_quietly(site)

    await site.serve()
    done = [await site.finished(task_id) for task_id in tasks]
    assert {task["state"] for task in done} == {"success"}
    assert {task_id: upstream_id for task_id, (_, upstream_id) in attempts(site).items()} == {
        task_id: upstream_id for task_id, (_, upstream_id) in before.items()
    }
    assert site.count("TRUE", "attempts") == len(tasks) + 1
    assert await site.proved() == []
    assert await site.started[-1].terminate() == 0


async def test_stopped_without_patience_a_server_cuts_tasks_off_and_loses_none(
    site: "Site",
) -> None:
    site.environment |= {"CALOTYPE_SANDBOX_SECONDS": "0", "CALOTYPE_DRAIN_SECONDS": "0"}
    await site.fund()
    server = await site.serve()
    tasks = await asyncio.gather(
        *(site.submit(f"lighthouse {place}", model="gpt-image-2") for place in range(20))
    )
    await site.eventually(lambda: site.finals() > 0, "the first is done")
    assert await server.terminate() == 0
    assert "Traceback" not in server.stderr
    assert " ERROR " not in server.stderr
    assert site.easels() == []
    assert site.count("completed_at IS NULL"), "the stop came too late to cut anything off"

    await site.serve()
    assert {(await site.finished(task_id))["state"] for task_id in tasks} == {"success"}
    assert await site.proved() == []
    assert await site.started[-1].terminate() == 0


async def test_one_server_develops_and_others_on_its_folder_only_accept(site: "Site") -> None:
    site.environment["CALOTYPE_SANDBOX_SECONDS"] = "0"
    await site.fund()
    worker = await site.serve()
    told = await site.refused("serve", "--port", "0")
    assert "another server develops tasks in this data folder" in told
    assert "--no-worker" in told

    staging = site.data / "assets" / "incoming"
    alive = set(staging.iterdir())
    helper = await site.serve("--no-worker")
    assert alive <= set(staging.iterdir()), "a start took away what another server takes in"
    assert await site.get("/readyz")
    task_id = await site.submit("accepted without a worker")
    assert (await site.get(f"/v1/tasks/{task_id}"))["state"] == "waiting"
    elsewhere, site.url = site.url, worker.url
    assert (await site.finished(await site.submit("meanwhile")))["state"] == "success"
    site.url = elsewhere
    assert (await site.get(f"/v1/tasks/{task_id}"))["state"] == "waiting"
    assert await helper.terminate() == 0
    await worker.kill()
    left = set(staging.iterdir())

    await site.serve()
    assert left
    assert not left & set(staging.iterdir()), "what a dead process left staged stays for ever"
    await assert_downloadable(site, await site.finished(task_id))
    assert await site.proved() == []


@pytest.mark.parametrize(
    ("content", "environment", "told"),
    [
        ("prot = 80\n", {}, "calotype.toml: prot: there is no such setting; did you mean port?"),
        ("port = 70000\n", {}, "calotype.toml: port: must be 0 to 65535"),
        ("port = 'web'\n", {}, "calotype.toml: port: "),
        ("port = \n", {}, "calotype.toml: is not TOML"),
        ("", {"CALOTYPE_PORT": "web"}, "CALOTYPE_PORT: "),
        ("", {"CALOTYPE_PROT": "80"}, "CALOTYPE_PROT: there is no such setting; did you mean"),
        (
            PAID.replace('"sandbox"', '"nobody"'),
            {},
            "channels[1].provider: there is no provider 'nobody'",
        ),
        (
            PAID.replace('"gpt-image-2" =', '"gpt" ='),
            {},
            "channels[1].models.gpt: there is no such model",
        ),
    ],
)
async def test_a_wrong_configuration_is_refused_in_one_line_that_names_the_cure(
    site: "Site", content: str, environment: dict[str, str], told: str
) -> None:
    (site.root / "calotype.toml").write_text(content)
    site.environment |= environment
    assert told in await site.refused("serve")
    assert not site.data.exists(), "a refused start leaves nothing behind"


async def test_a_database_that_a_newer_version_wrote_is_refused_and_left_as_it_is(
    site: "Site",
) -> None:
    await SqliteStore(site.database).migrate()
    site.change("PRAGMA user_version = 999")
    told = await site.refused("serve", "--port", "0")
    assert told.startswith(f"{site.database}: the schema has version 999")
    assert "start the newer Calotype" in told
    assert site.rows("PRAGMA user_version") == [(999,)]


async def test_an_address_that_is_taken_is_refused_by_name(site: "Site") -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = await site.refused("serve", "--port", port)
    assert f"127.0.0.1:{port}" in told
    assert "choose another" in told


def fewer(site: "Site", condition: str, before: int) -> bool:
    """Whether there are fewer images than before."""
    return site.count(condition, "assets") < before


def attempts(site: "Site") -> dict[int, tuple[str, str | None]]:
    """The last attempt of each task: its state and the upstream's id."""
    found = site.rows("SELECT task_id, state, upstream_id FROM attempts ORDER BY task_id, number")
    return {task_id: (state, upstream_id) for task_id, state, upstream_id in found}


def drawn_so_far(site: "Site", tasks: int) -> bool:
    """Whether so many tasks are final and there are processes that draw."""
    return site.finals() >= tasks and bool(site.easels())


def on_their_way(site: "Site") -> bool:
    """Whether some attempts are done, some are being sent and some are polled."""
    states = {state for state, _ in attempts(site).values()}
    return {"done", "sending", "accepted"} <= states


def settled(site: "Site", task_ids: set[int]) -> bool:
    unfinished = {
        task_id for (task_id,) in site.rows("SELECT id FROM tasks WHERE completed_at IS NULL")
    }
    return not unfinished & task_ids


def assert_billed(task: dict[str, Any]) -> None:
    """Paid in full or not at all, as the state says."""
    billing = task["billing"]
    reserve = billing["reserve_amount_micro_usdc"]
    assert reserve > 0
    paid = task["state"] == "success"
    assert billing == {
        "status": "committed" if paid else "released",
        "reserve_amount_micro_usdc": reserve,
        "actual_amount_micro_usdc": reserve if paid else 0,
        "released_amount_micro_usdc": 0 if paid else reserve,
    }


async def assert_downloadable(site: "Site", task: dict[str, Any]) -> None:
    """A success has one image, and it is what the task says."""
    if task["state"] == "fail":
        assert task["result"] == {}
        return
    (item,) = task["result"]["data"]
    content = await site.download(item["url"])
    assert len(content) == item["bytes"]
    with Image.open(BytesIO(content)) as image:
        assert image.size == (item["width"], item["height"])
        image.verify()


def assert_stopped_quietly(site: "Site") -> None:
    told = site.started[-1].stderr
    assert "Traceback" not in told
    assert " ERROR " not in told
    assert re.search(r"\b0\b[a-z ]* cut off", told)
    assert site.easels() == []
