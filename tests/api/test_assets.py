"""GET /v1/assets/{name}: images by signed URL, to whoever holds the URL, until it expires."""

import io
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from PIL import Image

from calotype.assets.disk import DiskAssets
from calotype.core import secret_of
from calotype.domain.clock import system_clock
from calotype.domain.ids import IdSource, decode
from calotype.services.assets import Assets
from harness import Reply, Server, noise, picture, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY = 24 * 3600
IMAGE = picture("JPEG", size=(320, 200))
SIZE = len(IMAGE)
DAY_MS = 86_400_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data"), with_worker=False) as running:
        yield running


async def uploaded(server: Server) -> str:
    """Path and query of a fresh signed URL of ``IMAGE``."""
    accepted = await server.submit_form(("image", IMAGE, "a.jpg"))
    task = await server.task(accepted.json["task_id"])
    url: str = task["request"]["image_input"][0]
    assert url.startswith(server.url + "/v1/assets/")
    return url.removeprefix(server.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def path(server: Server) -> str:
    return await uploaded(server)


async def get(server: Server, path: str, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await server.anonymous("GET", path, headers=named)


def name_of(path: str) -> str:
    return path.partition("?")[0].rpartition("/")[2]


async def test_an_image_comes_with_everything_a_browser_needs(server: Server, path: str) -> None:
    reply = await get(server, path)
    assert (reply.status, reply.body) == (200, IMAGE)
    expected = {
        "Content-Type": "image/jpeg",
        "Content-Length": str(SIZE),
        "Content-Disposition": f'inline; filename="{name_of(path)}"',
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }
    assert {name: reply.headers.get(name) for name in expected} == expected
    kept = re.fullmatch(r"private, max-age=(\d+), immutable", reply.headers["Cache-Control"])
    assert kept is not None
    assert DAY - 60 < int(kept[1]) <= DAY + 3600, "as long as the URL is good"
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert re.fullmatch(r'"[^"]+"', reply.headers["ETag"]), "a strong one"
    assert reply.headers["X-Request-Id"]


async def test_head_tells_the_same_without_the_image(server: Server, path: str) -> None:
    whole, head = await get(server, path), await server.anonymous("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    changing = {"date", "x-request-id", "cache-control"}
    for name, value in whole.headers.items():
        assert name.lower() in changing or head.headers[name] == value


async def test_a_url_stays_the_same_while_it_is_good(server: Server) -> None:
    accepted = await server.submit_form(("image", IMAGE, "a.jpg"))
    first, second = [await server.task(accepted.json["task_id"]) for _ in range(2)]
    assert first["request"] == second["request"]


async def test_a_url_is_good_for_a_day_rounded_up_to_the_hour(server: Server) -> None:
    before = int(time.time())
    query = parse_qs(urlsplit(await uploaded(server)).query)
    expires = int(query["expires"][0])
    assert before + 86_400 <= expires <= time.time() + 86_400 + 3600


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', '{}, "other"', "*", ' "a" ,W/{} '])
async def test_a_known_image_is_not_sent_again(server: Server, path: str, form: str) -> None:
    etag = (await get(server, path)).headers["ETag"]
    reply = await get(server, path, If_None_Match=form.format(etag))
    assert (reply.status, reply.body) == (304, b"")
    assert reply.headers["ETag"] == etag
    assert reply.headers["X-Request-Id"]
    assert "Content-Length" not in reply.headers


@pytest.mark.parametrize("value", ['"other"', "", "garbage", '""', "asset_"])
async def test_another_copy_does_not_count(server: Server, path: str, value: str) -> None:
    reply = await get(server, path, If_None_Match=value)
    assert (reply.status, reply.body) == (200, IMAGE)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-199", 100, 200),
        ("bytes=100-", 100, SIZE),
        ("bytes=0-", 0, SIZE),
        ("bytes=-10", SIZE - 10, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        (f"bytes=10-{SIZE * 9}", 10, SIZE),
        (f"bytes=-{SIZE * 9}", 0, SIZE),
    ],
)
async def test_a_range_is_answered_with_that_part(
    server: Server, path: str, asked: str, start: int, end: int
) -> None:
    reply = await get(server, path, Range=asked)
    assert (reply.status, reply.body) == (206, IMAGE[start:end])
    assert reply.headers["Content-Range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert reply.headers["Content-Length"] == str(end - start)
    assert reply.headers["Content-Type"] == "image/jpeg"
    assert reply.headers["X-Request-Id"]


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 9}", "bytes=-0"])
async def test_a_range_outside_the_image_is_refused(server: Server, path: str, asked: str) -> None:
    reply = await get(server, path, Range=asked)
    reply.assert_refused(416, "range_not_satisfiable")
    assert reply.headers["Content-Range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-2",
        "bytes=0-1,3-4",
        "bytes=0-1, -5",
        "bytes 0-1",
        "items=0-1",
        "bytes=0x0-0x1",
        "bytes=+0-1",
        "bytes=\u0660-\u0661",
        f"bytes={'9' * 400}-",
        "bytes=" + ",".join("0-1" for _ in range(500)),
        "",
    ],
    ids=lambda asked: asked[:20],
)
async def test_a_range_of_another_form_is_ignored(server: Server, path: str, asked: str) -> None:
    reply = await get(server, path, Range=asked)
    assert (reply.status, reply.body) == (200, IMAGE)


async def test_a_large_image_comes_whole_and_in_parts(server: Server) -> None:
    image = noise()
    accepted = await server.submit_form(("image", image, "a.png"))
    task = await server.task(accepted.json["task_id"])
    large = task["request"]["image_input"][0].removeprefix(server.url)
    assert (await get(server, large)).body == image
    part = await get(server, large, Range="bytes=700000-1299999")
    assert (part.status, part.body) == (206, image[700_000:1_300_000])


async def test_a_range_holds_only_for_the_copy_it_names(server: Server, path: str) -> None:
    whole = await get(server, path)
    same = await get(server, path, Range="bytes=0-9", If_Range=whole.headers["ETag"])
    assert (same.status, same.body) == (206, IMAGE[:10])
    for asked in ("bytes=0-9", f"bytes={SIZE}-"):
        other = await get(server, path, Range=asked, If_Range='"another"')
        assert (other.status, other.body) == (200, IMAGE)


def with_query(path: str, **changes: str | None) -> str:
    """The path with parts of its query replaced, or taken out by None."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
    changed: dict[str, Any] = {**query, **changes}
    kept = [f"{name}={value}" for name, value in changed.items() if value is not None]
    return f"{path.partition('?')[0]}?{'&'.join(kept)}"


async def test_a_changed_url_is_refused(server: Server, path: str) -> None:
    query = parse_qs(urlsplit(path).query)
    expires, signature = query["expires"][0], query["signature"][0]
    name, other = name_of(path), name_of(await uploaded(server))
    changed = [
        with_query(path, signature=None),
        with_query(path, signature=""),
        with_query(path, signature=signature[:-1]),
        with_query(path, signature="0" * len(signature)),
        with_query(path, signature=signature.upper()),
        with_query(path, signature="%00"),
        with_query(path, signature="%C3%A9" * 64),
        with_query(path, signature="%ED%A0%80" * 64),
        with_query(path, expires=None),
        with_query(path, expires=str(int(expires) + 3600)),
        with_query(path, expires=f"{expires}0"),
        with_query(path, expires=f"%20{expires}"),
        with_query(path, expires="never"),
        with_query(path, expires="9" * 5000),
        path.partition("?")[0],
        path.replace(name, other),
        path.replace(".jpg", ".png"),
        path.replace(".jpg", ""),
        path.replace(name, name.upper()),
        path.replace(name, "asset_0000000000000.jpg"),
        path.replace(name, "secret"),
        path.replace(name, "%00"),
        path.replace(name, name + "%0A"),
    ]
    for each in changed:
        (await get(server, each)).assert_refused(403, "invalid_signature")
    head = await server.anonymous("HEAD", path.partition("?")[0])
    assert (head.status, head.body) == (403, b"")


async def test_paths_that_climb_lead_to_no_file(server: Server, path: str) -> None:
    query = path.partition("?")[2]
    climbing = [
        "../secret",
        "../../secret",
        "../../../../../../etc/passwd",
        "..%2f..%2fsecret",
        "%2e%2e%2f%2e%2e%2fsecret",
        "%252e%252e%252fsecret",
        "..%5c..%5csecret",
        "....//....//secret",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        ".",
        "..",
        "",
        f"../assets/{name_of(path)}/../../secret",
        f"{name_of(path)}/../../../secret",
        f"{name_of(path)}%00.png",
        "references",
        "incoming",
    ]
    secret = secret_of(server.core.settings)
    for each in climbing:
        for suffix in ("", f"?{query}"):
            reply = await server.exchange(f"GET /v1/assets/{each}{suffix}")
            assert reply.refusal in {
                (403, "invalid_signature", None),
                (404, "unknown_route", None),
            }, each
            assert secret not in reply.body
            assert b"root:" not in reply.body


def signed_at(server: Server, moment_ms: int, asset_id: int) -> str:
    """What the server would have signed at another time."""
    assets = Assets(
        DiskAssets(server.data / "assets"),
        secret=secret_of(server.core.settings),
        url_seconds=server.core.settings.asset_url_seconds,
        ids=IdSource(system_clock),
        clock=lambda: moment_ms,
    )
    path, _ = assets.signed_path(asset_id, "image/jpeg")
    return path


async def test_an_expired_url_is_refused_and_one_not_yet_expired_is_not(
    server: Server, path: str
) -> None:
    asset_id = decode("asset", name_of(path).partition(".")[0])
    assert asset_id is not None
    now = system_clock()
    for days, status in ((0.5, 200), (0.99, 200), (1.1, 403), (400, 403)):
        reply = await get(server, signed_at(server, now - int(days * DAY_MS), asset_id))
        assert reply.status == status
        if status == 403:
            reply.assert_refused(403, "url_expired")
    expired = signed_at(server, now - 3 * DAY_MS, asset_id)
    lied = with_query(expired, expires=str(now // 1000 + 3600))
    (await get(server, lied)).assert_refused(403, "invalid_signature")


async def test_a_signed_url_of_no_image_is_not_found(server: Server) -> None:
    path = signed_at(server, system_clock(), IdSource(system_clock).next())
    (await get(server, path)).assert_refused(404, "asset_not_found")


async def test_an_image_whose_file_is_gone_is_not_found(server: Server) -> None:
    path = await uploaded(server)
    (file,) = (server.data / "assets").rglob(name_of(path))
    file.unlink()
    (await get(server, path)).assert_refused(404, "asset_not_found")


async def test_only_get_and_head_are_answered(server: Server, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        reply = await server.anonymous(method, path)
        reply.assert_refused(405, "method_not_allowed")
        assert set(reply.headers["Allow"].split(", ")) == {"GET", "HEAD"}


async def test_urls_name_the_host_that_the_client_called(server: Server) -> None:
    accepted = await server.submit_form(("image", IMAGE, "a.jpg"))
    poll = accepted.json["poll_url"]

    async def shown(host: str) -> str:
        lines = f"GET {poll} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        key = f"Authorization: Bearer {server.key}\r\n\r\n"
        async with server.connection() as (reader, writer):
            writer.write((lines + key).encode())
            reply = await Reply.read(reader)
        url: str = reply.json["request"]["image_input"][0]
        return url.partition("/v1/")[0]

    assert await shown("images.example.com:8443") == "http://images.example.com:8443"
    assert await shown("[::1]:80") == "http://[::1]:80"
    for hostile in ("", "a/b", "evil.example/?", "a b", "<script>", "user@evil.example"):
        assert await shown(hostile) == server.url


async def test_urls_name_the_public_url_where_one_is_set(tmp_path: Path) -> None:
    public = "https://images.example.com/"
    async with running_server(tmp_path, with_worker=False, public_url=public) as server:
        accepted = await server.submit_form(("image", IMAGE, "a.jpg"))
        task = await server.task(accepted.json["task_id"])
        url = task["request"]["image_input"][0]
        assert url.startswith("https://images.example.com/v1/assets/asset_")
        assert (await get(server, url.removeprefix(public.rstrip("/")))).body == IMAGE


@pytest.mark.parametrize("width", [160, 320])
async def test_a_small_copy_comes_under_the_same_signature(
    server: Server, path: str, width: int
) -> None:
    small = f"{path}&width={width}"
    reply = await get(server, small)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "image/webp")
    with Image.open(io.BytesIO(reply.body)) as image:
        assert image.size == (width, width * 200 // 320)
    named = f"{name_of(path).partition('.')[0]}-{width}"
    assert reply.headers["Content-Disposition"] == f'inline; filename="{named}.webp"'
    assert reply.headers["ETag"] == f'"{named}"'
    assert (await get(server, small, If_None_Match=reply.headers["ETag"])).status == 304
    part = await get(server, small, Range="bytes=4-")
    assert (part.status, part.body) == (206, reply.body[4:])
    assert (await get(server, small, Range="bytes=9999999-")).status == 416
    assert (await get(server, path)).body == IMAGE


@pytest.mark.parametrize("width", ["", "0", "161", "320.0", "+320", "0320", "wide", "320%00"])
async def test_a_width_that_there_is_not_is_refused_with_those_that_there_are(
    server: Server, path: str, width: str
) -> None:
    reply = await get(server, f"{path}&width={width}")
    assert reply.refusal == (400, "invalid_parameter", "width")
    assert "160, 320, 640, 1280" in reply.body.decode()


async def test_no_copy_comes_without_a_signature(server: Server, path: str) -> None:
    reply = await get(server, f"{path.partition('&signature')[0]}&width=160")
    assert reply.refusal == (403, "invalid_signature", None)
