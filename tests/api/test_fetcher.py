import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from calotype.domain.errors import FAILURES
from calotype.net.fetcher import CheckedResolver, FetchRefused, GuardedFetcher
from calotype.net.lookup import SystemLookup
from net.names import Lookup
from net.tls import serving_tls, trusting

LOOPBACK = frozenset({"127.0.0.1"})
NOBODY: frozenset[str] = frozenset()
PICTURE = b"\x89PNG" + bytes(200_000)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Site:
    """A web server on a loopback address."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.requests: list[web.Request] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.Request)
        self.requests.append(request)
        return await self.handler(request)

    @asynccontextmanager
    async def up(
        self, *, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> AsyncIterator["Site"]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, address, 0, ssl_context=tls).start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()


@asynccontextmanager
async def raw_site(handler: RawHandler) -> AsyncIterator[str]:
    """A server that speaks as it likes."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await handler(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.png"


@asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[str]:
    """A server that says the same to everyone and hangs up."""

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    async with raw_site(say) as url:
        yield url


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def fetcher(stack: AsyncExitStack) -> GuardedFetcher:
    return started(stack, LOOPBACK)


def started(
    stack: AsyncExitStack,
    allow_hosts: frozenset[str],
    *,
    max_bytes: int = 1_000_000,
    timeout_seconds: float = 30,
    idle_seconds: float = 30,
    resolver: AbstractResolver | None = None,
    tls: ssl.SSLContext | None = None,
) -> GuardedFetcher:
    made = GuardedFetcher(
        allow_hosts,
        max_bytes=max_bytes,
        timeout_seconds=timeout_seconds,
        idle_seconds=idle_seconds,
        resolver=resolver,
        tls=tls,
    )
    stack.push_async_callback(made.close)
    return made


async def fetched(fetcher: GuardedFetcher, url: str) -> bytes:
    async with fetcher.open(url) as stream:
        return b"".join([chunk async for chunk in stream])


async def poured(
    fetcher: GuardedFetcher, url: str, into: bytearray, *, then: Callable[[], object] = bool
) -> None:
    """Keep what came even if the end is an error; ``then`` is called after each chunk."""
    async with fetcher.open(url) as stream:
        async for chunk in stream:
            into += chunk
            then()


async def refusal(fetcher: GuardedFetcher, url: str) -> FetchRefused:
    with pytest.raises(FetchRefused) as caught:
        await fetched(fetcher, url)
    error = caught.value
    assert error.code in FAILURES
    assert error.message.endswith(".")
    for secret in ("127.0", "10.1.2.3", "::1", "hunter2"):
        assert secret not in error.message
    return error


async def picture(_: web.Request) -> web.Response:
    return web.Response(body=PICTURE, headers={"Content-Type": 'Image/PNG; name="a"'})


