"""Deleting over HTTP, with either database: the images go for good, the task stays."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from calotype.assets.disk import DiskAssets
from calotype.domain.errors import Unavailable
from calotype.domain.ids import decode
from calotype.domain.task import Asset, Task
from calotype.services.deleting import BATCH, TRIALS, Deleting
from calotype.services.thumbnails import Thumbnails
from harness import Reply, Server, picture, running_server, until
from postgres import fresh_database


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


async def delete(server: Server, task_id: str, **options: Any) -> Reply:
    return await server.call("DELETE", f"/v1/tasks/{task_id}", **options)


async def stored(server: Server, task_id: str) -> Task:
    number = decode("task", task_id)
    assert number is not None
    task = await server.core.store.task(number)
    assert task is not None
    return task


async def finished(server: Server) -> dict[str, Any]:
    """A task with an image that was made from an upload."""
    accepted = await server.submit_form(("image", picture(), "a.png"))
    assert accepted.status == 202, accepted.body
    return await server.finished(accepted.json["task_id"])


async def test_the_images_of_a_task_go_for_good_and_the_task_stays(server: Server) -> None:
    task = await finished(server)
    task_id, (image,) = task["task_id"], task["result"]["data"]
    (reference,) = task["request"]["image_input"]
    for url in (image["url"], reference):
        assert (await server.anonymous("GET", url.removeprefix(server.url))).status == 200
    assert len(server.stored_files()) == 2

    reply = await delete(server, task_id, data=b"means nothing")
    assert (reply.status, reply.body) == (204, b"")
    assert "Content-Type" not in reply.headers
    assert reply.headers["X-Request-Id"]

    for url in (image["url"], reference):
        gone = await server.anonymous("GET", url.removeprefix(server.url))
        gone.assert_refused(404, "asset_not_found")
    assert server.stored_files() == []
    shown = await server.task(task_id)
    deleted_at = shown.pop("deleted_at")
    assert deleted_at >= task["completed_at"]
    (kept,) = shown["result"]["data"]
    facts = {name: image[name] for name in ("width", "height", "content_type", "bytes")}
    assert kept == {"expired": True, **facts}
    assert shown["request"]["image_input"] == [None]
    same = ("state", "progress", "billing", "prompt", "last_event", "updated_at", "metadata")
    assert {name: shown.get(name) for name in same} == {name: task.get(name) for name in same}
    (listed,) = (await server.call("GET", "/v1/tasks")).json["data"]
    assert listed == {**shown, "deleted_at": deleted_at}
    assert await server.core.store.prove() == []


async def test_deleting_again_is_no_error_and_keeps_the_time(server: Server) -> None:
    task = await finished(server)
    await delete(server, task["task_id"])
    first = await stored(server, task["task_id"])
    reply = await delete(server, task["task_id"])
    assert reply.status == 204
    assert await stored(server, task["task_id"]) == first
    assert first.deleted_at is not None


async def test_a_failed_task_loses_its_references(server: Server) -> None:
    accepted = await server.submit_form(("image", picture(), "a.png"), ("prompt", "sandbox:fail"))
    task = await server.finished(accepted.json["task_id"])
    assert task["state"] == "fail"
    assert len(server.stored_files()) == 1
    assert (await delete(server, task["task_id"])).status == 204
    assert server.stored_files() == []
    shown = await server.task(task["task_id"])
    assert (shown["result"], shown["request"]["image_input"]) == ({}, [None])
    assert shown["error"] == task["error"]


async def test_only_the_images_of_the_task_go(server: Server) -> None:
    other, task = await finished(server), await finished(server)
    await delete(server, task["task_id"])
    assert len(server.stored_files()) == 2
    assert await server.task(other["task_id"]) == other


async def test_a_task_that_is_not_final_must_be_cancelled_first(
    tmp_path: Path, database: str
) -> None:
    settings = {"database_url": database, "with_worker": False}
    async with running_server(tmp_path / "data", **settings) as server:  # type: ignore[arg-type]  # of both kinds
        task = await server.accepted()
        message = (await delete(server, task["task_id"])).assert_refused(409, "task_not_final")
        assert "waiting" in message
        assert "cancel it first" in message
        assert "deleted_at" not in await server.task(task["task_id"])
        await server.call("POST", f"/v1/tasks/{task['task_id']}/cancel")
        assert (await delete(server, task["task_id"])).status == 204
        assert "deleted_at" in await server.task(task["task_id"])


async def test_another_accounts_task_is_not_there_to_delete(server: Server) -> None:
    task = await finished(server)
    other = await server.for_account()
    (await delete(other, task["task_id"])).assert_refused(404, "task_not_found")
    (await delete(other, "task_0000000000000")).assert_refused(404, "task_not_found")
    (await delete(other, "nonsense")).assert_refused(404, "task_not_found")
    reply = await server.anonymous("DELETE", f"/v1/tasks/{task['task_id']}")
    reply.assert_refused(401, "missing_api_key")
    assert len(server.stored_files()) == 2
    (await server.call("PUT", f"/v1/tasks/{task['task_id']}")).assert_refused(
        405, "method_not_allowed"
    )


async def test_an_image_that_was_deleted_has_no_small_copies_either(server: Server) -> None:
    task = await finished(server)
    (image,) = (await stored(server, task["task_id"])).result
    asset = await server.core.store.asset(image.asset_id)
    assert asset is not None
    disk = DiskAssets(server.data / "assets")
    await Thumbnails(disk).key_of(asset, 160)
    assert len(server.stored_files()) == 3
    await delete(server, task["task_id"])
    await disk.close()
    assert server.stored_files() == []


async def test_clients_of_openai_are_told_that_the_image_is_gone(server: Server) -> None:
    body = {"model": "gpt-image-2", "prompt": "a lighthouse"}
    for form in ({}, {"response_format": "url"}):
        asked = {"json": {**body, **form}, "headers": {"Idempotency-Key": f"key-{len(form)}"}}
        made = await server.call("POST", "/openai/v1/images/generations", **asked)
        assert made.status == 200, made.body
        (task,) = (await server.call("GET", "/v1/tasks?limit=1")).json["data"]
        await delete(server, task["task_id"])
        again = await server.call("POST", "/openai/v1/images/generations", **asked)
        assert (again.status, again.json["error"]["code"]) == (424, "asset_not_found")


async def test_what_a_dead_process_had_begun_to_delete_the_next_one_finishes(
    tmp_path: Path, database: str
) -> None:
    async with running_server(tmp_path / "data", database_url=database) as server:
        task = await finished(server)
        number = decode("task", task["task_id"])
        assert number is not None
        store = server.core.store
        account_id = (await stored(server, task["task_id"])).account_id
        deletion = await store.gallery.delete(number, account_id=account_id, now=1)
        assert deletion is not None
        assert len(deletion.assets) == 2
        await DiskAssets(tmp_path / "data" / "assets").delete([deletion.assets[0].key])
        assert len(server.stored_files()) == 1
    async with running_server(tmp_path / "data", database_url=database) as server:
        await until(lambda: server.stored_files() == [])
        assert "deleted_at" in await server.task(task["task_id"])


class Stuck(DiskAssets):
    """A disk that lets nothing go."""

    async def delete(self, keys: Any) -> None:
        raise Unavailable(f"{len(keys)} files cannot be removed.", retry_after=5)


async def test_a_disk_that_does_not_let_go_is_tried_again_later(server: Server) -> None:
    task = await finished(server)
    account_id = (await stored(server, task["task_id"])).account_id
    store, clock = server.core.store, server.core.clock
    stuck = Stuck(server.data / "assets")
    await Deleting(store, stuck, clock=clock).delete(task["task_id"], account_id=account_id)
    assert len(server.stored_files()) == 2
    assert len(await store.gallery.doomed(limit=BATCH)) == 2
    assert await Deleting(store, stuck, clock=clock).finish() == 0
    for image in (await stored(server, task["task_id"])).asset_ids:
        assert await store.asset(image) is None
    disk = DiskAssets(server.data / "assets")
    assert await Deleting(store, disk, clock=clock).finish() == 2
    assert await Deleting(store, disk, clock=clock).finish() == 0
    assert server.stored_files() == []
    assert await store.gallery.doomed(limit=BATCH) == []
    await stuck.close()
    await disk.close()


class Dead(DiskAssets):
    """A store that does not answer; counts how often it is asked."""

    asked = 0

    async def delete(self, keys: Any) -> None:
        self.asked += 1
        raise Unavailable(f"{len(keys)} files cannot be removed.", retry_after=5)

    async def ping(self) -> None:
        raise Unavailable("The store does not answer.", retry_after=5)


async def test_a_store_that_is_dead_is_not_asked_for_every_image(server: Server) -> None:
    store, clock = server.core.store, server.core.clock
    for _ in range(3):
        task = await stored(server, (await finished(server))["task_id"])
        await store.gallery.delete(task.id, account_id=task.account_id, now=clock())
    assert len(await store.gallery.doomed(limit=BATCH)) == 6
    dead = Dead(server.data / "assets")
    with pytest.raises(Unavailable):
        await Deleting(store, dead, clock=clock).finish()
    assert dead.asked == 1 + TRIALS
    await dead.close()


@pytest.mark.parametrize("batch", [1, BATCH])
async def test_a_file_that_cannot_be_removed_keeps_no_other(
    server: Server, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr("calotype.services.deleting.BATCH", batch)
    store, clock = server.core.store, server.core.clock
    disk = DiskAssets(server.data / "assets")
    doomed: list[Asset] = []
    for _ in range(3):
        task = await stored(server, (await finished(server))["task_id"])
        deletion = await store.gallery.delete(task.id, account_id=task.account_id, now=clock())
        assert deletion is not None
        doomed += deletion.assets
    first = min(doomed, key=lambda image: image.id)
    stuck = disk.path(first.key)
    stuck.unlink()
    stuck.mkdir()
    assert await Deleting(store, disk, clock=clock).finish() == len(doomed) - 1
    assert [image.id for image in await store.gallery.doomed(limit=9)] == [first.id]
    assert server.stored_files() == []
    stuck.rmdir()
    assert await Deleting(store, disk, clock=clock).finish() == 1
    assert await store.gallery.doomed(limit=9) == []
    await disk.close()


async def test_deleted_pictures_leave_the_gallery(server: Server) -> None:
    first, second = await finished(server), await finished(server)
    account_id = (await stored(server, first["task_id"])).account_id
    gallery = server.core.store.gallery
    await delete(server, second["task_id"])
    page = await gallery.pictures(account_id, limit=9)
    assert [task.id for task in page.tasks] == [decode("task", first["task_id"])]
    everything = await gallery.tasks(account_id, limit=9)
    assert len(everything.tasks) == 2
