"""A request's fields against the catalog: what passes is exactly what discovery shows.

The way through ``normalise`` that a correct request takes is short on purpose, it is walked by
every submission; whatever is wrong leaves it for a slower function that says what would be right.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NoReturn

import msgspec

from calotype.domain.catalog import COMMON_FIELDS, Catalog, Model, Parameter, Value, quoted
from calotype.domain.errors import (
    CalotypeError,
    InvalidParameter,
    MissingField,
    TooManyReferences,
    UnsupportedParameter,
    UnsupportedResponseFormat,
)

REFERENCE_FIELD: Final = "image_input"
"""The field that errors about references name, however these were sent."""

_TRUE: Final = frozenset({"true", "1", "yes", "on", "y", "t"})
_FALSE: Final = frozenset({"false", "0", "no", "off", "n", "f"})
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,19}\.?[0-9]{0,19}|\.[0-9]{1,19})([eE][+-]?[0-9]{1,3})?")
_LARGEST_ID: Final = 2**63 - 1
_FIELD_NAME: Final = 64
"""Characters of a field name that an error repeats as ``param``."""


class Normalised(msgspec.Struct, frozen=True):
    """A request that the model takes, defaults filled in; references are kept apart."""

    model: str
    prompt: str
    """As sent: blanks around it are kept."""
    n: int
    parameters: dict[str, Value]
    """Every declared parameter that has a value, in the order of the catalog."""
    channel_id: int | None
    """The channel that the client pinned; whether it serves the model is for routing to say."""


def normalise(catalog: Catalog, fields: Mapping[str, object], *, text: bool) -> Normalised:
    """The request that these fields make.

    Args:
        catalog: the models there are.
        fields: the JSON object or the form's text fields, those for references taken out.
            ``None`` (JSON null) counts as absent. ``OPTION_FIELDS`` are left to ``options``.
        text: True for a form, where integers, numbers and booleans come as text.

    Raises:
        errors.MissingField: no ``model``, or no ``prompt``.
        errors.UnknownModel: the model is not in the catalog, or switched off.
        errors.UnsupportedParameter: a field that the model does not declare.
        errors.UnsupportedResponseFormat: a ``response_format`` other than ``url``.
        errors.InvalidParameter: a value that the model does not take.

    """
    model = _model(catalog, fields.get("model"))
    prompt = fields.get("prompt")
    if not (
        isinstance(prompt, str)
        and 0 < len(prompt) <= model.prompt.max_length
        and storable(prompt)
        and not prompt.isspace()
    ):
        raise _prompt_fault(model, prompt)
    if not fields.keys() <= model.fields:
        raise _unknown_field(model, fields)
    if fields.get("response_format", "url") not in ("url", None):
        raise UnsupportedResponseFormat(
            "response_format must be 'url': images are answered as links, never inline.",
            param="response_format",
        )
    n = fields.get("n")
    n = 1 if n is None else integer_of(n, "n", maximum=model.n.maximum, text=text)
    channel_id = fields.get("channel_id")
    if channel_id is not None:
        channel_id = integer_of(channel_id, "channel_id", maximum=_LARGEST_ID, text=text)
    if (legacy := fields.get("async")) is not None and legacy is not True:
        _check_async(legacy)
    return Normalised(
        model=model.id,
        prompt=prompt,
        n=n,
        parameters=_parameters(model, fields, text=text),
        channel_id=channel_id,
    )


def check_reference_count(model: Model, count: int) -> None:
    """Whether the model takes so many reference images, files and URLs together.

    Raises:
        errors.UnsupportedParameter: the model takes none.
        errors.TooManyReferences: it takes fewer.

    """
    limit = model.references.max_items
    if count <= limit:
        return
    if limit == 0:
        raise UnsupportedParameter(
            f"{model.id} takes no reference images; leave them out.", param=REFERENCE_FIELD
        )
    raise TooManyReferences(
        f"{model.id} takes at most {limit} reference images, files and URLs together; "
        f"these are {count}.",
        param=REFERENCE_FIELD,
    )


def _model(catalog: Catalog, model_id: object) -> Model:
    if not isinstance(model_id, str):
        if model_id is None:
            raise MissingField("model is required; GET /v1/models lists them.", param="model")
        raise InvalidParameter(
            f"model must be the id of a model, as a string, not {quoted(model_id)}.",
            param="model",
        )
    model = catalog.models.get(model_id)
    if model is not None and model.enabled:
        return model
    if not model_id or model_id.isspace():
        raise MissingField("model is required; GET /v1/models lists them.", param="model")
    raise catalog.unknown(model_id)


def storable(text: str) -> bool:
    """Whether a database takes it: no NUL, no half of a surrogate pair."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _prompt_fault(model: Model, prompt: object) -> CalotypeError:
    limit = model.prompt.max_length
    if prompt is None:
        return MissingField("prompt is required: say what the image shows.", param="prompt")
    if not isinstance(prompt, str):
        return InvalidParameter(f"prompt must be a string, not {quoted(prompt)}.", param="prompt")
    if not prompt or prompt.isspace():
        return MissingField("prompt is empty: say what the image shows.", param="prompt")
    if len(prompt) > limit:
        return InvalidParameter(
            f"prompt may have at most {limit} characters for {model.id}; this one has "
            f"{len(prompt)}.",
            param="prompt",
        )
    return unstorable("prompt")


