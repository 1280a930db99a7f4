"""What discovery shows is what validation takes, and nothing else."""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.catalog import load_catalog
from calotype.domain import errors
from calotype.domain.catalog import (
    COMMON_FIELDS,
    Catalog,
    CountLimit,
    Model,
    Value,
    pixel_size,
)
from calotype.domain.pricing import price
from calotype.domain.validation import Normalised, check_reference_count, normalise
from calotype.services.discovery import model_entry

CATALOG = load_catalog()
MODELS = list(CATALOG.models.values())
PRO = {"model": "nano-banana-pro", "prompt": "a harbour"}
GPT = {"model": "gpt-image-2", "prompt": "a harbour"}
FLEX = {"model": "flux-2-flex", "prompt": "a harbour"}


def shown(model: Model) -> list[dict[str, Any]]:
    """The parameters as a client reads them."""
    entry: Any = msgspec.json.decode(msgspec.json.encode(model_entry(model, [])))
    parameters: list[dict[str, Any]] = entry["capabilities"]["parameters"]
    return parameters


def goes(parameters: list[dict[str, Any]], chosen: dict[str, Any]) -> bool:
    """Whether a client who read ``depends_on`` may ask for this."""
    return all(
        chosen[each["name"]] in table.get(chosen[other], each["enum"])
        for each in parameters
        for other, table in each.get("depends_on", {}).items()
    )


def choices(model: Model) -> Iterator[dict[str, Any]]:
    """Every combination of enum values, whether these go together or not."""
    listed = [each for each in shown(model) if "enum" in each]
    for values in product(*(each["enum"] for each in listed)):
        yield {each["name"]: value for each, value in zip(listed, values, strict=True)}


def fault(fields: dict[str, Any], *, text: bool = False) -> errors.CalotypeError:
    with pytest.raises(errors.CalotypeError) as caught:
        normalise(CATALOG, fields, text=text)
    return caught.value


# Discovery is validation


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
def test_exactly_the_combinations_shown_are_taken_priced_and_sized(
    model: Model, *, text: bool
) -> None:
    parameters = shown(model)
    defaults = {each["name"]: each["default"] for each in parameters if "default" in each}
    for chosen in choices(model):
        fields = {"model": model.id, "prompt": "x", **chosen}
        if goes(parameters, chosen):
            asked = normalise(CATALOG, fields, text=text)
            assert asked.parameters == {**defaults, **chosen}
            tiers = {tier.price_micro_usdc for tier in model.pricing.tiers}
            assert price(model, asked.parameters, asked.n) in tiers
            assert min(pixel_size(model, asked.parameters, reference_size=None)) > 0
            assert min(pixel_size(model, asked.parameters, reference_size=(3, 7))) > 0
        else:
            assert isinstance(fault(fields, text=text), errors.InvalidParameter)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
def test_each_value_alone_goes_with_the_defaults_unless_a_pair_forbids_it(model: Model) -> None:
    parameters = shown(model)
    defaults = {each["name"]: each["default"] for each in parameters if "default" in each}
    for each in parameters:
        for value in each.get("enum", ()):
            fields = {"model": model.id, "prompt": "x", each["name"]: value}
            if goes(parameters, {**defaults, each["name"]: value}):
                expected = {**defaults, each["name"]: value}
                assert normalise(CATALOG, fields, text=False).parameters == expected
            else:
                assert fault(fields).param == each["name"]


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.characters(categories=["Cs", "Cc"])
    | st.sampled_from(["1K", "2k", "16:9", "png", "url", "auto", "true", "1", "1e999", "٣"])
    | st.sampled_from([10**400, -(10**4000), 1.0, 2**63]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def conforms(declared: dict[str, Any], value: object) -> bool:
    """Whether a JSON value is one that discovery shows."""
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
    }
    if declared["type"] == "integer" and isinstance(value, float) and value.is_integer():
        value = int(value)  # to JSON it is the same number
    if type(value) not in kinds[declared["type"]]:
        return False
    if "enum" in declared:
        return value in declared["enum"]
    if isinstance(value, str):
        return len(value) <= declared["max_length"] and not any(
            letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in value
        )
    if isinstance(value, int | float):
        return bool(declared["minimum"] <= value <= declared["maximum"])
    return True


