"""Images whose time is over, over HTTP and with either database: nothing of them is shown."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from calotype.assets.disk import DiskAssets
from calotype.domain.errors import Unavailable
from calotype.domain.ids import decode
from calotype.domain.limits import DAY_MS
from calotype.domain.task import Task
from calotype.services.deleting import DOUBTED_SECONDS, LATE_MS, LEAP_MS, Deleting
from calotype.services.thumbnails import Thumbnails
from calotype.store.port import Store
from calotype.store.postgres import PostgresStore
from calotype.store.sqlite import SqliteStore
from calotype.worker import Images, _public_url
from harness import Server, picture, running_server, until
from postgres import fresh_database

DAY = 86_400


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of the database; empty for the embedded one."""
    if request.param == "sqlite":
        yield ""
        return
    async with fresh_database(request.getfixturevalue("postgres")) as url:
        yield url


@pytest.fixture
async def server(tmp_path: Path, database: str) -> AsyncIterator[Server]:
    async with running_server(tmp_path / "data", database_url=database) as running:
        yield running


async def stored(server: Server, document: dict[str, Any]) -> Task:
    number = decode("task", document["task_id"])
    assert number is not None
    task = await server.core.store.task(number)
    assert task is not None
    return task


async def finished(server: Server) -> dict[str, Any]:
    """A task with an image that was made from an upload."""
    accepted = await server.submit_form(("image", picture(), "a.png"))
    assert accepted.status == 202, accepted.body
    return await server.finished(accepted.json["task_id"])


async def execute(store: Store, statement: str, *values: int) -> None:
    if isinstance(store, PostgresStore):
        await store._db.execute(statement, *values)
        return
    assert isinstance(store, SqliteStore)
    text = statement.replace("$", "?")
    await store._write(lambda db: db.execute(text, values).rowcount)


async def expire(server: Server, document: dict[str, Any]) -> None:
    """Have the time of a task's images be over for long enough that they are removed."""
    task, at = await stored(server, document), server.core.clock() - LATE_MS
    store = server.core.store
    await execute(store, "UPDATE tasks SET expires_at = $1 WHERE id = $2", at, task.id)
    await execute(store, "UPDATE assets SET expires_at = $1 WHERE task_id = $2", at, task.id)


async def test_a_task_says_until_when_its_images_are_kept(server: Server) -> None:
    task = await finished(server)
    assert task["expires_at"] == task["completed_at"] + 30 * DAY
    (image,) = task["result"]["data"]
    assert image["expires_at"] < task["expires_at"]
    (reference,) = (await stored(server, task)).references
    assert reference.asset_id is not None
    asset = await server.core.store.asset(reference.asset_id)
    assert asset is not None
    assert asset.expires_at == (await stored(server, task)).abandon_at + 2 * DAY_MS
    failed = await server.submit_form(("image", picture(), "a.png"), ("prompt", "sandbox:fail"))
    assert "expires_at" not in await server.finished(failed.json["task_id"])


async def test_the_account_has_the_first_word_then_the_model_then_the_settings(
    tmp_path: Path, database: str
) -> None:
    settings: dict[str, Any] = {"result_days": 7, "reference_days": 0}
    async with running_server(tmp_path / "data", database_url=database, **settings) as server:
        task = await finished(server)
        assert task["expires_at"] == task["completed_at"] + 7 * DAY
        accounts = server.core.accounts
        owner = await accounts.find("test")
        assert owner is not None
        await accounts.keep_images(owner, results=90, references=1)
        task = await finished(server)
        assert task["expires_at"] == task["completed_at"] + 90 * DAY
        await accounts.keep_images(owner, results=0, references=None)
        task = await finished(server)
        assert "expires_at" not in task
        assert "url" in task["result"]["data"][0]


async def test_no_url_outlives_its_image(tmp_path: Path, database: str) -> None:
    kept: dict[str, Any] = {"result_days": 1, "asset_url_seconds": 7 * DAY}
    async with running_server(tmp_path / "data", database_url=database, **kept) as server:
        task = await finished(server)
        (image,) = task["result"]["data"]
        assert image["expires_at"] == task["expires_at"]
        assert f"expires={task['expires_at']}&" in image["url"]
        (reference,) = task["request"]["image_input"]
        until_ms = (await stored(server, task)).abandon_at + 2 * DAY_MS
        assert f"expires={until_ms // 1000}&" in reference


async def test_an_upstream_still_gets_an_image_whose_time_is_over(tmp_path: Path) -> None:
    public: dict[str, Any] = {"public_url": "https://203.0.114.9", "asset_url_seconds": 60}
    async with running_server(tmp_path / "data", **public) as server:
        task = await finished(server)
        (reference,) = (await stored(server, task)).references
        await expire(server, task)
        asset = await server.core.store.asset(reference.asset_id or 0)
        assert asset is not None
        url = await _public_url(Images(server.core), server.core.settings, asset)
        assert url is not None
        path = url.removeprefix(public["public_url"])
        held = await server.anonymous("GET", path)
        assert (held.status, len(held.body)) == (200, asset.bytes)
        expires = int(path.partition("expires=")[2].partition("&")[0])
        assert expires >= server.core.clock() // 1000 + DAY - 60
        later = path.replace(f"expires={expires}", f"expires={expires + 1}")
        (await server.anonymous("GET", later)).assert_refused(403, "invalid_signature")
        shown = task["request"]["image_input"][0].removeprefix(public["public_url"])
        (await server.anonymous("GET", shown)).assert_refused(404, "asset_not_found")


