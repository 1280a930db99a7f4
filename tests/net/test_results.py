import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from calotype.domain.outcomes import SourceError
from calotype.net.client import UpstreamClient
from net.calls import CREDENTIAL, IMAGE, bytes_of
from net.names import Lookup
from net.servers import Exchange, ok, saying, serving

HOST = "127.0.0.1"
NO_HOST = ""


@pytest.fixture
async def named(tmp_path: Path) -> AsyncIterator[UpstreamClient]:
    """A client whose DNS knows two public names of this machine; only one may be reached."""
    lookup = Lookup(channel_example=[[HOST]], elsewhere_example=[[HOST]])
    made = UpstreamClient(tmp_path, resolver=lookup)
    yield made
    await made.close()


async def refusal(client: UpstreamClient, url: str, *, own: bool = False) -> SourceError:
    source = (
        client.own_result(url, headers=CREDENTIAL) if own else client.result(url, own_host=HOST)
    )
    with pytest.raises(SourceError) as caught:
        await bytes_of(source)
    message = str(caught.value)
    assert message.endswith(".")
    assert "result" in message
    for secret in ("hunter2", "sig=", "reference", HOST):
        assert secret not in message
    return caught.value


async def test_a_result_is_fetched_anew_each_time_and_without_a_credential(
    client: UpstreamClient,
) -> None:
    async with saying(ok(IMAGE, kind="image/png")) as server:
        source = client.result(f"{server.url}/a%2Fb.png?sig=a%2Bb", own_host=HOST)
        assert await bytes_of(source) == await bytes_of(source) == IMAGE
    assert [seen.line for seen in server.seen] == ["GET /a%2Fb.png?sig=a%2Bb HTTP/1.1"] * 2
    assert "authorization" not in server.seen[0].headers


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}/", "http://localhost:{}/", "file:///{}"])
async def test_a_result_on_a_private_host_is_refused(client: UpstreamClient, url: str) -> None:
    async with saying(ok(IMAGE)) as server:
        source = client.result(url.format(server.url.rpartition(":")[2]), own_host=NO_HOST)
        with pytest.raises(SourceError) as caught:
            await bytes_of(source)
    assert not caught.value.retryable
    assert not server.seen


async def test_only_the_host_of_the_channel_itself_may_be_private(named: UpstreamClient) -> None:
    async with saying(ok(IMAGE)) as server:
        port = server.url.rpartition(":")[2]
        own = named.result(f"http://channel.example:{port}/", own_host="channel.example")
        assert await bytes_of(own) == IMAGE
        other = named.result(f"http://elsewhere.example:{port}/", own_host="channel.example")
        with pytest.raises(SourceError, match="does not resolve to a public address") as caught:
            await bytes_of(other)
        again = named.result(f"http://channel.example:{port}/", own_host="elsewhere.example")
        with pytest.raises(SourceError, match="does not resolve to a public address"):
            await bytes_of(again)
    assert not caught.value.retryable
    assert len(server.seen) == 1


async def test_what_the_operator_listed_may_be_private(tmp_path: Path) -> None:
    client = UpstreamClient(tmp_path, allow_hosts=frozenset({HOST}))
    async with saying(ok(IMAGE)) as server:
        assert await bytes_of(client.result(server.url)) == IMAGE
    await client.close()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        *((status, True) for status in (400, 401, 403, 404, 408, 410, 425, 429, 500, 503)),
        *((status, False) for status in (206, 304, 405, 416, 451)),
    ],
)
async def test_a_status_says_whether_the_result_may_come_back(
    client: UpstreamClient, status: int, *, retryable: bool, own: bool
) -> None:
    answer = f"HTTP/1.1 {status} X\r\nContent-Length: 4\r\n\r\nnope".encode()
    async with saying(answer) as server:
        error = await refusal(client, f"{server.url}/a?sig=1", own=own)
    assert error.retryable is retryable


@pytest.mark.parametrize("own", [False, True])
async def test_the_bytes_say_what_a_result_is(client: UpstreamClient, *, own: bool) -> None:
    for kind in ("text/html", "application/json"):
        async with saying(ok(b"<html>", kind=kind)) as server:
            source = (
                client.own_result(server.url, headers=CREDENTIAL)
                if own
                else client.result(server.url, own_host=HOST)
            )
            assert await bytes_of(source) == b"<html>"


