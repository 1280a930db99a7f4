"""OpenAI's fields in the catalog's words: what can be had is had, and nothing is dropped."""

from typing import Any

import pytest

from calotype.api.openai.fields import Asked, translate
from calotype.catalog import load_catalog
from calotype.domain.catalog import Model, Parameter
from calotype.domain.errors import InvalidRequest
from calotype.domain.validation import normalise

CATALOG = load_catalog()

Fields = dict[str, Any]


def asked(model: str = "gpt-image-2", *, text: bool = False, **fields: Any) -> Asked:
    given = {"model": model, "prompt": "a lighthouse", **fields}
    return translate(CATALOG.get(model), given, text=text)


def settings(model: str = "gpt-image-2", **fields: Any) -> dict[str, object]:
    """What submission is given beyond model and prompt."""
    translated = asked(model, **fields).fields
    return {name: value for name, value in translated.items() if name not in {"model", "prompt"}}


def refused(model: str = "gpt-image-2", *, text: bool = False, **fields: Any) -> tuple[str, Any]:
    """Code and field of the refusal, by the translation or by what judges after it."""
    with pytest.raises(InvalidRequest) as caught:
        normalise(CATALOG, asked(model, text=text, **fields).fields, text=text)
    assert caught.value.message.endswith(".")
    return caught.value.code, caught.value.param


@pytest.mark.parametrize("model", list(CATALOG.models.values()), ids=lambda model: model.id)
def test_every_size_of_a_model_is_asked_for_by_its_pixels(model: Model) -> None:
    for row in model.sizes.values():
        for width, height in row.values():
            fields = asked(model.id, size=f"{width}x{height}").fields
            parameters = normalise(CATALOG, fields, text=False).parameters
            ratio = str(parameters.get("aspect_ratio", "default"))
            resolution = str(parameters.get("resolution", "default"))
            assert model.sizes[ratio][resolution] == (width, height)


def test_a_size_of_its_own_choice_leaves_the_ratio_to_the_model() -> None:
    assert settings("nano-banana-pro", size="auto") == {"aspect_ratio": "auto"}
    assert settings("recraft-v4.1", size="auto") == {}
    assert settings("nano-banana-pro") == settings("nano-banana-pro", size=None) == {}


@pytest.mark.parametrize(
    "size",
    ["1536x1024", "1x1", "0x0", "1024", "1024X1024", "x", "", "01024x1024", 1024, [], "9" * 99],
)
def test_a_size_that_the_model_does_not_have_is_refused_with_those_it_has(size: object) -> None:
    with pytest.raises(InvalidRequest, match=r"it has auto, 864x1152, .* 1024x1024, .*3840x2160"):
        asked(size=size)


@pytest.mark.parametrize("other", [{"aspect_ratio": "1:1"}, {"resolution": "1K"}])
@pytest.mark.parametrize("size", ["1024x1024", "auto"])
def test_a_size_beside_what_it_stands_for_is_refused(size: str, other: Fields) -> None:
    assert refused(size=size, **other) == ("invalid_parameter", "size")


def test_the_catalogs_own_parameters_are_taken_as_they_are() -> None:
    own: Fields = {"aspect_ratio": "16:9", "resolution": "2K", "channel_id": 1}
    assert settings(**own) == own
    assert refused(aspect_ratio="5:1") == ("invalid_parameter", "aspect_ratio")
    assert refused(no_such_field=1) == ("unsupported_parameter", "no_such_field")


@pytest.mark.parametrize(
    ("field", "neutral", "other"),
    [
        ("quality", "auto", "high"),
        ("quality", "auto", "standard"),
        ("background", "auto", "transparent"),
        ("moderation", "auto", "low"),
        ("style", "auto", "vivid"),
        ("input_fidelity", "auto", "high"),
        ("output_compression", 100, 50),
        ("output_compression", "100", "x"),
    ],
)
def test_what_a_model_has_no_setting_for_is_taken_only_when_it_asks_for_nothing(
    field: str, neutral: object, other: object
) -> None:
    asking_nothing: list[Fields] = [{field: neutral}, {field: None}]
    assert [settings(**fields) for fields in asking_nothing] == [{}, {}]
    asking: Fields = {field: other}
    assert refused(**asking) == ("unsupported_parameter", field)


def test_a_setting_that_the_model_has_reaches_it() -> None:
    assert settings("gpt-image-2.5-flare", background="transparent") == {
        "background": "transparent"
    }
    assert refused("gpt-image-2.5-flare", background="blue") == ("invalid_parameter", "background")


@pytest.mark.parametrize(
    ("enum", "quality", "given"),
    [
        (("low", "medium", "high"), "high", {"quality": "high"}),
        (("low", "medium", "high"), "auto", {}),
        (("low", "medium", "high"), "standard", {"quality": "medium"}),
        (("low", "medium", "high"), "hd", {"quality": "high"}),
        (("standard", "hd"), "hd", {"quality": "hd"}),
        (("auto", "fine"), "auto", {"quality": "auto"}),
        (("auto", "fine"), "hd", {"quality": "hd"}),
        (("auto", "fine"), 7, {"quality": 7}),
    ],
)
def test_a_quality_is_one_of_the_models_own(
    enum: tuple[str, ...], quality: object, given: dict[str, object]
) -> None:
    base = CATALOG.get("gpt-image-2")
    parameter = Parameter(name="quality", type="string", description="x", enum=enum)
    fields = {name: getattr(base, name) for name in base.__struct_fields__}
    model = Model(**{**fields, "parameters": (*base.parameters, parameter)})
    assert translate(model, {"quality": quality}, text=False).fields == given


