"""POST /v1/images/generations/batch: many requests at once, each accepted or refused on its own."""

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from calotype.domain.channel import Channel, Served
from harness import GENERATIONS, Reply, Server, picture, running_server
from postgres import PostgresServer, fresh_database

pytestmark = pytest.mark.asyncio(loop_scope="module")

BATCH = f"{GENERATIONS}/batch"
PRICE = 60_000
PLAIN: dict[str, Any] = {"model": "gpt-image-2", "prompt": "a lighthouse"}
URL = "https://example.com/a.png"


async def send(server: Server, *requests: Any, **headers: str) -> Reply:
    return await server.call("POST", BATCH, json={"requests": list(requests)}, headers=headers)


async def results(server: Server, *requests: Any) -> list[dict[str, Any]]:
    """What became of each request of a batch that was taken."""
    reply = await send(server, *requests)
    assert reply.status == 202, reply.body
    assert set(reply.json) == {"object", "data"}
    assert reply.json["object"] == "list"
    data: list[dict[str, Any]] = reply.json["data"]
    assert len(data) == len(requests)
    return data


def codes(data: list[dict[str, Any]]) -> list[str]:
    """The code of each that was refused, and ``accepted`` for the others."""
    return [each["error"]["code"] if "error" in each else "accepted" for each in data]


async def reserved(server: Server) -> int:
    return (await server.balance())["reserved_micro_usdc"]


async def count(server: Server) -> int:
    return len((await server.call("GET", "/v1/tasks?limit=100")).json["data"])


