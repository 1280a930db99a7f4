"""What must hold of a model beyond the types of its keys.

``faults`` yields ``(key, "what is wrong; what would be right")``. Each group of checks may rely
on those before it having passed: the loader stops at the first fault.
"""

import re
from collections.abc import Iterator
from itertools import product
from typing import Final

from calotype.domain.catalog import (
    ASPECT_RATIO,
    AUTO,
    NO_CHOICE,
    OUTPUT_FORMAT,
    RESERVED,
    RESOLUTION,
    Model,
    Parameter,
    Value,
)

NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]*")
"""What ids of models and names of brands look like: they are parts of paths."""

_PARAMETER: Final = re.compile(r"[a-z][a-z0-9_]*")
_LARGEST_EDGE: Final = 8192
"""Pixels."""
_LARGEST_NUMBER: Final = 2**63 - 1
"""What databases and other languages take as an integer."""
FORMATS: Final = frozenset({"png", "jpg", "webp"})
"""File formats that can be asked for."""
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (float,),
    "boolean": (bool,),
}
_SHAPES: Final = frozenset({ASPECT_RATIO, RESOLUTION})

Fault = tuple[str, str]


def faults(model: Model) -> Iterator[Fault]:
    """Everything that is wrong with a model, as ``(key, sentence)``."""
    yield from _names(model)
    yield from _times(model)
    seen: dict[str, Parameter] = {}
    for parameter in model.parameters:
        yield from _parameter(parameter, seen)
        seen[parameter.name] = parameter
    yield from _shapes(seen)
    yield from _tiers(model, seen)
    yield from _prices(model)
    yield from _sizes(model)


def combinations(model: Model, names: frozenset[str]) -> Iterator[dict[str, Value]]:
    """Every combination of values that ``depends_on`` allows, in the order of the catalog.

    Args:
        model: parameters named must have an ``enum`` or be booleans.
        names: the parameters wanted; what these depend on is added.

    """
    for parameter in reversed(model.parameters):  # each stands after those it depends on
        if parameter.name in names:
            names |= parameter.depends_on.keys()
    wanted = [each for each in model.parameters if each.name in names]
    for values in product(*(domain(each) for each in wanted)):
        combination = {each.name: value for each, value in zip(wanted, values, strict=True)}
        if all(_goes(each, combination) for each in wanted):
            yield combination


def domain(parameter: Parameter) -> tuple[Value, ...]:
    """The values of a parameter that has finitely many."""
    return (False, True) if parameter.type == "boolean" else parameter.enum


def _goes(parameter: Parameter, combination: dict[str, Value]) -> bool:
    return all(
        combination[parameter.name] in table.get(str(combination[other]), parameter.enum)
        for other, table in parameter.depends_on.items()
    )


def _names(model: Model) -> Iterator[Fault]:
    for key, name in (("id", model.id), ("brand", model.brand)):
        if not NAME.fullmatch(name):
            yield key, f"'{name}' is no name; use lower-case letters, digits, points and hyphens"
    for parameter in model.parameters:
        key = f"parameters.{parameter.name}"
        if not _PARAMETER.fullmatch(parameter.name):
            yield key, "is no name; use lower-case letters, digits and underscores"
        if parameter.name in RESERVED:
            yield key, "means the same for every model; choose another name"


def _times(model: Model) -> Iterator[Fault]:
    if model.deadline_seconds < model.eta_seconds:
        yield (
            "deadline_seconds",
            f"is below eta_seconds; write at least {model.eta_seconds}",
        )


