"""A cloud store that is slow, breaks off or is away: what is tried again, and what is told."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from calotype.assets import clients
from calotype.assets.address import Bucket, parse
from calotype.assets.cloud import PART, RESUMES, CloudAssets
from calotype.domain.errors import Unavailable
from faulty import FaultyWay, faulty_way
from harness import noise, running_server
from s3 import S3Server

PLACE = "results/1k0v/asset_1k0v3m9d5b8qe.png"
LARGE = secrets.token_bytes(2 * PART + 1000)


@pytest_asyncio.fixture
async def way(s3: S3Server) -> AsyncIterator[FaultyWay]:
    async with faulty_way(s3.port) as made:
        yield made


@pytest_asyncio.fixture
async def store(s3: S3Server, way: FaultyWay, tmp_path: Path) -> AsyncIterator[CloudAssets]:
    bucket = parse(s3.url(endpoint=way.endpoint))
    assert isinstance(bucket, Bucket)
    made = CloudAssets(bucket, staging=tmp_path / "staging", signs=True)
    yield made
    await made.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library gives up after a second instead of twenty."""
    monkeypatch.setattr(clients, "RETRY_SECONDS", 1)


async def keep(store: CloudAssets, data: bytes) -> None:
    async with store.stage() as staged:
        await staged.write(data)
        await staged.publish(PLACE, content_type="image/png")


async def read(store: CloudAssets) -> bytes:
    async with store.open(PLACE) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("data", [b"an image", LARGE], ids=["at once", "in parts"])
async def test_a_store_that_asks_to_slow_down_is_asked_again(
    store: CloudAssets, way: FaultyWay, data: bytes
) -> None:
    way.cut()
    way.busy = 3
    await keep(store, data)
    assert way.busy == 0
    way.cut()
    way.busy = 3
    assert await read(store) == data
    assert way.busy == 0


async def test_a_part_that_is_cut_off_is_sent_again(store: CloudAssets, way: FaultyWay) -> None:
    way.cut_uploads = 2
    await keep(store, LARGE)
    assert way.cut_uploads == 0
    assert await read(store) == LARGE


async def test_a_download_that_is_cut_off_goes_on_where_it_was(
    store: CloudAssets, way: FaultyWay
) -> None:
    await keep(store, LARGE)
    way.cut_downloads = 4
    assert await read(store) == LARGE
    assert way.cut_downloads == 0


async def test_a_download_that_gets_no_further_is_given_up(
    store: CloudAssets, way: FaultyWay, hasty: None
) -> None:
    del hasty
    await keep(store, LARGE)
    way.cut()
    way.cut_after, way.cut_downloads = 0, 1_000_000
    with pytest.raises(Unavailable):
        await read(store)
    assert way.cut_downloads >= 1_000_000 - 100 * RESUMES


async def test_a_store_that_is_away_is_told_as_such_and_then_found_again(
    s3: S3Server,
    way: FaultyWay,
    tmp_path: Path,
    hasty: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    del hasty
    bucket = parse(s3.url(endpoint=way.endpoint))
    assert isinstance(bucket, Bucket)
    store = CloudAssets(bucket, staging=tmp_path / "staging", signs=True)
    await keep(store, b"an image")
    way.down = True
    way.cut()
    with caplog.at_level(logging.INFO):
        for broken in (
            lambda: keep(store, b"another"),
            lambda: read(store),
            lambda: store.holds(PLACE),
            lambda: store.delete([PLACE]),
            store.ping,
        ):
            with pytest.raises(Unavailable, match="cannot be stored or read right now"):
                await broken()
        assert caplog.text.count("is in trouble") == 1
        way.down = False
        assert await read(store) == b"an image"
    assert "answers again" in caplog.text
    await store.close()


async def test_a_task_keeps_its_image_until_the_store_is_back(
    s3: S3Server, tmp_path: Path, way: FaultyWay, hasty: None
) -> None:
    del hasty
    url = s3.url(endpoint=way.endpoint)
    async with running_server(tmp_path, assets_url=url, asset_delivery="proxy") as server:
        assert (await server.call("GET", "/readyz")).status == 200
        way.down = True
        way.cut()
        task = await server.accepted()
        seen = way.connections
        while way.connections < seen + 20:
            await asyncio.sleep(0.02)
        waiting = await server.task(task["task_id"])
        assert waiting["state"] not in {"success", "fail"}
        way.down = False
        done = await server.finished(task["task_id"])
        assert done["state"] == "success", done["error"]
        image = await server.anonymous(
            "GET", done["result"]["data"][0]["url"].removeprefix(server.url)
        )
        assert len(image.body) == done["result"]["data"][0]["bytes"]


async def test_a_download_through_the_server_that_cannot_be_finished_ends_too_early(
    s3: S3Server, tmp_path: Path, way: FaultyWay, hasty: None
) -> None:
    del hasty
    url = s3.url(endpoint=way.endpoint)
    async with running_server(
        tmp_path, assets_url=url, asset_delivery="proxy", with_worker=False
    ) as server:
        accepted = await server.submit_form(("image", noise(1500), "a.png"))
        task = await server.task(accepted.json["task_id"])
        path = task["request"]["image_input"][0].removeprefix(server.url)
        way.cut_after, way.cut_downloads = 1_000_000, 1
        async with server.connection() as (reader, writer):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            way.cut_after, way.cut_downloads = 0, 1_000_000
            body = await reader.read()
        assert len(body) < 1500 * 1500 * 3
