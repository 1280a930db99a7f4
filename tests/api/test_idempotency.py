"""Idempotency-Key: the same request again is the same task again."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from harness import CREDIT, Part, Reply, Server, picture, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRICE = 60_000
"""Of the request that ``submit`` makes unless told otherwise."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data"), with_worker=False) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def idle_server(module_server: Server) -> Server:
    """The module's server, with an account of the test's own and an empty asset store."""
    for path in module_server.stored_files():
        path.unlink()
    return await module_server.for_account()


@pytest_asyncio.fixture(loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data")) as running:
        yield running


def key(value: str) -> dict[str, str]:
    return {"Idempotency-Key": value}


async def send(server: Server, idempotency_key: str, **fields: Any) -> Reply:
    body = {"model": "gpt-image-2", "prompt": "a lighthouse", **fields}
    headers = key(idempotency_key)
    return await server.call("POST", "/v1/images/generations", json=body, headers=headers)


async def reserved(server: Server) -> int:
    return (await server.balance())["reserved_micro_usdc"]


async def test_a_replay_is_the_same_task_and_costs_nothing(idle_server: Server) -> None:
    first = await send(idle_server, "once")
    again = await send(idle_server, "once")
    assert (first.status, again.status) == (202, 202)
    assert again.body == first.body
    assert again.headers["Location"] == first.headers["Location"]
    assert await reserved(idle_server) == PRICE


async def test_a_replay_has_a_request_id_of_its_own_and_the_body_of_the_first(
    idle_server: Server,
) -> None:
    first = await idle_server.submit_form(headers=key("once") | {"X-Request-Id": "one"})
    again = await idle_server.submit_form(headers=key("once") | {"X-Request-Id": "two"})
    assert (first.headers["X-Request-Id"], again.headers["X-Request-Id"]) == ("one", "two")
    assert again.body == first.body
    assert again.json["request_id"] == "one"


async def test_a_replay_of_a_finished_task_is_still_that_task(server: Server) -> None:
    first = await send(server, "once")
    await server.finished(first.json["task_id"])
    again = await send(server, "once")
    assert (again.status, again.body) == (202, first.body)
    assert await server.balance() == {
        "balance_micro_usdc": CREDIT - PRICE,
        "reserved_micro_usdc": 0,
        "available_micro_usdc": CREDIT - PRICE,
    }


async def test_a_replay_needs_no_credit(idle_server: Server) -> None:
    tight = await idle_server.for_account(credit=PRICE)
    first = await send(tight, "once")
    assert (await send(tight, "twice")).refusal[:2] == (402, "insufficient_balance")
    assert (await send(tight, "once")).body == first.body


async def test_a_refused_request_does_not_use_up_its_key(idle_server: Server) -> None:
    poor = await idle_server.for_account(credit=0)
    assert (await send(poor, "once", n=2)).status == 400
    assert (await send(poor, "once")).status == 402
    await poor.new_key(poor.account, credit=PRICE)
    assert (await send(poor, "once", prompt="another")).status == 202


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "a lighthouse "},
        {"model": "nano-banana-pro"},
        {"aspect_ratio": "1:1"},
        {"aspect_ratio": "16:9", "resolution": "2K"},
        {"channel_id": 1},
        {"image_input": ["https://example.com/a.png"]},
    ],
    ids=str,
)
async def test_the_key_of_another_request_is_a_conflict(
    idle_server: Server, other: dict[str, Any]
) -> None:
    await send(idle_server, "once")
    refused = await send(idle_server, "once", **other)
    refused.assert_refused(409, "idempotency_conflict")
    assert await reserved(idle_server) == PRICE


async def test_the_order_of_references_is_part_of_the_request(idle_server: Server) -> None:
    urls = ["https://example.com/a.png", "https://example.com/b.png"]
    first = await send(idle_server, "once", image_input=urls)
    assert (await send(idle_server, "once", image_input=urls)).body == first.body
    turned = await send(idle_server, "once", image_input=urls[::-1])
    turned.assert_refused(409, "idempotency_conflict")


async def test_defaults_may_be_written_or_left_out(idle_server: Server) -> None:
    first = await send(idle_server, "once")
    written = {
        "n": 1,
        "async": False,
        "response_format": "url",
        "aspect_ratio": "auto",
        "resolution": "1K",
        "channel_id": None,
        "image_input": [],
    }
    assert (await send(idle_server, "once", **written)).body == first.body
    as_form = await idle_server.submit_form(("n", "1"), headers=key("once"))
    assert as_form.body == first.body


