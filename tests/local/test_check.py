"""``calotype local check`` with tiny weights."""

from pathlib import Path

import pytest
from PIL import Image

from acceptance.commands import run, settle, told
from local.weights import tiny

CHANNEL = """
[[channels]]
id = {id}
slug = "local-{id}"
name = "Local"
provider = "diffusers"
models = ["sd-turbo"]
options = {{ weights = "{weights}", device = "cpu" }}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own to work in; the engine is on one core, as others test beside it."""
    monkeypatch.chdir(settle(tmp_path, monkeypatch))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def configure(folder: Path, *weights: Path) -> None:
    text = [CHANNEL.format(id=id_, weights=each) for id_, each in enumerate(weights, start=10)]
    (folder / "calotype.toml").write_text("".join(text))


def figures(out: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in out.splitlines())


def test_a_picture_of_the_only_channel_is_drawn_and_told_with_time_and_memory(
    here: Path, weights_folder: Path
) -> None:
    configure(here, weights := tiny("sd", weights_folder))
    said = figures(run("local", "check").stdout)
    assert said["weights"] == f"{weights} (StableDiffusionPipeline)"
    assert said["device"] == "cpu"
    assert said["drawn"].endswith("512 x 512, steps: 1")
    assert "MiB with the weights, " in said["memory"]
    assert said["batch"] == "1 at once"
    assert said["picture"] == "local-check.png"
    with Image.open(here / "local-check.png") as image:
        assert (image.format, image.size) == ("PNG", (512, 512))


def test_a_model_is_tried_without_a_configuration(here: Path, weights_folder: Path) -> None:
    weights = tiny("sdxl", weights_folder)
    options = ("--weights", weights, "--device", "cpu", "--dtype", "bfloat16", "-o", "made.png")
    said = figures(run("local", "check", "--model", "sdxl-turbo", *options).stdout)
    assert said["weights"] == f"{weights} (StableDiffusionXLPipeline)"
    assert (here / "made.png").exists()


def test_what_is_to_be_tried_has_to_be_named(here: Path, weights_folder: Path) -> None:
    assert "try a model by --model" in told("local", "check", code=2)
    assert "--weights goes with --model" in told("local", "check", "--weights", "x", code=2)
    assert "could draw sd-turbo" in told("local", "check", "--model", "none", code=2)
    assert "--dtype: there is no 'f'" in told(
        "local", "check", "--model", "sd-turbo", "--dtype", "f", code=2
    )
    weights = tiny("sd", weights_folder)
    configure(here, weights, weights)
    assert "name one of local-10, local-11" in told("local", "check", code=2)
    assert "no channel local-9" in told("local", "check", "local-9", code=2)


def test_weights_that_cannot_be_loaded_say_why_and_leave_no_picture(
    here: Path, weights_folder: Path
) -> None:
    (here / "empty").mkdir()
    configure(here, tiny("sd", weights_folder), here / "empty", here / "none")
    said = run("local", "check", "local-11", code=2).stderr.splitlines()
    assert said[0].startswith("Loading ")
    assert "has no model_index.json" in said[1]
    assert len(said) == 2
    assert "calotype.toml: channels[3].options.weights: there is no folder" in told(
        "local", "check", "local-12", code=2
    )
    assert not list(here.glob("*.png"))


def test_a_server_does_not_start_with_a_channel_that_it_cannot_draw_for(
    here: Path, weights_folder: Path
) -> None:
    configure(here, tiny("sd", weights_folder), here / "none")
    assert told("serve", "--port", "0", code=2).endswith(
        f"calotype.toml: channels[2].options.weights: there is no folder {here / 'none'}; "
        "put the weights there, or name the folder."
    )


def test_the_doctor_finds_a_channel_that_no_worker_here_can_draw_for(here: Path) -> None:
    configure(here, here / "none")
    report = run("doctor", code=1).stdout
    assert "calotype.toml: channels[1].options.weights: there is no folder" in report
    assert "→ put the weights there, or name the folder" in report
