"""From a request to the fields that go out: nothing is dropped, and nothing changes on the way."""

import copy
import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.catalog import load_catalog
from calotype.domain.catalog import (
    ASPECT_RATIO,
    AUTO,
    OUTPUT_FORMAT,
    RESOLUTION,
    Model,
    Parameter,
    Value,
    pixel_size,
)
from calotype.domain.task import Request
from calotype.domain.validation import Normalised, normalise
from calotype.domain.wire import Field, Size, Upstream, Wire, auto_resolutions, put, spelled

CATALOG = load_catalog()
SIDE = st.integers(1, 10_000)
SIZES = st.lists(st.tuples(SIDE, SIDE), max_size=16)
PLAIN = st.characters(exclude_categories=["Cs"], exclude_characters="\0")

FREE = Upstream(models={"*": Wire(size=Size(field="size"), formats=("png",), max_references=4)})
"""Takes every model, and few of its parameters."""


class Case(NamedTuple):
    """A model as one upstream takes it."""

    wire: Wire
    model: Model


CASES = [
    Case(wire, model)
    for upstream in (*CATALOG.upstreams.values(), FREE)
    for model in CATALOG.models.values()
    if (wire := upstream.wire(model.id)) is not None
]


def request(model: str, **parameters: Value) -> Normalised:
    return normalise(CATALOG, {"model": model, "prompt": "a lighthouse", **parameters}, text=False)


def value_of(parameter: Parameter, chosen: dict[str, Value]) -> st.SearchStrategy[Value]:
    """Any value that goes with those chosen before."""
    allowed = set(parameter.enum)
    for other, table in parameter.depends_on.items():
        allowed &= set(table.get(str(chosen[other]), parameter.enum))
    low, high = parameter.minimum, parameter.maximum
    if parameter.enum:
        return st.sampled_from([each for each in parameter.enum if each in allowed])
    match parameter.type:
        case "boolean":
            return st.booleans()
        case "string":
            return st.text(PLAIN, max_size=parameter.max_length)
        case "integer":
            return st.integers(int(low or 0), int(high or 0))
        case "number":
            return st.floats(low, high)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Case, Normalised, list[tuple[int, int]]]:
    """A valid request, and how an upstream takes its model."""
    case = draw(st.sampled_from(CASES))
    chosen: dict[str, Value] = {}
    set_: dict[str, Value] = {}
    for parameter in case.model.parameters:
        if parameter.default is not None:
            chosen[parameter.name] = parameter.default
        if draw(st.booleans()):
            chosen[parameter.name] = set_[parameter.name] = draw(value_of(parameter, chosen))
    n = draw(st.integers(1, case.model.n.maximum))
    asked = normalise(
        CATALOG,
        {"model": case.model.id, "prompt": draw(st.text(PLAIN, min_size=1)) + "x", "n": n, **set_},
        text=False,
    )
    return case, asked, draw(SIZES)


def at(document: Any, path: str) -> Any:
    """What stands at a path of a document; None for nothing."""
    for step in path.split("."):
        document = document.get(step) if isinstance(document, dict) else None
    return document


# For every shipped upstream, and every request that a model takes


@settings(max_examples=300)
@given(cases())
def test_a_request_is_taken_or_refused_with_a_reason(
    drawn: tuple[Case, Normalised, list[tuple[int, int]]],
) -> None:
    (wire, _), asked, sizes = drawn
    reason = wire.unable(asked, references=len(sizes))
    forgotten = [
        name for name in asked.parameters if name not in wire.parameters and not wire.covers(name)
    ]
    assert reason is None or reason.startswith("it ")
    assert reason is not None or (not forgotten and len(sizes) <= wire.max_references)


@settings(max_examples=300)
@given(cases())
def test_the_fields_are_json_and_say_everything_that_was_asked_for(
    drawn: tuple[Case, Normalised, list[tuple[int, int]]],
) -> None:
    (wire, model), asked, sizes = drawn
    if wire.unable(asked, references=len(sizes)) is not None:
        return
    fields = wire.fields(model, asked, reference_sizes=sizes)
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields
    for name, value in asked.parameters.items():
        written = wire.parameters.get(name)
        if written is None:
            assert wire.covers(name)
            continue
        said = written.said(value, editing=bool(sizes))
        if said is not None:
            assert at(fields, written.field) == said
            assert type(at(fields, written.field)) is type(said)
        else:
            assert value in written.omit
            assert at(fields, written.field) is None
    if wire.size is not None:
        assert size_in(fields, wire.size) in sizes_meant(model, asked, wire.size, sizes)


def size_in(fields: dict[str, Any], size: Size) -> Any:
    return (
        at(fields, size.field) if size.field else (at(fields, size.width), at(fields, size.height))
    )


