"""Webhooks as accounts see to them: the URL, the secrets, the deliveries."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from standardwebhooks.webhooks import Webhook as Verifier

from calotype.domain.ids import encode
from conformance.tasks import new_task
from harness import Server, running_server
from receiver import OK, Receiver, answer, hang, receiving

SETTINGS = "/v1/webhooks"
ROTATE = "/v1/webhooks/rotate"
DELIVERIES = "/v1/webhooks/deliveries"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that may send to this machine."""
    async with running_server(tmp_path / "data", webhook_allow_hosts=("127.0.0.1",)) as running:
        yield running


async def told_at(server: Server, url: str | None) -> dict[str, Any]:
    reply = await server.call("PUT", SETTINGS, json={"url": url})
    assert reply.status == 200, reply.body
    document: dict[str, Any] = reply.json
    return document


async def delivery(server: Server, task_id: str) -> dict[str, Any]:
    reply = await server.call("GET", f"/v1/tasks/{task_id}/webhook")
    assert reply.status == 200, reply.body
    document: dict[str, Any] = reply.json
    return document


async def delivered(server: Server, task_id: str, state: str = "delivered") -> dict[str, Any]:
    """A task once its webhook is in a state."""
    async with asyncio.timeout(30):
        while True:
            task = await server.task(task_id)
            if task.get("webhook_delivery", {}).get("state") == state:
                return task
            await asyncio.sleep(0.02)


async def fits(server: Server, name: str, answer_: object) -> None:
    document = (await server.call("GET", "/openapi.json")).json
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    Draft202012Validator(schema).validate(answer_)


# The way of a webhook


@pytest.mark.parametrize("prompt", ["sandbox:delay=0", "sandbox:refuse"])
async def test_the_end_of_a_task_is_told_to_the_accounts_url(server: Server, prompt: str) -> None:
    async with receiving(answer(200, body=b"merci")) as receiver:
        settings = await told_at(server, receiver.url)
        task_id = (await server.accepted(prompt=prompt))["task_id"]
        (message,) = await receiver.received(1)
        task = await delivered(server, task_id)
    document = Verifier(settings["secrets"][0]["secret"]).verify(message.body, message.headers)
    await fits(server, "WebhookEvent", document)
    assert document["event"] == f"task.{task['state']}"
    assert task["webhook_delivery"] == {"state": "delivered", "attempts": 1, "last_status": 200}
    await fits(server, "Task", task)
    same = {"event": document["event"], **task, "webhook_delivery": document["webhook_delivery"]}
    assert document == same
    shown = await delivery(server, task_id)
    await fits(server, "WebhookDeliveryRecord", shown)
    assert (shown["url"], shown["state"], shown["webhook_id"]) == (
        receiver.url,
        "delivered",
        message.id,
    )
    (tried,) = shown["history"]
    assert (tried["status"], tried["error"], tried["reply"]) == (200, None, "merci")
    for image in task["result"].get("data", ()):
        path = image["url"].removeprefix(server.url)
        assert (await server.anonymous("GET", path)).status == 200


async def test_the_last_event_of_a_stream_has_the_delivery_too(server: Server) -> None:
    async with receiving(hang) as receiver:
        await told_at(server, receiver.url)
        task_id = (await server.accepted(prompt="sandbox:delay=0"))["task_id"]
        await receiver.received(1)
        async with server.http.get(
            f"{server.url}/v1/tasks/{task_id}/events", headers=server.auth
        ) as response:
            last = (await response.text()).strip().rpartition("data: ")[2]
    assert json.loads(last)["task"]["webhook_delivery"]["state"] == "pending"


async def test_a_redelivery_is_sent_at_once_under_the_same_id(server: Server) -> None:
    async with receiving() as receiver:
        await told_at(server, receiver.url)
        task_id = (await server.accepted(prompt="sandbox:delay=0"))["task_id"]
        await receiver.received(1)
        await delivered(server, task_id)
        again = await server.call("POST", f"/v1/tasks/{task_id}/webhook/redeliver")
        assert again.status == 202
        await fits(server, "WebhookDeliveryRecord", again.json)
        first, second = await receiver.received(2)
        await delivered(server, task_id)
    assert first.id == second.id
    assert len((await delivery(server, task_id))["history"]) == 2


