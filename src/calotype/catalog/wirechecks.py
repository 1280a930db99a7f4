"""What must hold of an upstream's file beyond the types of its keys.

``faults`` yields ``(key, "what is wrong; what would be right")``, as ``checks`` does for models.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from string import Formatter
from typing import Any, Final

from calotype.catalog.checks import FORMATS, Fault, domain, fits
from calotype.domain.catalog import ASPECT_RATIO, AUTO, OUTPUT_FORMAT, Model, Parameter
from calotype.domain.channel import base_url_fault
from calotype.domain.wire import (
    ANY_MODEL,
    CREATE,
    READ,
    SHAPE,
    STATES,
    Field,
    Size,
    Upstream,
    Wire,
    auto_resolutions,
    spelled,
)
from calotype.tables import joined, suggested

_VERDICT_KEY: Final = re.compile(r"[1-9][0-9]{2}( \S+( \S+)*)?|[1-9]xx|\*")
_CONTENT_TYPE: Final = re.compile(r"image/[a-z0-9.+-]+")


def faults(upstream: Upstream, models: Mapping[str, Model]) -> Iterator[Fault]:
    """Everything that is wrong with an upstream's file, as ``(key, sentence)``.

    Args:
        upstream: what stands in it.
        models: the catalog.

    """
    if upstream.base_url and (fault := base_url_fault(upstream.base_url)):
        yield "base_url", fault
    yield from _verdicts("create", upstream.create, CREATE)
    yield from _verdicts("read", upstream.read, READ)
    for word, meaning in upstream.states.items():
        if meaning not in STATES:
            yield joined("states", word), _no_word(meaning, STATES)
    for name, wire in upstream.models.items():
        key = joined("models", name)
        if name != ANY_MODEL and name not in models:
            known = ", ".join(models)
            yield key, f"there is no such model; {suggested(name, models)}the models are {known}"
            continue
        meant = [model for model in models.values() if upstream.wire(model.id) is wire]
        for inner, fault in _wire(wire, meant, whole=name != ANY_MODEL):
            yield f"{key}.{inner}", fault


def _verdicts(table: str, verdicts: Mapping[str, str], words: frozenset[str]) -> Iterator[Fault]:
    for key, word in verdicts.items():
        if not _VERDICT_KEY.fullmatch(key):
            right = "write a status as 429, with a code as '429 quota', or 4xx, or *"
            yield joined(table, key), f"this is no status; {right}"
        if word not in words:
            yield joined(table, key), _no_word(word, words)


def _no_word(word: str, words: frozenset[str]) -> str:
    return f"there is no word '{word}'; {suggested(word, words)}use one of {_listed(words)}"


def _listed(words: frozenset[str]) -> str:
    return ", ".join(sorted(words))


def _wire(wire: Wire, meant: Sequence[Model], *, whole: bool) -> Iterator[Fault]:
    """What is wrong with how some models go out; ``whole``: nothing of theirs may be forgotten."""
    declared: dict[str, list[Parameter]] = {}
    for parameter in (each for model in meant for each in model.parameters):
        declared.setdefault(parameter.name, []).append(parameter)
    for name, field in wire.parameters.items():
        key = joined("parameters", name)
        if name not in declared:
            yield key, _no_parameter(name, declared)
            continue
        for inner, fault in _field(field, declared[name]):
            yield f"{key}.{inner}", fault
    yield from _contradictions(wire, declared)
    if wire.size is not None:
        for inner, fault in _size(wire.size, meant, whole=whole):
            yield f"size.{inner}", fault
    yield from _paths(wire)
    yield from _limits(wire)
    if whole:
        for model in meant:
            if (lacking := wire.hopeless(model)) and lacking in wire.without:
                fault = (
                    f"{lacking}: every request sets it, by its default, so that none would go out"
                )
                yield "without", f"{fault}; say how it is written, or take the model out"
        for name in declared:
            if not (name in wire.parameters or name in wire.without or wire.covers(name)):
                fault = "the model has it, and nothing says how it goes out; write it here, or "
                yield joined("parameters", name), f"{fault}list it as without = ['{name}']"


def _no_parameter(name: str, declared: Mapping[str, object]) -> str:
    there_are = f"there are {', '.join(declared)}" if declared else "there are none"
    return f"the model has no such parameter; {suggested(name, declared)}{there_are}"


def _field(field: Field, declared: Sequence[Parameter]) -> Iterator[Fault]:
    if not all(field.field.split(".")):
        yield "field", f"'{field.field}' has an empty step; write names with points between them"
    known = {spelled(value) for each in declared for value in domain(each)}
    for table in ("values", "edit_values"):
        for value in getattr(field, table):
            if value not in known:
                yield joined(table, value), _no_value(known)
    for name in ("omit", "enum"):
        for value in getattr(field, name):
            if not any(fits(each, value) for each in declared):
                yield name, f"{value!r}: {_no_value(known)}"
    if field.enum:
        said = {spelled(value) for value in field.enum}
        idle = [*field.values, *field.edit_values, *map(spelled, field.omit)]
        for value in idle:
            if value not in said:
                yield "enum", f"leaves out '{value}', which is given a word; add it, or take that"


def _no_value(known: set[str]) -> str:
    right = f"use some of {', '.join(sorted(known))}" if known else "its values go out as they are"
    return f"the parameter has no such value; {right}"


def _contradictions(wire: Wire, declared: Mapping[str, object]) -> Iterator[Fault]:
    """What is said in two ways."""
    for name in sorted(SHAPE & wire.parameters.keys()):
        if wire.size is not None:
            yield joined("parameters", name), "size says it already; take one of the two out"
    if OUTPUT_FORMAT in wire.parameters and wire.formats:
        yield "formats", "output_format has a field, so nothing is converted; take one of them out"
    for name in wire.without:
        if name not in declared:
            yield "without", f"{name}: {_no_parameter(name, declared)}"
        elif name in wire.parameters or wire.covers(name):
            yield "without", f"{name}: it goes out all the same; take one of the two out"
    if not wire.max_references:
        edits = [name for name, each in wire.parameters.items() if each.edit_values]
        if wire.edit or wire.edit_constants or edits:
            yield "max_references", "is 0, so that nothing is edited; say how many go, or take edit"


def _size(size: Size, meant: Sequence[Model], *, whole: bool) -> Iterator[Fault]:
    if bool(size.field) == bool(size.width or size.height):
        yield "field", "give either field, for both, or width and height; not both, not neither"
    if bool(size.width) != bool(size.height):
        yield "width", "goes with height; give both"
    if size.field and not _takes_pixels(size.form):
        yield (
            "form",
            f"'{size.form}' is no form of a size; have {{width}} and {{height}} in it, once each",
        )
    if size.auto and not size.field:
        yield "auto", "is a word for field; give that, or take it out"
    if size.auto is None or not whole:
        return
    for model in meant:
        if not any(AUTO in each.enum for each in model.parameters if each.name == ASPECT_RATIO):
            yield "auto", f"{model.id} has no ratio auto; take it out"
        elif len(auto_resolutions(model)) > 1:
            drawn = ", ".join(map(spelled, auto_resolutions(model)))
            fault = f"says no resolution, and {model.id} draws auto at {drawn}; take it out, so "
            yield "auto", f"{fault}that the nearest size is sent"


def _takes_pixels(form: str) -> bool:
    try:
        parts = [part[1:] for part in Formatter().parse(form) if part[1] is not None]
    except ValueError:
        return False
    return sorted(parts) == [("height", "", None), ("width", "", None)]


def _paths(wire: Wire) -> Iterator[Fault]:
    """No field is written twice, or into one that is no object; a constant may be a default."""
    size = wire.size or Size()
    sizes = {f"size.{name}": getattr(size, name) for name in ("field", "width", "height")}
    written = {joined("parameters", name): each.field for name, each in wire.parameters.items()}
    every = {**written, **{key: path for key, path in sizes.items() if path}}
    for (_, path), (key, other) in combinations(every.items(), 2):
        if _meet(path, other):
            yield key, f"'{other}' is written twice; give each its own field"
    omitting = {each.field for each in wire.parameters.values() if each.omit}
    for table in ("constants", "edit_constants"):
        for leaf in _leaves(getattr(wire, table)):
            for key, path in every.items():
                default = leaf == path and key in written and path not in omitting
                if _meet(leaf, path) and not default:
                    yield key, f"{table} write '{leaf}' too; take one of the two out"


def _meet(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _limits(wire: Wire) -> Iterator[Fault]:
    for name in wire.formats:
        if name not in FORMATS:
            yield "formats", _no_word(name, FORMATS)
    for content_type in wire.reference_types:
        if not _CONTENT_TYPE.fullmatch(content_type):
            yield "reference_types", f"'{content_type}' is no image's; write it like image/png"
    if wire.max_references and not wire.reference_types:
        yield "reference_types", "is empty, so that no reference goes; name some, like image/png"