@pytest_asyncio.fixture(params=["sqlite", "postgres"], loop_scope="module")
async def working(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    """A server of each storage mode that develops what it accepts."""
    if request.param == "sqlite":
        async with running_server(tmp_path) as running:
            yield running
        return
    async with (
        fresh_database(request.getfixturevalue("postgres")) as url,
        running_server(tmp_path, database_url=url) as running,
    ):
        yield running


async def test_each_request_gets_the_envelope_of_a_submission_in_its_place(idle: Server) -> None:
    single = (await idle.submit()).json
    asked = [
        {**PLAIN, "prompt": "first"},
        {**PLAIN, "model": "nano-banana-pro", "resolution": "4K", "metadata": {"page": "2"}},
        {**PLAIN, "image_input": [URL], "deadline_seconds": 9, "callback_url": URL},
    ]
    reply = await send(idle, *asked, **{"X-Request-Id": "the-batch", "Prefer": "wait=9"})
    data = reply.json["data"]
    assert "Preference-Applied" not in reply.headers
    for envelope, request in zip(data, asked, strict=True):
        assert set(envelope) == set(single)
        assert envelope["model"] == request["model"]
        assert (envelope["state"], envelope["request_id"]) == ("waiting", "the-batch")
        task = await idle.task(envelope["task_id"])
        assert task["request"]["prompt"] == request["prompt"]
        assert task["created_at"] == envelope["created_at"]
    assert (await idle.task(data[1]["task_id"]))["metadata"] == {"page": "2"}
    last = (await idle.task(data[2]["task_id"]))["request"]
    assert (last["image_input"], last["deadline_seconds"]) == ([URL], 9)
    assert len({envelope["task_id"] for envelope in data}) == 3
    assert await idle.core.store.prove() == []


WRONG: list[dict[str, Any]] = [
    {"prompt": "x"},
    {"model": "gpt-image-2"},
    {"model": "no-such-model", "prompt": "x"},
    {**PLAIN, "resolution": "8K"},
    {**PLAIN, "quality": "high"},
    {**PLAIN, "response_format": "b64_json"},
    {**PLAIN, "channel_id": 999},
    {**PLAIN, "n": 2},
    {**PLAIN, "image_input": URL},
    {**PLAIN, "image_input": ["http://127.0.0.1/a.png"]},
    {**PLAIN, "image_input": [URL] * 17},
    {**PLAIN, "metadata": {"a": 1}},
    {**PLAIN, "deadline_seconds": 0},
    {**PLAIN, "callback_url": "http://10.0.0.1/"},
    {"idempotency-key": "a", **PLAIN},
]


async def test_what_a_single_submission_would_refuse_is_refused_in_the_same_words(
    idle: Server,
) -> None:
    asked: list[Any] = [each for wrong in WRONG for each in (wrong, PLAIN)]
    data = await results(idle, *asked)
    for wrong, refused, accepted in zip(WRONG, data[::2], data[1::2], strict=True):
        alone = await idle.call("POST", GENERATIONS, json=wrong)
        assert alone.status == 400
        assert refused == {"error": alone.json}
        assert accepted["state"] == "waiting"
    assert await reserved(idle) == PRICE * len(WRONG)


@pytest.mark.parametrize(
    ("entry", "param"),
    [
        ("a lighthouse", "requests"),
        (None, "requests"),
        ([], "requests"),
        (7, "requests"),
        ({**PLAIN, "idempotency_key": 7}, "idempotency_key"),
        ({**PLAIN, "idempotency_key": ""}, "idempotency_key"),
        ({**PLAIN, "idempotency_key": "k" * 256}, "idempotency_key"),
        ({**PLAIN, "idempotency_key": "ü"}, "idempotency_key"),
    ],
    ids=str,
)
async def test_an_entry_that_is_no_request_is_refused_in_its_place(
    idle: Server, entry: Any, param: str
) -> None:
    first, refused, last = await results(idle, PLAIN, entry, PLAIN)
    assert (refused["error"]["code"], refused["error"]["param"]) == ("invalid_parameter", param)
    assert refused["error"]["error"] == "bad_request"
    assert first["state"] == last["state"] == "waiting"


async def test_what_cannot_be_paid_is_refused_and_what_can_is_taken(idle: Server) -> None:
    poor = await idle.for_account(credit=150_000)
    dear = {"model": "nano-banana-pro", "prompt": "x", "resolution": "4K"}
    data = await results(poor, PLAIN, dear, PLAIN, PLAIN)
    no = "insufficient_balance"
    assert codes(data) == ["accepted", no, "accepted", no]
    assert data[1]["error"]["type"] == "billing_error"
    assert await reserved(poor) == 2 * PRICE
    assert await count(poor) == 2
    assert codes(await results(poor, dear, dear)) == [no, no]
    assert await poor.core.store.prove() == []


async def test_keys_of_one_batch_name_one_task_or_are_in_conflict(idle: Server) -> None:
    keyed, other = {**PLAIN, "idempotency_key": "a"}, {**PLAIN, "idempotency_key": "b"}
    another = {**keyed, "prompt": "another"}
    data = await results(idle, keyed, other, keyed, another, {**PLAIN, "idempotency_key": None})
    assert codes(data) == [*["accepted"] * 3, "idempotency_conflict", "accepted"]
    assert data[0] == data[2]
    assert len({data[place]["task_id"] for place in (0, 1, 4)}) == 3
    assert await reserved(idle) == 3 * PRICE


async def test_a_batch_that_is_sent_again_is_the_same_tasks(idle: Server) -> None:
    batch = [{**PLAIN, "prompt": f"{n}", "idempotency_key": f"k{n}"} for n in range(20)]
    first = await results(idle, *batch)
    replies = await asyncio.gather(*(results(idle, *batch[::-1]) for _ in range(3)))
    assert all(again == first[::-1] for again in replies)
    assert await reserved(idle) == 20 * PRICE
    assert await idle.core.store.prove() == []


async def test_a_key_means_the_same_in_a_batch_and_alone(idle: Server) -> None:
    alone = await idle.call("POST", GENERATIONS, json=PLAIN, headers={"Idempotency-Key": "once"})
    keyed = {**PLAIN, "idempotency_key": "once", "aspect_ratio": "auto"}
    (again, conflict) = await results(idle, keyed, {**keyed, "metadata": {"a": "b"}})
    assert again == alone.json
    assert conflict["error"]["code"] == "idempotency_conflict"
    (first,) = await results(idle, {**PLAIN, "idempotency_key": "twice"})
    twice = await idle.call("POST", GENERATIONS, json=PLAIN, headers={"Idempotency-Key": "twice"})
    assert twice.json == first
    stranger = await idle.for_account()
    (elsewhere,) = await results(stranger, keyed)
    assert elsewhere["task_id"] != again["task_id"]


async def test_a_refused_request_does_not_use_up_its_key(idle: Server) -> None:
    keyed = {**PLAIN, "idempotency_key": "a"}
    assert codes(await results(idle, {**keyed, "n": 2}, keyed)) == ["invalid_parameter", "accepted"]


async def test_a_hundred_requests_are_a_batch_and_more_or_none_are_not(idle: Server) -> None:
    assert codes(await results(idle, *[PLAIN] * 100)) == ["accepted"] * 100
    assert await reserved(idle) == 100 * PRICE
    for requests in ([], [PLAIN] * 101):
        refused = await send(idle, *requests)
        assert "1 to 100" in refused.assert_refused(400, "invalid_parameter", "requests")
    assert await reserved(idle) == 100 * PRICE


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "missing_field", "requests"),
        ({"requests": None}, 400, "missing_field", "requests"),
        ({"requests": PLAIN}, 400, "invalid_parameter", "requests"),
        ({"requests": [PLAIN], "model": "gpt-image-2"}, 400, "unsupported_parameter", None),
        (PLAIN, 400, "unsupported_parameter", None),
        ([PLAIN], 400, "malformed_body", None),
    ],
    ids=str,
)
async def test_what_is_no_batch_is_refused_whole(
    idle: Server, body: Any, status: int, code: str, param: str | None
) -> None:
    reply = await idle.call("POST", BATCH, json=body)
    reply.assert_refused(status, code, param)
    assert await reserved(idle) == 0


