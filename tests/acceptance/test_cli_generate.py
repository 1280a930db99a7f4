"""``calotype generate`` with several prompts, in terminals, and against servers that misbehave."""

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from acceptance.commands import (
    COMMAND,
    GENERATE,
    Terminal,
    generate,
    pay,
    run,
    run_json,
    serving,
    told,
)
from acceptance.screen import screen
from client.speaking import DROP, Rogue, answer, rogue

pytestmark = pytest.mark.usefixtures("data")

MODEL = ("--model", "gpt-image-2")


def prompts(*lines: str) -> str:
    """The name of a file of prompts."""
    path = Path("prompts.txt")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def names(folder: str) -> list[str]:
    """Without the record that a run keeps."""
    return sorted(path.name for path in Path(folder).glob("[!.]*"))


def content(name: str) -> bytes:
    return Path(name).read_bytes()


def spent(account: str) -> int:
    """Micro-USDC."""
    amounts: dict[str, int] = run_json("credits", "show", account)
    assert amounts["reserved_micro_usdc"] == 0
    return 10_000_000 - amounts["balance_micro_usdc"]


# Several prompts


def test_each_prompt_of_a_file_gets_its_image_its_line_and_a_summary(account: str) -> None:
    ended = run(
        "generate",
        "--prompts",
        prompts(
            "a lighthouse",
            "",
            "a harbour",
            '{"prompt": "a pier", "output": "pier.jpg", "model": "nano-banana-pro", '
            '"output_format": "jpg"}',
        ),
        *MODEL,
        "-o",
        "out",
        "--concurrency",
        "2",
    )
    assert names("out") == ["0001.png", "0003.png", "pier.jpg"]
    *files, summary = ended.stdout.splitlines()
    assert sorted(re.sub(r"  \d+x\d+$", "", line) for line in files) == [
        "out/0001.png",
        "out/0003.png",
        "out/pier.jpg",
    ]
    assert summary == f"3 images of 3 prompts; {(spent(account) / 1e6):g} USDC"
    assert re.match(r"Run [0-9a-f]{12}: 3 prompts, 2 at a time, to out", ended.stderr)
    for number in (1, 3, 4):
        assert f"line {number} success 100 %" in ended.stderr


def test_one_that_fails_is_told_and_the_rest_goes_on(account: str) -> None:
    file = prompts("a lighthouse", "sandbox:refuse", '{"prompt": "x", "seeed": 1}', "a harbour")
    ended = run("generate", "--prompts", file, *MODEL, "--run", "r", "--json", code=1)
    by_line = {line["line"]: line for line in map(json.loads, ended.stdout.splitlines())}
    assert {number: line["state"] for number, line in by_line.items()} == {
        1: "success",
        2: "fail",
        3: "refused",
        4: "success",
    }
    assert by_line[1]["files"] == ["calotype-r/0001.png"]
    assert by_line[2]["error"]["code"] == "content_policy_violation"
    assert by_line[3]["error"]["param"] == "seeed"
    assert names("calotype-r") == ["0001.png", "0004.png"]
    *_, refused, summary, last = ended.stderr.splitlines()
    assert summary.startswith("2 images of 4 prompts, 2 failed; ") or refused.startswith("2 images")
    assert "--run r" in last
    assert len(run_json("tasks", "list", "--account", account)) == 3


def test_prompts_are_read_from_a_pipe(account: str) -> None:
    ended = subprocess.run(
        [*COMMAND, "generate", "--prompts", "-", *MODEL, "-o", "out"],
        input="a lighthouse\na harbour",
        capture_output=True,
        text=True,
        check=True,
    )
    assert names("out") == ["0001.png", "0002.png"]
    assert len(run_json("tasks", "list", "--account", account)) == 2
    assert ended.stdout.splitlines()[-1].startswith("2 images of 2 prompts; ")


