"""The client against servers and networks that misbehave."""

import asyncio
import json
import os
import pickle
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest

from calotype.client import (
    APIError,
    AsyncCalotype,
    AsyncTaskTimeout,
    Calotype,
    CalotypeError,
    ConnectionFailed,
    GenerationRequest,
    NotFoundError,
    RateLimitError,
    ServerError,
    TaskTimeout,
    WaitTimeout,
)
from calotype.client.sse import LONGEST_EVENT
from client.speaking import DROP, Kind, answer, do, first, handling, names_in, opened, rogue, stream

KEY = "ck_secret"
ACCEPTED = {"task_id": "task_0", "object": "task", "model": "m", "state": "waiting"}
RUNNING = {**ACCEPTED, "state": "generating", "progress": 40, "last_event": 3}
DONE = {
    **ACCEPTED,
    "state": "success",
    "progress": 100,
    "last_event": 4,
    "result": {"data": [{"url": "/v1/assets/a.png?signature=s", "content_type": "image/png"}]},
}
BUSY = {"message": "Busy.", "code": "service_unavailable", "type": "server_error"}
MISSING = {"message": "None.", "code": "task_not_found", "type": "not_found_error"}


def busy(retry_after: str = "0", *, status: int = 503) -> bytes:
    return answer(status, BUSY, headers=f"Retry-After: {retry_after}\r\n")


def event(number: int, **data: Any) -> bytes:
    document = {**ACCEPTED, "event": number, "at": 1, **data}
    return b"id: %d\nevent: x\ndata: %s\n\n" % (number, json.dumps(document).encode())


# Sending again


async def test_a_request_whose_answer_was_lost_is_sent_again_under_the_same_key(kind: Kind) -> None:
    notes = list[str]()
    async with (
        rogue(DROP, busy(), DROP, answer(202, ACCEPTED)) as served,
        opened(kind, KEY, served.url, on_retry=notes.append) as client,
    ):
        assert (await do(client.generate, "x", model="m")).id == "task_0"
    assert len({head["idempotency-key"] for head in served.heads}) == 1
    assert len(set(served.bodies)) == 1
    assert [note[-9:] for note in notes] == [" (1 of 3)", " (2 of 3)", " (3 of 3)"]


async def test_each_request_has_a_key_of_its_own(kind: Kind) -> None:
    async with (
        rogue(*[answer(202, ACCEPTED)] * 2) as served,
        opened(kind, KEY, served.url) as client,
    ):
        for _ in range(2):
            await do(client.generate, "x", model="m")
    one, two = (head["idempotency-key"] for head in served.heads)
    assert one != two


async def test_files_are_sent_whole_at_each_try_and_in_order(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"the first picture")
    two = BytesIO(b"the second picture")
    references = [two, "https://example.com/a.png", tmp_path / "one.png"]
    async with (
        rogue(DROP, answer(202, ACCEPTED)) as served,
        opened(kind, KEY, served.url) as client,
    ):
        await do(
            client.generate, "x", model="m", references=references, metadata={"a": "b"}, c=True
        )
    for head, body in zip(served.heads, served.bodies, strict=True):
        assert head["content-type"].startswith("multipart/form-data")
        places = [
            body.index(part)
            for part in (b"the second", b"https://example.com/a.png", b'"one.png"', b"the first")
        ]
        assert places == sorted(places)
        assert b'name="metadata"\r\n\r\n{"a": "b"}\r\n' in body
        assert b'name="c"\r\n\r\ntrue\r\n' in body


async def test_a_connection_that_always_breaks_leaves_the_outcome_open(kind: Kind) -> None:
    async with rogue(*[DROP] * 4) as served, opened(kind, KEY, served.url) as client:
        with pytest.raises(ConnectionFailed, match="broke the connection off") as failed:
            await do(client.generate, "x", model="m")
    assert len(served.heads) == 4
    assert failed.value.maybe_received
    assert failed.value.idempotency_key == served.heads[0]["idempotency-key"]


