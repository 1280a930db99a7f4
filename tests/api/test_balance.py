"""Credits: the balance, what a task reserves, and 402 before anything is stored."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from harness import CREDIT, Server, picture, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

NANO, GPT = "nano-banana-pro", "gpt-image-2"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data"), with_worker=False) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def idle_server(module_server: Server) -> Server:
    """The module's server, with an account of the test's own."""
    return await module_server.for_account()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def working_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def server(working_server: Server) -> Server:
    """The same with a worker."""
    return await working_server.for_account()


def amounts(balance: int, reserved: int) -> dict[str, int]:
    return {
        "balance_micro_usdc": balance,
        "reserved_micro_usdc": reserved,
        "available_micro_usdc": balance - reserved,
    }


async def price_of(server: Server, model: str, tier_id: str) -> int:
    """A price, as discovery shows it."""
    entry = (await server.call("GET", f"/v1/models/{model}")).json
    tiers = {tier["id"]: tier for tier in entry["capabilities"]["pricing"]["tiers"]}
    price: int = tiers[tier_id]["price_micro_usdc"]
    return price


async def test_a_new_account_has_nothing(idle_server: Server) -> None:
    poor = await idle_server.for_account(credit=0)
    assert await poor.balance() == amounts(0, 0)


@pytest.mark.parametrize(
    ("model", "resolution", "tier"),
    [
        (NANO, None, "1k_2k"),
        (NANO, "1K", "1k_2k"),
        (NANO, "2K", "1k_2k"),
        (NANO, "4K", "4k"),
        (GPT, None, "1k"),
        (GPT, "2K", "2k"),
        (GPT, "4K", "4k"),
    ],
)
async def test_a_task_reserves_the_price_that_discovery_shows(
    idle_server: Server, model: str, resolution: str | None, tier: str
) -> None:
    price = await price_of(idle_server, model, tier)
    fields: dict[str, Any] = {"resolution": resolution, "aspect_ratio": resolution and "16:9"}
    task = await idle_server.accepted(model=model, **fields)
    assert task["billing"] == {
        "status": "reserved",
        "reserve_amount_micro_usdc": price,
        "actual_amount_micro_usdc": 0,
        "released_amount_micro_usdc": 0,
    }
    assert await idle_server.balance() == amounts(CREDIT, price)


async def test_success_takes_what_was_reserved(server: Server) -> None:
    price = await price_of(server, GPT, "1k")
    task = await server.outcome()
    assert task["billing"] == {
        "status": "committed",
        "reserve_amount_micro_usdc": price,
        "actual_amount_micro_usdc": price,
        "released_amount_micro_usdc": 0,
    }
    assert await server.balance() == amounts(CREDIT - price, 0)
    assert await server.core.store.prove() == []


async def test_failure_gives_back_what_was_reserved(server: Server) -> None:
    price = await price_of(server, GPT, "1k")
    task = await server.outcome("sandbox:refuse")
    assert task["billing"] == {
        "status": "released",
        "reserve_amount_micro_usdc": price,
        "actual_amount_micro_usdc": 0,
        "released_amount_micro_usdc": price,
    }
    assert await server.balance() == amounts(CREDIT, 0)
    assert await server.core.store.prove() == []


@pytest.mark.parametrize("short", [1, None], ids=["one millionth short", "nothing"])
async def test_a_request_that_cannot_be_paid_stores_nothing(
    idle_server: Server, short: int | None
) -> None:
    price = await price_of(idle_server, GPT, "1k")
    credit = 0 if short is None else price - short
    poor = await idle_server.for_account(credit=credit)
    message = (await poor.submit()).assert_refused(402, "insufficient_balance")
    assert "0.06" in message, "what it costs"
    as_form = await poor.submit_form(
        ("image", picture(), "a.png"), ("image[]", picture("JPEG"), "b.jpg")
    )
    as_form.assert_refused(402, "insufficient_balance")
    assert poor.stored_files() == []
    account = await poor.core.accounts.find(poor.account)
    assert account is not None
    assert await poor.core.store.tasks(account_id=account.id) == []
    assert await poor.balance() == amounts(credit, 0)
    assert await poor.core.store.prove() == []


async def test_a_wrong_request_is_wrong_before_it_is_too_expensive(idle_server: Server) -> None:
    poor = await idle_server.for_account(credit=0)
    (await poor.submit(n=2)).assert_refused(400, "invalid_parameter", "n")


async def test_concurrent_requests_never_overdraw(idle_server: Server) -> None:
    price = await price_of(idle_server, GPT, "1k")
    tight = await idle_server.for_account(credit=5 * price + 1)
    replies = await asyncio.gather(*(tight.submit() for _ in range(20)))
    assert sorted(reply.status for reply in replies) == [202] * 5 + [402] * 15
    assert await tight.balance() == amounts(5 * price + 1, 5 * price)
    assert await idle_server.core.store.prove() == []


async def test_each_account_pays_for_itself(idle_server: Server) -> None:
    other = await idle_server.for_account(credit=7)
    await idle_server.submit()
    assert await other.balance() == amounts(7, 0)


async def test_keys_of_one_account_share_its_balance(idle_server: Server) -> None:
    second = replace(idle_server, key=await idle_server.new_key(idle_server.account))
    await idle_server.submit()
    assert await second.balance() == await idle_server.balance()
