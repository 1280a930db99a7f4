"""Pictures of every pipeline, drawn with tiny weights of the real classes."""

import io
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from PIL import Image, ImageChops

from calotype.providers.diffusers.desk import Desk
from calotype.providers.diffusers.drawing import draw
from calotype.providers.diffusers.loading import Model, load
from calotype.providers.diffusers.wire import Draw, Drawn, Ended, Event, Load, Step
from local.engines import order, picture
from local.weights import tiny

pytestmark = pytest.mark.filterwarnings("default")  # libraries warn of one another
KINDS = ["sd", "sdxl", "klein", "qwen", "z-image"]
Loader = Callable[..., Model]


@pytest.fixture(scope="module")
def model(weights_folder: Path) -> Loader:
    """Loads a kind of weights, once."""
    torch.set_num_threads(1)

    @cache
    def loaded(kind: str, **settings: Any) -> Model:
        weights = str(tiny(kind, weights_folder))
        return load(Load(weights=weights, device="cpu", **settings))[0]

    return loaded


def drawn(model: Model, order: Draw) -> list[Event]:
    line = io.BytesIO()
    desk = Desk(line)
    desk.take(picture.id for picture in order.pictures)
    draw(model, order, desk)
    return [msgspec.json.decode(event, type=Event) for event in line.getvalue().splitlines()]


def opened(folder: Path, name: str) -> Image.Image:
    with Image.open(folder / f"{name}.png") as image:
        return image.copy()


def apart(one: Image.Image, other: Image.Image) -> int:
    """The most that two pictures differ in any pixel, of 255."""
    return max(high for _, high in ImageChops.difference(one, other).getextrema())  # type: ignore[misc]  # one pair a band


@pytest.fixture
def reference(tmp_path: Path) -> str:
    file = tmp_path / "reference.png"
    Image.linear_gradient("L").convert("RGBA").save(file)
    return str(file)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_png_of_the_size_asked_for(kind: str, model: Loader, tmp_path: Path) -> None:
    events = drawn(model(kind), order(picture("a", tmp_path), width=160, height=96))
    assert events == [Step(done=1, of=2), Step(done=2, of=2), Drawn(id="a")]
    image = opened(tmp_path, "a")
    assert (image.size, image.mode, image.info) == ((160, 96), "RGB", {})
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_a_batch_is_the_one_drawn_alone(
    kind: str, model: Loader, tmp_path: Path
) -> None:
    wanted = {"prompt": "a fox, and quite some more words", "seed": 2**40}
    pair = order(picture("a", tmp_path), picture("b", tmp_path, **wanted))
    drawn(model(kind), pair)
    drawn(model(kind), order(picture("alone", tmp_path, **wanted)))
    drawn(model(kind), order(picture("again", tmp_path, **wanted)))
    assert apart(opened(tmp_path, "b"), opened(tmp_path, "alone")) <= 2
    assert apart(opened(tmp_path, "again"), opened(tmp_path, "alone")) == 0
    assert apart(opened(tmp_path, "a"), opened(tmp_path, "b")) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_references_shape_the_picture(
    kind: str, model: Loader, tmp_path: Path, reference: str
) -> None:
    strength = 0.25 if model(kind).family.image_class else None
    drawn(model(kind), order(picture("none", tmp_path)))
    events = drawn(
        model(kind),
        order(
            picture("a", tmp_path, references=(reference,)),
            picture("b", tmp_path, references=(str(tmp_path / "none.png"),)),
            steps=8,
            strength=strength,
        ),
    )
    assert {event.id for event in events if isinstance(event, Drawn)} == {"a", "b"}
    assert opened(tmp_path, "a").size == (128, 64)
    assert apart(opened(tmp_path, "none"), opened(tmp_path, "a")) > 0
    assert apart(opened(tmp_path, "a"), opened(tmp_path, "b")) > 0


def test_references_for_a_whole_call_are_drawn_one_after_another(
    model: Loader, tmp_path: Path, reference: str
) -> None:
    events = drawn(
        model("klein"),
        order(
            picture("a", tmp_path, references=(reference, reference)),
            picture("b", tmp_path, references=(reference,)),
            picture("c", tmp_path, references=(reference,), seed=8),
        ),
    )
    assert [event for event in events if isinstance(event, Step)] == [
        Step(done=done, of=4) for done in (1, 2, 3, 4)
    ]
    assert [event.id for event in events if isinstance(event, Drawn)] == ["a", "b", "c"]


