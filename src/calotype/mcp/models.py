"""Models as agents are told of them: what a request may say, and what it costs."""

from collections.abc import Mapping
from typing import Any, Final

from calotype.client import Model

_LIMITS: Final = ("enum", "type", "default", "minimum", "maximum", "max_length", "depends_on")


def brief(model: Model) -> dict[str, Any]:
    """What it takes to ask for an image."""
    can = model.capabilities
    limits = can.get("limits") or {}
    return {
        "id": model.id,
        "name": model.name,
        "prices": [
            {"label": tier.get("label"), "micro_usdc": tier.get("price_micro_usdc")}
            for tier in (can.get("pricing") or {}).get("tiers") or ()
        ],
        "parameters": {each["name"]: _parameter(each) for each in can.get("parameters") or ()},
        "max_references": (can.get("reference_input") or {}).get("max_items", 0),
        "max_n": (limits.get("n") or {}).get("maximum", 1),
    }


def whole(model: Model) -> dict[str, Any]:
    """That and what else there is to know before choosing it."""
    can = model.capabilities
    return {
        **brief(model),
        "description": model.description,
        "parameter_descriptions": {
            each["name"]: each.get("description", "") for each in can.get("parameters") or ()
        },
        "max_prompt_characters": ((can.get("limits") or {}).get("prompt") or {}).get("max_length"),
        "reference_input": can.get("reference_input"),
        "cancellation": can.get("cancellation"),
        "channels": [channel.get("slug") for channel in model.available_channels],
    }


def _parameter(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Without what goes without saying: a list of values tells their type."""
    kept = {name: entry[name] for name in _LIMITS if name in entry}
    if "enum" in kept:
        kept.pop("type", None)
    return kept
