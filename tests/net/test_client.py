import asyncio
import gc
import gzip
import json
import os
import re
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from calotype.domain.outcomes import SourceError
from calotype.net.bodies import Inline, json_body, raw_body
from calotype.net.client import Answer, BrokenOff, NotSent, TooLarge, UpstreamClient
from harness import until
from net.calls import IMAGE, LETTERS, bytes_of, create, names_in, open_files, opening
from net.names import Lookup
from net.servers import Exchange, ok, saying, serving
from net.tls import serving_tls, trusting


def says_no_secret(error: BaseException) -> None:
    assert re.fullmatch(r"[\w.-]+ .*\.", str(error))
    for secret in ("hunter2", "sig=", "/v1", "://"):
        assert secret not in str(error)


# --- what is sent


async def test_a_request_says_who_asks_and_carries_the_credential(client: UpstreamClient) -> None:
    async with saying(ok(b"{}")) as server:
        await create(client, f"{server.url}/v1/a%2Fb?sig=a%2Bb+c", json_body({"prompt": "grün"}))
    (seen,) = server.seen
    assert seen.line == "POST /v1/a%2Fb?sig=a%2Bb+c HTTP/1.1"
    assert json.loads(seen.body) == {"prompt": "grün"}
    assert seen.headers == {
        "host": server.url.removeprefix("http://"),
        "user-agent": "Calotype",
        "accept": "*/*",
        "accept-encoding": "identity",
        "authorization": "Bearer hunter2",
        "content-type": "application/json",
        "content-length": str(len(seen.body)),
    }


async def test_a_large_body_is_streamed_with_its_exact_length(client: UpstreamClient) -> None:
    image = os.urandom(3_000_000)
    async with saying(ok(b"{}")) as server:
        await create(client, server.url, json_body({"image": Inline(opening(image), len(image))}))
        await create(client, server.url, raw_body("image/png", len(image), opening(image)))
    first, second = server.seen
    assert len(json.loads(first.body)["image"]) == len(image) // 3 * 4
    assert second.body == image
    assert second.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("/a b?c=ü", "GET /a%20b?c=%C3%BC HTTP/1.1"),
        ("/a\r\nX: y", "GET /aX:%20y HTTP/1.1"),
        ("/a#secret", "GET /a HTTP/1.1"),
    ],
)
async def test_no_url_becomes_more_than_one_request_line(
    client: UpstreamClient, url: str, line: str
) -> None:
    async with saying(ok(b"{}")) as server:
        await create(client, server.url + url, method="GET", fresh=False)
    assert [seen.line for seen in server.seen] == [line]
    assert "x" not in server.seen[0].headers


async def test_a_create_right_behind_another_has_a_connection_of_its_own_and_others_share(
    client: UpstreamClient,
) -> None:
    async with saying(ok(b"{}"), hang_up=False) as server:
        for fresh in (False, False, True, True, False):
            await create(client, server.url, fresh=fresh)
    assert [seen.connection for seen in server.seen] == [0, 0, 1, 2, 0]