async def test_a_server_that_is_not_there_has_received_nothing(kind: Kind) -> None:
    async with rogue() as served:
        pass
    async with opened(kind, KEY, served.url) as client:
        with pytest.raises(ConnectionFailed, match=r"no server at http://.*: Connection refused"):
            await do(client.balance)
        with pytest.raises(ConnectionFailed) as failed:
            await do(client.generate, "x", model="m")
    assert not failed.value.maybe_received


async def test_a_refusal_is_not_sent_again(kind: Kind) -> None:
    async with rogue(answer(404, MISSING)) as served, opened(kind, KEY, served.url) as client:
        with pytest.raises(NotFoundError, match=r"None\. \(task_not_found\)"):
            await do(client.task, "task_0")
    assert len(served.heads) == 1


@pytest.mark.parametrize("status", [408, 409, 425, 500, 501])
async def test_only_what_is_documented_to_pass_is_sent_again(status: int, kind: Kind) -> None:
    async with (
        rogue(answer(status, BUSY, headers="Retry-After: 0\r\n")) as served,
        opened(kind, KEY, served.url) as client,
    ):
        with pytest.raises(APIError) as refused:
            await do(client.generate, "x", model="m")
    assert (refused.value.status, len(served.heads)) == (status, 1)


@pytest.mark.parametrize("last", [DROP, busy(), answer(502, b"<html>"), answer(202, {"a": "b"})])
async def test_a_submission_whose_outcome_is_open_can_be_repeated_under_its_key(
    last: bytes, kind: Kind
) -> None:
    async with rogue(*[DROP] * 3, last) as served, opened(kind, KEY, served.url) as client:
        with pytest.raises(CalotypeError) as failed:
            await do(client.generate, "x", model="m")
        key = failed.value.idempotency_key
        served.answers.append(answer(202, ACCEPTED))
        assert (await do(client.generate, "x", model="m", idempotency_key=key)).id == "task_0"
    assert {head["idempotency-key"] for head in served.heads} == {key}


async def test_a_server_that_wants_to_be_left_alone_for_long_is_not_asked_again(kind: Kind) -> None:
    async with (
        rogue(busy("3600", status=429)) as served,
        opened(kind, KEY, served.url) as client,
    ):
        with pytest.raises(RateLimitError) as refused:
            await do(client.balance)
    assert (refused.value.retry_after, len(served.heads)) == (3600, 1)


async def test_a_proxy_that_has_no_server_behind_it_is_asked_again(kind: Kind) -> None:
    async with (
        rogue(*[answer(502, b"<html>")] * 4) as served,
        opened(kind, KEY, served.url) as client,
    ):
        with pytest.raises(ServerError, match=r"answered 502, not as a Calotype .* base_url"):
            await do(client.balance)
    assert len(served.heads) == 4


async def test_a_secret_is_not_replaced_twice_by_a_lost_answer(kind: Kind) -> None:
    async with rogue(DROP, answer(200, {})) as served, opened(kind, KEY, served.url) as client:
        with pytest.raises(ConnectionFailed):
            await do(client.rotate_webhook_secret)
    assert served.lines == ["POST /v1/webhooks/rotate"]


async def test_the_requests_of_a_batch_keep_their_keys(kind: Kind) -> None:
    listed = {"object": "list", "data": [ACCEPTED, {"error": {**MISSING, "error": "not_found"}}]}
    requests = [GenerationRequest("x", model="m"), GenerationRequest("y", model="m", a=1)]
    async with rogue(DROP, answer(202, listed)) as served, opened(kind, KEY, served.url) as client:
        task, refused = await do(client.generate_batch, requests)
    assert task.id == "task_0"
    assert (type(refused), refused.status, refused.code) == (NotFoundError, 404, "task_not_found")
    (body,) = {*served.bodies}
    assert [one["idempotency_key"] for one in json.loads(body)["requests"]] == [
        request.idempotency_key for request in requests
    ]