def test_strength_leaves_fewer_steps_and_progress_tells(
    model: Loader, tmp_path: Path, reference: str
) -> None:
    events = drawn(
        model("sd"),
        order(picture("a", tmp_path, references=(reference,)), steps=10, strength=0.3),
    )
    assert events[:3] == [Step(done=done, of=3) for done in (1, 2, 3)]


@pytest.mark.parametrize("kind", ["sd", "sdxl", "qwen", "z-image"])
def test_a_negative_prompt_counts_for_its_own_picture(
    kind: str, model: Loader, tmp_path: Path
) -> None:
    batch = order(
        picture("a", tmp_path, negative_prompt="blur"), picture("b", tmp_path), guidance=4.0
    )
    drawn(model(kind), batch)
    drawn(model(kind), order(picture("alone", tmp_path), guidance=4.0))
    assert apart(opened(tmp_path, "b"), opened(tmp_path, "alone")) <= 2
    assert apart(opened(tmp_path, "a"), opened(tmp_path, "b")) > 0


@pytest.mark.parametrize(
    ("kind", "settings", "picture_settings", "why"),
    [
        ("sd", {"width": 100}, {}, "a multiple of 8"),
        ("klein", {"height": 72}, {}, "a multiple of 16"),
        ("klein", {}, {"negative_prompt": "blur"}, "no negative prompt"),
        ("klein", {"strength": 0.5}, {}, "no strength"),
        ("sd", {}, {"references": ("one", "two")}, "at most 1 reference"),
        ("sd", {"steps": 1, "strength": 0.9}, {"references": ("one",)}, "has to be 1 or more"),
    ],
)
def test_what_the_weights_cannot_do_is_refused(
    kind: str,
    settings: dict[str, Any],
    picture_settings: dict[str, Any],
    why: str,
    model: Loader,
    tmp_path: Path,
) -> None:
    (event,) = drawn(model(kind), order(picture("a", tmp_path, **picture_settings), **settings))
    assert isinstance(event, Ended)
    assert event.code == "unfit"
    assert why in event.message
    assert list(tmp_path.iterdir()) == []


def test_an_unsafe_picture_is_never_written(model: Loader, tmp_path: Path) -> None:
    events = drawn(model("sd-safety", safety=True), order(picture("a", tmp_path)))
    assert isinstance(events[-1], Ended)
    assert events[-1].code == "unsafe"
    assert list(tmp_path.iterdir()) == []
    assert drawn(model("sd-safety"), order(picture("a", tmp_path)))[-1] == Drawn(id="a")


def test_a_failure_ends_the_whole_batch(model: Loader, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    events = drawn(model("sd"), order(picture("a", nowhere), picture("b", nowhere, seed=8)))
    ends = [event for event in events if isinstance(event, Ended)]
    assert [(end.id, end.code) for end in ends] == [("a", "failed"), ("b", "failed")]
    assert ends[0].message.startswith("FileNotFoundError: ")


class Leaving(io.BytesIO):
    """A line whose worker, when it hears of the first step, lets one picture and its folder go."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.desk = Desk(self)
        self._folder = folder

    def write(self, event: Any, /) -> int:
        if self.desk.wants(self._folder.name):
            self.desk.end(self._folder.name, "cancelled", "It was stopped.")
            shutil.rmtree(self._folder)
        return super().write(event)


def test_a_picture_that_is_stopped_with_its_folder_leaves_its_companions(
    model: Loader, tmp_path: Path
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    line = Leaving(tmp_path / "a")
    asked = order(picture("a", tmp_path / "a"), picture("b", tmp_path / "b", seed=8))
    line.desk.take("ab")
    draw(model("sd"), asked, line.desk)
    events = [msgspec.json.decode(event, type=Event) for event in line.getvalue().splitlines()]
    assert events[0] == Ended(id="a", code="cancelled", message="It was stopped.")
    assert events[-1] == Drawn(id="b")
    assert [file.name for file in (tmp_path / "b").iterdir()] == ["b.png"]