async def test_a_create_shares_a_connection_that_has_rested_and_is_no_second_old(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with saying(ok(b"{}"), hang_up=False) as server:
        for rest in (0.0, 0.0, 60.0, 0.0):
            monkeypatch.setattr("calotype.net.connections.REST_SECONDS", rest)
            await create(client, server.url)
    assert [seen.connection for seen in server.seen] == [0, 0, 1, 0]


async def test_a_create_shares_no_connection_whose_time_is_over(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.net.connections.REST_SECONDS", 0.0)
    monkeypatch.setattr("calotype.net.connections.KEPT_SECONDS", 0.0)
    async with saying(ok(b"{}"), hang_up=False) as server:
        for _ in range(2):
            await create(client, server.url)
    assert [seen.connection for seen in server.seen] == [0, 1]


async def test_a_create_shares_no_connection_that_its_server_has_closed(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.net.connections.REST_SECONDS", 0.0)
    async with saying(ok(b"{}")) as server:
        before = len(open_files())
        for _ in range(2):
            await create(client, server.url)
            await until(lambda: len(open_files()) == before)
    assert [seen.connection for seen in server.seen] == [0, 1]


async def test_a_create_that_passes_over_an_old_connection_takes_no_young_one(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("calotype.net.connections.time", clock)
    monkeypatch.setattr("aiohttp.connector.monotonic", clock.monotonic)
    async with saying(ok(b"{}"), hang_up=False) as server:
        for now in (0.0, 0.05, 0.99, 1.06):  # noqa: B007 -- the clock reads it
            await create(client, server.url)
    assert [seen.connection for seen in server.seen] == [0, 1, 0, 2]


async def test_a_create_shares_no_connection_that_was_closed_while_this_process_was_busy(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.net.connections.REST_SECONDS", 0.0)
    may_close, closed = threading.Event(), threading.Event()

    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(ok(b"{}"))
                may_close.wait()
            closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving_thread = threading.Thread(target=serve, args=(listener,))
        serving_thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await create(client, url)
        may_close.set()
        closed.wait()  # and the event loop with it
        assert (await create(client, url)).status == 200
        await asyncio.to_thread(serving_thread.join)


async def test_answers_that_broke_off_leave_the_memory_for_images_at_once(tmp_path: Path) -> None:
    whole = ok(b'{"image":"' + LETTERS + b'"}')
    client = UpstreamClient(tmp_path, memory=len(whole))
    gc.disable()
    try:
        async with saying(whole[:-1000]) as server:
            with pytest.raises(BrokenOff):
                await create(client, server.url)
        async with saying(whole) as server:
            (image,) = (await create(client, server.url)).spools.values()
    finally:
        gc.enable()
        await client.close()
    assert image.held
    assert await bytes_of(image) == IMAGE


async def test_cookies_redirects_and_proxies_of_the_environment_are_left_alone(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    moved = (
        b"HTTP/1.1 307 X\r\nLocation: /b\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n"
    )
    async with saying(moved) as server:
        for _ in range(2):
            answer = await create(client, server.url)
            assert (answer.status, answer.headers["location"]) == (307, "/b")
    assert [seen.line for seen in server.seen] == ["POST / HTTP/1.1"] * 2
    assert not any("cookie" in seen.headers for seen in server.seen)


@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "DELETE"])
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("warm", [True, False])
async def test_nothing_is_sent_twice_when_the_connection_is_cut(
    client: UpstreamClient, method: str, *, fresh: bool, warm: bool
) -> None:
    async def cut(exchange: Exchange) -> None:
        if exchange.seen.line.startswith("GET /warm"):
            await exchange.answer(b"{}")
        else:
            exchange.hang_up = True

    async with serving(cut) as server:
        if warm:
            await create(client, f"{server.url}/warm", method="GET", fresh=False)
        with pytest.raises(BrokenOff) as caught:
            await create(
                client, f"{server.url}/v1?sig=1", json_body({}), method=method, fresh=fresh
            )
    says_no_secret(caught.value)
    assert [seen.whole for seen in server.seen][warm:] == [True]


# --- what comes back


async def test_an_answer_is_decoded_with_its_headers(client: UpstreamClient) -> None:
    more = ("X-Request-Id: 7", "X-Twice: a", "x-twice: b", "Retry-After: 1.5")
    async with saying(ok(b' {"a": [1, null]}', *more)) as server:
        answer = await create(client, server.url)
    assert answer.status == 200
    assert answer.document == {"a": [1, None]}
    assert answer.text == ""
    assert answer.headers["x-request-id"] == "7"
    assert answer.headers["x-twice"] == "a, b"
    assert answer.retry_after == 1.5


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<html>Bad Gateway</html>", "<html>Bad Gateway</html>"),
        (b'{"a": 1', '{"a": 1'),
        (b'{"a": 1}}', '{"a": 1}}'),
        (b"{'a': 1}", "{'a': 1}"),
        (b"", ""),
        (b"  \n ", ""),
        (b"\xff\xfe nonsense", "\ufffd\ufffd nonsense"),
        (b"x" * 100_000, "x" * 2000),
        (b"[" * 100_000, "[" * 2000),
        (b'["' + LETTERS, ('["' + LETTERS.decode())[:2000]),
    ],
)
async def test_what_is_no_json_is_kept_as_text(
    client: UpstreamClient, body: bytes, text: str
) -> None:
    async with saying(ok(body)) as server:
        answer = await create(client, server.url)
    assert (answer.document, answer.text) == (None, text)


async def test_json_is_known_whatever_it_is_called(client: UpstreamClient) -> None:
    async with saying(ok(b'{"a": 1}', kind="text/html")) as server:
        assert (await create(client, server.url)).document == {"a": 1}


async def test_an_answer_without_a_body_is_an_answer(client: UpstreamClient) -> None:
    async with saying(b"HTTP/1.1 204 X\r\n\r\n") as server:
        answer = await create(client, server.url)
    assert (answer.status, answer.document, answer.text) == (204, None, "")


async def test_an_image_is_read_from_its_token_again_and_again(
    client: UpstreamClient, tmp_path: Path
) -> None:
    body = b'{"data": [{"b64_json": "%b", "text": "hello"}]}' % LETTERS
    async with saying(ok(body)) as server:
        answer = await create(client, server.url)
    (item,) = answer.document["data"]
    assert item["text"] == "hello"
    source = answer.blob(item["b64_json"])
    assert await bytes_of(source) == IMAGE
    assert await bytes_of(source) == IMAGE
    assert not names_in(tmp_path)


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "DATA:image/jpeg;q=1;BASE64,"])
async def test_short_and_long_images_are_read_alike(
    client: UpstreamClient, prefix: str, *, long: bool
) -> None:
    image, letters = (IMAGE, LETTERS) if long else (b"abcd", b"YWJjZA==")
    async with saying(ok(b'["%b%b"]' % (prefix.encode(), letters))) as server:
        answer = await create(client, server.url)
    assert await bytes_of(answer.blob(answer.document[0])) == image


