"""Commands on an account's own tasks and webhooks, against a stand-in for the server."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from acceptance.commands import Terminal, run, run_json, told
from acceptance.fake_account import SECRET, FakeAccount, task
from acceptance.screen import screen
from harness import serving

pytestmark = pytest.mark.usefixtures("data")


@pytest.fixture
async def fake(data: object, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeAccount]:
    """The account that commands find."""
    assert data
    account = FakeAccount()
    async with serving(account.app) as url:
        monkeypatch.setenv("CALOTYPE_BASE_URL", url)
        monkeypatch.setenv("CALOTYPE_API_KEY", "ck_fake")
        yield account


async def out(*arguments: str, code: int = 0) -> list[str]:
    """What a command prints."""
    return (await asyncio.to_thread(run, *arguments, code=code)).stdout.splitlines()


async def as_json(*arguments: str) -> Any:
    return await asyncio.to_thread(run_json, *arguments)


# Tasks


async def test_a_task_that_was_not_sent_is_cancelled_at_once(fake: FakeAccount) -> None:
    fake.tasks = [task(1, "waiting")]
    (line,) = await out("tasks", "cancel", "task_0000000000001")
    assert line == "task_0000000000001  fail  40 %  It was cancelled. (cancelled)"
    shown = await as_json("tasks", "cancel", "task_0000000000001")
    assert (shown["state"], shown["error"]["code"]) == ("fail", "cancelled")


async def test_of_a_task_that_goes_on_it_is_told_how_to_learn_of_its_end(fake: FakeAccount) -> None:
    fake.tasks = [task(1, "generating")]
    ended = await asyncio.to_thread(run, "tasks", "cancel", "task_0000000000001")
    assert ended.stdout == "task_0000000000001  generating  40 %\n"
    assert "calotype tasks watch task_0000000000001" in ended.stderr


async def test_a_task_of_nobody_is_told_as_the_server_tells_it(fake: FakeAccount) -> None:
    del fake
    line = await asyncio.to_thread(told, "tasks", "cancel", "task_0000000000009", code=1)
    assert line == "There is no such task. (task_not_found)"


async def test_a_key_that_is_none_is_told_with_how_to_make_one(
    fake: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    del fake
    monkeypatch.setenv("CALOTYPE_API_KEY", "ck_other")
    line = await asyncio.to_thread(told, "webhooks", "show", code=1)
    assert line == "No such key. (invalid_api_key; calotype keys create makes a key)"


async def test_on_a_terminal_a_table_of_tasks_lives(fake: FakeAccount) -> None:
    fake.tasks = [task(2, "waiting"), task(1, "generating")]
    terminal = await asyncio.to_thread(Terminal, "tasks", "watch", environment={"TERM": "xterm"})
    await asyncio.to_thread(terminal.until, lambda seen: b"prompt 2" in seen)
    text = terminal.seen.decode()
    assert text.index("task_0000000000002") < text.index("task_0000000000001")  # newest first
    ended = task(1, "fail", error={"code": "cancelled", "message": "It was."})
    event = {"task_id": "task_0000000000001", "state": "fail", "progress": 40, "at": 1}
    await fake.events.put({**event, "task": ended})
    await asyncio.to_thread(terminal.until, lambda seen: b"fail: cancelled" in seen)
    fake.tasks = [task(3, "queuing"), *fake.tasks]
    await fake.events.put({**event, "task_id": "task_0000000000003", "state": "generating"})
    await asyncio.to_thread(terminal.until, lambda seen: b"prompt 3" in seen)
    terminal.interrupt()
    last = (await asyncio.to_thread(terminal.ended)).rpartition("TASK")[2]
    rows = [line.split()[:2] for line in re.findall(r"task_\d+ +\w+", last)]
    assert rows == [
        ["task_0000000000003", "generating"],
        ["task_0000000000002", "waiting"],
        ["task_0000000000001", "fail"],
    ]


@pytest.mark.parametrize("columns", [80, 100])
async def test_a_narrow_table_keeps_ids_states_and_models_whole(
    columns: int, fake: FakeAccount
) -> None:
    refused = {"code": "content_policy_violation", "message": "No."}
    long = {"prompt": "\x1b[2J" + "a prompt that is far too long " * 4}
    fake.tasks = [
        task(2, "fail", error=refused, request=long),
        task(1, "generating", request=long, model="nano-banana-pro"),
    ]
    environment = {"COLUMNS": str(columns)}
    terminal = await asyncio.to_thread(Terminal, "tasks", "watch", environment=environment)
    await asyncio.to_thread(terminal.until, lambda seen: b"nano-banana-pro" in seen)
    terminal.interrupt()
    lines = screen(await asyncio.to_thread(terminal.ended))
    first, second = (line for line in lines if line.startswith("task_"))
    assert first.startswith("task_0000000000002  fail: content_policy_violation  ")
    assert "  gpt-image-2  " in first
    assert second.startswith("task_0000000000001  generating  ")
    assert "  nano-banana-pro  " in second
    for line in (first, second):
        assert len(line) <= columns
        assert re.search("  \ufffd.*…$", line)


# Webhooks


async def test_settings_are_shown_with_the_secret(fake: FakeAccount) -> None:
    assert await out("webhooks", "show") == [
        "url  none; only where a request names a callback_url",
        f"secret  {SECRET}",
    ]
    fake.settings |= {"url": "https://example.com/hook", "disabled_urls": ["https://gone.example"]}
    assert await out("webhooks", "show") == [
        "url  https://example.com/hook",
        f"secret  {SECRET}",
        "disabled  https://gone.example",
    ]
    assert (await as_json("webhooks", "show"))["secrets"][0]["secret"] == SECRET


async def test_the_url_is_set_and_taken_away(fake: FakeAccount) -> None:
    assert "url  https://example.com/hook" in await out(
        "webhooks", "set", "https://example.com/hook"
    )
    await out("webhooks", "set", "--off")
    assert [one for one in fake.asked if one[0] == "PUT"] == [
        ("PUT", "/v1/webhooks", {"url": "https://example.com/hook"}),
        ("PUT", "/v1/webhooks", {"url": None}),
    ]
    for arguments in ([], ["https://example.com", "--off"]):
        line = await asyncio.to_thread(told, "webhooks", "set", *arguments, code=2)
        assert "--off" in line


async def test_a_rotation_shows_both_secrets_and_when_the_old_one_ends(fake: FakeAccount) -> None:
    lines = await out("webhooks", "rotate", "--overlap-seconds", "60")
    assert lines[1:] == [
        f"secret  {SECRET[:-1]}x",
        f"secret  {SECRET}  until 2025-10-10 08:53:21Z",
    ]
    assert fake.asked[-1] == ("POST", "/v1/webhooks/rotate", {"overlap_seconds": 60})


async def test_deliveries_are_listed(fake: FakeAccount) -> None:
    assert await out("webhooks", "deliveries") == []
    fake.deliveries = [
        {
            "task_id": "task_0000000000001",
            "event": "task.success",
            "url": "https://example.com/hook",
            "state": "failed",
            "attempts": 7,
            "last_status": None,
        }
    ]
    _, row = await out("webhooks", "deliveries", "--state", "failed", "--limit", "5")
    assert row.split() == [
        "task_0000000000001",
        "task.success",
        "failed",
        "7",
        "https://example.com/hook",
    ]
    method, path, _ = fake.asked[-1]
    assert (method, path) == ("GET", "/v1/webhooks/deliveries?limit=5&state=failed")
    assert await as_json("webhooks", "deliveries") == fake.deliveries


async def test_a_webhook_is_sent_again(fake: FakeAccount) -> None:
    fake.tasks = [task(1, "success")]
    assert await out("webhooks", "redeliver", "task_0000000000001") == [
        "task_0000000000001  pending"
    ]
    assert fake.asked[-1][:2] == ("POST", "/v1/tasks/task_0000000000001/webhook/redeliver")
    assert json.loads("\n".join(await out("webhooks", "redeliver", "task_0000000000001", "--json")))