def towards(location: str, status: int = 302) -> Handler:
    async def redirect(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": location, "Set-Cookie": "a=b"})

    return redirect


async def countdown(request: web.Request) -> web.Response:
    """``/3`` redirects to ``/2`` and so on, with each of the statuses; ``/0`` is the picture."""
    left = int(request.path.strip("/"))
    if left == 0:
        return await picture(request)
    status = [301, 302, 303, 307, 308][left % 5]
    return web.Response(
        status=status, headers={"Location": f"./{left - 1}", "Set-Cookie": "seen=1; Path=/"}
    )


# --- what is fetched


async def test_a_picture_is_streamed_with_its_headers_as_hints(fetcher: GuardedFetcher) -> None:
    async with Site(picture).up() as site, fetcher.open(f"{site.url}/a.png") as stream:
        assert stream.content_type == "image/png"
        assert stream.content_length == len(PICTURE)
        chunks = [chunk async for chunk in stream]
    assert b"".join(chunks) == PICTURE
    assert all(chunks)


async def test_the_request_says_who_asks_and_nothing_else(fetcher: GuardedFetcher) -> None:
    async with Site(picture).up() as site:
        await fetched(fetcher, f"{site.url}/k%2Fey.png?sig=a%2Bb%7E+c#part")
    (request,) = site.requests
    assert request.raw_path == "/k%2Fey.png?sig=a%2Bb%7E+c"
    assert dict(request.headers) == {
        "Host": f"127.0.0.1:{site.port}",
        "User-Agent": "Calotype",
        "Accept": "image/png, image/jpeg, image/webp, */*;q=0.1",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


async def test_a_body_without_a_length_is_streamed_to_its_end(fetcher: GuardedFetcher) -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\nhello"
    async with saying(answer) as url, fetcher.open(url) as stream:
        assert stream.content_type is None
        assert stream.content_length is None
        assert [chunk async for chunk in stream] == [b"hello"]


async def test_a_name_is_looked_up_by_the_system_when_it_is_listed(stack: AsyncExitStack) -> None:
    fetcher = started(stack, frozenset({"LocalHost."}))
    async with Site(picture).up() as site:
        assert await fetched(fetcher, f"http://localhost:{site.port}/") == PICTURE


async def test_a_listed_address_is_reached_in_any_spelling(fetcher: GuardedFetcher) -> None:
    async with Site(picture).up() as site:
        assert await fetched(fetcher, f"http://0x7f.1:{site.port}/") == PICTURE


async def test_proxies_in_the_environment_are_ignored(
    fetcher: GuardedFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with Site(picture).up() as site:
        assert await fetched(fetcher, site.url) == PICTURE


async def test_many_fetches_at_once_do_not_mix(fetcher: GuardedFetcher) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=request.path.encode() * 1000)

    async with Site(echo).up() as site:
        bodies = await asyncio.gather(*(fetched(fetcher, f"{site.url}/{n}") for n in range(100)))
    assert bodies == [f"/{n}".encode() * 1000 for n in range(100)]


# --- where it may lead


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:{}/", "http://2130706433:{}/", "http://localhost:{}/", "ftp://a.b/"),
        *("http://[::1]:{}/", "http://[::ffff:7f00:1]:{}/", "http://u:hunter2@example.com:{}/"),
    ],
)
async def test_what_is_not_public_is_refused_before_any_connection(
    stack: AsyncExitStack, url: str
) -> None:
    lookup = Lookup()
    fetcher = started(stack, NOBODY, resolver=lookup)
    async with Site(picture).up() as site:
        error = await refusal(fetcher, url.format(site.port))
    assert not error.retryable
    assert not site.requests
    assert not lookup.asked


@pytest.mark.parametrize(
    "addresses",
    [
        *(["127.0.0.1"], ["::1"], ["10.1.2.3"], ["169.254.169.254"], ["fd00::1"], ["0.0.0.0"]),  # noqa: S104 -- an answer, not an address to bind
        *(["93.184.215.14", "127.0.0.1"], ["127.0.0.1", "93.184.215.14"]),
        *(["2606:4700::1111", "93.184.215.14", "fe80::1"], ["64:ff9b::7f00:1"], ["nonsense"]),
    ],
)
async def test_a_name_is_refused_if_any_of_its_addresses_is_not_public(
    stack: AsyncExitStack, addresses: list[str]
) -> None:
    fetcher = started(stack, NOBODY, resolver=Lookup(images_example=[addresses]))
    async with Site(picture).up() as site:
        error = await refusal(fetcher, f"http://images.example:{site.port}/")
    assert "does not resolve to a public address" in error.message
    assert not error.retryable
    assert not site.requests


async def test_all_addresses_are_handed_on_when_all_of_them_are_public() -> None:
    lookup = Lookup(images_example=[["93.184.215.14", "2606:4700::1111"], ["127.0.0.1"]])
    checked = CheckedResolver(lookup, NOBODY)
    found = await checked.resolve("images.example", 443)
    assert [record["host"] for record in found] == ["93.184.215.14", "2606:4700::1111"]
    with pytest.raises(FetchRefused):
        await checked.resolve("images.example", 443)
    await checked.close()
    assert lookup.closed