@pytest.mark.parametrize("end", ["A", "AA", "=", "====", "A===", "!AAA", " ", "\\n", "\\u00e9"])
@pytest.mark.parametrize("long", [False, True])
async def test_invalid_base64_shows_when_it_is_opened(
    client: UpstreamClient, end: str, *, long: bool
) -> None:
    letters = b"data:image/png;base64," + b"A" * (40_000 if long else 40)
    async with saying(ok(b'["%b%b"]' % (letters, end.encode()))) as server:
        answer = await create(client, server.url)
    source = answer.blob(answer.document[0])
    with pytest.raises(SourceError) as caught:
        await bytes_of(source)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "value", [None, 7, ["YWJj"], "", "https://images.example/a.png", "a b", "data:image/png,abc"]
)
def test_what_is_no_base64_at_first_sight_is_no_image(value: object) -> None:
    assert Answer(status=200, document=value).blob(value) is None


async def test_an_image_sent_in_chunks_or_compressed_is_the_same(client: UpstreamClient) -> None:
    body = b'["%b"]' % LETTERS
    packed = gzip.compress(body)
    chunked = b"".join(
        b"%x\r\n%b\r\n" % (len(piece), piece)
        for piece in (body[at : at + 999] for at in range(0, len(body), 999))
    )
    head = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
    for whole in (ok(packed, "Content-Encoding: gzip"), head + chunked + b"0\r\n\r\n"):
        async with saying(whole) as server:
            answer = await create(client, server.url)
        assert await bytes_of(answer.blob(answer.document[0])) == IMAGE


# --- what goes wrong


async def test_a_port_that_nobody_listens_on_is_not_sent(client: UpstreamClient) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1?sig=1"
        with pytest.raises(NotSent) as caught:
            await create(client, url)
    says_no_secret(caught.value)


@pytest.mark.parametrize("url", ["http://no-such-host.invalid/v1?sig=1", "http://[/v1", "ftp://a/"])
async def test_a_name_without_an_address_is_not_sent(client: UpstreamClient, url: str) -> None:
    with pytest.raises(NotSent) as caught:
        await create(client, url)
    says_no_secret(caught.value)