@pytest.mark.parametrize(
    ("said", "known"),
    [(7, 7.0), (0, 0.0), (None, None), ("7", None), (True, None), (-1, None), (10**400, None)],
)
async def test_when_to_send_one_of_a_batch_again_is_told(
    kind: Kind, said: object, known: float | None
) -> None:
    limit = {**MISSING, "error": "rate_limited", "retry_after": said}
    async with (
        rogue(answer(202, {"object": "list", "data": [{"error": limit}]})) as served,
        opened(kind, KEY, served.url) as client,
    ):
        (refused,) = await do(client.generate_batch, [GenerationRequest("x", model="m")])
    assert (type(refused), refused.retry_after) == (RateLimitError, known)


# Waiting and listening


async def test_waiting_outlasts_a_restart(kind: Kind) -> None:
    notes = list[str]()
    answers = (answer(202, ACCEPTED), answer(200, RUNNING), DROP, busy(), answer(200, DONE))
    async with (
        rogue(*answers) as served,
        opened(kind, KEY, served.url, on_retry=notes.append) as client,
    ):
        task = await do((await do(client.generate, "x", model="m")).wait)
    assert task.state == "success"
    polled = "GET /v1/tasks/task_0?wait=30&since="
    assert served.lines[1:] == [polled + "0", polled + "3", polled + "3", polled + "3"]
    assert len(notes) == 1


async def test_a_task_that_was_not_final_in_time_is_waited_for_again(kind: Kind) -> None:
    expected = TaskTimeout if kind is Calotype else AsyncTaskTimeout
    async with (
        rogue(answer(202, ACCEPTED), answer(200, RUNNING), answer(200, DONE)) as served,
        opened(kind, KEY, served.url) as client,
    ):
        task = await do(client.generate, "x", model="m")
        with pytest.raises(WaitTimeout, match="generating, 40 %") as late:
            await do(task.wait, 0)
        assert type(late.value) is expected
        assert (await do(late.value.task.wait)).state == "success"


async def test_waiting_gives_up_a_server_that_stays_away(kind: Kind) -> None:
    async with (
        rogue(answer(202, ACCEPTED), DROP) as served,
        opened(kind, KEY, served.url, patience=0) as client,
    ):
        task = await do(client.generate, "x", model="m")
        with pytest.raises(ConnectionFailed):
            await do(task.wait)


async def test_waiting_ends_when_the_key_is_revoked(kind: Kind) -> None:
    refusal = {"message": "Revoked.", "code": "invalid_api_key"}
    async with (
        rogue(answer(202, ACCEPTED), answer(401, refusal)) as served,
        opened(kind, KEY, served.url) as client,
    ):
        task = await do(client.generate, "x", model="m")
        with pytest.raises(APIError, match="invalid_api_key"):
            await do(task.wait)


async def test_a_stream_that_breaks_is_taken_up_after_its_last_event(kind: Kind) -> None:
    whole = event(2, state="generating", progress=40)
    answers = (
        answer(202, ACCEPTED),
        stream(b": here\n\n", event(1), whole, event(3)[:-4]),
        DROP,
        busy(),
        stream(event(3, state="generating", progress=80)),
        stream(event(4, state="success", progress=100, task=DONE)),
    )
    async with rogue(*answers) as served, opened(kind, KEY, served.url) as client:
        events = await do((await do(client.generate, "x", model="m")).events)
    assert [event.progress for event in events] == [0, 40, 80, 100]
    assert events[-1].task.result[0].content_type == "image/png"
    assert set(served.lines[1:]) == {"GET /v1/tasks/task_0/events"}
    assert [head.get("last-event-id") for head in served.heads[1:]] == [None, "2", "2", "2", "3"]


async def test_a_stream_of_the_account_never_ends_by_itself(kind: Kind) -> None:
    final = event(1, state="success", progress=100, task=DONE)
    async with (
        rogue(stream(final), stream(event(2))) as served,
        opened(kind, KEY, served.url) as client,
    ):
        events = await first(2, client.events, "0")
    assert [event.id for event in events] == ["1", "2"]
    assert [head["last-event-id"] for head in served.heads] == ["0", "1"]


