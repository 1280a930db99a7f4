"""Keys that may do less than their account: refusals by every way in, and what answers tell."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agents import agent, refusal
from calotype import app
from calotype.domain.channel import Channel, Served
from calotype.domain.errors import InvalidParameter
from calotype.domain.keys import ApiKey
from calotype.store.sqlite import SqliteStore
from harness import Reply, Server, picture, running_server, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

BATCH = "/v1/images/generations/batch"
OPENAI = "/openai/v1/images/generations"
EDITS = "/openai/v1/images/edits"
ASKED = {"model": "gpt-image-2", "prompt": "a lighthouse"}
ONE = Channel(id=31, slug="one", name="One", provider="sandbox")
TWO = Channel(id=32, slug="two", name="Two", provider="sandbox", priority=5)
OTHER = Channel(
    id=33, slug="other", name="Other", provider="sandbox", models={"flux-2-pro": Served()}
)


async def limited(server: Server, **limits: Any) -> Server:
    """The same account by a key with limits."""
    key, _ = await server.core.accounts.create_key("limited", account=server.account, **limits)
    return replace(server, key=key)


async def price(server: Server) -> int:
    """What a task of ``ASKED`` reserves."""
    amount: int = (await server.accepted())["billing"]["reserve_amount_micro_usdc"]
    return amount


def rate(reply: Reply) -> tuple[str | None, str | None]:
    """What an answer tells of the key's rate."""
    return reply.headers.get("RateLimit-Policy"), reply.headers.get("RateLimit")


async def known(server: Server, name: str) -> ApiKey:
    """The newest key of the account that has this name."""
    owner = await server.core.accounts.find(server.account)
    assert owner is not None
    keys = await server.core.store.keys(account_id=owner.id)
    return next(key for key in keys if key.name == name)


@pytest_asyncio.fixture(loop_scope="module")
async def channels(tmp_path: Path) -> AsyncIterator[Server]:
    """A server with several channels."""
    async with running_server(tmp_path, channels=(ONE, TWO, OTHER)) as server:
        yield server


# Scope


async def test_another_model_is_refused_before_its_fields_are_looked_at(idle: Server) -> None:
    key = await limited(idle, models=["flux-2-pro", "recraft-v4.1"])
    reply = await key.submit(resolution="8K", nonsense=True)
    message = reply.assert_refused(403, "model_not_allowed", "model")
    assert "flux-2-pro, recraft-v4.1" in message
    form = await key.submit_form(("image", picture(), "a.png"), ("resolution", "8K"))
    form.assert_refused(403, "model_not_allowed", "model")
    assert idle.stored_files() == []
    assert (await key.submit(model="flux-2-pro")).status == 202
    assert (await key.submit(model="no-such-model")).refusal == (400, "unknown_model", "model")


async def test_each_of_a_batch_keeps_to_the_scope(idle: Server) -> None:
    key = await limited(idle, models=["flux-2-pro"])
    asked = [ASKED, {**ASKED, "model": "flux-2-pro"}]
    reply = await key.call("POST", BATCH, json={"requests": asked})
    refused, accepted = reply.json["data"]
    assert (refused["error"]["code"], accepted["state"]) == ("model_not_allowed", "waiting")


async def test_openais_clients_are_told_in_their_own_shape(idle: Server) -> None:
    key = await limited(idle, models=["flux-2-pro"], per_minute=9)
    reply = await key.call("POST", OPENAI, json={**ASKED, "size": "nonsense"})
    assert (reply.status, reply.json["error"]["type"]) == (403, "permission_error")
    assert reply.json["error"]["code"] == "model_not_allowed"
    assert rate(reply) == ('"key";q=9;w=60', '"key";r=9;t=0')

    poor = await limited(idle, day_limit=1)
    reply = await poor.call("POST", OPENAI, json=ASKED)
    assert (reply.status, reply.json["error"]["code"]) == (402, "spend_limit_reached")
    quick = await limited(idle, per_minute=1)
    assert (await quick.submit()).status == 202
    reply = await quick.call("POST", OPENAI, json=ASKED)
    assert (reply.status, reply.json["error"]["type"]) == (429, "rate_limit_error")
    assert 0 < int(reply.headers["Retry-After"]) <= 60


async def test_an_agent_is_told_what_its_key_may_not(idle: Server) -> None:
    key = await limited(idle, models=["flux-2-pro"])
    async with agent(idle.url, key.key) as client:
        result = await client.call_tool("generate_image", ASKED)
    assert "may not use gpt-image-2; it may use flux-2-pro" in refusal(result)


async def test_a_pinned_channel_that_the_key_may_not_use_is_refused(channels: Server) -> None:
    key = await limited(channels, channels=[ONE.id, OTHER.id])
    reply = await key.submit(channel_id=TWO.id)
    message = reply.assert_refused(403, "channel_not_allowed", "channel_id")
    assert "31 (one)" in message
    assert (await key.submit(channel_id=99)).refusal == (400, "unknown_channel", "channel_id")
    assert (await key.submit(channel_id=ONE.id)).status == 202