def unstorable(name: str) -> InvalidParameter:
    """The refusal of text that no database takes."""
    return InvalidParameter(
        f"{name} must be valid Unicode text without NUL characters and lone surrogates.",
        param=name,
    )


def _unknown_field(model: Model, fields: Iterable[str]) -> UnsupportedParameter:
    name = next(each for each in fields if each not in model.fields)
    declared = [parameter.name for parameter in model.parameters]
    has = f"its parameters are {_listed(declared)}" if declared else "it has no parameters"
    return UnsupportedParameter(
        f"{model.id} has no parameter {quoted(name)}; {has}, besides {_listed(COMMON_FIELDS)}.",
        param=name if len(name) <= _FIELD_NAME and name.isprintable() else None,
    )


def _check_async(value: object) -> None:
    """``async`` is taken from older clients in any spelling and changes nothing."""
    if isinstance(value, int) and value in (0, 1):
        return
    if isinstance(value, str) and _truth(value) is not None:
        return
    raise InvalidParameter(
        f"async must be true or false, not {quoted(value)}; it changes nothing, every request "
        "makes a task.",
        param="async",
    )


def _parameters(model: Model, fields: Mapping[str, object], *, text: bool) -> dict[str, Value]:
    parameters: dict[str, Value] = {}
    for parameter in model.parameters:
        name = parameter.name
        sent = fields.get(name)
        value: Value
        if sent is None:
            if parameter.default is None:
                continue
            value = parameter.default
        elif isinstance(sent, str) and sent in parameter.choices:
            value = sent
        else:
            value = _read(model, parameter, sent, text=text)
        # The catalog declares a parameter after those that it depends on.
        for other, table in parameter.depends_on.items():
            allowed = table.get(str(parameters[other]))
            if allowed is not None and value not in allowed:
                raise InvalidParameter(
                    f"{name} {quoted(value)} does not go with {other} "
                    f"{quoted(parameters[other])} for {model.id}; with it, {name} must be "
                    f"{_listed(allowed, 'or')}.",
                    param=name,
                )
        parameters[name] = value
    return parameters


def _read(model: Model, parameter: Parameter, value: object, *, text: bool) -> Value:
    """The value that a parameter takes from a field, off the short way."""
    read: Value | None
    match parameter.type:
        case "string":
            read = value if isinstance(value, str) else None
        case "boolean":
            read = _boolean(value, text=text)
        case "integer":
            read = _whole(value, text=text)
        case "number":
            read = _number(value, text=text)
    if read is None:
        _refuse(model, parameter, value)
    if parameter.enum:
        if read not in parameter.choices:
            _refuse(model, parameter, value)
    elif isinstance(read, str):
        if parameter.max_length is not None and len(read) > parameter.max_length:
            raise InvalidParameter(
                f"{parameter.name} may have at most {parameter.max_length} characters for "
                f"{model.id}; this one has {len(read)}.",
                param=parameter.name,
            )
        if not storable(read):
            raise unstorable(parameter.name)
    elif not _within(parameter, read):
        _refuse(model, parameter, value)
    return float(read) if parameter.type == "number" else read


def _within(parameter: Parameter, value: float) -> bool:
    """Whether a number is inside the bounds, which NaN never is."""
    return (parameter.minimum is None or value >= parameter.minimum) and (
        parameter.maximum is None or value <= parameter.maximum
    )


def _refuse(model: Model, parameter: Parameter, value: object) -> NoReturn:
    if parameter.enum:
        right = f"must be {_listed(parameter.enum, 'or')}"
    elif parameter.type == "boolean":
        right = "must be true or false"
    elif parameter.type == "string":
        right = f"must be a string of at most {parameter.max_length} characters"
    else:
        noun = "an integer" if parameter.type == "integer" else "a number"
        right = f"must be {noun} from {parameter.minimum} to {parameter.maximum}"
    raise InvalidParameter(
        f"{parameter.name} {right} for {model.id}, not {quoted(value)}.", param=parameter.name
    )


def integer_of(value: object, name: str, *, maximum: int, text: bool, minimum: int = 1) -> int:
    """A common field that holds an integer from ``minimum`` to ``maximum``."""
    read = _whole(value, text=text)
    if read is None or not minimum <= read <= maximum:
        right = f"an integer from {minimum} to {maximum}" if minimum < maximum else f"{minimum}"
        raise InvalidParameter(f"{name} must be {right}, not {quoted(value)}.", param=name)
    return read


def _whole(value: object, *, text: bool) -> int | None:
    if text and isinstance(value, str):
        value = value.strip()
        return int(value) if _INTEGER.fullmatch(value) else None
    if isinstance(value, float) and value.is_integer():
        return int(value)  # to JSON, 1.0 is the same number as 1
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object, *, text: bool) -> float | None:
    if text and isinstance(value, str):
        value = value.strip()
        return float(value) if _NUMBER.fullmatch(value) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _boolean(value: object, *, text: bool) -> bool | None:
    if text and isinstance(value, str):
        return _truth(value)
    return value if isinstance(value, bool) else None


def _truth(spelling: str) -> bool | None:
    """What a spelling of true or false means; None for anything else."""
    word = spelling.strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None


def _listed(values: Iterable[object], conjunction: str = "and") -> str:
    """Values as a sentence lists them: ``1K, 2K or 4K``."""
    words = [value if isinstance(value, str) else quoted(value) for value in values]
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"