async def test_listening_gives_up_a_server_that_stays_away(kind: Kind) -> None:
    async with rogue(DROP) as served, opened(kind, KEY, served.url, patience=0) as client:
        with pytest.raises(ConnectionFailed):
            await do(client.events)


@pytest.mark.parametrize(
    "headers", ["Content-Type: text/html\r\n", "Content-Type: text/event-stream-not\r\n", ""]
)
async def test_what_is_no_stream_is_not_listened_to(headers: str, kind: Kind) -> None:
    page = answer(200, event(1), headers=headers)
    async with rogue(page) as served, opened(kind, KEY, served.url) as client:
        with pytest.raises(APIError, match="no stream of events; check base_url") as refused:
            await do(client.events)
    assert (refused.value.code, len(served.heads)) == ("unexpected_response", 1)


async def test_a_stream_that_tells_nothing_is_given_up(kind: Kind) -> None:
    async with (
        rogue(*[stream(b"\n\nnoise\n\n")] * 2) as served,
        opened(kind, KEY, served.url, patience=0) as client,
    ):
        with pytest.raises(ConnectionFailed, match="ended the stream"):
            await do(client.events)
    assert len(served.heads) == 1


async def test_a_stream_of_noise_without_end_is_given_up(kind: Kind) -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(stream())
        while True:
            writer.write(b"noise\n\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with (
        handling(babble) as url,
        opened(kind, KEY, url, patience=0, timeout=0.5) as client,
    ):
        with pytest.raises(ConnectionFailed, match="no event"):
            await do(client.events)