async def test_what_is_expired_is_shown_nowhere_whether_it_was_removed_or_not(
    server: Server,
) -> None:
    task = await finished(server)
    (image,), (reference,) = task["result"]["data"], task["request"]["image_input"]
    await expire(server, task)
    assert len(server.stored_files()) == 2
    for url in (image["url"], reference):
        gone = await server.anonymous("GET", url.removeprefix(server.url))
        assert "was kept until" in gone.assert_refused(404, "asset_not_found")
    shown = await server.task(task["task_id"])
    (item,) = shown["result"]["data"]
    facts = {name: image[name] for name in ("width", "height", "content_type", "bytes")}
    assert item == {"expired": True, **facts}
    assert shown["request"]["image_input"] == [None]
    assert "deleted_at" not in shown
    assert (await server.call("GET", "/v1/tasks")).json["data"] == [shown]
    now, account_id = server.core.clock(), (await stored(server, task)).account_id
    page = await server.core.store.gallery.pictures(account_id, now=now, limit=9)
    assert page.tasks == []
    assert (await server.call("DELETE", f"/v1/tasks/{task['task_id']}")).status == 204
    assert server.stored_files() == []


async def test_clients_of_openai_are_told_that_the_image_is_gone(server: Server) -> None:
    body = {"model": "gpt-image-2", "prompt": "a lighthouse"}
    for form in ({}, {"response_format": "url"}):
        asked = {"json": {**body, **form}, "headers": {"Idempotency-Key": f"key-{len(form)}"}}
        made = await server.call("POST", "/openai/v1/images/generations", **asked)
        assert made.status == 200, made.body
        (task,) = (await server.call("GET", "/v1/tasks?limit=1")).json["data"]
        await expire(server, task)
        again = await server.call("POST", "/openai/v1/images/generations", **asked)
        assert (again.status, again.json["error"]["code"]) == (424, "asset_not_found")


async def test_expired_images_go_with_their_small_copies_and_the_others_stay(
    server: Server,
) -> None:
    task, other = await finished(server), await finished(server)
    (image,) = (await stored(server, task)).result
    asset = await server.core.store.asset(image.asset_id)
    assert asset is not None
    disk = DiskAssets(server.data / "assets")
    await Thumbnails(disk).key_of(asset, 160)
    await expire(server, task)
    store, clock = server.core.store, server.core.clock
    assert len(server.stored_files()) == 5
    assert await Deleting(store, disk, clock=clock).expire() == 2
    assert await Deleting(store, disk, clock=clock).expire() == 0
    assert len(server.stored_files()) == 2
    assert await server.task(other["task_id"]) == other
    assert await store.lifetimes.keys((await stored(server, task)).asset_ids) == {}
    assert await store.prove() == []
    await disk.close()


async def test_a_server_removes_what_expired_while_none_ran(tmp_path: Path, database: str) -> None:
    async with running_server(tmp_path / "data", database_url=database) as server:
        await expire(server, await finished(server))
        assert len(server.stored_files()) == 2
    async with running_server(tmp_path / "data", database_url=database) as server:
        await until(lambda: server.stored_files() == [])


class Stuck(DiskAssets):
    """A disk that lets nothing go."""

    async def delete(self, keys: Any) -> None:
        raise Unavailable(f"{len(keys)} files cannot be removed.", retry_after=5)


async def test_while_the_store_has_trouble_one_batch_is_begun_and_finished_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.services.deleting.BATCH", 2)
    tasks = [await finished(server) for _ in range(2)]
    for task in tasks:
        await expire(server, task)
    store, clock = server.core.store, server.core.clock
    stuck, disk = Stuck(server.data / "assets"), DiskAssets(server.data / "assets")
    assert await Deleting(store, stuck, clock=clock).expire() == 0
    assert len(await store.gallery.doomed(limit=9)) == 2
    deleting = Deleting(store, disk, clock=clock)
    assert (await deleting.finish(), await deleting.expire()) == (2, 2)
    assert server.stored_files() == []
    await stuck.close()
    await disk.close()


async def test_a_clock_that_leaps_ahead_is_not_believed_for_an_hour(server: Server) -> None:
    await finished(server)
    disk = DiskAssets(server.data / "assets")
    now, passed = server.core.clock(), 100.0
    deleting = Deleting(server.core.store, disk, clock=lambda: now, passed=lambda: passed)
    assert await deleting.expire() == 0
    now, passed = now + 400 * DAY_MS, passed + 60
    assert await deleting.expire() == 0
    now, passed = now + 60_000, passed + 60
    assert await deleting.expire() == 0
    assert len(server.stored_files()) == 2
    now, passed = now + int(DOUBTED_SECONDS) * 1000, passed + DOUBTED_SECONDS
    assert await deleting.expire() == 2
    now, passed = now + LEAP_MS, passed + 1
    assert await deleting.expire() == 0
    assert server.stored_files() == []
    await disk.close()


async def test_what_a_dead_process_had_marked_or_half_removed_the_next_one_finishes(
    tmp_path: Path, database: str
) -> None:
    """As a kill leaves it after the mark, and after some of the files."""
    async with running_server(tmp_path / "data", database_url=database) as server:
        task = await finished(server)
        await expire(server, task)
        store = server.core.store
        batch = await store.lifetimes.expire(now=server.core.clock(), limit=9)
        assert len(batch.images) == 2
        await DiskAssets(tmp_path / "data" / "assets").delete([batch.images[0].key])
        assert len(server.stored_files()) == 1
        asset_ids = [each.id for each in batch.images]
        assert len(await store.lifetimes.keys(asset_ids)) == 2
    async with running_server(tmp_path / "data", database_url=database) as server:
        await until(lambda: server.stored_files() == [])
        shown = await server.task(task["task_id"])
        assert shown["result"]["data"][0]["expired"] is True
        assert await server.core.store.prove() == []