@given(data=st.data())
def test_every_other_value_is_refused(data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(MODELS))
    declared = data.draw(st.sampled_from(shown(model)))
    bounds = st.nothing()
    if "minimum" in declared:
        bounds = st.sampled_from([declared["minimum"], declared["maximum"]])
        bounds = bounds.flatmap(lambda at: st.sampled_from([at - 1, at, at + 1, at + 0.5]))
    value = data.draw(JUNK | bounds)
    fields = {"model": model.id, "prompt": "x", declared["name"]: value}
    if value is None:
        assert declared["name"] not in normalise(CATALOG, fields, text=False).parameters or (
            "default" in declared
        )
    elif conforms(declared, value) and "depends_on" not in declared:
        assert normalise(CATALOG, fields, text=False).parameters[declared["name"]] == value
    elif not conforms(declared, value):
        wrong = fault(fields)
        assert isinstance(wrong, errors.InvalidParameter)
        assert wrong.param == declared["name"]


NAMES = sorted(
    {*COMMON_FIELDS, *(p.name for m in MODELS for p in m.parameters), "image", "x\ud800"}
)


@given(
    fields=st.dictionaries(st.sampled_from(NAMES) | st.text(), JUNK, max_size=5),
    model=st.none() | st.sampled_from(sorted(CATALOG.models)),
    text=st.booleans(),
)
def test_whatever_comes_is_taken_or_refused_in_a_sentence_that_can_be_sent(
    fields: dict[str, Any], model: str | None, *, text: bool
) -> None:
    if model is not None:
        fields = {"prompt": "x", **fields, "model": model}
    try:
        asked = normalise(CATALOG, fields, text=text)
    except errors.InvalidRequest as error:
        wrong = error
    else:
        assert msgspec.json.decode(msgspec.json.encode(asked), type=Normalised) == asked
        return
    msgspec.json.encode([wrong.message, wrong.param, wrong.code])
    assert len(wrong.message) < 1500
    assert wrong.message.endswith(".")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
def test_a_form_says_the_same_as_json(model: Model) -> None:
    for chosen in choices(model):
        numbers = {each["name"]: each["maximum"] for each in shown(model) if "maximum" in each}
        fields = {"model": model.id, "prompt": " x ", "n": 1, "channel_id": 3, **chosen, **numbers}
        if goes(shown(model), chosen):
            form = {name: str(value) for name, value in fields.items()}
            assert normalise(CATALOG, form, text=True) == normalise(CATALOG, fields, text=False)


# The requests of the field


def test_defaults_are_filled_in_in_the_order_of_the_catalog() -> None:
    asked = normalise(CATALOG, {**PRO, "output_format": "jpg", "resolution": None}, text=False)
    assert list(asked.parameters.items()) == [
        ("aspect_ratio", "1:1"),
        ("resolution", "1K"),
        ("output_format", "jpg"),
    ]
    assert (asked.n, asked.channel_id) == (1, None)


def test_the_prompt_is_kept_as_it_was_sent() -> None:
    assert normalise(CATALOG, {**PRO, "prompt": "  a\n"}, text=False).prompt == "  a\n"


def test_the_typical_requests_of_the_contract_pass() -> None:
    normalise(CATALOG, {**GPT, "response_format": "url"}, text=False)
    asked = {**PRO, "async": True, "aspect_ratio": "16:9", "resolution": "2K"}
    assert normalise(CATALOG, asked, text=False).parameters["resolution"] == "2K"
    assert normalise(CATALOG, {**GPT, "n": "1", "async": "true"}, text=True).n == 1


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    "value", [True, False, 0, 1, None, "true", "False", "YES", "no", "on", "Off", "1", "0", " t "]
)
def test_async_is_taken_in_any_spelling_and_changes_nothing(value: object, *, text: bool) -> None:
    fields = {**PRO, "async": value}
    assert normalise(CATALOG, fields, text=text) == normalise(CATALOG, PRO, text=text)


@pytest.mark.parametrize("value", [2, -1, 1.5, "", "maybe", [], {}, [True], math.nan, "2"])
def test_what_is_no_truth_value_is_no_async(value: object) -> None:
    wrong = fault({**PRO, "async": value})
    assert isinstance(wrong, errors.InvalidParameter)
    assert wrong.param == "async"