async def test_a_url_that_is_gone_is_shown_and_switched_on_by_setting_it(server: Server) -> None:
    async with receiving(answer(410), OK) as receiver:
        await told_at(server, receiver.url)
        task_id = (await server.accepted(prompt="sandbox:delay=0"))["task_id"]
        await delivered(server, task_id, "disabled")
        settings = (await server.call("GET", SETTINGS)).json
        assert settings["disabled_urls"] == [receiver.url]
        await fits(server, "WebhookSettings", settings)
        assert (await told_at(server, receiver.url))["disabled_urls"] == []


async def test_a_task_without_a_webhook_says_nothing_of_one(server: Server) -> None:
    task = await server.outcome("sandbox:delay=0")
    assert "webhook_delivery" not in task
    for method, path in (("GET", ""), ("POST", "/redeliver")):
        reply = await server.call(method, f"/v1/tasks/{task['task_id']}/webhook{path}")
        assert "PUT /v1/webhooks" in reply.assert_refused(404, "webhook_not_found")


async def test_before_its_end_a_task_with_a_callback_url_waits(idle_server: Server) -> None:
    waiting = await with_callback(idle_server, "https://example.com/hook")
    task = await idle_server.task(waiting)
    assert task["webhook_delivery"] == {"state": "waiting", "attempts": 0, "last_status": None}
    assert task["request"]["callback_url"] == "https://example.com/hook"
    await fits(idle_server, "Task", task)
    shown = await delivery(idle_server, waiting)
    await fits(idle_server, "WebhookDeliveryRecord", shown)
    assert (shown["state"], shown["history"]) == ("waiting", [])
    reply = await idle_server.call("POST", f"/v1/tasks/{waiting}/webhook/redeliver")
    assert "when the task ends" in reply.assert_refused(404, "webhook_not_found")


async def with_callback(server: Server, url: str) -> str:
    """A waiting task that asked for a webhook."""
    owner = await server.core.accounts.find(server.account)
    assert owner is not None
    new = new_task(owner.id, task_id=server.core.ids.next())
    request = msgspec.structs.replace(new.request, callback_url=url)
    await server.core.store.submit(msgspec.structs.replace(new, request=request))
    return encode("task", new.id)


async def test_nobody_sees_or_sends_anothers_webhook(server: Server) -> None:
    async with receiving() as receiver:
        await told_at(server, receiver.url)
        task_id = (await server.accepted(prompt="sandbox:delay=0"))["task_id"]
        await delivered(server, task_id)
        other = await server.for_account()
        for method, path in (("GET", ""), ("POST", "/redeliver")):
            reply = await other.call(method, f"/v1/tasks/{task_id}/webhook{path}")
            reply.assert_refused(404, "task_not_found")
        theirs = (await other.call("GET", SETTINGS)).json
        ours = (await server.call("GET", SETTINGS)).json
        assert theirs["url"] is None
        assert theirs["secrets"][0]["secret"] != ours["secrets"][0]["secret"]
        assert (await other.call("GET", DELIVERIES)).json["data"] == []
    for method, path in (("GET", SETTINGS), ("PUT", SETTINGS), ("POST", ROTATE)):
        (await server.anonymous(method, path)).assert_refused(401, "missing_api_key")


# Lists


async def test_deliveries_are_listed_newest_first_page_by_page(server: Server) -> None:
    async with receiving(answer(200), answer(410)) as receiver:
        await told_at(server, receiver.url)
        ids = []
        for state in ("delivered", "disabled", "disabled"):
            ids.append((await server.accepted(prompt="sandbox:delay=0"))["task_id"])
            await delivered(server, ids[-1], state)
    whole = (await server.call("GET", DELIVERIES)).json
    await fits(server, "WebhookDeliveryList", whole)
    assert [one["task_id"] for one in whole["data"]] == ids[::-1]
    assert (whole["has_more"], whole["next_cursor"]) == (False, None)
    first = (await server.call("GET", f"{DELIVERIES}?limit=2")).json
    assert first["has_more"]
    rest = (await server.call("GET", f"{DELIVERIES}?limit=2&cursor={first['next_cursor']}")).json
    assert [one["task_id"] for one in first["data"] + rest["data"]] == ids[::-1]
    done = (await server.call("GET", f"{DELIVERIES}?state=delivered")).json["data"]
    assert [one["task_id"] for one in done] == ids[:1]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("state=lost", "state"),
        ("state=waiting", "state"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=٣", "limit"),
        ("cursor=nothing", "cursor"),
        ("page=2", "page"),
    ],
)
async def test_a_query_that_means_nothing_is_refused(
    idle_server: Server, query: str, param: str
) -> None:
    reply = await idle_server.call("GET", f"{DELIVERIES}?{query}")
    reply.assert_refused(400, "invalid_parameter", param)


# Settings