async def test_the_header_for_one_request_is_refused_with_where_keys_go(idle: Server) -> None:
    refused = await send(idle, PLAIN, **{"Idempotency-Key": "once"})
    message = refused.assert_refused(400, "invalid_parameter", "Idempotency-Key")
    assert "idempotency_key" in message
    assert await reserved(idle) == 0


async def test_a_batch_is_json_of_up_to_four_mebibytes(idle: Server) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    reply = await idle.call("POST", BATCH, data=BytesIO(b"--x--"), headers=form)
    assert "application/json" in reply.assert_refused(415, "unsupported_media_type")
    longest = idle.core.catalog.get("gpt-image-2").prompt.max_length
    large = [{**PLAIN, "prompt": "x" * longest} for _ in range(100)]
    room = 4 * 1024 * 1024 - len(json.dumps({"requests": large}).encode())
    sent = {"Content-Type": "application/json"}
    padded = json.dumps({"requests": large}).encode() + b" " * room
    taken = await idle.call("POST", BATCH, data=BytesIO(padded), headers=sent)
    assert (taken.status, len(taken.json["data"])) == (202, 100)
    reply = await idle.call("POST", BATCH, data=BytesIO(padded + b" "), headers=sent)
    reply.assert_refused(413, "body_too_large")
    (await idle.call("POST", BATCH, data=BytesIO(b"{"), headers=sent)).assert_refused(
        400, "malformed_body"
    )


async def test_a_batch_needs_a_key_and_is_posted(idle: Server) -> None:
    body = {"requests": [PLAIN]}
    (await idle.anonymous("POST", BATCH, json=body)).assert_refused(401, "missing_api_key")
    (await idle.call("GET", BATCH)).assert_refused(405, "method_not_allowed")


async def test_every_task_of_a_batch_is_developed(working: Server) -> None:
    asked = [{**PLAIN, "prompt": f"sandbox:delay=0 {n}"} for n in range(8)]
    data = await results(working, *asked, {**PLAIN, "prompt": "sandbox:refuse"})
    tasks = [await working.finished(each["task_id"]) for each in data]
    assert [task["state"] for task in tasks] == [*["success"] * 8, "fail"]
    assert [task["request"]["prompt"] for task in tasks[:8]] == [each["prompt"] for each in asked]
    assert await working.core.store.prove() == []


async def test_a_reference_of_a_batch_is_fetched_when_its_task_runs(tmp_path: Path) -> None:
    async with running_server(tmp_path, reference_allow_hosts=("127.0.0.1",)) as server:
        sent = await server.submit_form(("image", picture(), "a.png"))
        (url,) = (await server.finished(sent.json["task_id"]))["request"]["image_input"]
        data = await results(server, {**PLAIN, "image_input": [url]}, PLAIN)
        task = await server.finished(data[0]["task_id"])
        assert (task["state"], task["request"]["image_input"]) == ("success", [url])


async def test_one_that_was_accepted_is_found_again_though_its_channel_is_switched_off(
    tmp_path: Path,
) -> None:
    only = Channel(
        id=20, slug="plain", name="Plain", provider="sandbox", models={"gpt-image-2": Served()}
    )
    keyed = {**PLAIN, "idempotency_key": "once"}
    async with running_server(tmp_path, channels=(only,)) as server:
        (first,) = await results(server, keyed)
        server.core.router.replace([msgspec.structs.replace(only, enabled=False)])
        again, another = await results(server, keyed, PLAIN)
        assert again["task_id"] == first["task_id"]
        assert another["error"]["code"] == "service_unavailable"


async def test_a_database_that_cannot_be_written_refuses_the_whole_batch(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    async with (
        fresh_database(postgres) as url,
        running_server(tmp_path, database_url=url, with_worker=False) as server,
    ):
        database = await asyncpg.connect(url)
        name = url.rpartition("/")[2]
        try:
            await database.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            await database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            for _ in ("its connections are lost", "it takes no writes"):
                reply = await send(server, PLAIN, {"model": "none"})
                reply.assert_refused(503, "service_unavailable")
                assert int(reply.headers["Retry-After"]) > 0
            assert await database.fetchval("SELECT COUNT(*) FROM tasks") == 0
        finally:
            await database.execute("SET default_transaction_read_only = off")
            await database.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            await database.close()
