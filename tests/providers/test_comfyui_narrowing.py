"""What a channel's workflows can be asked for: known to routing, before anything is sent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

import calotype.catalog
from calotype.domain.channel import Channel, Served
from calotype.domain.outcomes import Accepted
from calotype.domain.task import Request
from calotype.domain.validation import normalise
from calotype.domain.wire import Field, Wire
from calotype.providers.comfyui.narrowing import narrow
from calotype.providers.comfyui.workflow import WorkflowFault
from providers.bed import REFERENCE_SIZE, Bed, catalog, protocols, references, upstream
from providers.protocol import Protocol

SHIPPED: Final = Path(calotype.catalog.__file__).parent / "upstreams" / "comfyui"
OURS: Final = Path(__file__).parent / "workflows"
FILE: Final = upstream("comfyui").models["*"]
FLEX: Final = "flux-2-flex"
BOTH: Final = Served(id="words", edit="picture")
SIZES: Final = ('width = "13.width"\n', 'height = "13.height"\n')
FIXED: Final = '\n[always]\naspect_ratio = "auto"\nresolution = "1K"\n'


@pytest.fixture
def protocol() -> Protocol:
    return protocols()["comfyui"]


def channel(served: Served, folder: Path | None = OURS, model: str = FLEX) -> Channel:
    """A channel with templates of its own, or with those that are shipped."""
    return Channel(
        id=10,
        slug="comfy",
        name="Comfy",
        provider="comfyui",
        models={model: served},
        options={"workflows": str(folder)} if folder else {},
    )


def narrowed(
    served: Served, folder: Path | None = OURS, *, model: str = FLEX, wire: Wire = FILE
) -> Wire:
    return narrow(channel(served, folder, model), model, wire)


def asked(model: str = FLEX, *, n: int = 1, **said: Any) -> Request:
    normal = normalise(catalog(), {"model": model, "prompt": "x", **said}, text=False)
    return Request(normal.model, normal.prompt, n, normal.parameters)


def copied(folder: Path, name: str, to: str, changes: Mapping[str, str] = {}) -> Path:
    """Put a template of ours into a folder, each change made to its slots."""
    (folder / f"{to}.json").write_bytes((OURS / f"{name}.json").read_bytes())
    slots = (OURS / f"{name}.toml").read_text()
    for old, new in changes.items():
        assert old in slots
        slots = slots.replace(old, new)
    (folder / f"{to}.toml").write_text(slots)
    return folder


def unsized(folder: Path, more: str = "") -> Path:
    """A workflow for two references without slots for a size."""
    changes = {SIZES[0]: "", SIZES[1]: "", 'save = "9"': f'save = "9"{more}'}
    return copied(folder, "picture@2", "picture@2", changes)


# Slots


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"seed": 1, "steps": 9, "aspect_ratio": "16:9", "output_format": "png"}, None),
        ({"guidance": 2.5}, "it has no guidance"),
    ],
)
def test_what_a_workflow_has_no_slot_for_is_asked_of_another_channel(
    said: dict[str, Any], reason: str | None
) -> None:
    assert narrowed(BOTH).unable(asked(**said), references=0) == reason


def test_with_references_the_slots_are_those_of_the_workflow_for_them() -> None:
    wire, request = narrowed(BOTH), asked(steps=9)
    assert wire.unable(request, references=0) is None
    assert wire.unable(request, references=2) == "it has no steps"


@pytest.mark.parametrize(
    ("served", "folder", "model", "taken"),
    [
        (BOTH, OURS, FLEX, [0, 2]),
        (Served(id="words"), OURS, FLEX, [0]),
        (Served(id="words/x.safetensors"), OURS, FLEX, [0]),
        (Served(id="picture@2"), OURS, FLEX, [2]),
        (Served(id="image-to-image"), None, FLEX, [1]),
        (Served(id="text-to-image", edit="image-to-image"), None, FLEX, [0, 1]),
        (Served(), SHIPPED, "text-to-image", [0]),
    ],
)
def test_references_are_as_many_as_a_workflow_loads(
    served: Served, folder: Path | None, model: str, taken: list[int]
) -> None:
    wire = narrowed(served, folder, model=model)
    reasons = {count: wire.unable(asked(), references=count) for count in range(18)}
    assert [count for count, reason in reasons.items() if reason is None] == taken
    numbers = " or ".join(map(str, taken))
    assert reasons[17] == f"it takes {numbers} reference images, not 17"


def test_more_than_one_image_is_for_a_workflow_with_a_slot_for_a_batch() -> None:
    wire = narrowed(BOTH)
    assert wire.unable(asked(n=3), references=0) is None
    assert wire.unable(asked(n=9), references=0) == "it makes at most 8 images at a time"
    assert wire.unable(asked(n=2), references=2) == "it makes at most 1 images at a time"


def test_a_value_that_is_said_by_silence_needs_no_slot() -> None:
    wire = narrowed(Served(id="words"), model="gpt-image-2.5-flare")
    flare = asked("gpt-image-2.5-flare")
    assert flare.parameters["background"] == "auto"
    assert wire.unable(flare, references=0) is None
    opaque = asked("gpt-image-2.5-flare", background="opaque")
    assert wire.unable(opaque, references=0) == "it cannot be asked for background opaque"


def test_silence_that_means_another_thing_with_references_is_not_kept() -> None:
    field = Field(field="background", omit=("auto",), edit_values={"auto": "match"})
    own = msgspec.structs.replace(FILE, parameters={"background": field})
    wire, flare = narrowed(BOTH, wire=own), asked("gpt-image-2.5-flare")
    assert wire.unable(flare, references=0) is None
    assert wire.unable(flare, references=2) == "it has no background"


async def test_what_is_let_through_is_never_refused_for_want_of_a_slot(bed: Bed) -> None:
    wire, model = narrowed(BOTH), catalog().get(FLEX)
    wishes: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"steps": 9},
        {"guidance": 2.5},
        {"aspect_ratio": "auto", "resolution": "2K"},
    ]
    sent = []
    async with bed.fake() as fake:
        for count in range(3):
            for wish in wishes:
                request = asked(**wish)
                sizes = [REFERENCE_SIZE] * count
                job = msgspec.structs.replace(
                    bed.job(),
                    model=model,
                    request=request,
                    references=references(count),
                    upstream_model=wire.model_id("words", "picture", references=count),
                    fields=wire.fields(model, request, reference_sizes=sizes),
                )
                able = wire.unable(request, references=count) is None
                outcome = await bed.provider(bed.channel(fake)).submit(job)
                assert isinstance(outcome, Accepted) or not able, outcome
                sent += [(count, *wish)] if able else []
    ratio = ("aspect_ratio", "resolution")
    assert sent == [(0,), (0, "seed"), (0, "steps"), (0, *ratio), (2,), (2, "seed"), (2, *ratio)]


# What a workflow always draws


def test_a_workflow_without_a_size_is_asked_for_the_one_that_it_always_draws(
    tmp_path: Path,
) -> None:
    wire = narrowed(Served(id="picture"), unsized(tmp_path, FIXED))
    follows = asked(aspect_ratio="auto", seed=3)
    assert wire.unable(follows, references=2) is None
    fields = wire.fields(catalog().get(FLEX), follows, reference_sizes=[REFERENCE_SIZE] * 2)
    assert fields == {"seed": 3}
    assert wire.hopeless(catalog().get(FLEX)) is None
    square, large = asked(aspect_ratio="1:1"), asked(aspect_ratio="auto", resolution="2K")
    assert wire.unable(square, references=2) == "it cannot be asked for aspect_ratio 1:1"
    assert wire.unable(large, references=2) == "it cannot be asked for resolution 2K"


def test_without_a_word_on_what_it_draws_no_request_can_go_there(tmp_path: Path) -> None:
    wire = narrowed(Served(id="picture"), unsized(tmp_path))
    assert wire.hopeless(catalog().get(FLEX)) == "aspect_ratio"
    assert wire.unable(asked(), references=2) == "it has no aspect_ratio"


def test_a_workflow_for_references_holds_nothing_up_where_the_model_takes_none(
    tmp_path: Path,
) -> None:
    copied(unsized(tmp_path), "words", "words")
    wire = narrowed(BOTH, tmp_path)
    alone = msgspec.structs.replace(
        catalog().get(FLEX),
        references=msgspec.structs.replace(catalog().get(FLEX).references, max_items=0),
    )
    assert wire.hopeless(alone) is None
    assert wire.hopeless(catalog().get(FLEX)) == "aspect_ratio"


def test_any_parameter_can_have_the_one_value_that_is_always_drawn(tmp_path: Path) -> None:
    more = f'save = "9"{FIXED}guidance = 4.5\n'
    wire = narrowed(
        Served(id="words"),
        copied(
            tmp_path,
            "words",
            "words",
            {'save = "9"': more, 'width = "5.width"\n': "", 'height = "5.height"\n': ""},
        ),
    )
    assert wire.unable(asked(guidance=4.5, aspect_ratio="auto"), references=0) is None
    reason = wire.unable(asked(guidance=5.0, aspect_ratio="auto"), references=0)
    assert reason == "it cannot be asked for guidance 5.0"


def test_a_task_that_was_accepted_before_is_still_written_out() -> None:
    wire = narrowed(Served(id="words"))
    fields = wire.fields(catalog().get(FLEX), asked(), reference_sizes=[REFERENCE_SIZE] * 4)
    assert fields == {"width": 1024, "height": 1024}


# What is told when the server starts


@pytest.mark.parametrize(
    ("served", "changes", "told"),
    [
        (Served(id="word"), {}, "there is no word.json in the folder of workflows, "),
        (Served(id="a/../words"), {}, "there is no a.json"),
        (Served(id="/words"), {}, "'' is no name of a workflow"),
        (Served(id="x" * 300), {}, "cannot be read"),
        (Served(id="words", edit="pictures"), {}, "there is no pictures.json"),
        (Served(id="words", edit="words2"), {}, "there is no words2.json"),
        (Served(id="words", edit="plain"), {}, "the workflow plain takes 0 references, not 1;"),
        (Served(id="words@3"), {}, "there is no words@3.json"),
        (Served(id="plain@2"), {}, "there is no plain@2.json"),
        (Served(id="words"), {"prompt = ": "promt = "}, "the workflow words cannot be read: "),
        (Served(id="words"), {"57:6.text": "57:6.txt"}, "words.toml: prompt: the graph has no "),
        (
            Served(id="words/x.safetensors"),
            {'checkpoint = "4.ckpt_name"': ""},
            "words.toml names no slot for the checkpoint",
        ),
        (
            Served(id="words"),
            {'save = "9"': 'save = "9"\nalways = { steps = 4 }'},
            "words.toml: always: steps has a slot; take one of the two out.",
        ),
        (
            Served(id="words"),
            {'save = "9"': 'save = "9"\nalways = { resolution = "1K" }'},
            "words.toml: always: resolution has a slot; ",
        ),
        (
            Served(id="words"),
            {'save = "9"': 'save = "9"\nalways = { steps = [4] }'},
            "the workflow words cannot be read: ",
        ),
    ],
)
def test_a_workflow_that_can_never_be_used_is_told_of(
    tmp_path: Path, served: Served, changes: dict[str, str], told: str
) -> None:
    copied(tmp_path, "words", "words", changes)
    copied(tmp_path, "words", "plain")
    with pytest.raises(WorkflowFault) as caught:
        narrowed(served, tmp_path)
    assert told in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_workflow_made_for_so_many_references_loads_so_many(tmp_path: Path) -> None:
    copied(tmp_path, "words", "words")
    copied(tmp_path, "picture@2", "words@3")
    with pytest.raises(WorkflowFault, match="words@3 takes 2 references, not 3; "):
        narrowed(Served(id="words"), tmp_path)


def test_a_workflow_without_its_slots_is_told_of(tmp_path: Path) -> None:
    copied(tmp_path, "words", "words")
    (tmp_path / "words.toml").unlink()
    with pytest.raises(WorkflowFault, match=r"there is no words\.toml"):
        narrowed(Served(id="words"), tmp_path)


@pytest.mark.parametrize(
    ("table", "served", "wrong"),
    [
        ("constants", Served(id="words"), True),
        ("edit_constants", Served(id="words"), False),
        ("edit_constants", BOTH, True),
    ],
)
def test_a_constant_without_a_slot_is_told_of_where_it_would_go_out(
    table: str, served: Served, *, wrong: bool
) -> None:
    wire = msgspec.structs.replace(FILE, **{table: {"guidance": 4}})
    if not wrong:
        assert narrowed(served, wire=wire).unable(asked(), references=0) is None
        return
    with pytest.raises(WorkflowFault, match="names no slot for guidance, a constant of upstreams"):
        narrowed(served, wire=wire)
