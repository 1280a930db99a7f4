"""A channel that is set up with less than its upstream's file says is asked for less."""

import logging
import random
from pathlib import Path
from typing import Final

import pytest

from calotype.catalog import load_catalog
from calotype.core import Core, build_core, channels_of
from calotype.domain.channel import Channel, Served
from calotype.domain.errors import InvalidParameter
from calotype.domain.fitting import Shape
from calotype.domain.health import Breakers
from calotype.domain.task import Request
from calotype.domain.validation import normalise
from calotype.domain.wire import Size, Upstream, Wire
from calotype.services.routing import Router
from calotype.settings import Settings, SettingsError

WORKFLOWS: Final = Path(__file__).parents[1] / "providers" / "workflows"
CATALOG: Final = load_catalog()
MODEL: Final = "flux-2-flex"
CONFIG: Final = """
[[channels]]
id = 10
slug = "comfy"
name = "Comfy"
provider = "comfyui"
models = { flux-2-flex = "words" }
options = { workflows = "flows" }
priority = 9

[[channels]]
id = 11
slug = "plain"
name = "Plain"
provider = "comfyui"
models = { flux-2-flex = "text-to-image" }
"""


def asked(channel_id: int | None = None, **said: float) -> Request:
    normal = normalise(CATALOG, {"model": MODEL, "prompt": "x", **said}, text=False)
    return Request(MODEL, normal.prompt, normal.n, normal.parameters, channel_id=channel_id)


# The router


class Halving:
    """Lets half as many references through, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str]] = []

    def __call__(self, channel: Channel, model: str, wire: Wire) -> Wire:
        self.asked.append((channel.id, model))
        return Wire(id=wire.id, max_references=wire.max_references // 2)


def router(narrow: Halving, *channels: Channel) -> Router:
    return Router(
        channels,
        upstreams={"openai": Upstream(models={"*": Wire(max_references=4, size=Size(field="s"))})},
        breakers=Breakers(),
        chance=random.Random(1),  # noqa: S311 -- no secret
        clock=lambda: 0,
        narrow=narrow,
    )


def channel(number: int, provider: str = "openai") -> Channel:
    return Channel(id=number, slug=f"c{number}", name="C", provider=provider)


def test_each_channel_and_model_is_narrowed_once_until_the_channels_are_replaced() -> None:
    narrow, one, two = Halving(), channel(10), channel(11)
    routes = router(narrow, one, two)
    for _ in range(3):
        for each in (one, two):
            wire = routes.wire(each, "gpt-image-2")
            assert wire is not None
            assert wire.max_references == 2
        routes.wire(one, "flux-2-pro")
    assert narrow.asked == [(10, "gpt-image-2"), (11, "gpt-image-2"), (10, "flux-2-pro")]
    routes.replace([one])
    routes.wire(one, "gpt-image-2")
    assert narrow.asked[3:] == [(10, "gpt-image-2")]


def test_a_channel_that_takes_requests_as_they_are_is_not_narrowed() -> None:
    narrow, sandbox = Halving(), channel(10, "sandbox")
    assert router(narrow, sandbox).wire(sandbox, "gpt-image-2") is None
    assert narrow.asked == []


# From the configuration to the choice


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration, with its workflows beside it."""
    (tmp_path / "calotype.toml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "flows").mkdir()
    for path in WORKFLOWS.iterdir():
        (tmp_path / "flows" / path.name).write_bytes(path.read_bytes())
    return tmp_path


def loaded(folder: Path) -> Settings:
    return Settings.load({"CALOTYPE_DATA_DIR": str(folder)}, folder / "calotype.toml")


def chosen(core: Core, request: Request, references: int = 0) -> int:
    model = core.catalog.get(MODEL)
    return core.router.choose(model, request, [Shape("image/png", 8, 8, 100)] * references).id


def test_workflows_lie_beside_the_configuration_and_say_what_a_channel_takes(
    folder: Path,
) -> None:
    core = build_core(loaded(folder))
    assert core.router.channels[0].options == {"workflows": str(folder / "flows")}
    assert chosen(core, asked(steps=9)) == 10
    assert chosen(core, asked(guidance=2.5)) == 11
    with pytest.raises(InvalidParameter, match="takes 0 reference images, not 1"):
        chosen(core, asked(), references=1)
    with pytest.raises(InvalidParameter, match=r"\(comfy\): it has no guidance\.$"):
        chosen(core, asked(10, guidance=2.5))


def test_a_whole_path_stays_as_it_is(folder: Path) -> None:
    config = folder / "calotype.toml"
    config.write_text(CONFIG.replace('"flows"', f'"{WORKFLOWS}"'), encoding="utf-8")
    (comfy, *_) = build_core(loaded(folder)).router.channels
    assert comfy.options == {"workflows": str(WORKFLOWS)}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"flows"', '"flow"', ".models.flux-2-flex: there is no words.json in the folder of"),
        ('"flows"', '"~nobody-here/x"', ".options.workflows: there is no such home folder as in"),
        ('"words"', '"word"', ".models.flux-2-flex: there is no word.json in the folder of"),
        (
            '"words"',
            '{ id = "words", edit = "unsized" }',
            ".models.flux-2-flex: what it is set up with has no aspect_ratio, which every request",
        ),
    ],
)
def test_what_a_channel_cannot_be_set_up_with_is_refused_with_file_key_and_cure(
    folder: Path, old: str, new: str, told: str
) -> None:
    flows, config = folder / "flows", folder / "calotype.toml"
    for name in ("json", "toml"):
        lines = (flows / f"picture@2.{name}").read_text().splitlines()
        kept = [line for line in lines if not line.startswith(("width", "height"))]
        (flows / f"unsized@2.{name}").write_text("\n".join(kept))
    config.write_text(CONFIG.replace(old, new), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        build_core(loaded(folder))
    assert str(caught.value).startswith(f"{config}: channels[1]{told}")
    assert str(caught.value).endswith(".")


def test_a_workflow_that_was_broken_since_is_told_of_when_the_channels_are_read_anew(
    folder: Path,
) -> None:
    settings = loaded(folder)
    core = build_core(settings)
    slots = folder / "flows" / "words.toml"
    whole = slots.read_text()
    slots.write_text(whole.replace('"57:6.text"', '"57:6.words"'))
    with pytest.raises(SettingsError, match=r"words\.toml: prompt: the graph has no input 57:6\.w"):
        channels_of(settings.reloaded({}), core.catalog)
    slots.write_text(whole.replace('steps = "57:3.steps"', ""))
    core.router.replace(channels_of(settings.reloaded({}), core.catalog))
    assert chosen(core, asked(steps=9)) == 11


def test_a_workflow_that_is_gone_stops_no_server(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    core = build_core(loaded(folder))
    (folder / "flows" / "words.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert chosen(core, asked(guidance=2.5)) == 10
        assert chosen(core, asked(guidance=2.5)) == 10
    (record,) = caplog.records
    assert "channel comfy, model flux-2-flex: there is no words.json" in record.message


def test_a_channel_serves_what_it_is_set_up_with(folder: Path) -> None:
    served = build_core(loaded(folder)).router.channels[0].models
    assert served == {MODEL: Served(id="words")}
