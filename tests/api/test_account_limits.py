"""Limits of accounts over HTTP: how a submission is refused, what it leaves, and what is told."""

import pytest

from harness import Reply, Server, picture

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def limit(server: Server, *, tasks: int | None = None, per_minute: int | None = None) -> None:
    """Give the server's account limits of its own."""
    account = await server.core.accounts.find(server.account)
    assert account is not None
    await server.core.accounts.limit(account, tasks=tasks, per_minute=per_minute)


async def keyed(server: Server, name: str) -> Reply:
    """A submission with an idempotency key."""
    body = {"model": "gpt-image-2", "prompt": "once"}
    headers = {"Idempotency-Key": name}
    return await server.call("POST", "/v1/images/generations", json=body, headers=headers)


async def test_a_full_queue_is_429_until_there_is_room(idle: Server) -> None:
    await limit(idle, tasks=2)
    first, second = await idle.submit(), await idle.submit()
    assert (first.status, second.status) == (202, 202)
    told = await idle.submit()
    message = told.assert_refused(429, "queue_full")
    assert "2 unfinished tasks" in message
    assert int(told.headers["Retry-After"]) > 0
    cancelled = await idle.call("POST", f"/v1/tasks/{first.json['task_id']}/cancel")
    assert cancelled.status == 200, cancelled.body
    assert (await idle.submit()).status == 202


async def test_a_refused_form_leaves_no_file_and_costs_nothing(idle: Server) -> None:
    await limit(idle, tasks=1)
    assert (await idle.submit()).status == 202
    before, newest, files = await idle.balance(), await idle.newest(), idle.stored_files()
    told = await idle.submit_form(("image", picture(), "a.png"))
    told.assert_refused(429, "queue_full")
    assert (await idle.balance(), await idle.newest()) == (before, newest)
    assert idle.stored_files() == files


async def test_a_replay_is_answered_while_the_queue_is_full(idle: Server) -> None:
    await limit(idle, tasks=1, per_minute=2)
    first = await keyed(idle, "order-1")
    assert first.status == 202
    for _ in range(5):
        again = await keyed(idle, "order-1")
        assert again.json["task_id"] == first.json["task_id"]
    (await keyed(idle, "order-2")).assert_refused(429, "queue_full")


async def test_a_batch_is_judged_request_by_request(idle: Server) -> None:
    await limit(idle, tasks=2)
    requests = [{"model": "gpt-image-2", "prompt": f"number {number}"} for number in range(3)]
    told = await idle.call("POST", "/v1/images/generations/batch", json={"requests": requests})
    assert told.status == 202, told.body
    first, second, third = told.json["data"]
    assert first["task_id"] != second["task_id"]
    assert (third["error"]["code"], third["error"]["error"]) == ("queue_full", "rate_limited")
    assert third["error"]["retry_after"] > 0


async def test_what_is_left_of_the_accounts_rate_is_told(idle: Server) -> None:
    await limit(idle, per_minute=1)
    told = await idle.submit()
    assert told.headers["RateLimit-Policy"] == '"account";q=1;w=60'
    assert told.headers["RateLimit"] == '"account";r=0;t=60'
    refused = await idle.submit()
    refused.assert_refused(429, "rate_limit_reached")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit-Policy"] == '"account";q=1;w=60'
    assert refused.headers["RateLimit"].startswith('"account";r=0;t=')


async def test_clients_of_openai_are_told_in_their_own_shape(idle: Server) -> None:
    await limit(idle, tasks=1)
    assert (await idle.submit()).status == 202
    body = {"model": "gpt-image-2", "prompt": "for an OpenAI client"}
    told = await idle.call("POST", "/openai/v1/images/generations", json=body)
    assert (told.status, told.json["error"]["code"]) == (429, "queue_full")
    assert told.headers["Retry-After"]