def sizes_meant(
    model: Model, asked: Normalised, size: Size, references: list[tuple[int, int]]
) -> list[Any]:
    first = references[0] if references else None
    width, height = pixel_size(model, asked.parameters, reference_size=first)
    pixels = size.form.format(width=width, height=height) if size.field else (width, height)
    one = len(auto_resolutions(model)) <= 1
    if asked.parameters.get(ASPECT_RATIO) == AUTO and size.auto is not None and one:
        return [size.auto or None] if size.field else [(None, None)]
    return [pixels]


@settings(max_examples=300)
@given(cases())
def test_the_same_request_makes_the_same_fields_and_they_are_its_own(
    drawn: tuple[Case, Normalised, list[tuple[int, int]]],
) -> None:
    (wire, model), asked, sizes = drawn
    before = copy.deepcopy(wire)
    first = wire.fields(model, asked, reference_sizes=sizes)
    untouched = copy.deepcopy(first)
    assert wire.fields(model, asked, reference_sizes=sizes) == first
    spoil(first)
    assert wire.fields(model, asked, reference_sizes=sizes) == untouched
    assert wire == before


def spoil(document: Any) -> None:
    """Change a document wherever it can be changed."""
    if isinstance(document, dict):
        for value in document.values():
            spoil(value)
        document["spoilt"] = True
    elif isinstance(document, list):
        document.append("spoilt")


def test_a_plain_request_is_taken_by_an_upstream_that_has_the_model() -> None:
    shipped = [case for case in CASES if case.wire is not FREE.models["*"]]
    for model in {case.model.id for case in shipped}:
        takers = [case.wire for case in shipped if case.model.id == model]
        assert any(wire.unable(request(model), references=0) is None for wire in takers), model


# Why not


@pytest.mark.parametrize(
    ("wire", "references", "reason"),
    [
        (Wire(size=Size(field="s")), 0, None),
        (Wire(size=Size(field="s")), 1, "it takes no reference images"),
        (Wire(size=Size(field="s"), max_references=2), 2, None),
        (Wire(size=Size(field="s"), max_references=2), 3, "it takes at most 2 reference images"),
        (Wire(size=Size(field="s"), prompt_length=12), 0, None),
        (
            Wire(size=Size(field="s"), prompt_length=11),
            0,
            "it takes prompts of at most 11 characters",
        ),
        (Wire(without=(ASPECT_RATIO,)), 0, "it has no aspect_ratio"),
        (Wire(parameters={ASPECT_RATIO: Field(field="r")}), 0, "it has no resolution"),
        (
            Wire(
                parameters={
                    ASPECT_RATIO: Field(field="r", enum=("1:1",)),
                    RESOLUTION: Field(field="s"),
                }
            ),
            0,
            "it cannot be asked for aspect_ratio auto",
        ),
    ],
)
def test_what_an_upstream_cannot_say_is_the_reason(
    wire: Wire, references: int, reason: str | None
) -> None:
    assert wire.unable(request("gpt-image-2"), references=references) == reason


def test_more_images_than_one_send_makes_is_a_reason() -> None:
    asked = Request(model="m", prompt="x", n=3, parameters={})
    assert Wire(max_images=2).unable(asked, references=0) == "it makes at most 2 images at a time"
    assert Wire(max_images=3).unable(asked, references=0) is None


def test_a_format_that_is_converted_is_no_reason() -> None:
    asked = Request(model="m", prompt="x", n=1, parameters={OUTPUT_FORMAT: "webp"})
    assert Wire().unable(asked, references=0) == "it has no output_format"
    assert Wire(formats=("png",)).unable(asked, references=0) is None


# How it is written


def fields_of(wire: Wire, model: str, sizes: list[tuple[int, int]], **said: Value) -> Any:
    return wire.fields(CATALOG.get(model), request(model, **said), reference_sizes=sizes)


def test_a_word_for_edits_goes_before_leaving_out_and_before_other_words() -> None:
    ratio = Field(
        field="ratio", omit=(AUTO,), edit_values={AUTO: "match"}, values={"1:1": "square"}
    )
    wire = Wire(parameters={ASPECT_RATIO: ratio}, max_references=1)
    assert fields_of(wire, "gpt-image-2", []) == {}
    assert fields_of(wire, "gpt-image-2", [(1, 1)]) == {"ratio": "match"}
    assert fields_of(wire, "gpt-image-2", [(1, 1)], aspect_ratio="1:1") == {"ratio": "square"}
    assert fields_of(wire, "gpt-image-2", [(1, 1)], aspect_ratio="4:3") == {"ratio": "4:3"}


def test_a_truth_is_looked_up_as_toml_writes_it() -> None:
    asked = Request(model="m", prompt="x", n=1, parameters={"hd": True, "raw": False, "seed": 1})
    wire = Wire(
        parameters={
            "hd": Field(field="quality", values={"true": "high", "false": "low"}),
            "raw": Field(field="raw"),
            "seed": Field(field="seed", values={"1": 10}),
        }
    )
    fields = wire.fields(CATALOG.get("gpt-image-2"), asked, reference_sizes=[])
    assert fields == {"quality": "high", "raw": False, "seed": 10}
    assert [spelled(value) for value in (True, 7, 1.5, "1K")] == ["true", "7", "1.5", "1K"]