@pytest.mark.parametrize("own", [False, True])
async def test_an_empty_result_is_an_error(client: UpstreamClient, *, own: bool) -> None:
    async with saying(ok(b"")) as server:
        assert (await refusal(client, server.url, own=own)).retryable


@pytest.mark.parametrize("own", [False, True])
async def test_a_result_that_is_cut_may_be_read_again(client: UpstreamClient, *, own: bool) -> None:
    async with saying(ok(IMAGE)[:-1]) as server:
        assert (await refusal(client, f"{server.url}/?sig=1", own=own)).retryable


@pytest.mark.parametrize("own", [False, True])
async def test_a_huge_result_is_refused(tmp_path: Path, *, own: bool) -> None:
    client = UpstreamClient(tmp_path, result_bytes=1000)
    announced = b"HTTP/1.1 200 OK\r\nContent-Length: 600000000\r\n\r\n"
    for answer in (announced, b"HTTP/1.1 200 OK\r\n\r\n" + IMAGE):
        async with saying(answer, hang_up=answer != announced) as server:
            assert not (await refusal(client, server.url, own=own)).retryable
    await client.close()


async def test_a_result_that_stops_ends_in_time(tmp_path: Path) -> None:
    client = UpstreamClient(tmp_path, result_seconds=0.1)
    async with saying(ok(IMAGE)[:-1], hang_up=False) as server:
        assert (await refusal(client, server.url)).retryable
    await client.close()


async def test_a_compressed_result_is_refused(client: UpstreamClient) -> None:
    async with saying(ok(gzip.compress(IMAGE), "Content-Encoding: gzip")) as server:
        assert not (await refusal(client, server.url)).retryable


async def test_what_is_no_url_is_no_result(client: UpstreamClient) -> None:
    for url in ("", "None", "http://[", "data:image/png;base64,AAAA", "https://a b/"):
        for own in (False, True):
            assert not (await refusal(client, url, own=own)).retryable


async def test_the_credential_goes_to_the_channel_and_not_where_it_redirects(
    tmp_path: Path,
) -> None:
    client = UpstreamClient(tmp_path, allow_hosts=frozenset({HOST}))
    async with saying(ok(IMAGE)) as store:

        async def redirect(exchange: Exchange) -> None:
            await exchange.answer(b"", status=302, more=f"Location: {store.url}/b?sig=2\r\n")

        async with serving(redirect) as server:
            source = client.own_result(f"{server.url}/a", headers=CREDENTIAL)
            assert await bytes_of(source) == IMAGE
    assert server.seen[0].headers["authorization"] == "Bearer hunter2"
    assert store.seen[0].line == "GET /b?sig=2 HTTP/1.1"
    assert "authorization" not in store.seen[0].headers
    await client.close()


async def test_of_a_private_channel_no_other_port_is_reached(client: UpstreamClient) -> None:
    async with saying(ok(IMAGE)) as other:

        async def redirect(exchange: Exchange) -> None:
            await exchange.answer(b"", status=302, more=f"Location: {other.url}/\r\n")

        async with serving(redirect) as server:
            channel = server.url.removeprefix("http://")
            for url in (server.url, other.url):
                with pytest.raises(SourceError, match="public address"):
                    await bytes_of(client.result(url, own_host=channel))
            assert not (await refusal(client, server.url, own=True)).retryable
    assert not other.seen


async def test_a_redirect_from_the_channel_to_a_private_host_is_refused(
    named: UpstreamClient,
) -> None:
    async with saying(ok(IMAGE)) as store:
        port = store.url.rpartition(":")[2]

        async def redirect(exchange: Exchange) -> None:
            there = f"Location: http://elsewhere.example:{port}/\r\n"
            await exchange.answer(b"", status=307, more=there)

        async with serving(redirect) as server:
            own = f"http://channel.example:{server.url.rpartition(':')[2]}/"
            assert not (await refusal(named, own, own=True)).retryable
    assert not store.seen


async def test_leaving_a_result_early_hangs_up(client: UpstreamClient) -> None:
    async with saying(ok(IMAGE)[:-1], hang_up=False) as server:
        async with client.result(server.url, own_host=HOST).open() as stream:
            assert await anext(stream)
        async with asyncio.timeout(60):
            await server.gone.wait()