async def test_only_the_keys_own_channels_develop_its_tasks(channels: Server) -> None:
    key = await limited(channels, channels=[ONE.id])
    tasks = [await key.outcome() for _ in range(3)]
    assert {task["channel"]["id"] for task in tasks} == {ONE.id}
    assert (await channels.outcome())["channel"]["id"] == TWO.id


async def test_a_model_that_none_of_the_keys_channels_serves_is_refused_with_those_that_do(
    channels: Server,
) -> None:
    key = await limited(channels, channels=[OTHER.id])
    message = (await key.submit()).assert_refused(403, "channel_not_allowed", "channel_id")
    assert "32 (two)" in message
    assert "31 (one)" in message


async def test_channels_that_take_nothing_new_are_no_matter_of_the_key(channels: Server) -> None:
    channels.core.router.switch({ONE.id: False})
    key = await limited(channels, channels=[ONE.id])
    for asked in ({}, {"channel_id": ONE.id}):
        reply = await key.submit(**asked)
        assert "31 (one)" in reply.assert_refused(503, "service_unavailable")
        assert int(reply.headers["Retry-After"]) > 0
    (await channels.submit(channel_id=ONE.id)).assert_refused(503, "service_unavailable")
    other = await limited(channels, channels=[TWO.id])
    message = (await other.submit(channel_id=ONE.id)).assert_refused(
        403, "channel_not_allowed", "channel_id"
    )
    assert "32 (two)" in message
    channels.core.router.switch({})
    assert (await key.submit()).status == 202


# Spending and rate


async def test_what_a_day_has_left_is_spent_exactly_however_many_ask_at_once(
    idle: Server,
) -> None:
    one = await price(idle)
    key = await limited(idle, day_limit=7 * one + 1, month_limit=100 * one)
    replies = await asyncio.gather(*(key.submit() for _ in range(50)))
    assert Counter(reply.status for reply in replies) == {202: 7, 402: 43}
    refused = next(reply for reply in replies if reply.status == 402)
    message = refused.assert_refused(402, "spend_limit_reached")
    assert "UTC day" in message
    assert 0 < int(refused.headers["Retry-After"]) <= 86_400
    assert (await idle.submit()).status == 202
    assert await idle.core.store.prove() == []


async def test_what_is_cancelled_can_be_spent_again(idle: Server) -> None:
    key = await limited(idle, month_limit=await price(idle))
    task = (await key.submit()).json["task_id"]
    assert (await key.submit()).status == 402
    assert (await key.call("POST", f"/v1/tasks/{task}/cancel")).status == 200
    assert (await key.submit()).status == 202


async def test_a_request_above_the_limit_names_no_time_to_come_back(idle: Server) -> None:
    key = await limited(idle, day_limit=1)
    reply = await key.submit()
    reply.assert_refused(402, "spend_limit_reached")
    assert "Retry-After" not in reply.headers


async def test_every_answer_to_a_submission_tells_what_is_left_of_the_rate(idle: Server) -> None:
    key = await limited(idle, per_minute=2)
    policy = '"key";q=2;w=60'
    wrong = await key.submit(resolution="8K")
    assert (wrong.status, rate(wrong)) == (400, (policy, '"key";r=2;t=0'))
    first = await key.submit()
    assert (first.status, rate(first)[0]) == (202, policy)
    assert str(rate(first)[1]).startswith('"key";r=1;t=')
    form = await key.submit_form()
    assert (form.status, rate(form)[0]) == (202, policy)
    reply = await key.submit()
    reply.assert_refused(429, "rate_limit_reached")
    assert str(rate(reply)[1]).startswith('"key";r=0;t=')
    assert 0 < int(reply.headers["Retry-After"]) <= 30
    assert rate(await idle.submit()) == (None, None)
    assert rate(await key.call("GET", "/v1/tasks")) == (None, None)


async def test_a_key_has_no_more_unfinished_tasks_than_it_may_by_any_way(idle: Server) -> None:
    key = await limited(idle, max_tasks=2)
    asked = [ASKED] * 3
    reply = await key.call("POST", BATCH, json={"requests": asked})
    codes = [one.get("error", {}).get("code") for one in reply.json["data"]]
    assert codes == [None, None, "queue_full"]
    refused = await key.submit()
    message = refused.assert_refused(429, "queue_full")
    assert "This API key may have 2 unfinished tasks and has 2" in message
    assert int(refused.headers["Retry-After"]) > 0
    form = await key.submit_form(("image", picture(), "a.png"))
    form.assert_refused(429, "queue_full")
    told = await key.call("POST", OPENAI, json=ASKED)
    assert (told.status, told.json["error"]["code"]) == (429, "queue_full")
    assert (await idle.submit()).status == 202
    task = reply.json["data"][0]["task_id"]
    assert (await key.call("POST", f"/v1/tasks/{task}/cancel")).status == 200
    assert (await key.submit()).status == 202


