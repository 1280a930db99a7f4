"""The guide to local servers: its files are what it says of them."""

import re
from pathlib import Path
from typing import Final

import msgspec
import pytest

from calotype.core import Core, build_core
from calotype.domain.channel import Channel
from calotype.domain.errors import InvalidParameter
from calotype.domain.fitting import Shape
from calotype.domain.task import Request
from calotype.domain.validation import normalise
from calotype.providers.comfyui.workflow import Sidecar
from calotype.settings import Settings

PAGE: Final = Path(__file__).parents[2] / "docs" / "guides" / "local-servers.md"
TEXT: Final = PAGE.read_text(encoding="utf-8")
FILES: Final[list[tuple[str, str]]] = re.findall(
    r"<!-- file: (\S+) -->\n```[a-z]+\n(.*?)```", TEXT, re.DOTALL
)
CONFIGURATIONS: Final = [text for name, text in FILES if name == "calotype.toml"]
VARIABLES: Final = {"HEAD_OFFICE_KEY": "sk-1"}


def built(folder: Path, configuration: str) -> Core:
    """The core of one of the guide's configurations, among all of its other files."""
    for name, text in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    config = folder / "calotype.toml"
    config.write_text(configuration, encoding="utf-8")
    places = {"CALOTYPE_CATALOG_DIR": str(folder / "models"), "CALOTYPE_DATA_DIR": str(folder)}
    return build_core(Settings.load({**VARIABLES, **places}, config))


def configured(folder: Path, slug: str, mark: str = "") -> tuple[Core, Channel]:
    """The core of the configuration that has this channel (and this mark), and the channel."""
    (found,) = [each for each in CONFIGURATIONS if f'slug = "{slug}"' in each and mark in each]
    core = built(folder, found)
    return core, core.router.channels[0]


def asked(core: Core, **said: object) -> Request:
    normal = normalise(core.catalog, {"model": "sdxl", "prompt": "x", **said}, text=False)
    return Request("sdxl", normal.prompt, normal.n, normal.parameters)


def refused(core: Core, request: Request, references: int = 0) -> str:
    """Why the channel cannot take a request; empty when it can."""
    model = core.catalog.get("sdxl")
    try:
        core.router.choose(model, request, [Shape("image/png", 8, 8, 100)] * references)
    except InvalidParameter as error:
        return str(error)
    return ""


@pytest.mark.parametrize("number", range(len(CONFIGURATIONS)))
def test_each_configuration_of_the_guide_is_in_order(number: int, tmp_path: Path) -> None:
    channel, *_ = built(tmp_path, CONFIGURATIONS[number]).router.channels
    assert channel.models
    assert channel.id >= 30


def test_the_guide_has_a_configuration_for_every_kind_of_server() -> None:
    providers = set(re.findall(r'provider = "(\S+)"', "".join(CONFIGURATIONS)))
    assert providers == {"comfyui", "sdcpp", "a1111", "openai-compatible", "xenodia"}


def test_the_shipped_workflows_take_words_or_one_reference(tmp_path: Path) -> None:
    core, _ = configured(tmp_path, "comfy", "image-to-image")
    everything = asked(core, negative_prompt="rain", seed=1, steps=9, aspect_ratio="3:2")
    assert refused(core, everything) == ""
    assert refused(core, everything, references=1) == ""
    assert "takes 0 or 1 reference images, not 2" in refused(core, everything, references=2)


def test_the_workflow_of_the_guide_takes_what_it_says(tmp_path: Path) -> None:
    core, _ = configured(tmp_path, "comfy", '"redraw"')
    follows = asked(core, aspect_ratio="auto", negative_prompt="rain", seed=1)
    assert refused(core, follows, references=1) == ""
    assert "takes 1 reference images, not 0" in refused(core, follows)
    assert "it has no steps" in refused(core, asked(core, aspect_ratio="auto", steps=9), 1)
    assert "asked for aspect_ratio 1:1" in refused(core, asked(core), 1)


def test_a_server_can_be_told_what_the_guide_adds_for_it(tmp_path: Path) -> None:
    core, channel = configured(tmp_path, "omni")
    wire = core.router.wire(channel, "sdxl")
    assert wire is not None
    said = asked(core, seed=1, steps=9, aspect_ratio="3:2")
    fields = wire.fields(core.catalog.get("sdxl"), said, reference_sizes=[])
    assert fields == {
        "size": "1216x832",
        "seed": 1,
        "num_inference_steps": 9,
        "response_format": "b64_json",
    }


def test_what_bills_is_not_called_free(tmp_path: Path) -> None:
    _, channel = configured(tmp_path, "litellm")
    assert (channel.free, channel.api_key) == (False, None)
    _, channel = configured(tmp_path, "head-office")
    assert (channel.free, channel.idempotent) == (None, True)
    assert not channel.base_url.endswith("/v1")


def test_every_slot_is_explained_and_no_other() -> None:
    _, _, rest = TEXT.partition("| in the file | holds |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert explained == {field.name for field in msgspec.structs.fields(Sidecar)}
