"""The sandbox's words, end to end: each kind of failure as a client meets it, and its money."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from calotype.domain.channel import Channel
from harness import Server, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRICE = 60_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def server(module_server: Server) -> Server:
    """The module's server, with an account of the test's own."""
    return await module_server.for_account()


async def assert_settled(server: Server, task: dict[str, Any], *, paid: bool) -> None:
    """Nothing is left reserved, and the books prove it."""
    assert task["billing"] == {
        "status": "committed" if paid else "released",
        "reserve_amount_micro_usdc": PRICE,
        "actual_amount_micro_usdc": PRICE if paid else 0,
        "released_amount_micro_usdc": 0 if paid else PRICE,
    }
    assert (await server.balance())["reserved_micro_usdc"] == 0
    assert await server.core.store.prove() == []


@pytest.mark.parametrize("word", ["429", "429=2", "500-before", "500-before=1"])
async def test_a_passing_fault_is_waited_out(server: Server, word: str) -> None:
    task = await server.outcome(f"a boat sandbox:{word}")
    assert (task["state"], task["error"]) == ("success", {})
    await assert_settled(server, task, paid=True)


@pytest.mark.parametrize(
    ("word", "code", "family", "retryable"),
    [
        ("refuse", "content_policy_violation", "invalid_request_error", False),
        ("500-after", "upstream_failed", "upstream_error", True),
        ("malformed", "upstream_malformed_response", "upstream_error", True),
        ("no-such-word", "upstream_rejected", "upstream_error", False),
    ],
)
@pytest.mark.parametrize("delay", ["", " sandbox:delay=0.1"], ids=["at once", "after work"])
async def test_a_failure_says_what_it_was_and_costs_nothing(
    server: Server, word: str, code: str, family: str, *, retryable: bool, delay: str
) -> None:
    before = await server.balance()
    task = await server.outcome(f"a boat sandbox:{word}{delay}")
    assert (task["state"], task["result"]) == ("fail", {})
    error = task["error"]
    assert (error["code"], error["type"], error["retryable"]) == (code, family, retryable)
    assert error["message"].endswith(".")
    await assert_settled(server, task, paid=False)
    assert await server.balance() == before


async def test_a_failure_leaves_no_image_behind(server: Server) -> None:
    before = sorted(server.stored_files())
    await server.outcome("sandbox:malformed")
    assert sorted(server.stored_files()) == before


async def test_an_outcome_that_stays_unknown_is_not_paid_and_not_sent_again(
    tmp_path: Path,
) -> None:
    paid = Channel(id=10, slug="paid", name="Paid", provider="sandbox", free=False)
    async with running_server(tmp_path, channels=(paid,)) as server:
        task = await server.outcome("sandbox:unknown")
        assert task["state"] == "fail"
        assert task["error"]["code"] == "upstream_outcome_unknown"
        await assert_settled(server, task, paid=False)
        (stored,) = await server.core.store.tasks()
        (attempt,) = await server.core.store.attempts(stored.id)
        assert attempt.state == "unknown"


async def test_a_task_that_never_ends_stays_reserved(server: Server) -> None:
    accepted = await server.accepted(prompt="sandbox:never")
    task = accepted
    while task["progress"] == 0:
        task = await server.task(accepted["task_id"])
    assert task["state"] == "generating"
    assert task["billing"]["status"] == "reserved"
    assert (await server.balance())["reserved_micro_usdc"] == PRICE
    assert await server.core.store.prove() == []