async def test_a_form_with_the_same_files_is_a_replay_and_leaves_none_of_its_own(
    idle_server: Server,
) -> None:
    parts: list[Part] = [
        ("image", picture("PNG"), "a.png"),
        ("image_input[]", "https://example.com/b.png"),
        ("image[]", picture("JPEG"), "c.jpg"),
    ]
    first = await idle_server.submit_form(*parts, headers=key("once"))
    stored = sorted(idle_server.stored_files())
    assert len(stored) == 2
    renamed: list[Part] = [
        ("image[]", picture("PNG"), "other.name"),
        ("image_input", "https://example.com/b.png"),
        ("image", picture("JPEG"), "other.too"),
    ]
    for again in (parts, renamed):
        replay = await idle_server.submit_form(*again, headers=key("once"))
        assert (replay.status, replay.body) == (202, first.body)
        assert sorted(idle_server.stored_files()) == stored
    task = await idle_server.task(first.json["task_id"])
    shown = task["request"]["image_input"][0]
    assert (await idle_server.call("GET", shown)).body == picture("PNG")


@pytest.mark.parametrize(
    "files",
    [
        [("image", picture(colour="red"), "a.png")],
        [("image", picture("JPEG"), "b.jpg"), ("image", picture("PNG"), "a.png")],
        [],
    ],
    ids=["other bytes", "another order", "none"],
)
async def test_a_form_with_other_files_is_a_conflict_and_leaves_none(
    idle_server: Server, files: list[Part]
) -> None:
    first: list[Part] = [("image", picture("PNG"), "a.png"), ("image", picture("JPEG"), "b.jpg")]
    await idle_server.submit_form(*first, headers=key("once"))
    stored = sorted(idle_server.stored_files())
    refused = await idle_server.submit_form(*files, headers=key("once"))
    refused.assert_refused(409, "idempotency_conflict")
    assert sorted(idle_server.stored_files()) == stored


async def test_keys_belong_to_the_account_and_not_to_the_api_key(idle_server: Server) -> None:
    first = await send(idle_server, "once")
    sister = replace(idle_server, key=await idle_server.new_key(idle_server.account))
    assert (await send(sister, "once")).body == first.body
    stranger = await idle_server.for_account()
    elsewhere = await send(stranger, "once", prompt="something else")
    assert elsewhere.status == 202
    assert elsewhere.json["task_id"] != first.json["task_id"]


@pytest.mark.parametrize("value", ["k", "k" * 255, "a b/c;d=e", '"quoted"'])
async def test_a_key_of_up_to_255_characters_is_taken(idle_server: Server, value: str) -> None:
    first = await send(idle_server, value)
    assert first.status == 202
    assert (await send(idle_server, value)).body == first.body


@pytest.mark.parametrize("value", ["k" * 256, "", "schlüssel", "a\tb"], ids=repr)
async def test_a_key_that_is_no_key_is_refused(idle_server: Server, value: str) -> None:
    body = b'{"model": "gpt-image-2", "prompt": "x"}'
    head = f"POST /v1/images/generations\nContent-Length: {len(body)}\nIdempotency-Key: {value}\n"
    refused = await idle_server.exchange(head + "Content-Type: application/json", body)
    refused.assert_refused(400, "invalid_parameter", "Idempotency-Key")


async def test_concurrent_duplicates_are_one_task(server: Server) -> None:
    replies = await asyncio.gather(*(send(server, "once") for _ in range(20)))
    assert {reply.status for reply in replies} == {202}
    assert len({reply.json["task_id"] for reply in replies}) == 1
    await server.finished(replies[0].json["task_id"])
    assert await server.core.store.prove() == []
    assert (await server.balance())["balance_micro_usdc"] == CREDIT - PRICE


async def test_concurrent_duplicates_of_a_form_keep_one_set_of_files(idle_server: Server) -> None:
    file: Part = ("image", picture(), "a.png")
    requests = [idle_server.submit_form(file, headers=key("once")) for _ in range(8)]
    replies = await asyncio.gather(*requests)
    assert {reply.status for reply in replies} == {202}
    assert len({reply.body for reply in replies if reply.json["request_id"]}) == 1
    (kept,) = idle_server.stored_files()
    assert kept.read_bytes() == picture()


async def test_of_concurrent_rivals_one_is_accepted(idle_server: Server) -> None:
    rivals = [send(idle_server, "once", prompt=f"number {place}") for place in range(10)]
    replies = await asyncio.gather(*rivals)
    assert sorted(reply.status for reply in replies) == [202] + [409] * 9
    assert await reserved(idle_server) == PRICE


async def test_without_a_key_the_same_request_is_another_task(idle_server: Server) -> None:
    first, second = await idle_server.submit(), await idle_server.submit()
    assert first.json["task_id"] != second.json["task_id"]
    assert await reserved(idle_server) == 2 * PRICE
