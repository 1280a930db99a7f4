"""What ``GET /v1/models`` says of a model: the catalog entry that validation also enforces."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from calotype.domain.catalog import Model, Parameter, References
from calotype.domain.pricing import cancelled
from calotype.domain.task import State
from calotype.imaging.foreign import converted_types


class PublicChannel(Protocol):
    """As much of a channel as a client gets to see."""

    @property
    def id(self) -> int:
        """What ``channel_id`` pins."""
        ...

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def slug(self) -> str:
        """For logs."""
        ...

    @property
    def description(self) -> str:
        """For people; may be empty."""
        ...


def model_entry(model: Model, channels: Sequence[PublicChannel]) -> dict[str, object]:
    """The discovery object of a model, ready for JSON; all money is micro-USDC.

    Args:
        model: an entry of the catalog.
        channels: those that serve it.

    """
    return {
        "id": model.id,
        "object": "model",
        "name": model.name,
        "description": model.description,
        "owned_by": model.brand,
        "brand_key": model.brand,
        "brand_image_url": f"/v1/models/brands/{model.brand}/image",
        "upstream_id": model.upstream_id,
        "released_at": None if model.released_at is None else _iso(model.released_at),
        "modalities": ["image"],
        "price_input_per_m": 0,
        "price_output_per_m": 0,
        "capabilities": _capabilities(model),
        "enabled": model.enabled,
        "created_at": _iso(model.created_at),
        "updated_at": _iso(model.updated_at),
        "available_channels": [
            {
                "id": channel.id,
                "name": channel.name,
                "slug": channel.slug,
                "description": channel.description,
                "price_input_per_m": 0,
                "price_output_per_m": 0,
            }
            for channel in channels
        ],
    }


def _capabilities(model: Model) -> dict[str, object]:
    return {
        "async_supported": True,
        "request_mode": ["task"],
        "pricing": {
            "mode": model.pricing.mode,
            "tiers": [
                {
                    "id": tier.id,
                    "label": tier.label,
                    "unit": tier.unit,
                    "price_micro_usdc": tier.price_micro_usdc,
                }
                for tier in model.pricing.tiers
            ],
        },
        "parameters": [_parameter(parameter) for parameter in model.parameters],
        "reference_input": _references(model.references),
        "cancellation": _cancellation(model),
        "limits": {
            "prompt": {"max_length": model.prompt.max_length},
            "n": {"maximum": model.n.maximum},
        },
    }


def _cancellation(model: Model) -> dict[str, object]:
    """What cancelling costs: a share, and what an image comes to by it at each price."""
    return {
        "supported": True,
        "free_in": [State.WAITING, State.QUEUING],
        "generating": {
            "percent_if_stopped": 0,
            "percent_if_finished": model.cancellation.percent,
            "tiers": [
                {
                    "id": tier.id,
                    "unit": tier.unit,
                    "price_micro_usdc": cancelled(model, tier.price_micro_usdc),
                }
                for tier in model.pricing.tiers
            ],
        },
    }


def _parameter(parameter: Parameter) -> dict[str, object]:
    """A parameter with only those keys that say something."""
    entry: dict[str, object] = {"name": parameter.name}
    if parameter.enum:
        entry["enum"] = list(parameter.enum)
    entry["type"] = parameter.type
    for key in ("default", "minimum", "maximum", "max_length"):
        if (value := getattr(parameter, key)) is not None:
            entry[key] = value
    if parameter.depends_on:
        entry["depends_on"] = {
            name: {value: list(allowed) for value, allowed in table.items()}
            for name, table in parameter.depends_on.items()
        }
    entry["description"] = parameter.description
    return entry


def _references(references: References) -> dict[str, object]:
    if references.max_items == 0:
        return {"supported": False, "transport": [], "max_items": 0}
    return {
        "supported": True,
        "transport": ["url", "multipart_file"],
        "max_items": references.max_items,
        "max_bytes": references.max_bytes,
        "content_types": list(references.content_types),
        "converted_content_types": [
            each for each in converted_types() if each not in references.content_types
        ],
    }


def _iso(moment: datetime) -> str:
    """ISO 8601 in UTC, to the second: ``2026-11-22T00:00:00Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