def _parameter(parameter: Parameter, before: dict[str, Parameter]) -> Iterator[Fault]:
    key = f"parameters.{parameter.name}"
    if parameter.name in before:
        yield key, "is declared twice; keep one"
    kinds = _TYPES[parameter.type]
    for value in parameter.enum:
        if type(value) not in kinds:
            yield (
                f"{key}.enum",
                f"{value!r} is no {parameter.type}; write values of that type",
            )
    if len(parameter.choices) != len(parameter.enum):
        yield f"{key}.enum", "has a value twice; keep one"
    yield from _limits(parameter, key)
    default = parameter.default
    if default is not None:
        if type(default) not in kinds:
            yield f"{key}.default", f"{default!r} is no {parameter.type}; write one"
        elif not fits(parameter, default):
            yield f"{key}.default", f"{default!r} is not among the values; choose one of them"
    yield from _dependencies(parameter, before)


def _limits(parameter: Parameter, key: str) -> Iterator[Fault]:
    """A parameter has an enum, or the bounds of its type, and nothing else."""
    bounds = (parameter.minimum, parameter.maximum)
    numeric = parameter.type in ("integer", "number")
    if parameter.type == "boolean" and parameter.enum:
        yield f"{key}.enum", "a boolean needs none; take it out"
    if parameter.max_length is not None and (parameter.enum or parameter.type != "string"):
        yield f"{key}.max_length", "goes with a string without enum; take it out"
    if bounds != (None, None) and (parameter.enum or not numeric):
        yield f"{key}.minimum", "goes with a number without enum; take minimum and maximum out"
    if parameter.enum:
        return
    if parameter.type == "string" and parameter.max_length is None:
        yield key, "takes any string; give an enum or max_length"
    if numeric:
        low, high = bounds
        if low is None or high is None:
            yield key, f"takes any {parameter.type}; give an enum, or minimum and maximum"
        elif not low <= high:
            yield f"{key}.minimum", f"is above maximum; write at most {high}"
        elif parameter.type == "integer" and not isinstance(low + high, int):
            yield f"{key}.minimum", "bounds of an integer must be integers; take the point out"
        elif max(abs(low), abs(high)) > _LARGEST_NUMBER:
            yield f"{key}.maximum", f"is out of bounds; write at most {_LARGEST_NUMBER}"


def fits(parameter: Parameter, value: Value) -> bool:
    """Whether a parameter can have a value."""
    if type(value) not in _TYPES[parameter.type]:
        return False
    if parameter.enum:
        return value in parameter.choices
    if isinstance(value, str):
        return len(value) <= (parameter.max_length or 0)
    if isinstance(value, bool) or parameter.minimum is None or parameter.maximum is None:
        return True
    return parameter.minimum <= value <= parameter.maximum


def _not_values_of(parameter: Parameter) -> str:
    values = ", ".join(str(value) for value in domain(parameter))
    return f"names a value that {parameter.name} does not have, or none; use some of {values}"


def _dependencies(parameter: Parameter, before: dict[str, Parameter]) -> Iterator[Fault]:
    for name, table in parameter.depends_on.items():
        key = f"parameters.{parameter.name}.depends_on.{name}"
        other = before.get(name)
        if other is None:
            yield key, f"there is no such parameter above {parameter.name}; declare it there"
            continue
        if other.type != "string" or not other.enum or other.default is None:
            yield key, "only a string with an enum and a default can be depended on; make it one"
        if not parameter.enum:
            yield key, f"{parameter.name} has no enum to choose from; give it one"
        for value, allowed in table.items():
            if value not in other.choices:
                yield f'{key}."{value}"', f"{name} has no such value; use one of its enum"
            if not allowed or not parameter.choices.issuperset(allowed):
                yield f'{key}."{value}"', _not_values_of(parameter)
            elif parameter.default is not None and parameter.default not in allowed:
                fault = f"leaves out the default {parameter.default!r}; choose one that always goes"
                yield f'{key}."{value}"', fault


