"""Reference images by URL: hostile ones refused at once, the others fetched by the worker."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from harness import CREDIT, Handler, Server, picture, running_server, website

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
HOSTILE = [
    "http://127.0.0.2/a.png",
    "http://127.2/a.png",
    "http://2130706434/a.png",
    "http://0x7f.0.0.2/a.png",
    "http://0177.0.0.2/a.png",
    "http://[::1]/a.png",
    "http://[::ffff:127.0.0.2]/a.png",
    "http://[fd00::1]/a.png",
    "http://0.0.0.0/a.png",
    "http://10.0.0.1/a.png",
    "http://172.16.0.1/a.png",
    "http://192.168.1.1/a.png",
    "http://100.64.0.1/a.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://localhost/a.png",
    "http://LOCALHOST./a.png",
    "http://printer.local/a.png",
    "http://intranet/a.png",
    "https://user:secret@example.com/a.png",
    "https://example.com@127.0.0.2/a.png",
    "https://example.com:0/a.png",
    "https://example.com:99999/a.png",
    "https://exa mple.com/a.png",
    "https://example.com/a b.png",
    "https://example.com\\@127.0.0.2/",
    "https://example.com/\r\nX: y",
    "https:///a.png",
    "https://",
    "//example.com/a.png",
    "example.com/a.png",
    "/etc/passwd",
    "file:///etc/passwd",
    "ftp://example.com/a.png",
    "gopher://example.com/",
    "javascript:alert(1)",
    "data:image/png;base64,iVBORw0KGgo=",
    "blob:https://example.com/1",
    "https://example.com/" + "x" * 5000,
    "",
    " ",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server that may fetch from loopback."""
    data = tmp_path_factory.mktemp("data")
    async with running_server(data, reference_allow_hosts=("127.0.0.1",)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def server(module_server: Server) -> Server:
    """The same with an account of the test's own and an empty asset store."""
    for path in module_server.stored_files():
        path.unlink()
    return await module_server.for_account()


async def assert_failed(server: Server, task: dict[str, Any], code: str) -> str:
    """The task failed, cost nothing and left nothing; returns its message."""
    assert (task["state"], task["error"].get("code")) == ("fail", code), task
    assert task["error"]["type"] == "invalid_request_error"
    assert task["billing"]["status"] == "released"
    assert task["billing"]["actual_amount_micro_usdc"] == 0
    assert (await server.balance())["available_micro_usdc"] == CREDIT
    assert server.stored_files() == []
    assert await server.core.store.prove() == []
    message: str = task["error"]["message"]
    return message


def images(body: bytes, **options: Any) -> Handler:
    """A site that answers everything with these bytes."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, **options)

    return answer


async def test_a_url_that_may_not_be_fetched_is_refused_at_once(server: Server) -> None:
    good = "https://example.com/a.png"
    for url in HOSTILE:
        for urls in ([url], [good, url]):
            refused = await server.submit(image_input=urls)
            message = refused.assert_refused(400, "invalid_parameter", "image_input")
            assert "secret" not in message
        if "\r" not in url:
            as_form = await server.submit_form(("image_input[]", url))
            as_form.assert_refused(400, "invalid_parameter", "image_input")
    assert (await server.balance())["reserved_micro_usdc"] == 0


async def test_public_urls_are_accepted_without_a_look_at_the_network(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    urls = [
        "https://example.com/a.png",
        "HTTPS://EXAMPLE.COM:8443/a.png?x=1&y=%20#part",
        "http://93.184.216.34/a",
        "http://[2606:2800:220:1:248:1893:25c8:1946]/",
        "https://bücher.example/ä.png",
        "https://no-such-host.invalid/",
    ]
    async with running_server(tmp_path_factory.mktemp("data"), with_worker=False) as server:
        task = await server.accepted(image_input=urls)
        assert task["request"]["image_input"] == urls


async def test_a_reference_is_fetched_and_shown_as_it_was_given(server: Server) -> None:
    body = picture("JPEG", size=(90, 160))
    lying = {"Content-Type": "text/html"}
    async with website(images(body, headers=lying)) as site:
        url = f"{site}/photo.png?signature=secret"
        task = await server.outcome(image_input=[url])
        assert (task["state"], task["error"]) == ("success", {})
        assert task["request"]["image_input"] == [url]
        item = task["result"]["data"][0]
        assert (item["width"], item["height"]) == (864, 1536), "auto follows the reference"
        kept = [path for path in server.stored_files() if "references" in path.parts]
        assert [path.read_bytes() for path in kept] == [body]
        assert await server.core.store.prove() == []


async def test_urls_and_uploads_are_fetched_together_with_their_order_kept(server: Server) -> None:
    body = picture("WEBP")
    async with website(images(body)) as site:
        accepted = await server.submit_form(
            ("image_input", f"{site}/1"),
            ("image", picture(), "2.png"),
            ("image_input", f"{site}/3"),
        )
        task = await server.finished(accepted.json["task_id"])
        assert task["state"] == "success", task["error"]
        first, second, third = task["request"]["image_input"]
        assert (first, third) == (f"{site}/1", f"{site}/3")
        assert (await server.call("GET", second)).body == picture()


async def test_a_site_that_falters_is_asked_again(server: Server) -> None:
    asked: list[str] = []

    async def falter(request: web.Request) -> web.Response:
        asked.append(request.path)
        if len(asked) == 1:
            return web.Response(status=503)
        return web.Response(body=picture())

    async with website(falter) as site:
        task = await server.outcome(image_input=[f"{site}/a.png"])
    assert task["state"] == "success", task["error"]
    assert asked == ["/a.png", "/a.png"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 206, 304])
async def test_a_site_that_says_no_is_asked_once(server: Server, status: int) -> None:
    asked: list[str] = []

    async def refuse(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status)

    async with website(refuse) as site:
        task = await server.outcome(image_input=[f"{site}/gone.png?signature=secret"])
        message = await assert_failed(server, task, "reference_fetch_failed")
    assert asked == ["/gone.png"]
    assert f"{site}/gone.png" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "body",
    [
        b"<!doctype html><title>Sign in</title>" + b" " * 1000,
        b'<svg xmlns="http://www.w3.org/2000/svg"/>' + b" " * 1000,
        picture("BMP"),
        picture()[:-12],
        b"",
        b"x",
    ],
    ids=["HTML", "SVG", "BMP", "cut PNG", "empty", "one byte"],
)
async def test_what_is_no_image_fails_the_task(server: Server, body: bytes) -> None:
    claimed = {"Content-Type": "image/png"}
    async with website(images(body, headers=claimed)) as site:
        task = await server.outcome(image_input=[f"{site}/a.png"])
        message = await assert_failed(server, task, "unsupported_reference_type")
        assert f"{site}/a.png" in message


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "streamed"])
async def test_a_reference_over_thirty_mebibytes_fails_the_task(
    server: Server, *, announced: bool
) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if announced:
            response.content_length = 30 * MIB + 1
        await response.prepare(request)
        await response.write(picture())
        for _ in range(0 if announced else 31):
            await response.write(bytes(MIB))
        return response

    async with website(endless) as site:
        task = await server.outcome(image_input=[f"{site}/large.png"])
        await assert_failed(server, task, "reference_too_large")


async def test_a_redirect_is_followed_where_its_target_may_be_fetched(server: Server) -> None:
    async def redirect(request: web.Request) -> web.Response:
        if request.path == "/final":
            return web.Response(body=picture())
        return web.Response(status=302, headers={"Location": "/final"})

    async with website(redirect) as site:
        task = await server.outcome(image_input=[f"{site}/start"])
        assert task["state"] == "success", task["error"]


@pytest.mark.parametrize(
    "target",
    [
        "http://localhost:{port}/inside",
        "http://127.0.0.2:{port}/inside",
        "http://[::1]:{port}/inside",
        "http://169.254.169.254/latest/meta-data/",
        "http://printer.local/inside",
        "file:///etc/passwd",
        "//localhost:{port}/inside",
        "",
    ],
)
async def test_a_redirect_to_somewhere_private_fails_the_task(server: Server, target: str) -> None:
    asked: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        asked.append(request.path)
        location = target.format(port=request.url.port)
        return web.Response(status=302, headers={"Location": location})

    async with website(redirect) as site:
        task = await server.outcome(image_input=[f"{site}/start"])
        await assert_failed(server, task, "reference_fetch_failed")
    assert asked == ["/start"]


async def test_a_redirect_in_a_circle_fails_the_task(server: Server) -> None:
    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": str(request.url)})

    async with website(redirect) as site:
        task = await server.outcome(image_input=[f"{site}/start"])
        await assert_failed(server, task, "reference_fetch_failed")


async def test_one_bad_reference_among_good_ones_leaves_none_of_them(server: Server) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/bad":
            return web.Response(status=404)
        return web.Response(body=picture())

    async with website(answer) as site:
        urls = [f"{site}/good", f"{site}/also-good", f"{site}/bad"]
        task = await server.outcome(image_input=urls)
        message = await assert_failed(server, task, "reference_fetch_failed")
        assert "/bad" in message
        assert task["request"]["image_input"] == urls


async def test_no_header_of_the_client_reaches_the_site(server: Server) -> None:
    seen: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(body=picture(), headers={"Set-Cookie": "a=b"})

    async with website(answer) as site:
        await server.outcome(image_input=[f"{site}/1", f"{site}/2"])
    for headers in seen:
        assert set(headers) <= {"host", "user-agent", "accept", "accept-encoding", "connection"}
