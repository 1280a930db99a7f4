"""Schemas of discovery: models, what they take, and what they cost."""

from collections.abc import Mapping
from typing import get_args

from calotype.api.openapi.shapes import MICRO, Schema, constant, record, reference, text, whole
from calotype.domain.catalog import ParameterType, PricingMode


def model_schemas(entry: Mapping[str, object]) -> dict[str, Schema]:
    """The schemas by component name.

    Args:
        entry: a model as discovery shows it, for an example; may be empty.

    """
    return {
        "ModelList": _model_list(),
        "Model": _model() | ({"examples": [entry]} if entry else {}),
        "Capabilities": _capabilities(),
        "Pricing": _pricing(),
        "ModelParameter": _model_parameter(),
        "ReferenceInput": _reference_input(),
        "Cancellation": _cancellation(),
        "AvailableChannel": _channel(),
    }


def _model_list() -> Schema:
    return record(
        "Every model.",
        {
            "object": constant("list", "Always `list`."),
            "data": {"type": "array", "items": reference("Model")},
        },
    )


def _model() -> Schema:
    moment = {"format": "date-time"}
    return record(
        "A model: exactly what validation enforces and pricing charges.",
        {
            "id": text("What a request names."),
            "object": constant("model", "Always `model`."),
            "name": text("For people."),
            "description": text("For people."),
            "owned_by": text("The brand."),
            "brand_key": text("The brand."),
            "brand_image_url": text("Path to the brand's mark.", format="uri-reference"),
            "upstream_id": text("The brand's own id.", examples=["google/nano-banana-pro"]),
            "released_at": {
                "type": ["string", "null"],
                **moment,
                "description": "When the brand published it; null where that is not known.",
            },
            "modalities": {"type": "array", "items": constant("image", "What it makes.")},
            "price_input_per_m": _no_tokens(),
            "price_output_per_m": _no_tokens(),
            "capabilities": reference("Capabilities"),
            "enabled": {"type": "boolean", "description": "Whether it takes requests."},
            "created_at": text("ISO 8601.", **moment),
            "updated_at": text("ISO 8601.", **moment),
            "available_channels": {"type": "array", "items": reference("AvailableChannel")},
        },
    )


def _capabilities() -> Schema:
    limit = record("Characters.", {"max_length": whole("At most.", minimum=1)})
    count = record("Images.", {"maximum": whole("At most.", minimum=1)})
    return record(
        "What a model takes, and what it costs.",
        {
            "async_supported": {
                "type": "boolean",
                "const": True,
                "description": "Always true.",
            },
            "request_mode": {
                "type": "array",
                "items": constant("task", "Every request makes a task."),
            },
            "pricing": reference("Pricing"),
            "parameters": {"type": "array", "items": reference("ModelParameter")},
            "reference_input": reference("ReferenceInput"),
            "cancellation": reference("Cancellation"),
            "limits": record("Limits of common fields.", {"prompt": limit, "n": count}),
        },
        optional=("cancellation", "limits"),
    )


def _pricing() -> Schema:
    tier = record(
        "One price.",
        {
            "id": text("Stable name.", examples=["1k_2k"]),
            "label": text("For people.", examples=["1K / 2K"]),
            "unit": constant("image", "What is counted."),
            "price_micro_usdc": whole(f"{MICRO}."),
        },
    )
    return record(
        "What an image costs.",
        {
            "mode": text("What the price goes by.", enum=list(get_args(PricingMode))),
            "tiers": {"type": "array", "minItems": 1, "items": tier},
        },
    )


def _model_parameter() -> Schema:
    value = {"type": ["string", "number", "boolean"]}
    allowed = {"type": "object", "additionalProperties": {"type": "array", "items": value}}
    return record(
        "A field that requests for this model may have.",
        {
            "name": text("Name of the field."),
            "enum": {"type": "array", "items": value, "description": "The values it may have."},
            "type": text("JSON type.", enum=list(get_args(ParameterType))),
            "default": {**value, "description": "What is taken when the field is left out."},
            "minimum": {"type": "number", "description": "Of a number without `enum`."},
            "maximum": {"type": "number", "description": "Of a number without `enum`."},
            "max_length": whole("Characters of a string without `enum`."),
            "depends_on": {
                "type": "object",
                "additionalProperties": allowed,
                "description": "Another field → its value → the values of this one that go with "
                "it; with values not listed, all go.",
            },
            "description": text("For people."),
        },
        optional=("enum", "default", "minimum", "maximum", "max_length", "depends_on"),
    )


def _reference_input() -> Schema:
    transports = text("A way to send them.", enum=["url", "multipart_file"])
    return record(
        "Reference images.",
        {
            "supported": {"type": "boolean", "description": "Whether it takes any."},
            "transport": {"type": "array", "items": transports},
            "max_items": whole("Files and URLs together."),
            "max_bytes": whole("Of one file."),
            "content_types": {"type": "array", "items": text("A type it reads.")},
            "converted_content_types": {
                "type": "array",
                "items": text("A type that is converted to one of those."),
            },
        },
        optional=("max_bytes", "content_types", "converted_content_types"),
    )


def _cancellation() -> Schema:
    percent = "Percent of the price of the images that the upstream says it made, when it "
    tier = record(
        "What one image costs when it was cancelled and made all the same, fractions dropped.",
        {
            "id": text("The price's, of `pricing.tiers`.", examples=["1k_2k"]),
            "unit": constant("image", "What is counted."),
            "price_micro_usdc": whole(f"{MICRO}."),
        },
    )
    return record(
        "What cancelling costs.",
        {
            "supported": {"type": "boolean", "description": "Whether tasks can be cancelled."},
            "free_in": {
                "type": "array",
                "items": text("A state of a task."),
                "description": "Cancelled in one of these states, a task costs nothing.",
            },
            "generating": record(
                "Cancelled while `generating`.",
                {
                    "percent_if_stopped": whole(
                        f"{percent}stopped or failed, or nobody can say what became of the job.",
                        maximum=100,
                    ),
                    "percent_if_finished": whole(
                        f"{percent}finished all the same. Nobody looks at these images, so one "
                        "that could not have been used counts too. The percentage in force when "
                        "the task ends holds.",
                        maximum=100,
                    ),
                    "tiers": {"type": "array", "minItems": 1, "items": tier},
                },
            ),
        },
    )


def _channel() -> Schema:
    return record(
        "A way to have an image made.",
        {
            "id": whole("What `channel_id` pins."),
            "name": text("For people."),
            "slug": text("Short name."),
            "description": text("For people; may be empty."),
            "price_input_per_m": _no_tokens(),
            "price_output_per_m": _no_tokens(),
        },
    )


def _no_tokens() -> Schema:
    return {"type": "number", "description": "0: images have no tokens."}