# Errors, by kind and field


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({}, errors.MissingField, "model"),
        ({"model": None}, errors.MissingField, "model"),
        ({"model": "  "}, errors.MissingField, "model"),
        ({"model": 3}, errors.InvalidParameter, "model"),
        ({"model": ["gpt-image-2"]}, errors.InvalidParameter, "model"),
        ({"model": "dall-e-3", "prompt": "x"}, errors.UnknownModel, "model"),
        ({"model": "\ud800"}, errors.UnknownModel, "model"),
        ({"model": "GPT-IMAGE-2"}, errors.UnknownModel, "model"),
        ({"model": "gpt-image-2"}, errors.MissingField, "prompt"),
        ({**GPT, "prompt": None}, errors.MissingField, "prompt"),
        ({**GPT, "prompt": ""}, errors.MissingField, "prompt"),
        ({**GPT, "prompt": " \t\n\u2003"}, errors.MissingField, "prompt"),
        ({**GPT, "prompt": 5}, errors.InvalidParameter, "prompt"),
        ({**GPT, "prompt": ["x"]}, errors.InvalidParameter, "prompt"),
        ({**GPT, "prompt": "a\0b"}, errors.InvalidParameter, "prompt"),
        ({**GPT, "prompt": "a\ud800b"}, errors.InvalidParameter, "prompt"),
        ({**GPT, "response_format": "b64_json"}, errors.UnsupportedResponseFormat, None),
        ({**GPT, "response_format": ["url"]}, errors.UnsupportedResponseFormat, None),
        ({**GPT, "response_format": ""}, errors.UnsupportedResponseFormat, None),
        ({**GPT, "n": 2}, errors.InvalidParameter, "n"),
        ({**GPT, "n": 0}, errors.InvalidParameter, "n"),
        ({**GPT, "n": True}, errors.InvalidParameter, "n"),
        ({**GPT, "n": 1.5}, errors.InvalidParameter, "n"),
        ({**GPT, "n": "1"}, errors.InvalidParameter, "n"),
        ({**GPT, "n": 10**5000}, errors.InvalidParameter, "n"),
        ({**GPT, "channel_id": "1"}, errors.InvalidParameter, "channel_id"),
        ({**GPT, "channel_id": 2**63}, errors.InvalidParameter, "channel_id"),
        ({**GPT, "channel_id": -1}, errors.InvalidParameter, "channel_id"),
        ({**GPT, "aspect_ratio": "7:5"}, errors.InvalidParameter, "aspect_ratio"),
        (
            {**GPT, "aspect_ratio": "7:5", "resolution": "9K"},
            errors.InvalidParameter,
            "aspect_ratio",
        ),
        ({**GPT, "resolution": "9K"}, errors.InvalidParameter, "resolution"),
        ({**GPT, "resolution": "1k"}, errors.InvalidParameter, "resolution"),
        ({**GPT, "resolution": 1}, errors.InvalidParameter, "resolution"),
        ({**GPT, "resolution": "2K"}, errors.InvalidParameter, "resolution"),
        ({**GPT, "output_format": "png"}, errors.UnsupportedParameter, "output_format"),
        ({**GPT, "quality": None}, errors.UnsupportedParameter, "quality"),
        ({**GPT, "bad\ud800": 1}, errors.UnsupportedParameter, None),
        ({**GPT, "x" * 1000: 1}, errors.UnsupportedParameter, None),
        ({**FLEX, "seed": 1.5}, errors.InvalidParameter, "seed"),
        ({**FLEX, "seed": True}, errors.InvalidParameter, "seed"),
        ({**FLEX, "guidance": math.nan}, errors.InvalidParameter, "guidance"),
        ({**FLEX, "guidance": math.inf}, errors.InvalidParameter, "guidance"),
        ({**FLEX, "guidance": 10**400}, errors.InvalidParameter, "guidance"),
    ],
)
def test_an_error_has_its_kind_and_its_field(
    fields: dict[str, Any], kind: type[errors.CalotypeError], param: str | None
) -> None:
    wrong = fault(fields)
    assert type(wrong) is kind
    if kind is errors.UnsupportedResponseFormat:
        param = "response_format"
    assert wrong.param == param
    wrong.message.encode()