def test_a_format_is_called_by_either_name_and_had_where_the_model_has_it() -> None:
    for name in ("jpeg", "jpg"):
        assert settings("nano-banana-pro", output_format=name) == {"output_format": "jpg"}
        assert settings("seedream-4.5", output_format=name) == {}, "it makes no other"
    assert settings("gpt-image-2", output_format="png") == {}
    assert refused("gpt-image-2", output_format="jpeg") == ("invalid_parameter", "output_format")
    assert refused("nano-banana-pro", output_format="svg") == ("invalid_parameter", "output_format")
    assert refused("gpt-image-2", output_format=[]) == ("invalid_parameter", "output_format")


def test_images_come_inline_unless_links_are_asked_for() -> None:
    assert asked().response_format == asked(response_format=None).response_format == "b64_json"
    assert asked(response_format="b64_json").response_format == "b64_json"
    assert asked(response_format="url").response_format == "url"
    wrong: Any
    for wrong in ("png", 1, []):
        assert refused(response_format=wrong) == ("invalid_parameter", "response_format")
    assert refused(response_format="url", stream=True) == ("invalid_parameter", "response_format")


def test_a_stream_is_asked_for_by_a_boolean_which_a_form_spells_out() -> None:
    assert asked(stream=True).stream
    assert asked(stream="true", text=True).stream
    assert not asked(stream="false", text=True).stream
    assert not asked(stream=None).stream
    wrong: Any
    for wrong in ("true", 1, []):
        assert refused(stream=wrong) == ("invalid_parameter", "stream")
    assert refused(stream="yes", text=True) == ("invalid_parameter", "stream")


def test_partial_images_are_an_upper_bound_from_0_to_3() -> None:
    assert settings(partial_images=3) == settings(partial_images=0) == {}
    assert asked(partial_images="2", text=True).fields == asked().fields
    wrong: Any
    for wrong in (4, -1, True, "2", 1.5, []):
        assert refused(partial_images=wrong) == ("invalid_parameter", "partial_images")
    assert refused(partial_images="22", text=True) == ("invalid_parameter", "partial_images")


def test_the_name_of_a_user_is_kept_as_metadata_beside_what_is_there() -> None:
    assert settings(user="ada") == {"metadata": {"user": "ada"}}
    both = asked(safety_identifier="a7", metadata={"order": "9"})
    assert both.fields["metadata"] == {"safety_identifier": "a7", "order": "9"}
    form = asked(user="ada", metadata='{"order": "9"}', text=True)
    assert form.fields["metadata"] == {"user": "ada", "order": "9"}
    assert asked(user="ada", metadata=7).fields["metadata"] == 7
    assert refused(user="ada", metadata="{", text=True) == ("invalid_parameter", "metadata")


def test_the_name_of_a_user_does_not_push_anything_else_out_of_the_metadata() -> None:
    assert settings(user="ada", metadata={"user": "ada"}) == {"metadata": {"user": "ada"}}
    assert refused(user="ada", metadata={"user": "eve"}) == ("invalid_parameter", "user")
    full = {str(number): "x" for number in range(16)}
    assert settings(metadata=full) == {"metadata": full}
    for name in ("user", "safety_identifier"):
        others: Fields = {name: "ada", "metadata": full}
        assert refused(**others) == ("invalid_parameter", name)
    with pytest.raises(InvalidRequest, match="user is kept as metadata, which may have at most 16"):
        asked(user="ada", metadata=full)
    both: Fields = {"user": "a", "safety_identifier": "b", "metadata": dict([*full.items()][:15])}
    assert refused(**both) == ("invalid_parameter", "safety_identifier")


def test_a_form_may_have_metadata_pair_by_pair() -> None:
    pairs: Fields = {"metadata[order]": "7", "metadata[who]": "ada"}
    whole = {"order": "7", "who": "ada"}
    assert asked(text=True, **pairs).fields["metadata"] == whole
    assert asked(text=True, user="a7", **pairs).fields["metadata"] == {"user": "a7", **whole}
    assert refused(text=True, metadata="{}", **pairs) == ("invalid_parameter", "metadata")
    nested: Fields = {"metadata[a][b]": "7"}
    assert refused(text=True, **nested) == ("unsupported_parameter", "metadata[a][b]")
    assert refused(**pairs) == ("unsupported_parameter", "metadata[order]")


def test_the_name_of_a_user_is_taken_as_text_only() -> None:
    assert settings(user="") == settings(user=None) == {}
    assert refused(user="x" * 513) == ("invalid_parameter", "user")
    assert refused(user=7) == ("invalid_parameter", "user")
    assert refused(safety_identifier=[]) == ("invalid_parameter", "safety_identifier")


def test_a_model_that_there_is_not_is_left_to_submission() -> None:
    fields = {"model": "x", "size": "1024x1024", "n": 1}
    assert translate(None, fields, text=False).fields == fields
