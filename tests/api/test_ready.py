"""A task that is read again and again is never shown older than its last change."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from calotype.domain.ids import decode
from calotype.services.ready import MAX_BYTES, ReadyDocuments
from harness import OUR_CODE, Reply, Server, picture, running_server
from postgres import fresh_database


@pytest.fixture(params=["sqlite", "postgres"])
async def database_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Of each storage mode."""
    if request.param == "sqlite":
        yield ""
        return
    async with fresh_database(request.getfixturevalue("postgres")) as url:
        yield url


@pytest.fixture
async def server(tmp_path: Path, database_url: str) -> AsyncIterator[Server]:
    """A server whose sandbox answers at once."""
    async with running_server(tmp_path / "data", database_url=database_url) as running:
        yield running


@pytest.fixture
async def idle_server(tmp_path: Path, database_url: str) -> AsyncIterator[Server]:
    """A server that develops nothing."""
    data = tmp_path / "data"
    async with running_server(data, with_worker=False, database_url=database_url) as running:
        yield running


async def read(server: Server, word: str) -> Reply:
    """The task by the third of three reads, which is of what the second has left."""
    for _ in range(2):
        await server.call("GET", f"/v1/tasks/{word}")
    return await server.call("GET", f"/v1/tasks/{word}")


@asynccontextmanager
async def another_process(server: Server) -> AsyncIterator[str]:
    """The URL of a second server on the same data, a process of its own."""
    environment = {
        **OUR_CODE,
        "CALOTYPE_DATA_DIR": str(server.data),
        "CALOTYPE_DATABASE_URL": server.core.settings.database_url,
        "CALOTYPE_PORT": "0",
    }
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "calotype", "serve", "--no-worker"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    try:
        yield (await program.stdout.readline()).decode().split()[3]
    finally:
        program.terminate()
        await program.wait()


async def test_a_read_tells_of_what_this_process_has_just_written(idle_server: Server) -> None:
    for _ in range(20):
        word = (await idle_server.accepted())["task_id"]
        assert (await read(idle_server, word)).json["state"] == "waiting"
        await idle_server.call("POST", f"/v1/tasks/{word}/cancel")
        assert (await read(idle_server, word)).json["state"] == "fail"


async def test_a_read_tells_of_what_another_process_has_just_written(idle_server: Server) -> None:
    async with another_process(idle_server) as url:
        for _ in range(20):
            word = (await idle_server.accepted())["task_id"]
            assert (await read(idle_server, word)).json["state"] == "waiting"
            await idle_server.call("POST", f"{url}/v1/tasks/{word}/cancel")
            now = await idle_server.call("GET", f"/v1/tasks/{word}")
            assert now.json["state"] == "fail"


async def test_a_task_that_is_ready_is_nothing_to_another_account(idle_server: Server) -> None:
    word = (await idle_server.accepted())["task_id"]
    assert (await read(idle_server, word)).status == 200
    other = await idle_server.for_account()
    (await read(other, word)).assert_refused(404, "task_not_found")
    assert (await read(idle_server, word)).status == 200


async def test_a_revoked_key_reads_nothing_that_is_ready(idle_server: Server) -> None:
    word = (await idle_server.accepted())["task_id"]
    assert (await read(idle_server, word)).status == 200
    (key,) = await idle_server.core.store.keys()
    await idle_server.core.accounts.revoke(key)
    (await read(idle_server, word)).assert_refused(401, "invalid_api_key")


async def test_hosts_have_documents_of_their_own(server: Server) -> None:
    task = await server.outcome()
    for host in ("one.example", "two.example", "one.example"):
        shown = await server.call("GET", task["poll_url"], headers={"Host": host})
        assert shown.json["result"]["data"][0]["url"].startswith(f"http://{host}/v1/assets/")


async def test_deleted_images_are_gone_from_what_was_ready(server: Server) -> None:
    word = (await server.outcome())["task_id"]
    assert "url" in (await read(server, word)).json["result"]["data"][0]
    assert (await server.call("DELETE", f"/v1/tasks/{word}")).status == 204
    assert "url" not in (await read(server, word)).json["result"]["data"][0]


async def test_uploads_that_were_deleted_are_gone_from_what_was_ready(idle_server: Server) -> None:
    word = (await idle_server.submit_form(("image", picture(), "a.png"))).json["task_id"]
    assert (await read(idle_server, word)).json["request"]["image_input"] != [None]
    await idle_server.call("POST", f"/v1/tasks/{word}/cancel")
    await idle_server.call("DELETE", f"/v1/tasks/{word}")
    assert (await read(idle_server, word)).json["request"]["image_input"] == [None]


async def test_long_documents_take_no_more_memory_than_short_ones(idle_server: Server) -> None:
    task_id = (await idle_server.accepted())["task_id"]
    task = await idle_server.core.store.task(decode("task", task_id) or 0)
    assert task is not None
    ready, body = ReadyDocuments(), bytes(MAX_BYTES // 10)
    for number in range(100):
        ready.keep(str(number), "", task, body, mark=1, channel=None, now=1)
        ready.keep(str(number), "", task, body, mark=2, channel=None, now=1)
    kept = [number for number in range(100) if ready.get(str(number), "", now=1)]
    assert kept == list(range(90, 100))
    ready.keep("too long", "", task, bytes(MAX_BYTES + 1), mark=1, channel=None, now=1)
    assert ready.get("too long", "", now=1) is None