async def test_the_connection_goes_to_the_address_that_was_checked_and_dns_is_asked_once(
    stack: AsyncExitStack,
) -> None:
    reached: list[str] = []

    async def note(request: web.Request) -> web.Response:
        assert request.transport is not None
        reached.append(request.transport.get_extra_info("sockname")[0])
        return await picture(request)

    lookup = Lookup(images_example=[["127.0.0.2"], ["127.0.0.1"]])
    fetcher = started(stack, frozenset({"127.0.0.2"}), resolver=lookup)
    async with Site(note).up(address="0.0.0.0") as site:  # noqa: S104 -- two of its addresses differ
        url = f"http://images.example:{site.port}/"
        assert await fetched(fetcher, url) == PICTURE
        assert lookup.asked == ["images.example"]

        error = await refusal(fetcher, url)
    assert not error.retryable
    assert lookup.asked == ["images.example", "images.example"]
    assert reached == ["127.0.0.2"]


async def test_a_listed_name_may_lead_inside_and_others_still_not(stack: AsyncExitStack) -> None:
    lookup = Lookup(nas_local=[["127.0.0.1"]], images_example=[["127.0.0.1"]])
    fetcher = started(stack, frozenset({"nas.local"}), resolver=lookup)
    async with Site(picture).up() as site:
        assert await fetched(fetcher, f"http://NAS.local.:{site.port}/") == PICTURE
        assert not (await refusal(fetcher, f"http://images.example:{site.port}/")).retryable
    assert len(site.requests) == 1


async def test_what_is_listed_with_a_port_is_reached_on_that_port_only(
    stack: AsyncExitStack,
) -> None:
    lookup = Lookup(nas_local=[["127.0.0.1"]], images_example=[["127.0.0.1"]])
    async with Site(picture).up() as site, Site(picture).up() as other:
        listed = frozenset({f"nas.local:{site.port}", f"127.0.0.1:{site.port}"})
        fetcher = started(stack, listed, resolver=lookup)
        for host in ("nas.local", "127.0.0.1", "images.example"):
            assert await fetched(fetcher, f"http://{host}:{site.port}/") == PICTURE
            await refusal(fetcher, f"http://{host}:{other.port}/")
    assert (len(site.requests), other.requests) == (3, [])


# --- redirects


async def test_three_redirects_are_followed_without_cookies(fetcher: GuardedFetcher) -> None:
    async with Site(countdown).up() as site:
        assert await fetched(fetcher, f"{site.url}/3") == PICTURE
    assert [request.path for request in site.requests] == ["/3", "/2", "/1", "/0"]
    assert not any("Cookie" in request.headers for request in site.requests)
    assert not any("Referer" in request.headers for request in site.requests)


async def test_a_fourth_redirect_is_refused(fetcher: GuardedFetcher) -> None:
    async with Site(countdown).up() as site:
        error = await refusal(fetcher, f"{site.url}/4")
    assert "more than 3 times" in error.message
    assert not error.retryable
    assert len(site.requests) == 4


async def test_a_redirect_loop_is_refused(fetcher: GuardedFetcher) -> None:
    async with Site(towards("/")).up() as site:
        error = await refusal(fetcher, site.url)
    assert "more than 3 times" in error.message
    assert len(site.requests) == 4


@pytest.mark.parametrize(
    "location",
    [
        *("http://10.1.2.3/", "http://169.254.169.254/latest/", "//10.1.2.3/", "http://[::1]/"),
        *("http://localhost/", "http://127.1.1.1/", "http://0x7f.2/", "file:///etc/passwd"),
        *("http://u:hunter2@example.com/", "javascript:alert(1)", "http://[::1", "", " "),
        *("http://images.example:{}/", "//images.example:{}/x"),
    ],
)
async def test_a_redirect_is_judged_like_a_url_of_its_own(
    stack: AsyncExitStack, location: str
) -> None:
    fetcher = started(stack, LOOPBACK, resolver=Lookup(images_example=[["127.0.0.3", "8.8.8.8"]]))
    inner = await stack.enter_async_context(Site(picture).up())
    site = await stack.enter_async_context(Site(towards(location.format(inner.port))).up())
    error = await refusal(fetcher, site.url)
    assert not error.retryable
    assert len(site.requests) == 1
    assert not inner.requests


