"""Images in a cloud store reach clients by a redirect, through the server, or behind a CDN."""

import re
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import pytest_asyncio

from harness import Reply, Server, picture, running_server
from s3 import S3Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

IMAGE = picture("JPEG", size=(320, 200))
SIZE = len(IMAGE)


async def running(
    s3: S3Server, tmp_path_factory: pytest.TempPathFactory, **settings: Any
) -> AsyncIterator[Server]:
    data = tmp_path_factory.mktemp("data")
    async with running_server(data, assets_url=s3.url(), **settings) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redirecting(
    s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    async for server in running(s3, tmp_path_factory):
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxying(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async for server in running(s3, tmp_path_factory, asset_delivery="proxy"):
        yield server


async def uploaded(server: Server) -> str:
    """The signed URL of ``IMAGE``, as the task shows it."""
    accepted = await server.submit_form(("image", IMAGE, "a.jpg"))
    task = await server.task(accepted.json["task_id"])
    url: str = task["request"]["image_input"][0]
    return url


async def get(server: Server, url: str, method: str = "GET", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await server.anonymous(method, url.removeprefix(server.url), headers=named)


async def fetched(url: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
        return answer.status, await answer.read(), dict(answer.headers)


async def test_a_download_is_sent_to_the_store_for_a_short_while(
    redirecting: Server, s3: S3Server
) -> None:
    url = await uploaded(redirecting)
    async with redirecting.http.get(url, allow_redirects=False) as answer:
        assert answer.status == 302
        assert answer.headers["Cache-Control"] == "private, max-age=60"
        location = answer.headers["Location"]
    assert location.startswith(s3.endpoint)
    assert parse_qs(urlsplit(location).query)["X-Amz-Expires"] == ["300"]
    status, body, headers = await fetched(location, Range="bytes=10-19")
    assert (status, body) == (206, IMAGE[10:20])
    status, body, headers = await fetched(location)
    assert (status, body) == (200, IMAGE)
    assert headers["Content-Type"] == "image/jpeg"
    assert headers["Cache-Control"] == "private, max-age=86400"
    assert re.fullmatch(r'inline; filename="asset_\w+\.jpg"', headers["Content-Disposition"])


async def test_the_store_refuses_a_url_that_was_changed(redirecting: Server) -> None:
    async with redirecting.http.get(await uploaded(redirecting), allow_redirects=False) as answer:
        location = answer.headers["Location"]
    signature = parse_qs(urlsplit(location).query)["X-Amz-Signature"][0]
    forged = location.replace(signature, "0" * len(signature))
    other = location.replace("references/", "results/")
    longer = location.replace("X-Amz-Expires=300", "X-Amz-Expires=30000")
    for each in (forged, other, longer, location.partition("?")[0]):
        assert (await fetched(each))[0] == 403


async def test_our_own_signature_is_judged_before_the_store_is_named(redirecting: Server) -> None:
    url = await uploaded(redirecting)
    (await get(redirecting, url[:-1])).assert_refused(403, "invalid_signature")


async def test_what_needs_no_image_is_answered_here(redirecting: Server) -> None:
    url = await uploaded(redirecting)
    head = await get(redirecting, url, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(SIZE)
    assert head.headers["Content-Type"] == "image/jpeg"
    known = await get(redirecting, url, If_None_Match=head.headers["ETag"])
    assert (known.status, known.body) == (304, b"")


async def test_a_generated_image_is_downloaded_from_the_store(redirecting: Server) -> None:
    task = await redirecting.outcome()
    assert task["state"] == "success", task["error"]
    for image in task["result"]["data"]:
        status, body, headers = await fetched(image["url"])
        assert (status, len(body)) == (200, image["bytes"])
        assert headers["Content-Type"] == image["content_type"]
    assert redirecting.stored_files() == []


async def test_an_edit_reads_its_references_from_the_store(redirecting: Server) -> None:
    accepted = await redirecting.submit_form(("image", IMAGE, "a.jpg"))
    task = await redirecting.finished(accepted.json["task_id"])
    assert task["state"] == "success", task["error"]


async def test_through_the_server_an_image_comes_as_from_a_folder(proxying: Server) -> None:
    url = await uploaded(proxying)
    whole = await get(proxying, url)
    assert (whole.status, whole.body) == (200, IMAGE)
    assert whole.headers["Content-Length"] == str(SIZE)
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert whole.headers["Content-Type"] == "image/jpeg"
    assert re.fullmatch(r"private, max-age=\d+, immutable", whole.headers["Cache-Control"])
    head = await get(proxying, url, "HEAD")
    assert (head.status, head.body, head.headers["ETag"]) == (200, b"", whole.headers["ETag"])
    assert head.headers["Content-Length"] == str(SIZE)
    known = await get(proxying, url, If_None_Match=whole.headers["ETag"])
    assert known.status == 304


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=100-", 100, SIZE),
        ("bytes=-10", SIZE - 10, SIZE),
        (f"bytes=-{SIZE * 9}", 0, SIZE),
        (f"bytes=10-{SIZE * 9}", 10, SIZE),
    ],
)
async def test_through_the_server_a_range_is_answered_with_that_part(
    proxying: Server, asked: str, start: int, stop: int
) -> None:
    reply = await get(proxying, await uploaded(proxying), Range=asked)
    assert (reply.status, reply.body) == (206, IMAGE[start:stop])
    assert reply.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert reply.headers["Content-Length"] == str(stop - start)


async def test_through_the_server_other_ranges_are_refused_or_ignored(proxying: Server) -> None:
    url = await uploaded(proxying)
    beyond = await get(proxying, url, Range=f"bytes={SIZE}-")
    beyond.assert_refused(416, "range_not_satisfiable")
    for ignored in ({"Range": "bytes=0-1,3-4"}, {"Range": "bytes=0-9", "If_Range": '"other"'}):
        reply = await get(proxying, url, **ignored)
        assert (reply.status, reply.body) == (200, IMAGE)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_image_that_the_store_lost_is_not_found(
    proxying: Server, s3: S3Server, method: str
) -> None:
    url = await uploaded(proxying)
    name = urlsplit(url).path.rpartition("/")[2]
    client = s3.client()
    async for page in client.list():
        for each in page:
            if each["path"].endswith(name):
                await client.delete_async(each["path"])
    assert (await get(proxying, url, method)).status == 404


async def test_openai_clients_get_the_image_itself(proxying: Server) -> None:
    asked = {"model": "gpt-image-2", "prompt": "a lighthouse"}
    reply = await proxying.call("POST", "/openai/v1/images/generations", json=asked)
    assert reply.status == 200
    assert len(reply.json["data"][0]["b64_json"]) > 1000


async def test_behind_a_cdn_images_are_for_every_cache_until_their_url_expires(
    s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cdn = "https://cdn.example.com"
    async for server in running(s3, tmp_path_factory, asset_base_url=cdn + "/"):
        url = await uploaded(server)
        assert url.startswith(f"{cdn}/v1/assets/asset_")
        reply = await get(server, url.removeprefix(cdn))
        assert (reply.status, reply.body) == (200, IMAGE)
        kept = re.fullmatch(r"public, max-age=(\d+), immutable", reply.headers["Cache-Control"])
        assert kept is not None
        expires = int(parse_qs(urlsplit(url).query)["expires"][0])
        assert abs(expires - time.time() - int(kept[1])) < 120