def _shapes(parameters: dict[str, Parameter]) -> Iterator[Fault]:
    """Sizes are looked up by aspect ratio and resolution, so these must be there to look up."""
    for name in sorted(_SHAPES & parameters.keys()):
        parameter = parameters[name]
        if parameter.type != "string" or not parameter.enum or parameter.default is None:
            yield f"parameters.{name}", "must be a string with an enum and a default; make it so"
    chosen = parameters.get(OUTPUT_FORMAT)
    if chosen is None:
        return
    if not chosen.enum or not FORMATS.issuperset(chosen.enum) or chosen.default is None:
        yield (
            f"parameters.{OUTPUT_FORMAT}",
            "must have an enum of png, jpg and webp, and a default; make it so",
        )


def _tiers(model: Model, parameters: dict[str, Parameter]) -> Iterator[Fault]:
    """The tiers by themselves: ids, modes, and names that exist."""
    ids = [tier.id for tier in model.pricing.tiers]
    conditions: set[str] = set()
    for index, tier in enumerate(model.pricing.tiers):
        if tier.id in ids[:index]:
            yield f"pricing.tiers.{tier.id}", "there are two of this id; give each its own"
        conditions |= tier.when.keys()
        for name, values in tier.when.items():
            key = f"pricing.tiers.{tier.id}.when.{name}"
            parameter = parameters.get(name)
            if parameter is None:
                yield key, "there is no such parameter; use one that is declared"
            elif not domain(parameter) or parameter.default is None:
                yield key, "a price needs a parameter with an enum and a default; give it these"
            elif not values or not set(domain(parameter)).issuperset(values):
                yield key, _not_values_of(parameter)
    match model.pricing.mode:
        case "fixed":
            if len(ids) > 1 or conditions:
                yield "pricing.mode", "fixed means one tier without when; choose another mode"
        case "resolution":
            if conditions != {RESOLUTION}:
                yield "pricing.mode", "resolution means tiers by that alone; choose another mode"
        case "parameter":
            if not conditions:
                yield "pricing.mode", "parameter means tiers with when; choose fixed"


def _prices(model: Model) -> Iterator[Fault]:
    """For each combination of values exactly one tier holds, and no tier is idle."""
    conditions = {name for tier in model.pricing.tiers for name in tier.when}
    idle = {tier.id for tier in model.pricing.tiers}
    for combination in combinations(model, frozenset(conditions)):
        holding = [tier.id for tier in model.pricing.tiers if tier.holds(combination)]
        idle.difference_update(holding)
        if len(holding) != 1:
            said = ", ".join(f"{name} {combination[name]}" for name in conditions)
            yield (
                "pricing.tiers",
                f"{len(holding) or 'no'} tiers hold for {said}; there must be exactly one",
            )
    for tier in sorted(idle):
        yield f"pricing.tiers.{tier}", "never holds; take it out, or correct its when"


def _sizes(model: Model) -> Iterator[Fault]:
    """A size for each pair that can be asked for, and none besides."""
    needed: dict[str, set[str]] = {}
    for combination in combinations(model, _SHAPES):
        ratio = str(combination.get(ASPECT_RATIO, NO_CHOICE))
        needed.setdefault(ratio, set()).add(str(combination.get(RESOLUTION, NO_CHOICE)))
    for resolution in sorted(needed.pop(AUTO, ())):
        if resolution not in model.sizes.get(model.auto_ratio, {}):
            fault = f"'{model.auto_ratio}' has no size at {resolution}; choose a ratio that has one"
            yield "auto_ratio", fault
    for ratio, resolutions in needed.items():
        for resolution in sorted(resolutions - model.sizes.get(ratio, {}).keys()):
            yield f'sizes."{ratio}"."{resolution}"', "is missing; give it as [width, height]"
    for ratio, row in model.sizes.items():
        for resolution, size in row.items():
            key = f'sizes."{ratio}"."{resolution}"'
            if resolution not in needed.get(ratio, ()):
                yield key, "nobody can ask for this pair; take it out"
            if not all(1 <= edge <= _LARGEST_EDGE for edge in size):
                yield (
                    key,
                    f"{list(size)} is out of bounds; each edge is 1 to {_LARGEST_EDGE} pixels",
                )