@pytest.mark.parametrize(
    "noise", [b"x" * LONGEST_EVENT + b"x", b"data: x\n" * (LONGEST_EVENT // 7 + 1)], ids=len
)
async def test_an_event_without_end_is_not_kept(noise: bytes, kind: Kind) -> None:
    async with (
        rogue(stream(event(1), noise)) as served,
        opened(kind, KEY, served.url) as client,
    ):
        with pytest.raises(APIError, match=f"more than {LONGEST_EVENT} bytes") as refused:
            await do(client.events)
    assert refused.value.code == "unexpected_response"


async def test_a_server_that_keeps_silent_is_waited_for_as_long_as_was_said(kind: Kind) -> None:
    async def keep_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    http = httpx2.Client(timeout=60) if kind is Calotype else httpx2.AsyncClient(timeout=60)
    async with handling(keep_silent) as url:
        for given in ({}, {"http_client": http}):
            async with opened(kind, KEY, url, pauses=(), timeout=0.1, **given) as client:
                with pytest.raises(ConnectionFailed, match=r"timed out|ReadTimeout"):
                    await do(client.balance)
        await do(http.aclose if isinstance(http, httpx2.AsyncClient) else http.close)


# Images


async def test_an_image_that_was_cut_short_is_fetched_again_and_appears_whole(
    kind: Kind, tmp_path: Path
) -> None:
    whole = answer(200, b"the whole image")
    async with rogue(whole[:-5], whole) as served, opened(kind, KEY, served.url) as client:
        saved = await do(client.save, "/v1/assets/a.png?signature=s", tmp_path / "out.png")
    assert saved.read_bytes() == b"the whole image"
    assert names_in(tmp_path) == ["out.png"]


async def test_an_image_that_cannot_be_fetched_leaves_nothing_behind(
    kind: Kind, tmp_path: Path
) -> None:
    whole = answer(200, b"the whole image")
    async with rogue(*[whole[:-5]] * 4) as served, opened(kind, KEY, served.url) as client:
        with pytest.raises(ConnectionFailed):
            await do(client.save, "/v1/assets/a.png", tmp_path / "out.png")
        served.answers.append(whole)
        with pytest.raises(FileNotFoundError):
            await do(client.save, "/v1/assets/a.png", tmp_path / "nowhere" / "out.png")
    assert names_in(tmp_path) == []


async def test_an_expired_url_is_replaced_by_a_fresh_one(kind: Kind, tmp_path: Path) -> None:
    expired = {"message": "Expired.", "code": "url_expired"}
    fresh = {**DONE, "result": {"data": [{"url": "/fresh"}]}}
    answers = (
        answer(200, DONE),
        answer(403, expired),
        answer(200, fresh),
        answer(200, b"image"),
    )
    async with rogue(*answers) as served, opened(kind, KEY, served.url) as client:
        task = await do(client.task, "task_0")
        (path,) = await do(task.save, tmp_path / "out.png")
    assert path.read_bytes() == b"image"
    assert served.lines[2:] == ["GET /v1/tasks/task_0", "GET /fresh"]


async def test_further_images_are_numbered(kind: Kind, tmp_path: Path) -> None:
    three = {**DONE, "result": {"data": [{"url": f"/{name}"} for name in "abc"]}}
    images = [answer(200, name) for name in (b"a", b"b", b"c")]
    async with (
        rogue(answer(200, three), *images) as served,
        opened(kind, KEY, served.url) as client,
    ):
        await do((await do(client.task, "task_0")).save, tmp_path / "out.png")
    assert names_in(tmp_path) == ["out-2.png", "out-3.png", "out.png"]
    assert (tmp_path / "out-3.png").read_bytes() == b"c"


@pytest.mark.parametrize(
    "word", ["../../etc/x", "/etc/x", "a b", "task\n", "task_\u0661", "", "x" * 129]
)
async def test_a_task_whose_id_cannot_name_a_file_is_none(
    word: str, kind: Kind, tmp_path: Path
) -> None:
    async with (
        rogue(answer(200, {**DONE, "task_id": word}), answer(200, b"image")) as served,
        opened(kind, KEY, served.url) as client,
    ):
        with pytest.raises(APIError, match="check base_url") as refused:
            await do((await do(client.task, "task_0")).save, tmp_path)
    assert refused.value.code == "unexpected_response"
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("image", "ending"),
    [
        ({"url": "/a.webp?signature=s", "content_type": "image/png"}, ".png"),
        ({"url": "/a.webp?signature=s"}, ".webp"),
        ({"url": "/a.\\evil"}, ".image"),
        ({"url": "/a", "content_type": "image/../../evil"}, ".image"),
    ],
    ids=str,
)
async def test_what_names_an_image_in_a_folder_ends_as_images_do(
    image: dict[str, str], ending: str, kind: Kind, tmp_path: Path
) -> None:
    one = {**DONE, "result": {"data": [image]}}
    async with (
        rogue(answer(200, one), answer(200, b"image")) as served,
        opened(kind, KEY, served.url) as client,
    ):
        await do((await do(client.task, "task_0")).save, tmp_path)
    assert names_in(tmp_path) == [f"task_0{ending}"]


async def test_what_a_link_points_to_is_replaced_and_the_link_stays(
    kind: Kind, tmp_path: Path
) -> None:
    (tmp_path / "deep").mkdir()
    old, link, dangling = tmp_path / "deep/old.png", tmp_path / "link.png", tmp_path / "new.png"
    old.write_bytes(b"old")
    link.symlink_to("deep/old.png")
    dangling.symlink_to("deep/new.png")
    async with (
        rogue(*[answer(200, b"image")] * 2) as served,
        opened(kind, KEY, served.url) as client,
    ):
        assert await do(client.save, "/a.png", link) == link
        assert await do(client.save, "/a.png", dangling) == dangling
    assert (str(link.readlink()), str(dangling.readlink())) == ("deep/old.png", "deep/new.png")
    assert old.read_bytes() == dangling.read_bytes() == b"image"
    assert names_in(tmp_path / "deep") == ["new.png", "old.png"]


@pytest.mark.parametrize("linked", [False, True], ids=["itself", "by a link"])
async def test_what_is_no_file_is_written_into_once_and_whole(
    linked: bool,  # noqa: FBT001 -- a parameter of the test
    kind: Kind,
    tmp_path: Path,
) -> None:
    pipe = target = tmp_path / "pipe"
    os.mkfifo(pipe)
    if linked:
        target = tmp_path / "link.png"
        target.symlink_to(pipe)
    whole = answer(200, b"the whole image")
    # Open for writing too, so that the reader meets no end, and the writer always a reader.
    with os.fdopen(os.open(pipe, os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0) as reader:
        async with rogue(whole[:-5], whole) as served, opened(kind, KEY, served.url) as client:
            assert await do(client.save, "/a.png", target) == target
        assert pipe.is_fifo()
        assert reader.read(100) == b"the whole image"


async def test_a_folder_is_no_place_for_an_image_by_its_url(kind: Kind, tmp_path: Path) -> None:
    async with rogue() as served, opened(kind, KEY, served.url) as client:
        with pytest.raises(IsADirectoryError):
            await do(client.save, "/a.png", tmp_path)
    assert served.heads == []


async def test_saving_that_is_cancelled_again_and_again_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    sent = asyncio.Event()

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(200, b"the whole image")[:-5])
        sent.set()
        await reader.read()

    async with handling(half) as url, opened(AsyncCalotype, KEY, url) as client:
        saving = asyncio.create_task(client.save("/a.png", tmp_path / "out.png"))
        await sent.wait()
        assert len(names_in(tmp_path)) == 1
        while not saving.done():
            saving.cancel()
            await asyncio.sleep(0)
        assert saving.cancelled()
        assert names_in(tmp_path) == []


# The key


async def test_the_key_goes_to_the_api_and_not_with_an_image(kind: Kind, tmp_path: Path) -> None:
    image = answer(200, b"image")
    async with (
        rogue(answer(200, DONE), image, image) as served,
        rogue(image) as elsewhere,
        opened(kind, KEY, served.url) as client,
    ):
        task = await do(client.task, "task_0")
        await do(task.save, tmp_path / "a.png")
        await do(client.download, f"{served.url}/v1/assets/a.png?signature=s")
        await do(client.download, f"{elsewhere.url}/v1/assets/a.png?signature=s")
    with_key = ["authorization" in head for head in served.heads + elsewhere.heads]
    assert with_key == [True, False, False, False]


async def test_the_key_is_not_led_elsewhere(kind: Kind) -> None:
    async with rogue() as elsewhere:
        away = answer(307, b"", headers=f"Location: {elsewhere.url}/v1/credits/balance\r\n")
        async with rogue(away) as served, opened(kind, KEY, served.url) as client:
            with pytest.raises(APIError, match="answered 307"):
                await do(client.balance)
    assert elsewhere.heads == []


async def test_an_image_may_be_kept_elsewhere(kind: Kind) -> None:
    async with rogue(answer(200, b"image")) as elsewhere:
        away = answer(302, b"", headers=f"Location: {elsewhere.url}/a.png\r\n")
        async with rogue(away) as served, opened(kind, KEY, served.url) as client:
            assert await do(client.download, "/v1/assets/a.png") == b"image"
    assert "authorization" not in elsewhere.heads[0]


# Answers of something else


@pytest.mark.parametrize(
    ("document", "call"),
    [
        ({"hello": "world"}, lambda client: client.task),
        ({"balance_micro_usdc": "much"}, lambda client: client.balance),
        ([], lambda client: client.balance),
        ({"data": 7}, lambda client: client.models),
    ],
    ids=["no task", "no balance", "no object", "no models"],
)
async def test_an_answer_of_something_else_names_the_address_to_check(
    document: Any, call: Callable[[Any], Any], kind: Kind
) -> None:
    async with rogue(answer(200, document)) as served, opened(kind, KEY, served.url) as client:
        with pytest.raises(CalotypeError, match="check base_url"):
            await do(call(client), *["task_0"] * (call(client) == client.task))


def test_an_error_survives_the_way_to_another_process() -> None:
    error = RateLimitError(429, "slow_down", "Slow down.", "rate_limit_error", None, "req_1", 3.0)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own bytes
    assert (type(again), again.__dict__) == (RateLimitError, error.__dict__)