async def test_a_fresh_account_has_a_secret_and_no_url(idle_server: Server) -> None:
    reply = await idle_server.call("GET", SETTINGS)
    settings = reply.json
    await fits(idle_server, "WebhookSettings", settings)
    assert reply.headers["Cache-Control"] == "no-store"
    assert settings["url"] is None
    assert settings["disabled_urls"] == []
    (secret,) = settings["secrets"]
    assert secret["secret"].startswith("whsec_")
    assert secret["expires_at"] is None
    assert (await idle_server.call("GET", SETTINGS)).json == settings


async def test_a_url_is_set_shown_and_taken_away(idle_server: Server) -> None:
    assert (await told_at(idle_server, "https://example.com/hook"))["url"].endswith("/hook")
    assert (await idle_server.call("GET", SETTINGS)).json["url"] == "https://example.com/hook"
    assert (await told_at(idle_server, None))["url"] is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.com/x", "begin with http:// or https://"),
        ("http://127.0.0.1/x", "must lead to a public address"),
        ("http://2130706433/x", "must lead to a public address"),
        ("http://localhost/x", "public host name"),
        ("https://user:secret@example.com/x", "user name or a password"),
        ("https://example.com/a b", "percent-encode"),
        ("https://example.com/" + "x" * 2048, "at most 2048 bytes"),
        ("https://example.com/" + "é" * 1020, "at most 2048 bytes"),
        ("", "begin with http:// or https://"),
        (17, "http:// or https://"),
        (["https://example.com/"], "http:// or https://"),
    ],
)
async def test_a_url_that_may_not_be_sent_to_is_refused_at_once(
    idle_server: Server, url: object, said: str
) -> None:
    reply = await idle_server.call("PUT", SETTINGS, json={"url": url})
    message = reply.assert_refused(400, "invalid_parameter", "url")
    assert said in message
    assert "secret" not in message


async def test_a_body_that_means_nothing_is_refused(idle_server: Server) -> None:
    missing = await idle_server.call("PUT", SETTINGS, json={})
    missing.assert_refused(400, "missing_field", "url")
    more = await idle_server.call("PUT", SETTINGS, json={"url": None, "uri": "x"})
    more.assert_refused(400, "invalid_parameter", "uri")
    (await idle_server.call("PUT", SETTINGS, data=b"{")).assert_refused(400, "malformed_body")
    (await idle_server.call("PUT", SETTINGS)).assert_refused(400, "malformed_body")
    for overlap in (-1, 604_801, 1.5, "60", True):
        reply = await idle_server.call("POST", ROTATE, json={"overlap_seconds": overlap})
        reply.assert_refused(400, "invalid_parameter", "overlap_seconds")
    wrong = await idle_server.call("DELETE", SETTINGS)
    wrong.assert_refused(405, "method_not_allowed")
    assert wrong.headers["Allow"] == "GET, HEAD, PUT"
    keyed = await idle_server.call("POST", ROTATE, headers={"Idempotency-Key": "x"})
    assert "each rotation" in keyed.assert_refused(400, "invalid_parameter", "Idempotency-Key")
    assert len((await idle_server.call("GET", SETTINGS)).json["secrets"]) == 1


async def test_a_rotation_shows_both_secrets_while_both_sign(idle_server: Server) -> None:
    (old,) = (await idle_server.call("GET", SETTINGS)).json["secrets"]
    rotated = (await idle_server.call("POST", ROTATE, json={"overlap_seconds": 600})).json
    await fits(idle_server, "WebhookSettings", rotated)
    new, still = rotated["secrets"]
    assert still["secret"] == old["secret"] != new["secret"]
    assert still["expires_at"] == new["created_at"] + 600
    assert still["created_at"] == old["created_at"]
    newest = (await idle_server.call("POST", ROTATE, json={"overlap_seconds": 0})).json["secrets"]
    assert len(newest) == 1
    default = (await idle_server.call("POST", ROTATE)).json["secrets"]
    assert default[1]["expires_at"] == default[0]["created_at"] + 86_400


async def test_secrets_are_nowhere_in_the_database(server: Server) -> None:
    async with Receiver().up() as receiver:
        settings = await told_at(server, receiver.url)
        await server.call("POST", ROTATE)
        await delivered(server, (await server.accepted(prompt="sandbox:delay=0"))["task_id"])
    files = [path.read_bytes() for path in server.data.glob("calotype.db*")]
    secret = settings["secrets"][0]["secret"].removeprefix("whsec_").encode()
    assert files
    assert not any(secret in content for content in files)