async def test_a_redirect_may_lead_to_another_checked_host(stack: AsyncExitStack) -> None:
    lookup = Lookup(cdn_example=[["127.0.0.1"]])
    fetcher = started(stack, LOOPBACK, resolver=lookup)
    cdn = await stack.enter_async_context(Site(picture).up())
    async with Site(towards(f"//cdn.example:{cdn.port}/a b/ü.png")).up() as site:
        assert await fetched(fetcher, site.url) == PICTURE
    assert cdn.requests[0].raw_path == "/a%20b/%C3%BC.png"
    assert lookup.asked == ["cdn.example"]


@pytest.mark.parametrize("status", [300, 304, 305, 306])
async def test_other_answers_of_the_300s_are_no_redirects(
    fetcher: GuardedFetcher, status: int
) -> None:
    async with Site(towards("/elsewhere", status)).up() as site:
        assert str(status) in (await refusal(fetcher, site.url)).message
    assert len(site.requests) == 1


async def test_headers_are_for_the_first_url_alone(stack: AsyncExitStack) -> None:
    lookup = Lookup(first_example=[["127.0.0.1"]], second_example=[["127.0.0.1"]])
    fetcher = started(stack, frozenset({"127.0.0.1"}), resolver=lookup)
    async with Site(picture).up() as second:
        there = towards(f"http://second.example:{second.port}/")
        async with Site(there).up() as first:
            url = f"http://first.example:{first.port}/"
            async with fetcher.open(url, headers={"Authorization": "hunter2"}) as stream:
                assert b"".join([chunk async for chunk in stream]) == PICTURE
    assert first.requests[0].headers["Authorization"] == "hunter2"
    assert "Authorization" not in second.requests[0].headers


async def test_a_host_may_be_allowed_for_one_fetch(stack: AsyncExitStack) -> None:
    fetcher = started(stack, NOBODY)
    async with Site(picture).up() as site:
        async with fetcher.open(site.url, own_host="127.0.0.1") as stream:
            assert b"".join([chunk async for chunk in stream]) == PICTURE
        for other in ("", "localhost", "no host"):
            with pytest.raises(FetchRefused):
                async with fetcher.open(site.url, own_host=other):
                    pass
    assert len(site.requests) == 1


# --- TLS


@pytest.fixture
def server_tls(tmp_path: Path) -> ssl.SSLContext:
    return serving_tls(tmp_path)


