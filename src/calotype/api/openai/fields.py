"""The fields of OpenAI's image requests, said in those of the catalog."""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from calotype.domain.catalog import (
    ASPECT_RATIO,
    AUTO,
    NO_CHOICE,
    OUTPUT_FORMAT,
    RESOLUTION,
    Model,
    Parameter,
    quoted,
)
from calotype.domain.errors import InvalidParameter, UnsupportedParameter
from calotype.domain.options import MAX_PAIRS, MAX_VALUE, parsed_metadata

ResponseFormat = Literal["b64_json", "url"]

MAX_PARTIAL_IMAGES: Final = 3

_QUALITY: Final = "quality"
_QUALITIES: Final = {"standard": "medium", "hd": "high"}
"""What the qualities of retired models are called by those that followed."""
_NEUTRAL: Final[Mapping[str, object]] = {
    _QUALITY: AUTO,
    "background": AUTO,
    "moderation": AUTO,
    "style": AUTO,
    "input_fidelity": AUTO,
    "output_compression": 100,
}
"""Fields that a model without them takes at one value only: the one that asks for nothing."""
_NAMES_OF_USERS: Final = ("user", "safety_identifier")
_METADATA: Final = "metadata"
_PAIR: Final = re.compile(r"metadata\[([^\[\]]*)\]")
"""How OpenAI's Python client spells a pair of metadata in a form."""
_SIZE: Final = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})", re.ASCII)


class Asked(msgspec.Struct, frozen=True):
    """What a request asks for."""

    fields: dict[str, object]
    """As submission takes them; not judged yet."""
    response_format: ResponseFormat
    stream: bool


def translate(model: Model | None, fields: Mapping[str, object], *, text: bool) -> Asked:
    """The request that these fields make, said as submission takes it.

    Args:
        model: the one that ``fields`` name; None when there is no such model.
        fields: the JSON object or the form's text fields, without references. ``None`` (JSON
            null) counts as absent.
        text: True for a form, where numbers and booleans come as text.

    Raises:
        errors.InvalidParameter: a value that cannot be had.
        errors.UnsupportedParameter: something is asked for that the model has no setting for.

    """
    given = {name: value for name, value in fields.items() if value is not None}
    stream = _flag(given.pop("stream", False), "stream", text=text)
    _check_partial_images(given.pop("partial_images", 0), text=text)
    response_format = _response_format(given.pop("response_format", None), stream=stream)
    if text:
        _gather_metadata(given)
    _keep_users(given, text=text)
    if model is not None:  # else submission says which models there are
        _fit(model, given)
    return Asked(given, response_format, stream)


def _gather_metadata(given: dict[str, object]) -> None:
    """Put together the metadata that a form has pair by pair."""
    pairs = {match[1]: given.pop(match[0]) for match in map(_PAIR.fullmatch, [*given]) if match}
    if pairs and _METADATA in given:
        raise InvalidParameter(
            "Send metadata whole or pair by pair, not in both ways.", param=_METADATA
        )
    if pairs:
        given[_METADATA] = pairs


def _keep_users(given: dict[str, object], *, text: bool) -> None:
    """Put the names of users into the metadata, under their own names."""
    users: dict[str, object] = {}
    for name in _NAMES_OF_USERS:
        user = given.pop(name, "")
        if not isinstance(user, str) or len(user) > MAX_VALUE:
            raise InvalidParameter(
                f"{name} must be a string of at most {MAX_VALUE} characters.", param=name
            )
        if user:
            users[name] = user
    metadata = given.get(_METADATA, {})
    if text and isinstance(metadata, str):
        metadata = parsed_metadata(metadata)
    if not isinstance(metadata, dict):
        return  # submission says what is wrong with it
    for name, user in users.items():
        if metadata.get(name, user) != user:
            raise InvalidParameter(
                f"{name} is kept as metadata, which has another {name}; send one of them.",
                param=name,
            )
        if name not in metadata and len(metadata) >= MAX_PAIRS:
            raise InvalidParameter(
                f"{name} is kept as metadata, which may have at most {MAX_PAIRS} pairs and has "
                f"{len(metadata)} without it.",
                param=name,
            )
        metadata = {name: user, **metadata}
    if users:
        given[_METADATA] = metadata


