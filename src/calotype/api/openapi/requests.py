"""What a generation request may hold, model by model: the catalog as JSON Schema.

Each model has two schemas, one for JSON and one for forms. They accept what
``domain/validation.py`` accepts: a test sends requests of all kinds to both.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from calotype.domain.catalog import Model, Parameter, Value
from calotype.domain.channel import Channel
from calotype.domain.files import PATTERN
from calotype.domain.money import format_usd
from calotype.domain.options import MAX_DEADLINE_SECONDS, MAX_KEY, MAX_PAIRS, MAX_VALUE
from calotype.domain.urls import MAX_URL_CHARS

Schema = dict[str, Any]
Channels = Callable[[str], Sequence[Channel]]
"""Model id → the channels that serve it."""

JSON: Final = "GenerationRequest"
FORM: Final = "GenerationForm"

FIELDS: Final = {
    "model": "Id of the model, one of `GET /v1/models`.",
    "prompt": "What the image shows. Not blank; no NUL characters or lone surrogates.",
    "image_input": "Reference images by URL, in this order: public `http` or `https` addresses, "
    "fetched when the task runs, or `asset://` and the id of a file, or of a result, of yours.",
    "image": "Reference images by upload, stored before the task is accepted. The content counts, "
    "not the name or the declared type.",
    "n": "How many images.",
    "response_format": "Only `url`; images are answered as links, never inline.",
    "channel_id": "Pins one of the model's `available_channels`; without it the gateway chooses.",
    "async": "Accepted from older clients in any spelling and changes nothing: every request "
    "makes a task.",
    "callback_url": "Where you are told of the end: a public `http` or `https` address.",
    "metadata": "Your own words about the task, to find it by: up to 16 pairs of strings.",
    "deadline_seconds": "After so long nothing new is sent to an upstream, and a task that was "
    "not sent fails with `deadline_exceeded`. It only shortens the time that the model gives.",
}
"""Fields that mean the same for every model."""

REQUIRED: Final = ("model", "prompt")

_BLANK: Final = r"\t-\r\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What counts as blank here; ``\\s`` of JSON Schema is not the same set."""
PROMPT: Final = rf"^[{_BLANK}]*[^{_BLANK}\u0000][^\u0000]*$"
"""Of a prompt, as a pattern: not blank."""
TEXT: Final = r"^[^\u0000]*$"
"""Of text that databases take, as a pattern."""
_URL: Final = "^[Hh][Tt][Tt][Pp][Ss]?://"
_REFERENCE: Final = f"{_URL}|{PATTERN}"
_TRUTHS: Final = ("true", "false", "1", "0", "yes", "no", "on", "off", "y", "n", "t", "f")
_MIB: Final = 1024 * 1024
REFERENCE_TYPES: Final = (
    "image/jpeg, image/png, image/webp, image/gif, image/avif, image/heic, image/heif"
)
"""What a file of a form may be; a server without ``calotype[heic]`` refuses the last two."""


def component(prefix: str, model_id: str) -> str:
    """Name of a model's schema. Generators take a point for a folder, and no id has a ``_``."""
    return f"{prefix}-{model_id.replace('.', '_')}"


def request_schemas(models: Iterable[Model], channels: Channels) -> dict[str, Schema]:
    """The schemas of all models by component name, and over them one per content type."""
    models = list(models)
    schemas: dict[str, Schema] = {}
    for prefix, form in ((JSON, False), (FORM, True)):
        if not models:
            schemas[prefix] = {"not": {}, "description": "No model is switched on."}
            continue
        schemas[prefix] = _one_of(prefix, [model.id for model in models])
        for model in models:
            schema = _request(model, channels(model.id), form=form)
            schemas[component(prefix, model.id)] = schema
    return schemas | {_async_name(form=form): _async(form=form) for form in (False, True)}


def dependency_words(parameter: Parameter) -> str:
    """Limits that depend on another field, as sentences; empty where there are none."""
    return " ".join(
        f"Depends on `{other}`: "
        + "".join(f"`{value}` takes {listed(allowed)}; " for value, allowed in table.items())
        + "the others take all."
        for other, table in parameter.depends_on.items()
    )