def test_a_run_goes_on_where_it_was_interrupted_and_buys_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, log = pay("laptop", monkeypatch), tmp_path / "server.log"
    command = ["generate", "--prompts", prompts("a", "b", "c", "d", "e"), *MODEL, "-o", "out"]
    with serving(log, "--no-worker") as url:
        command += ["--base-url", url]
        with subprocess.Popen([*COMMAND, *command], stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stderr is not None
            told_of = 0
            while told_of < 4:  # as many as go at a time
                told_of += "waiting" in waiting.stderr.readline()
            waiting.send_signal(signal.SIGINT)
            hint = re.search(r"--run (\S+)", waiting.stderr.read())
        assert waiting.returncode == 130
        assert hint
        assert len(run_json("tasks", "list")) == 4
    again = (*command[:-2], "--run", hint[1])
    with serving(log) as url:
        assert run(*again, "--base-url", url).stdout.startswith("out/")
        assert names("out") == ["0001.png", "0002.png", "0003.png", "0004.png", "0005.png"]
        assert len(run_json("tasks", "list")) == 5
        bought = spent(account)
        (Path("out") / "0002.png").unlink()
        ended = run(*again, "--base-url", url)
        assert ended.stdout.splitlines()[-1].startswith("1 images of 5 prompts, 4 were there alr")
        assert ended.stderr.count("is there already") == 4
        assert "0002.png" in names("out")
    assert spent(account) == bought
    assert len(run_json("tasks", "list")) == 5


def test_a_prompt_whose_task_failed_is_tried_again_by_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, log = pay("laptop", monkeypatch), tmp_path / "server.log"
    command = ("generate", "--prompts", prompts("a", "sandbox:refuse"), *MODEL, "--run", "r")
    with serving(log, "--no-worker") as url:
        late = run(*command, "--base-url", url, "--timeout", "1", code=1)
        assert late.stderr.count("No image after 1 s") == 2
        for task in run_json("tasks", "list"):
            run("tasks", "cancel", task["task_id"], "--base-url", url)
    with serving(log) as url:
        for tasks in (4, 5):
            ended = run(*command, "--base-url", url, code=1)
            assert ended.stderr.count("(content_policy_violation)") == 1
            assert names("calotype-r") == ["0001.png"]
            assert len(run_json("tasks", "list")) == tasks
    assert spent(account) == 60_000


def test_a_prompt_that_is_another_now_is_refused_by_the_run_that_sent_it(account: str) -> None:
    command = ("generate", *MODEL, "-o", "out", "--run", "r", "--prompts")
    run(*command, prompts("a", "b"))
    line = told(*command, prompts("new", "a", "b"), code=2)
    assert "line 1: is not what run r sent for it" in line
    assert "line 1:" in told(*command, prompts("a", "b"), "--resolution", "2K", code=2)
    assert len(run_json("tasks", "list", "--account", account)) == 2
    run(*command, prompts("a", "b", "c"))
    assert names("out") == ["0001.png", "0002.png", "0003.png"]
    assert len(run_json("tasks", "list", "--account", account)) == 3


def test_a_new_run_writes_over_no_image_of_another(account: str) -> None:
    file = prompts("a lighthouse")
    run("generate", "--prompts", file, *MODEL, "-o", "out")
    before = (Path("out") / "0001.png").stat()
    line = told("generate", "--prompts", file, *MODEL, "-o", "out", code=2)
    assert "out/0001.png is there already" in line
    assert "--run" in line
    assert (Path("out") / "0001.png").stat() == before
    assert len(run_json("tasks", "list", "--account", account)) == 1


def test_when_the_money_is_gone_nothing_more_is_sent(
    account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("credits", "add", account, "-9.9")
    monkeypatch.chdir(Path.cwd())
    file = prompts(*"abcdef")
    ended = run("generate", "--prompts", file, *MODEL, "-o", "out", "--concurrency", "1", code=1)
    assert "(insufficient_balance)" in ended.stderr
    assert ended.stdout.splitlines()[-1].startswith(
        "1 images of 6 prompts, 1 failed, 4 were not sent; 0.06 USDC"
    )
    assert len(run_json("tasks", "list", "--account", account)) == 1


def test_a_command_line_that_cannot_be_followed_buys_nothing(account: str) -> None:
    file = prompts("a", "{oops")
    assert "line 2" in told("generate", "--prompts", file, *MODEL, code=2)
    assert "--model" in told("generate", "a", code=2)
    assert "Give a prompt" in told("generate", *MODEL, code=2)
    assert "Give a prompt" in told("generate", "a", "--prompts", file, *MODEL, code=2)
    assert "--run" in told("generate", "a", *MODEL, "--run", "r", code=2)
    key = ("--idempotency-key", "k")
    assert "--run" in told("generate", "--prompts", file, *MODEL, *key, code=2)
    assert "No such file" in told("generate", "--prompts", "none.txt", *MODEL, code=1)
    Path("a-2.png").touch()
    two = ("--n", "2", "-o", "a.png")
    assert "a-2.png is there already" in told("generate", "a", *MODEL, *two, code=2)
    Path("a-2.png").unlink()
    file = prompts("a")
    assert "is no folder" in told("generate", "--prompts", file, *MODEL, "-o", file, code=2)
    assert run_json("tasks", "list", "--account", account) == []
    assert names(".") == ["prompts.txt"]


# In a terminal


ASKED = b"\x1b[c"


@pytest.mark.usefixtures("account")
def test_a_terminal_with_kitty_graphics_shows_the_image() -> None:
    text = Terminal(*GENERATE, "-o", "a.png", environment={"TERM": "xterm-kitty"}).ended()
    chunks = re.findall(r"\x1b_G[^;]*;([^\x1b]*)\x1b\\", text)
    Path("shown.png").write_bytes(base64.b64decode("".join(chunks)))
    with Image.open("shown.png") as shown, Image.open("a.png") as made:
        assert shown.width <= 800
        assert shown.width / shown.height == pytest.approx(made.width / made.height, rel=0.01)
    assert "a.png" in text


@pytest.mark.usefixtures("account")
def test_a_terminal_that_says_it_has_sixels_shows_the_image_so() -> None:
    terminal = Terminal(*GENERATE, "-o", "a.png", environment={})
    terminal.until(lambda seen: ASKED in seen)
    terminal.answer(b"\x1b[?62;4;22c")
    assert re.search(r'\x1bP0;1q"1;1;\d+;\d+#0;2;', terminal.ended())


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("reply", [b"", b"\x1b[?62;22c", b"nonsense"])
def test_a_terminal_that_knows_no_sixels_gets_none(reply: bytes) -> None:
    terminal = Terminal(*GENERATE, "-o", "a.png", environment={})
    terminal.until(lambda seen: ASKED in seen)
    terminal.answer(reply)
    text = terminal.ended()
    assert "\x1bP" not in text
    assert re.search(r"a\.png  \d+x\d+\r\n", text)


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("environment", "options"),
    [
        ({"TERM": "xterm-kitty"}, ["--no-show"]),
        ({"TERM": "xterm-kitty"}, ["--json"]),
        ({"TERM": "xterm-kitty", "TMUX": "x"}, []),
        ({"TERM": "dumb"}, []),
    ],
)
def test_no_image_is_shown_unasked_or_where_it_would_be_garbled(
    environment: dict[str, str], options: list[str]
) -> None:
    text = Terminal(*GENERATE, "-o", "a.png", *options, environment=environment).ended()
    assert not re.search("\x1b_G|\x1bP|\x1b]1337|\x1b\\[c", text)
    assert "a.png" in text


@pytest.mark.usefixtures("account")
def test_what_was_asked_to_be_shown_and_cannot_be_is_told() -> None:
    assert "--show: what stdout goes to is no terminal." in generate("--show").stderr
    text = Terminal(*GENERATE, "--show", environment={"TERM": "dumb"}).ended()
    assert "--show: images are shown in terminals that" in text


@pytest.mark.usefixtures("account")
def test_a_run_in_a_terminal_shows_each_image_between_its_bars() -> None:
    file = prompts("a", "b", "c")
    command = ("generate", "--prompts", file, *MODEL, "-o", "out")
    text = Terminal(*command, environment={"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"})
    assert text.ended().count("\x1b]1337;File=inline=1;size=") == 3
    assert b"3 images of 3 prompts" in text.seen


@pytest.mark.usefixtures("account")
def test_what_a_run_tells_in_a_terminal_stays_there() -> None:
    file = prompts("a", "sandbox:refuse", "c", "d", "sandbox:refuse", "f")
    command = ("generate", "--prompts", file, *MODEL, "-o", "out", "--no-show")
    text = Terminal(*command, environment={}).ended(code=1)
    first, *told_of, summary, last = [line for line in screen(text) if line]
    assert re.match("Run [0-9a-f]{12}: 6 prompts", first)
    assert sorted(re.split(":|  ", line)[0] for line in told_of) == [
        "line 2",
        "line 5",
        *(f"out/{number:04}.png" for number in (1, 3, 4, 6)),
    ]
    assert summary.startswith("4 images of 6 prompts, 2 failed; ")
    assert "--run" in last


@pytest.mark.usefixtures("account")
def test_one_prompt_in_a_terminal_leaves_the_name_of_its_task_there() -> None:
    text = Terminal(*GENERATE, "-o", "a.png", environment={"TERM": "dumb"}).ended()
    accepted, file, paid = [line for line in screen(text) if line]
    assert re.fullmatch(
        r"(task_\w{13}) is accepted; calotype tasks save \1 waits for it\.", accepted
    )
    assert re.fullmatch(r"a\.png  \d+x\d+", file)
    assert paid == "0.15 USDC"


@pytest.mark.usefixtures("account")
def test_nothing_that_was_typed_steers_the_terminal() -> None:
    name, safe = "\x1b]0;owned\x07\x1b[2Jout", "\ufffd]0;owned\ufffd\ufffd[2Jout"
    ended = generate("-o", f"{name}.png")
    assert ended.stdout.startswith(f"{safe}.png  ")
    row = json.dumps({"prompt": "\x1b[2J", "output": name})
    ended = run("generate", "--prompts", prompts(row), *MODEL, "-o", "out")
    assert ended.stdout.startswith(f"out/{safe}.png  ")
    refused = generate("--base-url", "ftp://\x1b[2J.invalid]", "-o", f"{name}.png", code=2)
    for text in (ended, refused):
        assert "\x1b" not in text.stdout + text.stderr


@pytest.mark.usefixtures("account")
def test_an_image_is_opened_by_the_program_of_the_desktop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    pipe = tmp_path / "opened"
    os.mkfifo(pipe)
    (programs / "xdg-open").write_text(f'#!/bin/sh\nprintf %s "$1" > {pipe}\n')
    (programs / "xdg-open").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    generate("-o", "-a $(b).png", "--open")
    assert pipe.read_text() == str(tmp_path / "-a $(b).png")


@pytest.mark.usefixtures("account")
def test_without_such_a_program_the_image_is_there_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    assert "there is no xdg-open" in generate("-o", "a.png", "--open").stderr
    assert Path("a.png").is_file()


# Servers that misbehave


def final(url: str) -> bytes:
    """The event stream of a task that has succeeded with an image at this URL."""
    task = {
        "task_id": "task_0",
        "state": "success",
        "progress": 100,
        "result": {"data": [{"url": url, "content_type": "image/png"}]},
    }
    event = {"task_id": "task_0", "state": "success", "progress": 100, "at": 1, "task": task}
    body = f"id: 1\ndata: {json.dumps(event)}\n\n".encode()
    return answer(200, body, headers="Content-Type: text/event-stream\r\n")


ACCEPTED = answer(202, {"task_id": "task_0", "state": "waiting"})


async def asked_of(served: Rogue, *options: str, code: int = 1) -> list[str]:
    """What ``calotype generate`` says on stderr to what a server does."""
    command = ("--base-url", served.url, "--api-key", "ck_x", *options)
    return (await asyncio.to_thread(generate, *command, code=code)).stderr.splitlines()


async def test_a_request_whose_answer_is_lost_is_sent_again_under_its_key_and_then_given_up() -> (
    None
):
    async with rogue(*[DROP] * 4) as served:
        *notes, last = await asked_of(served, "--idempotency-key", "once")
    assert [head["idempotency-key"] for head in served.heads] == ["once"] * 4
    assert len(set(served.bodies)) == 1
    assert [note[-8:] for note in notes] == ["(1 of 3)", "(2 of 3)", "(3 of 3)"]
    assert "--idempotency-key once" in last


async def test_a_refusal_is_told_with_its_code_and_sent_once() -> None:
    async with rogue(
        answer(402, {"message": "No money.", "code": "insufficient_balance"})
    ) as served:
        assert await asked_of(served) == ["No money. (insufficient_balance)"]


async def test_an_answer_from_something_else_names_the_address_to_check() -> None:
    async with rogue(answer(404, b"<html>")) as served:
        (line,) = await asked_of(served)
    assert "--base-url" in line


async def test_an_image_that_was_cut_short_is_fetched_again_and_appears_whole() -> None:
    whole = answer(200, b"the whole image")
    async with rogue(ACCEPTED, final("/v1/assets/a.png?s=s"), whole[:-5], whole) as served:
        await asked_of(served, "-o", "out.png", code=0)
    assert content("out.png") == b"the whole image"
    assert names(".") == ["out.png"]
    assert ["authorization" in head for head in served.heads] == [True, True, False, False]


async def test_an_image_that_cannot_be_fetched_leaves_nothing_behind_but_its_url() -> None:
    gone = answer(403, {"message": "Expired.", "code": "url_expired"})
    async with rogue(ACCEPTED, final("/v1/assets/a.png?s=s"), gone) as served:
        *_, last = await asked_of(served, "-o", "out.png")
    assert "Expired. (url_expired). The server keeps the image: /v1/assets/a.png?s=s" in last
    assert names(".") == []


async def test_the_fields_of_the_command_line_are_sent_as_they_were_typed() -> None:
    async with rogue(answer(402, {"message": "No.", "code": "x"})) as served:
        await asked_of(
            served,
            *("--n", "2", "--callback-url", "https://example.com/hook", "--deadline-seconds", "60"),
            *("--metadata", "order=1", "--metadata", "note=a=b", "-p", "seed=7"),
            *("--resolution", "2K", "--image", "https://example.com/a.png"),
        )
    assert json.loads(served.bodies[0]) == {
        "model": "nano-banana-pro",
        "prompt": "a lighthouse",
        "n": 2,
        "resolution": "2K",
        "callback_url": "https://example.com/hook",
        "deadline_seconds": 60,
        "metadata": {"order": "1", "note": "a=b"},
        "seed": 7,
        "image_input": ["https://example.com/a.png"],
    }
