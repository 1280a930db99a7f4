"""How schemas are written: the few shapes that all of them are made of."""

from collections.abc import Mapping
from typing import Any, Final

Schema = dict[str, Any]

MICRO: Final = "1 = 0.000001 USDC"
UNIX: Final = "Unix seconds"


def reference(name: str) -> Schema:
    """A pointer to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(
    description: str, properties: dict[str, Schema], *, optional: tuple[str, ...] = ()
) -> Schema:
    """An object whose fields are always there, but for those named optional."""
    required = [name for name in properties if name not in optional]
    schema: Schema = {"type": "object", "description": description, "properties": properties}
    return {**schema, "required": required} if required else schema


def text(description: str, **more: Any) -> Schema:
    """A string."""
    return {"type": "string", "description": description, **more}


def whole(description: str, **more: Any) -> Schema:
    """An integer that is never negative."""
    return {"type": "integer", "minimum": 0, "description": description, **more}


def constant(value: str, description: str) -> Schema:
    """A string that is always the same."""
    return {"type": "string", "const": value, "description": description}


def choice(words: Mapping[str, str], description: str) -> Schema:
    """One of a few words, each with what it means."""
    listed = "; ".join(f"`{word}`: {meaning}" for word, meaning in words.items())
    return codes(words, f"{description} {listed}.")


def codes(notes: Mapping[str, str], description: str) -> Schema:
    """One of many words; what they mean stands where tools look for it."""
    return text(description, enum=list(notes), **{"x-enumDescriptions": dict(notes)})