def test_points_lead_into_objects_beside_what_constants_put_there() -> None:
    wire = Wire(
        constants={"config": {"safety": "low", "list": [1]}, "n": 1},
        edit_constants={"config": {"safety": "high"}, "refs": []},
        parameters={RESOLUTION: Field(field="config.size"), ASPECT_RATIO: Field(field="a.b.c")},
    )
    assert fields_of(wire, "gpt-image-2", []) == {
        "config": {"safety": "low", "list": [1], "size": "1K"},
        "n": 1,
        "a": {"b": {"c": "auto"}},
    }
    edited = fields_of(wire, "gpt-image-2", [(1, 1)])
    assert edited["config"] == {"safety": "high", "list": [1], "size": "1K"}
    assert edited["refs"] == []


def test_a_constant_holds_until_its_parameter_is_set() -> None:
    wire = Wire(constants={"seed": -1}, parameters={"seed": Field(field="seed")})
    assert fields_of(wire, "flux-2-pro", []) == {"seed": -1}
    assert fields_of(wire, "flux-2-pro", [], seed=0) == {"seed": 0}


@pytest.mark.parametrize(
    ("size", "ratio", "references", "fields"),
    [
        (Size(field="size"), "16:9", [], {"size": "1536x864"}),
        (Size(field="size", form="{width}*{height}"), "16:9", [], {"size": "1536*864"}),
        (Size(width="w", height="h"), "16:9", [(1, 1)], {"w": 1536, "h": 864}),
        (Size(width="s.w", height="s.h"), "16:9", [], {"s": {"w": 1536, "h": 864}}),
        (Size(field="size"), "auto", [], {"size": "1024x1024"}),
        (Size(field="size"), "auto", [(1920, 1080), (1, 1)], {"size": "1536x864"}),
        (Size(field="size", auto="auto"), "auto", [(1920, 1080)], {"size": "auto"}),
        (Size(field="size", auto=""), "auto", [(1920, 1080)], {}),
        (Size(width="w", height="h", auto=""), "auto", [], {}),
        (Size(field="size", auto="auto"), "16:9", [], {"size": "1536x864"}),
    ],
)
def test_a_size_is_written_in_pixels_or_left_to_the_upstream(
    size: Size, ratio: str, references: list[tuple[int, int]], fields: dict[str, Any]
) -> None:
    assert fields_of(Wire(size=size), "gpt-image-2", references, aspect_ratio=ratio) == fields


def test_a_word_for_auto_does_not_swallow_the_resolution() -> None:
    wire = Wire(size=Size(field="size", auto="auto"))
    said = {"aspect_ratio": "auto", "resolution": "2K"}
    assert fields_of(wire, "flux-2-pro", [(16, 9)], **said) == {"size": "2560x1440"}
    assert auto_resolutions(CATALOG.get("flux-2-pro")) == ("1K", "2K")
    assert auto_resolutions(CATALOG.get("gpt-image-2")) == ("1K",)
    assert auto_resolutions(CATALOG.get("ideogram-v4")) == ()


@pytest.mark.parametrize(
    ("wire", "own", "own_edit", "references", "expected"),
    [
        (Wire(id="a"), "", "", 0, "a"),
        (Wire(id="a"), "", "", 1, "a"),
        (Wire(id="a", edit="{id}/edit"), "", "", 0, "a"),
        (Wire(id="a", edit="{id}/edit"), "", "", 2, "a/edit"),
        (Wire(id="a", edit="b"), "", "", 1, "b"),
        (Wire(id="a", edit="{id}/edit"), "mine", "", 0, "mine"),
        (Wire(id="a", edit="{id}/edit"), "mine", "", 1, "mine/edit"),
        (Wire(id="a", edit="{id}/edit"), "mine", "other", 1, "other"),
        (Wire(id="a"), "", "{id}-x", 1, "a-x"),
        (Wire(), "", "", 1, ""),
    ],
)
def test_the_upstreams_id_is_the_operators_first(
    wire: Wire, own: str, own_edit: str, references: int, expected: str
) -> None:
    assert wire.model_id(own, own_edit, references=references) == expected


def test_an_entry_of_its_own_goes_before_the_one_for_every_model() -> None:
    own, others = Wire(id="own"), Wire(id="others")
    upstream = Upstream(models={"gpt-image-2": own, "*": others})
    assert upstream.wire("gpt-image-2") is own
    assert upstream.wire("flux-2-pro") is others
    assert Upstream(models={"gpt-image-2": own}).wire("flux-2-pro") is None


def test_a_field_is_put_where_its_path_leads() -> None:
    document: dict[str, Any] = {"a": {"b": 1}}
    put(document, "a.c", 2)
    put(document, "d", 3)
    put(document, "e.f.g", 4)
    assert document == {"a": {"b": 1, "c": 2}, "d": 3, "e": {"f": {"g": 4}}}
