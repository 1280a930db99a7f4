import asyncio
import base64
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.net.answers import EventStream
from calotype.net.client import BrokenOff, TooLarge, UpstreamClient
from calotype.net.spool import Spool
from net.calls import IMAGE, LETTERS, bytes_of, create, open_files
from net.servers import Exchange, ok, saying, serving

EVENTS = "text/event-stream; charset=utf-8"
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def wanting(kind: str, seen: list[Any] | None = None) -> Callable[[Any], bool]:
    def wanted(event: Any) -> bool:
        if seen is not None:
            seen.append(event)
        return bool(event.get("type") == kind)

    return wanted


def read(chunks: list[bytes], folder: Path, *, keep: str = "none") -> tuple[list[Any], Any]:
    seen: list[Any] = []
    stream = EventStream(lambda: Spool(folder), wanting(keep, seen))
    for chunk in chunks:
        stream.feed(chunk)
        if stream.done:
            break
    return seen, stream.close()[0]


def test_lines_end_in_any_way_and_data_may_have_several(tmp_path: Path) -> None:
    stream = (
        b": hello\n\n"
        b'event: a\ndata: {"n": 1}\nid: 7\n\n'
        b'data:{"n":\r\ndata: 2}\r\n\r\n'
        b'data: {"n": 3}\r\r'
        b"data: [DONE]\n\ndata: 17\n\ndata: {broken\n\ndata\n\ndatum: 1\n\nd: 2\n\n"
        b'data: {"n":\ndata\ndata:\ndata: 4}\n\n\n\n'
        b'data: {"n": 5}'
    )
    wanted = [{"n": n} for n in (1, 2, 3, 4, 5)]
    assert read([stream], tmp_path)[0] == wanted
    assert read([bytes([byte]) for byte in stream], tmp_path)[0] == wanted


def test_a_line_end_may_be_cut_in_two(tmp_path: Path) -> None:
    chunks = [b'data: {"n":\r', b"", b"\ndata: 1}\r", b"\n\r", b"", b"\n"]
    assert read(chunks, tmp_path)[0] == [{"n": 1}]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20)), max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    indent=st.sampled_from([None, 1]),
    cuts=st.lists(st.integers(0, 1000), max_size=6),
)
def test_events_are_the_same_however_the_stream_is_cut(
    events: list[dict[str, str]],
    end: str,
    indent: int | None,
    cuts: list[int],
    tmp_path: Path,
) -> None:
    data = "".join(
        f"event: x{end}: note{end}"
        + "".join(f"data: {line}{end}" for line in json.dumps(event, indent=indent).split("\n"))
        + end
        for event in events
    ).encode()
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(places)]
    assert read(chunks, tmp_path)[0] == events


async def test_the_wanted_event_is_the_document_and_ends_the_call(client: UpstreamClient) -> None:
    seen: list[Any] = []

    async def script(exchange: Exchange) -> None:
        await exchange.send(ENDLESS)
        await exchange.send(b'data: {"type": "partial", "b64": "%b"}\n\n' % LETTERS)
        await exchange.send(b'data: {"type": "done", "b64": "%b"}\n\n' % LETTERS)
        await asyncio.Event().wait()

    async with serving(script) as server:
        answer = await create(client, server.url, on_event=wanting("done", seen))
    assert [event["type"] for event in seen] == ["partial", "done"]
    assert answer.document is seen[1]
    assert answer.blob(seen[0]["b64"]) is not answer.blob(seen[1]["b64"])
    assert await bytes_of(answer.blob(answer.document["b64"])) == IMAGE


async def test_an_image_of_twenty_megabytes_in_one_line_is_read(client: UpstreamClient) -> None:
    image = os.urandom(15_000_000)
    line = b'data: {"type": "done", "b64": "%b"}\n\n' % base64.b64encode(image)
    async with saying(ok(line, kind=EVENTS)) as server:
        answer = await create(client, server.url, on_event=wanting("done"), max_bytes=30_000_000)
    assert await bytes_of(answer.blob(answer.document["b64"])) == image


async def test_images_of_events_that_were_passed_over_are_let_go(client: UpstreamClient) -> None:
    counts: list[int] = []

    def count(_event: Any) -> bool:
        counts.append(len(open_files()))
        return False

    line = b'data: {"b64": "%b"}\n\n' % base64.b64encode(bytes(1_000_000))
    async with saying(ok(line * 20, kind=EVENTS)) as server:
        answer = await create(client, server.url, on_event=count, max_bytes=100_000_000)
    assert answer.document is None
    assert max(counts) <= counts[0] + 5


async def test_a_stream_that_ends_without_the_wanted_event_has_no_document(
    client: UpstreamClient,
) -> None:
    body = b'data: {"type": "partial"}\n\ndata: [DONE]\n\n'
    async with saying(ok(body, kind=EVENTS)) as server:
        answer = await create(client, server.url, on_event=wanting("done"))
    assert (answer.status, answer.document, answer.text) == (200, None, "")


async def test_a_stream_that_is_cut_is_broken_off(client: UpstreamClient) -> None:
    whole = ok(b'data: {"type": "partial"}\n\ndata: {"type": "done"}\n\n', kind=EVENTS)
    async with saying(whole[:-10]) as server:
        with pytest.raises(BrokenOff):
            await create(client, server.url, on_event=wanting("done"))


async def test_a_stream_over_the_limit_is_too_large(client: UpstreamClient) -> None:
    async with saying(ENDLESS + b": nothing\n\n" * 1000) as server:
        with pytest.raises(TooLarge):
            await create(client, server.url, on_event=wanting("done"), max_bytes=1000)


async def test_other_answers_are_whole_though_events_were_awaited(client: UpstreamClient) -> None:
    async with saying(ok(b'{"error": 1}')) as server:
        answer = await create(client, server.url, on_event=wanting("done"))
    assert answer.document == {"error": 1}


async def test_an_error_of_the_listener_is_passed_on(client: UpstreamClient) -> None:
    def fail(_event: Any) -> bool:
        raise ZeroDivisionError

    async with saying(ok(b"data: {}\n\n", kind=EVENTS)) as server:
        with pytest.raises(ZeroDivisionError):
            await create(client, server.url, on_event=fail)
