"""``callback_url``, ``metadata`` and ``deadline_seconds`` of a submission, in JSON and forms."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calotype.domain.ids import decode
from calotype.domain.task import Task
from harness import GENERATIONS, Server, running_server, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOOK = "https://hooks.example.com/calotype?for=me"
OPTIONS: dict[str, Any] = {
    "callback_url": HOOK,
    "metadata": {"order": "7391", "für": "Ada 🖼"},
    "deadline_seconds": 60,
}


async def stored(server: Server, task: dict[str, Any]) -> Task:
    """A task as the store has it."""
    task_id = decode("task", task["task_id"])
    assert task_id is not None
    found = await server.core.store.task(task_id)
    assert found is not None
    return found


async def test_options_are_shown_as_they_were_asked_for(idle: Server) -> None:
    task = await idle.accepted(**OPTIONS)
    assert task["metadata"] == OPTIONS["metadata"]
    assert task["request"]["callback_url"] == HOOK
    assert task["request"]["deadline_seconds"] == 60


async def test_a_task_without_options_shows_no_trace_of_them(idle: Server) -> None:
    asked: list[dict[str, Any]] = [{}, dict.fromkeys(OPTIONS), {"metadata": {}}]
    for fields in asked:
        task = await idle.accepted(**fields)
        assert task["metadata"] == {}
        assert not {"callback_url", "deadline_seconds", "metadata"} & set(task["request"])


async def test_a_form_says_the_same_in_text(idle: Server) -> None:
    sent = await idle.submit_form(
        ("metadata", json.dumps(OPTIONS["metadata"])),
        ("deadline_seconds", "60"),
        ("callback_url", HOOK),
    )
    from_form = await idle.task(sent.json["task_id"])
    from_json = await idle.accepted(**OPTIONS)
    assert from_form["request"] == from_json["request"]
    assert from_form["metadata"] == from_json["metadata"]


@pytest.mark.parametrize(
    "field",
    [
        {"callback_url": "ftp://example.com/a"},
        {"callback_url": "example.com"},
        {"callback_url": ""},
        {"callback_url": 7},
        {"callback_url": "https://user:secret@example.com/"},
        {"callback_url": "http://127.0.0.1/hook"},
        {"callback_url": "http://[::1]/hook"},
        {"callback_url": "http://localhost/hook"},
        {"callback_url": "https://example.com/" + "a" * 4096},
        {"metadata": "order"},
        {"metadata": ["order"]},
        {"metadata": {"order": 1}},
        {"metadata": {str(number): "" for number in range(17)}},
        {"deadline_seconds": 0},
        {"deadline_seconds": 86_401},
        {"deadline_seconds": "60"},
    ],
    ids=lambda field: json.dumps(field)[:40],
)
async def test_an_option_that_cannot_be_is_refused_by_its_name(
    idle: Server, field: dict[str, Any]
) -> None:
    (name,) = field
    refused = await idle.submit(**field)
    message = refused.assert_refused(400, "invalid_parameter", name)
    assert "secret" not in message
    assert (await idle.balance())["reserved_micro_usdc"] == 0


@pytest.mark.parametrize("field", [("metadata", "a=b"), ("deadline_seconds", "soon")])
async def test_a_forms_option_that_cannot_be_is_refused(
    idle: Server, field: tuple[str, str]
) -> None:
    refused = await idle.submit_form(field)
    refused.assert_refused(400, "invalid_parameter", field[0])


async def test_a_message_about_another_field_names_the_options_too(idle: Server) -> None:
    refused = await idle.submit(quality="high")
    message = refused.assert_refused(400, "unsupported_parameter", "quality")
    assert all(name in message for name in OPTIONS)


async def test_the_operator_can_let_callbacks_go_to_a_private_host(tmp_path: Path) -> None:
    async with running_server(
        tmp_path, with_worker=False, webhook_allow_hosts=("127.0.0.1",)
    ) as server:
        task = await server.accepted(callback_url="http://127.0.0.1:9/hook")
        assert task["request"]["callback_url"] == "http://127.0.0.1:9/hook"
        refused = await server.submit(callback_url="http://127.0.0.2/hook")
        refused.assert_refused(400, "invalid_parameter", "callback_url")


@pytest.mark.parametrize(
    ("seconds", "sent_within"), [(None, 600), (60, 60), (600, 600), (86_400, 600)]
)
async def test_a_deadline_only_shortens_and_leaves_what_was_accepted_its_time(
    idle: Server, seconds: int | None, sent_within: int
) -> None:
    task = await idle.accepted(deadline_seconds=seconds)
    model = idle.core.catalog.get("gpt-image-2")
    assert model.deadline_seconds == 600
    kept = await stored(idle, task)
    assert kept.deadline_at - kept.created_at == sent_within * 1000
    assert kept.abandon_at - kept.created_at == (600 + model.grace_seconds) * 1000


async def test_options_are_part_of_what_an_idempotency_key_stands_for(idle: Server) -> None:
    async def send(**fields: Any) -> tuple[int, Any]:
        body = {"model": "gpt-image-2", "prompt": "a lighthouse", **fields}
        headers = {"Idempotency-Key": "once"}
        reply = await idle.call("POST", GENERATIONS, json=body, headers=headers)
        return reply.status, reply.json.get("task_id")

    first = await send(**OPTIONS)
    assert first[0] == 202
    turned = dict(reversed(OPTIONS["metadata"].items()))
    assert await send(**{**OPTIONS, "metadata": turned}) == first
    for name in OPTIONS:
        assert (await send(**{**OPTIONS, name: None}))[0] == 409
    others: list[dict[str, Any]] = [
        *({"metadata": {}}, {"deadline_seconds": 61}, {"callback_url": f"{HOOK}2"})
    ]
    for other in others:
        assert (await send(**{**OPTIONS, **other}))[0] == 409


async def test_a_task_that_could_not_be_sent_in_the_clients_time_fails(tmp_path: Path) -> None:
    async with running_server(tmp_path, with_worker=False) as server:
        accepted, key = await server.accepted(deadline_seconds=1, metadata={"a": "b"}), server.key
        deadline = (await stored(server, accepted)).deadline_at
        await until(lambda: server.core.clock() > deadline)
    async with running_server(tmp_path) as server:
        task = await replace(server, key=key).finished(accepted["task_id"])
        assert (task["state"], task["error"]["code"]) == ("fail", "deadline_exceeded")
        assert (task["billing"]["status"], task["metadata"]) == ("released", {"a": "b"})
        assert await server.core.store.prove() == []