@pytest.mark.parametrize("path", ["/v1/images/generations", BATCH, OPENAI, EDITS])
async def test_an_answer_to_what_cannot_be_read_tells_of_the_rate_too(
    idle: Server, path: str
) -> None:
    key = await limited(idle, per_minute=2)
    reply = await key.call("POST", path, data=b"x", headers={"Content-Type": "text/plain"})
    assert (reply.status, rate(reply)) == (415, ('"key";q=2;w=60', '"key";r=2;t=0'))


async def test_each_of_a_batch_counts_and_a_replay_does_not(idle: Server) -> None:
    key = await limited(idle, per_minute=3)
    asked = [{**ASKED, "idempotency_key": name} for name in ("a", "b", "a", "c", "d")]
    reply = await key.call("POST", BATCH, json={"requests": asked})
    codes = [one.get("error", {}).get("code") for one in reply.json["data"]]
    assert codes == [None, None, None, None, "rate_limit_reached"]
    assert 0 < reply.json["data"][4]["error"]["retry_after"] <= 20
    assert rate(reply)[0] == '"key";q=3;w=60'
    again = {"Idempotency-Key": "b"}
    replayed = await key.call("POST", "/v1/images/generations", json=ASKED, headers=again)
    assert replayed.json["task_id"] == reply.json["data"][1]["task_id"]


# Making keys, and their last use


@pytest.mark.parametrize(
    ("limits", "param", "said"),
    [
        ({"models": ["flux-9"]}, "models", "no model flux-9; there are"),
        ({"models": []}, "models", "at least one"),
        ({"channels": [99]}, "channels", "no channel 99; there are 1 (sandbox)"),
        ({"channels": []}, "channels", "at least one"),
        ({"day_limit": 0}, "day_limit", "more than 0"),
        ({"month_limit": -1}, "month_limit", "more than 0"),
        ({"day_limit": 3, "month_limit": 2}, "day_limit", "at most month_limit"),
        ({"per_minute": 0}, "per_minute", "1 to 60000"),
        ({"per_minute": 60_001}, "per_minute", "1 to 60000"),
        ({"max_tasks": 0}, "max_tasks", "1 to 10000"),
        ({"max_tasks": 10_001}, "max_tasks", "1 to 10000"),
    ],
)
async def test_a_limit_that_makes_no_sense_is_refused(
    idle: Server, limits: dict[str, Any], param: str, said: str
) -> None:
    with pytest.raises(InvalidParameter) as refused:
        await limited(idle, **limits)
    assert refused.value.param == param
    assert said in refused.value.message


async def test_when_a_key_was_last_used_is_written_later_and_for_all_keys_at_once(
    idle: Server,
) -> None:
    first, second = await limited(idle, models=["gpt-image-2"]), await limited(idle)
    begun = idle.core.clock()
    for key in (first, second, first):
        await key.balance()
    assert (await known(idle, "limited")).last_used_at is None
    await idle.core.accounts.note_used()
    mine = [key for key in await idle.core.store.keys() if key.account == idle.account]
    times = [key.last_used_at for key in mine if key.name == "limited"]
    assert len(times) == 2
    assert all(at is not None and begun <= at <= idle.core.clock() for at in times)
    await idle.core.accounts.note_used()


async def test_the_last_use_of_a_key_is_written_when_the_server_stops(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        await server.balance()
    async with running_server(tmp_path) as server:
        oldest = (await server.core.store.keys())[-1]
        assert oldest.last_used_at is not None


BREAK = (
    "CREATE TRIGGER broken BEFORE UPDATE ON api_keys BEGIN SELECT RAISE(ABORT, 'It broke.'); END"
)


def change(folder: Path, statement: str) -> None:
    """Change a server's database behind its back."""
    with closing(sqlite3.connect(folder / "calotype.db")) as database:
        database.execute(statement)


async def test_an_error_while_the_last_use_is_written_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app, "KEYS_NOTED_SECONDS", 0.01)
    async with running_server(tmp_path, with_worker=False) as server:
        change(tmp_path, BREAK)
        await server.balance()
        await until(lambda: "cannot be written" in caplog.text)
        assert (await server.core.store.keys())[0].last_used_at is None
        change(tmp_path, "DROP TRIGGER broken")
        await noted(server)
        change(tmp_path, BREAK)
        await server.balance()
        caplog.clear()
        monkeypatch.setattr(app, "KEYS_NOTED_SECONDS", 60.0)
    assert "cannot be written" in caplog.text
    store = server.core.store
    assert isinstance(store, SqliteStore)
    assert store._lazy_reader is None  # it was closed all the same


async def noted(server: Server) -> None:
    """Wait until it is written when the server's key was last used."""
    async with asyncio.timeout(60):
        while (await server.core.store.keys())[0].last_used_at is None:
            await asyncio.sleep(0.01)