def listed(values: Iterable[Value]) -> str:
    """Values as a sentence names them: `1K`, `2K` or `4K`."""
    words = [f"`{written(value)}`" for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def written(value: Value) -> str:
    """A value as JSON would write it, strings without their quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def reference_words(model: Model) -> str:
    """Which references a model takes, as a sentence."""
    limits = model.references
    if limits.max_items == 0:
        return "Takes no reference images."
    kinds = ", ".join(kind.removeprefix("image/").upper() for kind in limits.content_types)
    return (
        f"Up to {limits.max_items} reference images, files and URLs together: {kinds}, "
        f"{file_size(model)} each. GIF and AVIF are converted, and HEIC where the server can."
    )


def file_size(model: Model) -> str:
    """How large a reference may be, in the unit that makes a round number."""
    size = model.references.max_bytes / _MIB
    if size.is_integer():
        return f"{size:.0f} MiB"
    return f"{model.references.max_bytes / 1_000_000:g} MB"


def price_words(model: Model) -> str:
    """What an image costs, as a sentence."""
    prices = [
        f"{format_usd(tier.price_micro_usdc)} USDC"
        + (f" ({tier.label})" if len(model.pricing.tiers) > 1 else "")
        for tier in model.pricing.tiers
    ]
    return f"Price per image: {', '.join(prices)}."


def _one_of(prefix: str, ids: Sequence[str]) -> Schema:
    references = {name: f"#/components/schemas/{component(prefix, name)}" for name in ids}
    return {
        "description": "One schema per model; `model` tells which.",
        "oneOf": [{"$ref": reference} for reference in references.values()],
        "discriminator": {"propertyName": "model", "mapping": references},
    }


def _request(model: Model, channels: Sequence[Channel], *, form: bool) -> Schema:
    properties = _common(model, channels, form=form)
    for parameter in model.parameters:
        properties[parameter.name] = _parameter(parameter)
    if not form:
        properties = {
            name: schema if name in REQUIRED else or_null(schema)
            for name, schema in properties.items()
        }
    schema: Schema = {
        "description": f"{model.name}. {model.description}\n\n"
        f"{price_words(model)} {reference_words(model)}",
        "type": "object",
        "required": list(REQUIRED),
        "properties": properties,
        "additionalProperties": False,
    }
    if form and model.references.max_items:
        # No properties: generators of clients would make one name of two, and need but one.
        schema["patternProperties"] = {
            rf"^{name}\[\]$": {**properties[name], "description": f"The same as `{name}`."}
            for name in ("image_input", "image")
        }
    if conditions := _conditions(model, form=form):
        schema["allOf"] = conditions
    schema["examples"] = [example(model)]
    return schema


def example(model: Model) -> dict[str, Value]:
    """A request that spells out what the model would take by itself."""
    chosen = {
        parameter.name: parameter.default
        for parameter in model.parameters
        if parameter.default is not None
    }
    return {"model": model.id, "prompt": "A lighthouse at dusk", **chosen}


def _common(model: Model, channels: Sequence[Channel], *, form: bool) -> dict[str, Schema]:
    most = model.n.maximum
    properties: dict[str, Schema] = {
        "model": {"type": "string", "const": model.id},
        "prompt": {
            "type": "string",
            "minLength": 1,
            "maxLength": model.prompt.max_length,
            "pattern": PROMPT,
        },
        **_references(model, form=form),
        "n": {"type": "integer", "minimum": 1, "maximum": most, "default": 1},
        "response_format": {"type": "string", "enum": ["url"], "default": "url"},
        "channel_id": _channel(channels),
        "async": {"$ref": f"#/components/schemas/{_async_name(form=form)}"},
        **_options(form=form),
    }
    for name, schema in properties.items():
        schema["description"] = f"{FIELDS[name]} {schema.pop('description', '')}".rstrip()
    properties["n"]["description"] += (
        " Must be 1 for this model." if most == 1 else f" At most {most} for this model."
    )
    return properties


def _options(*, form: bool) -> dict[str, Schema]:
    """The fields that ask nothing of the model."""
    metadata: Schema = {
        "type": "object",
        "maxProperties": MAX_PAIRS,
        "propertyNames": {"minLength": 1, "maxLength": MAX_KEY, "pattern": TEXT},
        "additionalProperties": {"type": "string", "maxLength": MAX_VALUE, "pattern": TEXT},
    }
    if form:
        metadata = {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": metadata,
            "description": "In a form a JSON object as text.",
        }
    return {
        "callback_url": _url(),
        "metadata": metadata,
        "deadline_seconds": {"type": "integer", "minimum": 1, "maximum": MAX_DEADLINE_SECONDS},
    }


def _url() -> Schema:
    return {"type": "string", "format": "uri", "pattern": _URL, "maxLength": MAX_URL_CHARS}


def _references(model: Model, *, form: bool) -> dict[str, Schema]:
    """The fields for references; none of them for a model that takes none."""
    if model.references.max_items == 0:
        return {}
    array = {"type": "array", "maxItems": model.references.max_items}
    said = {"description": reference_words(model)}
    by_url = {**array, **said, "items": {**_url(), "pattern": _REFERENCE}}
    if not form:
        return {"image_input": by_url}
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    by_file = {**array, **said, "items": file}
    return {"image_input": by_url, "image": by_file}


def _channel(channels: Sequence[Channel]) -> Schema:
    if not channels:
        return {"type": "integer", "minimum": 1}
    named = ", ".join(f"`{channel.id}` {channel.name}" for channel in channels)
    return {
        "type": "integer",
        "enum": [channel.id for channel in channels],
        "description": f"Here: {named}.",
    }


def _async_name(*, form: bool) -> str:
    return "AsyncText" if form else "Async"


def _async(*, form: bool) -> Schema:
    """Truth in any spelling, as older clients send it."""
    either = {letter: f"[{letter.upper()}{letter}]" for letter in "".join(_TRUTHS)}
    spelled = "|".join(
        "".join(either[letter] if letter.isalpha() else letter for letter in word)
        for word in _TRUTHS
    )
    text = {"type": "string", "pattern": rf"^[{_BLANK}]*(?:{spelled})[{_BLANK}]*$"}
    said = {"description": FIELDS["async"], "deprecated": True}
    if form:
        return {**text, **said}
    number = {"type": "integer", "enum": [0, 1]}
    return {"anyOf": [{"type": "boolean"}, number, text, {"type": "null"}], **said}


def _parameter(parameter: Parameter) -> Schema:
    schema: Schema = {"type": parameter.type}
    if parameter.enum:
        schema["enum"] = list(parameter.enum)
    if parameter.max_length is not None:
        schema |= {"maxLength": parameter.max_length, "pattern": TEXT}
    for key in ("minimum", "maximum", "default"):
        if (value := getattr(parameter, key)) is not None:
            schema[key] = value
    schema["description"] = f"{parameter.description} {dependency_words(parameter)}".rstrip()
    return schema


def or_null(schema: Schema) -> Schema:
    """The same, and null, which counts as absent."""
    if "$ref" in schema:
        return schema
    nullable = {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        nullable["enum"] = [*schema["enum"], None]
    return nullable


def _conditions(model: Model, *, form: bool) -> list[Schema]:
    """``depends_on`` as if/then. A field left out counts as its default."""
    absent = [] if form else [None]
    defaults = {parameter.name: parameter.default for parameter in model.parameters}
    conditions = []
    for parameter in model.parameters:
        for other, table in parameter.depends_on.items():
            for value, allowed in table.items():
                chosen: Schema = {"properties": {other: {"enum": [value]}}, "required": [other]}
                if value == defaults[other]:
                    chosen = {"properties": {other: {"enum": [value, *absent]}}}
                then = {"properties": {parameter.name: {"enum": [*allowed, *absent]}}}
                said = f"`{other}` `{value}` goes with `{parameter.name}` {listed(allowed)}."
                conditions.append({"description": said, "if": chosen, "then": then})
    return conditions