def test_a_bad_pair_names_both_and_what_goes() -> None:
    wrong = fault({**GPT, "aspect_ratio": "1:1", "resolution": "4K"})
    assert wrong.param == "resolution"
    for word in ("resolution '4K'", "aspect_ratio '1:1'", "1K or 2K"):
        assert word in wrong.message


def test_a_parameter_that_is_not_declared_is_answered_with_those_that_are() -> None:
    wrong = fault({**GPT, "seed": 3})
    assert "its parameters are aspect_ratio and resolution" in wrong.message


def test_a_prompt_over_the_limit_is_told_both_lengths() -> None:
    normalise(CATALOG, {**PRO, "prompt": "é" * 10_000}, text=False)
    wrong = fault({**PRO, "prompt": "é" * 10_001})
    assert isinstance(wrong, errors.InvalidParameter)
    assert "10000" in wrong.message
    assert "10001" in wrong.message


def test_a_wrong_value_is_answered_with_the_right_ones() -> None:
    assert "1K, 2K or 4K" in fault({**PRO, "resolution": "8K"}).message
    assert "an integer from 1 to 50" in fault({**FLEX, "steps": 51}).message


@pytest.mark.parametrize(
    ("field", "sent", "read"),
    [
        ("seed", "7", 7),
        ("seed", " +7 ", 7),
        ("guidance", "4", 4.0),
        ("guidance", "4.25", 4.25),
        ("guidance", "1e1", 10.0),
    ],
)
def test_a_form_carries_numbers_as_text(field: str, sent: str, read: Value) -> None:
    value = normalise(CATALOG, {**FLEX, field: sent}, text=True).parameters[field]
    assert value == read
    assert type(value) is type(read)


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        *(("seed", text) for text in ("", "1.0", "0x1", "1_0", "٣", "9" * 5000, "1e3", "true")),
        *(("guidance", text) for text in ("", "nan", "inf", "1e999", "4,5", ".", "9" * 5000)),
    ],
)
def test_a_form_is_not_read_more_kindly_than_it_was_written(field: str, sent: str) -> None:
    assert fault({**FLEX, field: sent}, text=True).param == field


def test_an_integer_for_a_number_is_stored_as_a_number() -> None:
    value = normalise(CATALOG, {**FLEX, "guidance": 4}, text=False).parameters["guidance"]
    assert isinstance(value, float)


def test_a_free_text_has_its_length_and_its_unicode() -> None:
    fields = {"model": "qwen-image-3.0", "prompt": "x", "negative_prompt": "y" * 500}
    assert normalise(CATALOG, fields, text=False).parameters["negative_prompt"] == "y" * 500
    assert "501" in fault({**fields, "negative_prompt": "y" * 501}).message
    assert "surrogates" in fault({**fields, "negative_prompt": "\udfff"}).message
    assert "NUL" in fault({**fields, "negative_prompt": "\0"}).message


def catalog_with(**changes: Any) -> Catalog:
    model = msgspec.structs.replace(CATALOG.get("gpt-image-2"), **changes)
    return Catalog(models={**CATALOG.models, model.id: model}, marks={})


def test_a_model_switched_off_is_unknown_and_not_offered() -> None:
    catalog = catalog_with(enabled=False)
    with pytest.raises(errors.UnknownModel) as caught:
        normalise(catalog, GPT, text=False)
    assert "gpt-image-2," not in caught.value.message
    assert caught.value.param == "model"


def test_a_model_may_allow_several_images() -> None:
    catalog = catalog_with(n=CountLimit(maximum=4))
    assert normalise(catalog, {**GPT, "n": 4}, text=False).n == 4
    with pytest.raises(errors.InvalidParameter, match="from 1 to 4, not 5"):
        normalise(catalog, {**GPT, "n": 5}, text=False)


# References


def test_references_are_counted_against_the_model() -> None:
    check_reference_count(CATALOG.get("nano-banana-pro"), 8)
    with pytest.raises(errors.TooManyReferences, match="at most 8") as caught:
        check_reference_count(CATALOG.get("nano-banana-pro"), 9)
    assert caught.value.param == "image_input"


def test_a_model_without_references_does_not_know_the_field() -> None:
    check_reference_count(CATALOG.get("recraft-v4.1"), 0)
    with pytest.raises(errors.UnsupportedParameter, match="takes no reference images"):
        check_reference_count(CATALOG.get("recraft-v4.1"), 1)