async def test_tls_is_verified_by_name_though_the_address_is_pinned(
    stack: AsyncExitStack, server_tls: ssl.SSLContext
) -> None:
    asked_names: list[str | None] = []
    server_tls.sni_callback = lambda _socket, name, _context: asked_names.append(name)
    lookup = Lookup(images_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    fetcher = started(stack, LOOPBACK, resolver=lookup, tls=trusting())
    async with Site(picture).up(tls=server_tls) as site:
        assert await fetched(fetcher, f"https://images.example.:{site.port}/") == PICTURE
        error = await refusal(fetcher, f"https://other.example:{site.port}/")
    assert "certificate" in error.message
    assert not error.retryable
    assert asked_names == ["images.example", "other.example"]
    assert len(site.requests) == 1


async def test_an_unknown_authority_is_refused(
    stack: AsyncExitStack, server_tls: ssl.SSLContext
) -> None:
    fetcher = started(stack, LOOPBACK, resolver=Lookup(images_example=[["127.0.0.1"]]))
    async with Site(picture).up(tls=server_tls) as site:
        error = await refusal(fetcher, f"https://images.example:{site.port}/")
    assert "certificate" in error.message


async def test_a_redirect_from_https_to_http_is_refused(
    stack: AsyncExitStack, server_tls: ssl.SSLContext
) -> None:
    lookup = Lookup(images_example=[["127.0.0.1"]])
    fetcher = started(stack, LOOPBACK, resolver=lookup, tls=trusting())
    plain = await stack.enter_async_context(Site(picture).up())
    async with Site(towards(f"{plain.url}/")).up(tls=server_tls) as site:
        error = await refusal(fetcher, f"https://images.example:{site.port}/")
    assert "from https to http" in error.message
    assert not plain.requests


# --- bounds


async def test_a_body_of_just_the_limit_is_taken(stack: AsyncExitStack) -> None:
    fetcher = started(stack, LOOPBACK, max_bytes=len(PICTURE))
    async with Site(picture).up() as site:
        assert await fetched(fetcher, site.url) == PICTURE


async def test_a_length_over_the_limit_is_refused_before_the_body(stack: AsyncExitStack) -> None:
    fetcher = started(stack, LOOPBACK, max_bytes=len(PICTURE) - 1)
    async with Site(picture).up() as site:
        with pytest.raises(FetchRefused, match="larger than 200003 bytes") as caught:
            async with fetcher.open(site.url):
                pytest.fail("opened")
    assert caught.value.code == "reference_too_large"
    assert not caught.value.retryable


async def test_an_endless_body_ends_at_the_limit(stack: AsyncExitStack) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(bytes(65_536))
        return response

    fetcher = started(stack, LOOPBACK, max_bytes=1_000_000)
    taken = bytearray()
    async with Site(endless).up() as site:
        with pytest.raises(FetchRefused) as caught:
            await poured(fetcher, site.url, taken)
    assert caught.value.code == "reference_too_large"
    assert 0 < len(taken) <= 1_000_000


async def test_of_a_body_longer_than_announced_no_more_is_read(fetcher: GuardedFetcher) -> None:
    taken = b""
    async with saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, world") as url:
        # Whether the rest is seen in time to call it a lie depends on how it is cut to packets.
        with suppress(FetchRefused):
            taken = await fetched(fetcher, url)
    assert taken in {b"", b"hello"}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n500\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"",
    ],
)
async def test_a_connection_that_is_cut_may_be_tried_again(
    fetcher: GuardedFetcher, answer: bytes
) -> None:
    async with saying(answer) as url:
        error = await refusal(fetcher, url)
    assert "broke" in error.message
    assert error.retryable


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello" * 10,
    ],
)
async def test_what_is_not_http_is_refused(fetcher: GuardedFetcher, answer: bytes) -> None:
    async with saying(answer) as url:
        await refusal(fetcher, url)


async def test_broken_chunks_are_refused(fetcher: GuardedFetcher) -> None:
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"
    async with saying(chunks) as url:
        await refusal(fetcher, url)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip"])
async def test_a_compressed_answer_is_refused(fetcher: GuardedFetcher, encoding: str) -> None:
    async def compressed(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(PICTURE), headers={"Content-Encoding": encoding})

    async with Site(compressed).up() as site:
        error = await refusal(fetcher, site.url)
    assert "compressed" in error.message
    assert not error.retryable


async def test_an_answer_that_says_it_is_not_compressed_is_taken(fetcher: GuardedFetcher) -> None:
    plain = b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"
    async with saying(plain) as url:
        assert await fetched(fetcher, url) == b"hello"


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        *((206, False), (400, False), (401, False), (403, False), (404, False), (410, False)),
        *(
            (408, True),
            (425, True),
            (429, True),
            (500, True),
            (502, True),
            (503, True),
            (504, True),
        ),
    ],
)
async def test_only_a_whole_answer_is_taken_and_passing_faults_may_be_retried(
    fetcher: GuardedFetcher, status: int, *, retryable: bool
) -> None:
    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=status, body=PICTURE)

    async with Site(fail).up() as site:
        error = await refusal(fetcher, site.url)
    assert f"HTTP status {status}." in error.message
    assert error.retryable is retryable


# --- time


async def test_a_slow_drip_ends_with_the_total_time(stack: AsyncExitStack) -> None:
    thirst = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await thirst.wait()
            thirst.clear()
            await response.write(b"x")

    fetcher = started(stack, LOOPBACK, timeout_seconds=0.3)
    taken = bytearray()
    thirst.set()
    async with Site(drip).up() as site:
        with pytest.raises(FetchRefused, match=r"longer than 0\.3 seconds") as caught:
            await poured(fetcher, site.url, taken, then=thirst.set)
    assert caught.value.retryable
    assert len(taken) > 1