async def test_tls_is_verified_by_name(client: UpstreamClient, tmp_path: Path) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"{}")

    lookup = Lookup(images_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    knowing = UpstreamClient(tmp_path, resolver=lookup, tls=trusting())
    async with serving(answer, tls=serving_tls(tmp_path)) as server:
        port = server.url.rpartition(":")[2]
        for who, name in ((client, "127.0.0.1"), (knowing, "other.example")):
            with pytest.raises(NotSent, match="TLS certificate") as caught:
                await create(who, f"https://{name}:{port}/v1?sig=1")
            says_no_secret(caught.value)
        assert not server.seen
        await create(knowing, f"https://images.example:{port}/")
        assert len(server.seen) == 1
    await knowing.close()


@pytest.mark.parametrize("whole", [True, False])
async def test_a_connection_that_is_never_made_is_not_sent(tmp_path: Path, *, whole: bool) -> None:
    """Connected, but TLS never begins; by the limit on connecting or on the whole call."""
    client = UpstreamClient(tmp_path, connect_seconds=20 if whole else 0.05)
    async with saying(b"") as server:
        url = server.url.replace("http", "https")
        with pytest.raises(NotSent) as caught:
            await create(client, f"{url}/v1?sig=1", timeout_seconds=0.05 if whole else 20)
        assert not server.seen
    says_no_secret(caught.value)
    await client.close()


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
async def test_a_cut_before_the_answer_is_broken_off(client: UpstreamClient, sent: bytes) -> None:
    async with saying(sent) as server:
        with pytest.raises(BrokenOff) as caught:
            await create(client, f"{server.url}/v1?sig=1")
    says_no_secret(caught.value)


@pytest.mark.parametrize("where", [60, 100, 5000, 60_000, 130_000])
@pytest.mark.parametrize("form", ["length", "chunked", "gzip"])
async def test_a_cut_within_the_answer_is_broken_off(
    client: UpstreamClient, where: int, form: str
) -> None:
    body = b'["%b"]' % LETTERS
    whole = ok(body)
    if form == "chunked":
        whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            len(body),
            body,
        )
    if form == "gzip":
        whole = ok(gzip.compress(os.urandom(200_000)), "Content-Encoding: gzip")
    async with saying(whole[:where]) as server:
        with pytest.raises(BrokenOff) as caught:
            await create(client, f"{server.url}/v1?sig=1")
    says_no_secret(caught.value)


async def test_a_cut_after_the_answer_changes_nothing(client: UpstreamClient) -> None:
    async with saying(ok(b'{"id": 1}')) as server:
        assert (await create(client, server.url)).document == {"id": 1}


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ok(b"no gzip", "Content-Encoding: gzip"),
        ok(b"no brotli", "Content-Encoding: br"),
    ],
)
async def test_what_is_no_http_is_broken_off(client: UpstreamClient, answer: bytes) -> None:
    async with saying(answer) as server:
        with pytest.raises(BrokenOff) as caught:
            await create(client, f"{server.url}/v1?sig=1")
    says_no_secret(caught.value)


@pytest.mark.parametrize("begun", [b"", ok(b"x" * 10)[:-5], ok(b'["%b"]' % LETTERS)[:100_000]])
async def test_an_answer_that_stops_is_broken_off_in_time(
    client: UpstreamClient, begun: bytes
) -> None:
    gone = asyncio.Event()

    async def stop(exchange: Exchange) -> None:
        await exchange.send(begun)
        await gone.wait()

    async with serving(stop) as server:
        with pytest.raises(BrokenOff) as caught:
            await create(client, f"{server.url}/v1?sig=1", timeout_seconds=0.2)
        gone.set()
    says_no_secret(caught.value)
    assert "did not answer in time" in str(caught.value)


async def test_an_answer_over_the_limit_is_too_large(client: UpstreamClient) -> None:
    fits = ok(b'"%b"' % (b"-" * 998))
    async with saying(fits) as server:
        assert len((await create(client, server.url, max_bytes=1000)).document) == 998
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b'"%b"' % LETTERS
    bomb = ok(gzip.compress(b"-" * 10_000_000), "Content-Encoding: gzip")
    for answer in (ok(b'"%b"' % (b"-" * 999)), endless, bomb):
        async with saying(answer) as server:
            with pytest.raises(TooLarge) as caught:
                await create(client, f"{server.url}/v1?sig=1", max_bytes=1000)
        says_no_secret(caught.value)


