"""What Tab offers: asked as the shells ask, through the scripts that typer installs for them."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from acceptance.commands import generate, run_json
from acceptance.fake_account import FakeAccount, task
from calotype.cli import completion
from harness import serving

pytestmark = pytest.mark.usefixtures("data")

PROGRAM = "import sys; sys.argv[0] = 'calotype'; from calotype.cli import main; main()"


def offered(*words: str) -> Sequence[str]:
    """What bash is offered for the last of these words."""
    variables = {
        "COMP_WORDS": " ".join(["calotype", *words]),
        "COMP_CWORD": str(len(words)),
        "_CALOTYPE_COMPLETE": "complete_bash",
    }
    assigned = [f"{name}={value}" for name, value in variables.items()]
    ended = subprocess.run(
        ["/usr/bin/env", *assigned, sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stderr == ""
    return ended.stdout.split()


def test_the_shells_are_served() -> None:
    for shell in ("bash", "zsh", "fish"):
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, "--show-completion", shell],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "_CALOTYPE_COMPLETE" in ended.stdout + ended.stderr


def test_models_are_offered_by_their_beginning() -> None:
    found = offered("generate", "--model", "nano")
    assert "nano-banana-pro" in found
    assert all(word.startswith("nano") for word in found)
    assert offered("models", "nano") == found


def test_parameters_and_their_values_are_those_of_the_chosen_model() -> None:
    chosen = ("generate", "-m", "nano-banana-pro")
    assert {"aspect_ratio=", "output_format="} <= set(offered(*chosen, "-p", ""))
    assert offered(*chosen, "-p", "output_format=j") == ["output_format=jpg"]
    assert "16:9" in offered(*chosen, "--aspect-ratio", "")
    assert offered(*chosen, "--resolution", "2") == ["2K"]
    assert "png" in offered(*chosen, "--output-format", "")
    assert offered("generate", "-p", "") == []


def test_of_a_catalog_that_cannot_be_read_nothing_is_offered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CALOTYPE_CATALOG_DIR", "none")
    assert offered("models", "nano") == []


@pytest.mark.usefixtures("account")
def test_the_operator_is_offered_the_tasks_of_this_machine() -> None:
    generate("-o", "a.png")
    listed = [one["task_id"] for one in run_json("tasks", "list")]
    assert offered("tasks", "show", "") == listed
    assert offered("tasks", "show", listed[0][:8])[0].startswith("task_")
    assert offered("tasks", "show", "key_") == []


def test_where_nothing_is_no_task_is_offered_and_nothing_made(data: Path) -> None:
    assert offered("tasks", "show", "") == []
    assert not data.exists()


async def test_clients_are_offered_their_own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeAccount()
    fake.tasks = [task(2, "waiting"), task(1, "success")]
    monkeypatch.setattr(completion, "_PATIENCE_SECONDS", 60.0)  # machines are shared
    async with serving(fake.app) as url:
        monkeypatch.setenv("CALOTYPE_BASE_URL", url)
        for key, expected in [("ck_fake", [one["task_id"] for one in fake.tasks]), ("", [])]:
            monkeypatch.setenv("CALOTYPE_API_KEY", key)
            for words in (["tasks", "watch"], ["tasks", "cancel"], ["webhooks", "redeliver"]):
                assert await asyncio.to_thread(offered, *words, "") == expected


def test_a_model_that_needs_a_channel_is_offered_where_one_serves_it(data: Path) -> None:
    asked = ("generate", "--model", "sd")
    assert offered(*asked) == []
    (data.parent / "calotype.toml").write_text(
        '[[channels]]\nid = 10\nslug = "local"\nname = "Local"\nprovider = "diffusers"\n'
        'models = ["sd-turbo"]\n'
    )
    assert offered(*asked) == ["sd-turbo"]
    # Another server may have it.
    assert offered("generate", "-m", "sdxl-turbo", "-p", "st") == ["steps="]