def _fit(model: Model, given: dict[str, object]) -> None:
    """Put OpenAI's fields into the model's own words."""
    declared = {parameter.name: parameter for parameter in model.parameters}
    for name, neutral in _NEUTRAL.items():
        if name not in given or name in declared:
            continue
        if given.pop(name) not in (neutral, str(neutral)):
            raise UnsupportedParameter(
                f"{model.id} has no setting {name}; leave it out, or send {neutral}.", param=name
            )
    if "size" in given:
        given |= _shape(model, given, declared.get(ASPECT_RATIO))
    if _QUALITY in given:
        _fit_quality(given, declared[_QUALITY].choices)
    if OUTPUT_FORMAT in given:
        if given[OUTPUT_FORMAT] == "jpeg":
            given[OUTPUT_FORMAT] = "jpg"
        if OUTPUT_FORMAT not in declared and given.pop(OUTPUT_FORMAT) != model.output_format:
            raise InvalidParameter(
                f"Images of {model.id} come as {model.output_format}; leave output_format out.",
                param=OUTPUT_FORMAT,
            )


def _shape(model: Model, given: dict[str, object], ratio: Parameter | None) -> dict[str, object]:
    """The aspect ratio and the resolution that a size stands for; takes ``size`` out."""
    size = given.pop("size")
    if ASPECT_RATIO in given or RESOLUTION in given:
        raise InvalidParameter(
            "size says what aspect_ratio and resolution say; send it, or them.", param="size"
        )
    if size == AUTO:
        return {ASPECT_RATIO: AUTO} if ratio is not None and AUTO in ratio.choices else {}
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    wanted = (int(match[1]), int(match[2])) if match else None
    for ratio_name, row in model.sizes.items():
        for resolution, pixels in row.items():
            if pixels == wanted:
                chosen = {ASPECT_RATIO: ratio_name, RESOLUTION: resolution}
                return {name: value for name, value in chosen.items() if value != NO_CHOICE}
    sizes = sorted({pixels for row in model.sizes.values() for pixels in row.values()})
    there_are = ", ".join(f"{width}x{height}" for width, height in sizes)
    raise InvalidParameter(
        f"{model.id} has no size {quoted(size)}; it has {AUTO}, {there_are}.", param="size"
    )


def _fit_quality(given: dict[str, object], choices: frozenset[Any]) -> None:
    quality = given[_QUALITY]
    if not isinstance(quality, str) or quality in choices:
        return
    if quality == AUTO:
        del given[_QUALITY]
    elif _QUALITIES.get(quality) in choices:
        given[_QUALITY] = _QUALITIES[quality]


def _response_format(value: object, *, stream: bool) -> ResponseFormat:
    match value:
        case None | "b64_json":
            return "b64_json"
        case "url" if stream:
            raise InvalidParameter(
                "A stream carries images as b64_json; leave response_format or stream out.",
                param="response_format",
            )
        case "url":
            return "url"
    raise InvalidParameter(
        f"response_format must be b64_json or url, not {quoted(value)}.", param="response_format"
    )


def _flag(value: object, name: str, *, text: bool) -> bool:
    if text and value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise InvalidParameter(f"{name} must be true or false, not {quoted(value)}.", param=name)
    return value


def _check_partial_images(value: object, *, text: bool) -> None:
    """Whether it is a number of them: an upper bound, and no channel has any to show."""
    if text and isinstance(value, str) and re.fullmatch(r"[0-9]", value):
        value = int(value)
    if isinstance(value, bool) or value not in range(MAX_PARTIAL_IMAGES + 1):
        raise InvalidParameter(
            f"partial_images must be from 0 to {MAX_PARTIAL_IMAGES}, not {quoted(value)}.",
            param="partial_images",
        )
