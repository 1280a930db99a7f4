"""``calotype tasks watch`` against real servers."""

import json
import re
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from acceptance.commands import COMMAND, PATIENCE, pay, run, serving, told
from calotype.client import Calotype, Task

pytestmark = pytest.mark.usefixtures("data")

WATCH = ("tasks", "watch")


@pytest.fixture
def client(account: str) -> Iterator[Calotype]:
    """Of the account."""
    assert account
    with Calotype() as opened:
        yield opened


def submit(client: Calotype, prompt: str = "a lighthouse") -> Task:
    return client.generate(prompt, model="gpt-image-2")


@contextmanager
def watching(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """The command, which is told to stop at the latest at the end."""
    with subprocess.Popen(
        [*COMMAND, *WATCH, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def told_next(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The next event, of a command with ``--json``."""
    assert process.stdout is not None
    event: dict[str, Any] = json.loads(process.stdout.readline())
    return event


def test_named_tasks_are_watched_to_their_ends(client: Calotype) -> None:
    made, other = submit(client), submit(client)
    lines = run(*WATCH, made.id, other.id, made.id).stdout.splitlines()
    for task in (made, other):
        own = [line for line in lines if task.id in line]
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ  task_\w+  waiting  0 %$", own[0])
        (image,) = task.refresh().result
        assert (
            own[-1].partition("success  100 %  ")[2].partition("?")[0]
            == (image.url.partition("?")[0])
        )
        assert len(own) == len(set(own))
    assert len(lines) == len([line for line in lines if made.id in line or other.id in line])


def test_a_named_task_that_fails_is_told_with_its_code_and_exit_status(client: Calotype) -> None:
    made, refused = submit(client), submit(client, "sandbox:refuse")
    ended = run(*WATCH, refused.id, made.id, code=1)
    (line,) = [one for one in ended.stdout.splitlines() if "  fail  " in one]
    assert refused.id in line
    assert line.endswith("(content_policy_violation)")
    assert ended.stderr == ""


def test_a_task_that_is_not_there_is_told_at_once(account: str) -> None:
    assert account
    assert "(task_not_found)" in told(*WATCH, "task_0000000000000", code=1)


def test_without_a_key_it_is_told_how_to_make_one() -> None:
    assert "calotype keys create" in told(*WATCH, code=2)
    assert "calotype keys create" in told("tasks", "cancel", "task_0000000000000", code=2)


def listening(client: Calotype, process: "subprocess.Popen[str]") -> None:
    """Submit until the command has told of one task, which it can only once it listens."""
    assert process.stdout is not None
    while not select.select([process.stdout], [], [], 1)[0]:
        submit(client)
    told_next(process)


def errors_of(process: "subprocess.Popen[str]") -> str:
    """What it wrote to stderr, once it is over."""
    return process.communicate(timeout=PATIENCE)[1]


def steps(process: "subprocess.Popen[str]", task: Task) -> list[dict[str, Any]]:
    """All that is told of a task, to its end."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["state"] != "success":
        event = told_next(process)
        found += [event] if event["task_id"] == task.id else []
    return found


def test_all_tasks_of_the_account_are_watched_until_ctrl_c(client: Calotype) -> None:
    with watching("--json") as process:
        listening(client, process)
        task = submit(client)
        events = steps(process, task)
        process.send_signal(signal.SIGINT)
        assert (errors_of(process), process.returncode) == ("", 0)
    assert [events[0]["state"], events[-1]["state"]] == ["waiting", "success"]
    assert len({event["id"] for event in events}) == len(events)
    assert [event for event in events if "task" in event] == events[-1:]
    assert events[-1]["task"]["task_id"] == task.id


def test_watching_goes_on_after_a_restart_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pay("laptop", monkeypatch)
    log, first = tmp_path / "server.log", ExitStack()
    with first:
        url = first.enter_context(serving(log, "--no-worker"))
        monkeypatch.setenv("CALOTYPE_BASE_URL", url)
        with Calotype() as client, watching("--json") as process:
            listening(client, process)
            task = submit(client)
            before = told_next(process)
            while before["task_id"] != task.id:
                before = told_next(process)
            with watching("--json", task.id) as named:
                assert told_next(named)["state"] == "waiting"
                first.close()
                with serving(log, "--port", url.rpartition(":")[2]):
                    after, of_named = steps(process, task), steps(named, task)
                    assert named.wait(60) == 0
            assert (before["state"], after[-1]["state"]) == ("waiting", "success")
            assert "waiting" not in {event["state"] for event in [*after, *of_named]}
            assert process.stderr is not None
            assert "waiting for it to come back" in process.stderr.readline()


def test_interrupted_before_the_named_tasks_are_final_it_says_so_by_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pay("laptop", monkeypatch)
    with serving(tmp_path / "server.log", "--no-worker") as url:
        monkeypatch.setenv("CALOTYPE_BASE_URL", url)
        with Calotype() as client, watching("--json", submit(client).id) as process:
            assert told_next(process)["state"] == "waiting"
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_it_is_told_to_while_the_server_is_silent(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALOTYPE_API_KEY", "ck_x")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("CALOTYPE_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with watching("task_0000000000000") as process:
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(1)
                process.send_signal(number)
                assert errors_of(process) == ""
        assert process.returncode == 130