async def test_too_much_text_is_too_large(client: UpstreamClient) -> None:
    async with saying(ok(b'"%b"' % (b"-" * 5_000_000))) as server:
        with pytest.raises(TooLarge):
            await create(client, server.url)


async def test_an_early_answer_ends_the_sending(client: UpstreamClient) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.answer(b'{"error": "too large"}', status=413)
        await read.wait()

    read = asyncio.Event()
    async with serving(refuse, early=True) as server:
        body = raw_body("image/png", 50_000_000, opening(*[bytes(50_000)] * 1000))
        answer = await create(client, server.url, body)
        read.set()
    assert (answer.status, answer.document) == (413, {"error": "too large"})


async def test_closing_ends_what_is_under_way_and_refuses_what_comes_after(
    client: UpstreamClient,
) -> None:
    arrived, never = asyncio.Event(), asyncio.Event()

    async def hold(exchange: Exchange) -> None:
        await exchange.send(ok(b"x" * 10)[:-5])
        arrived.set()
        await never.wait()

    async with serving(hold) as server:
        call = asyncio.create_task(create(client, server.url))
        await arrived.wait()
        await client.close()
        with pytest.raises(BrokenOff):
            await call
        with pytest.raises(NotSent, match="shutting down"):
            await create(client, server.url)
        never.set()


async def test_a_cancelled_call_hangs_up(client: UpstreamClient) -> None:
    arrived = asyncio.Event()

    async def half(exchange: Exchange) -> None:
        await exchange.send(ok(b'["%b"]' % LETTERS)[:-5])
        arrived.set()

    async with serving(half) as server:
        call = asyncio.create_task(create(client, server.url))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.gone.wait()


# --- turns


@pytest.fixture
async def filing(tmp_path: Path) -> AsyncIterator[UpstreamClient]:
    """One that holds no image in memory."""
    made = UpstreamClient(tmp_path, memory=0)
    yield made
    await made.close()


async def test_questions_do_not_wait_behind_images(filing: UpstreamClient) -> None:
    """More large answers than are read at a time, all stalled; a small one and they all end."""
    goes_on = asyncio.Event()
    begun = 0
    half = len(LETTERS) // 2
    image = b'["%b"]' % LETTERS

    async def script(exchange: Exchange) -> None:
        nonlocal begun
        if exchange.seen.line.startswith("GET"):
            await exchange.answer(b'"running"')
            return
        whole = ok(image)
        await exchange.send(whole[:half])
        begun += 1
        await goes_on.wait()
        await exchange.send(whole[half:])

    async with serving(script) as server:
        calls = [asyncio.create_task(create(filing, server.url)) for _ in range(70)]
        while begun < 70:
            await asyncio.sleep(0)
        assert (await create(filing, server.url, method="GET", fresh=False)).document == "running"
        goes_on.set()
        for answer in await asyncio.gather(*calls):
            assert await bytes_of(answer.blob(answer.document[0])) == IMAGE


async def test_waiting_for_a_turn_is_not_counted_and_stalled_answers_give_theirs_away(
    filing: UpstreamClient,
) -> None:
    stalled = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        whole = ok(b'["%b"]' % LETTERS)
        if exchange.seen.line.startswith("PUT"):
            await exchange.send(whole)
            return
        await exchange.send(whole[:-5])
        await stalled.wait()
        await exchange.send(whole[-5:])

    async with serving(script) as server:
        slow = [asyncio.create_task(create(filing, server.url)) for _ in range(64)]
        while not filing._turns.locked():
            await asyncio.sleep(0)
        # The turns are all taken; one is given away after a second without a byte.
        answer = await create(filing, server.url, method="PUT", timeout_seconds=0.5)
        assert await bytes_of(answer.blob(answer.document[0])) == IMAGE
        assert not any(call.done() for call in slow)
        stalled.set()
        for answer in await asyncio.gather(*slow):
            assert await bytes_of(answer.blob(answer.document[0])) == IMAGE