async def test_an_answer_that_never_begins_ends_with_the_total_time(stack: AsyncExitStack) -> None:
    async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    fetcher = started(stack, LOOPBACK, timeout_seconds=0.1)
    async with raw_site(silence) as url:
        assert (await refusal(fetcher, url)).retryable


@pytest.mark.parametrize(
    "begun",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"],
    ids=["nothing", "half a head", "half a body"],
)
async def test_an_answer_that_goes_on_no_more_is_given_up_long_before_the_total_time(
    begun: bytes, stack: AsyncExitStack
) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        await reader.read()

    fetcher = started(stack, LOOPBACK, timeout_seconds=3600, idle_seconds=0.1)
    async with raw_site(half) as url:
        error = await refusal(fetcher, url)
    assert error.retryable
    assert "nothing for 0.1 seconds" in error.message


async def test_the_time_runs_over_all_redirects(stack: AsyncExitStack) -> None:
    async def stall_at_last(request: web.Request) -> web.Response:
        if request.path == "/0":
            await asyncio.Event().wait()
        return await countdown(request)

    fetcher = started(stack, LOOPBACK, timeout_seconds=0.5)
    async with Site(stall_at_last).up() as site:
        assert (await refusal(fetcher, f"{site.url}/2")).retryable
    assert len(site.requests) == 3


async def test_a_name_server_that_never_answers_ends_with_the_total_time(
    stack: AsyncExitStack,
) -> None:
    class Silent(Lookup):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            await asyncio.Event().wait()
            return await super().resolve(host, port, family)

    fetcher = started(stack, NOBODY, timeout_seconds=0.05, resolver=Silent())
    assert (await refusal(fetcher, "http://images.example/")).retryable


# --- the network at fault


async def test_a_name_that_does_not_resolve_may_be_tried_again(stack: AsyncExitStack) -> None:
    fetcher = started(stack, NOBODY, resolver=Lookup(empty_example=[[]]))
    for url in ("https://images.example/", "https://empty.example/"):
        error = await refusal(fetcher, url)
        assert error.retryable


async def test_a_port_that_nobody_listens_on_may_be_tried_again(fetcher: GuardedFetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = await refusal(fetcher, f"http://127.0.0.1:{port}/")
    assert "cannot be connected to" in error.message
    assert error.retryable


async def test_plain_http_on_a_tls_port_is_a_failed_connection(fetcher: GuardedFetcher) -> None:
    async with Site(picture).up() as site:
        error = await refusal(fetcher, f"https://127.0.0.1:{site.port}/")
    assert error.retryable


# --- what is left behind


async def test_leaving_early_closes_the_connection(fetcher: GuardedFetcher) -> None:
    hung_up = asyncio.Event()

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello")
        await reader.read()
        hung_up.set()

    async with raw_site(begin) as url:
        async with fetcher.open(url) as stream:
            assert await anext(stream) == b"hello"
        await asyncio.wait_for(hung_up.wait(), 10)


async def test_an_error_of_the_reader_is_passed_on_as_it_is(fetcher: GuardedFetcher) -> None:
    async with Site(picture).up() as site:
        with pytest.raises(OSError, match="disk is full"):
            async with fetcher.open(site.url):
                raise OSError("disk is full")


async def test_closing_ends_what_is_under_way_and_refuses_what_comes_after(
    stack: AsyncExitStack,
) -> None:
    begun = asyncio.Event()

    async def begin(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        begun.set()
        await reader.read()

    fetcher = started(stack, LOOPBACK)
    async with raw_site(begin) as url:
        under_way = asyncio.create_task(refusal(fetcher, url))
        await begun.wait()
        await fetcher.close()
        assert (await under_way).retryable
        assert (await refusal(fetcher, url)).retryable


async def test_the_system_lookup_finds_every_address_of_a_name() -> None:
    lookup = SystemLookup()
    found = await lookup.resolve("localhost", 80)
    await lookup.close()
    assert {record["host"] for record in found} <= {"127.0.0.1", "::1"}
    assert {record["port"] for record in found} == {80}
