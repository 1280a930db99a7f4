"""What does not fit in a table of TOML, told by key, with what would be right.

``msgspec`` says ``Expected `int`, got `str` - at `$.tiers[...].price```; a person who wrote the
file needs the whole key, and the keys and words that there are.
"""

import copy
import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from msgspec import inspect

_Path = list[str | int | None]
"""The steps to a value; None for the key of a table that msgspec does not tell."""

_WORDS: Final = {"object": "table", "array": "list"}
"""msgspec's word → TOML's."""


def explain(raw: dict[str, Any], error: msgspec.ValidationError, kind: Any) -> str:
    """``key: what is wrong; what would be right`` for a value that does not have its type.

    Args:
        raw: the table.
        error: what ``msgspec.convert(raw, kind)`` raised.
        kind: the type.

    """
    what, path = _split(error)
    path = _located(raw, path, kind)
    key = rendered(path)
    if match := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"{joined(key, match[1])}: is missing; add it"
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        return f"{joined(key, match[1])}: {unknown(match[1], _keys(kind, path))}"
    if match := re.fullmatch(r"Invalid enum value (.*)", what):
        choices = ", ".join(_choices(kind, path))
        return f"{key}: {match[1]} is not known; write one of {choices}"
    if "datetime" in what:
        return f"{key}: this is no time with its zone; write it like 2026-11-22T00:00:00Z"
    if match := re.fullmatch(r"Expected (.*), got (.*)", what):
        return f"{key}: this is {_word(match[2])}; write {_word(match[1])}"
    return f"{key}: this is out of bounds; {what[0].lower()}{what[1:]}"


def unknown(name: str, known: Iterable[str]) -> str:
    """The sentence for a key that there is not."""
    known = list(known)
    there_are = f"the keys here are {', '.join(known)}"
    return f"there is no such key; {suggested(name, known)}{there_are}"


def suggested(name: str, known: Iterable[str]) -> str:
    """``did you mean …? ``, where a name is nearly one that there is; empty where it is not."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}? " if close else ""


def rendered(path: Iterable[str | int | None]) -> str:
    """The path as TOML would write the key: ``sizes."1:1".1K[0]``."""
    key = ""
    for step in path:
        if isinstance(step, int):
            key += f"[{step}]"
        elif step is not None:
            key = joined(key, step)
    return key


def joined(key: str, name: str) -> str:
    """The key of a name in the table at ``key``, quoted where TOML wants it."""
    name = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'
    return f"{key}.{name}" if key else name


def _split(error: msgspec.ValidationError) -> tuple[str, _Path]:
    """What msgspec says is wrong, and the steps of the path that it says it about."""
    what, _, path = str(error).partition(" - at `$")
    steps: _Path = []
    for name, index in re.findall(r"\.?([a-z_]+)|\[(\d+|\.\.\.)\]", path):
        steps.append(name or (None if index == "..." else int(index)))
    return what, steps


def _located(raw: dict[str, Any], path: _Path, kind: Any) -> _Path:
    """The path with the keys put in that msgspec leaves out.

    They are found by trial: of the table in question one key at a time is kept, until the same
    fault shows.
    """
    raw, found = copy.deepcopy(raw), list(path)
    for at in (at for at, step in enumerate(path) if step is None):
        table: Any = raw
        for step in found[:at]:
            table = table[step]
        for name in list(table):
            others = {key: table.pop(key) for key in list(table) if key != name}
            if _fault(raw, kind) == path:
                found[at] = name
                break
            table.update(others)
    return found


def _fault(raw: dict[str, Any], kind: Any) -> _Path | None:
    """Where msgspec finds the first fault."""
    try:
        msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        return _split(error)[1]
    return None


def _word(types: str) -> str:
    """Types in TOML's words; there is no null in TOML."""
    for theirs, ours in _WORDS.items():
        types = types.replace(theirs, ours)
    return types.replace(" | null", "")


def _keys(kind: Any, path: _Path) -> list[str]:
    return [
        field.encode_name
        for node in _types(kind, path)
        if isinstance(node, inspect.StructType)
        for field in node.fields
    ]


def _choices(kind: Any, path: _Path) -> list[str]:
    return [
        str(value)
        for node in _types(kind, path)
        if isinstance(node, inspect.LiteralType)
        for value in node.values
    ]


def _types(kind: Any, path: _Path) -> list[inspect.Type]:
    """The types that a value at this path may have."""
    nodes = list(_members(inspect.type_info(kind)))
    for step in path:
        nodes = [
            member for node in nodes for inner in _inner(node, step) for member in _members(inner)
        ]
    return nodes


def _members(node: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(node, inspect.UnionType):
        yield from node.types
    else:
        yield node


def _inner(node: inspect.Type, step: str | int | None) -> Iterator[inspect.Type]:
    match node:
        case inspect.StructType():
            yield from (field.type for field in node.fields if field.encode_name == step)
        case inspect.DictType():
            yield node.value_type
        case inspect.ListType() | inspect.VarTupleType():
            yield node.item_type
        case _:
            pass
