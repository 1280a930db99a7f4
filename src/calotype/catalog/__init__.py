"""The models that are shipped, one ``<id>.toml`` each, and how they are loaded.

An operator's folder has the same form: a file there takes the place of the shipped one of the
same id, or adds a model; ``brands/<brand>.svg`` beside it is the mark of a brand.
"""

import copy
import hashlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from calotype.catalog.checks import NAME, faults
from calotype.domain.catalog import (
    Catalog,
    CountLimit,
    Model,
    OutputFormat,
    Parameter,
    ParameterType,
    Pricing,
    PricingMode,
    PromptLimit,
    References,
    Tier,
)

_SHIPPED: Final = Path(__file__).parent

_TABLES: Final[dict[str, type[msgspec.Struct]]] = {
    "": Model,
    "prompt": PromptLimit,
    "n": CountLimit,
    "parameters": Parameter,
    "references": References,
    "pricing": Pricing,
    "pricing.tiers": Tier,
}
"""Which keys there are in which table of a file, for the message about one that is not."""

_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "type": get_args(ParameterType),
    "mode": get_args(PricingMode),
    "output_format": get_args(OutputFormat),
    "unit": ("image",),
}

_Path = list[str | int | None]
"""The steps to a value; None for the key of a table that msgspec does not tell."""


class CatalogError(Exception):
    """A file of the catalog is wrong; the message names it, the key, and what would be right."""


def load_catalog(extra: Path | None = None) -> Catalog:
    """Every model that is shipped, and over these what an operator has in a folder of his own.

    Args:
        extra: the operator's folder.

    Raises:
        CatalogError: the folder or a file of it is not as it should be.

    """
    models = {model.id: model for model in _models(_SHIPPED)}
    if extra is not None:
        if not extra.is_dir():
            raise CatalogError(
                f"{extra}: no such folder; make it, or take it out of the configuration"
            )
        models |= {model.id: model for model in _models(extra)}
    return Catalog(
        models=dict(sorted(models.items())),
        marks={brand: _mark(brand, extra) for brand in {each.brand for each in models.values()}},
    )


def brand_mark(brand: str) -> bytes | None:
    """The shipped mark of a brand, as SVG; None when none is shipped.

    The marks of a loaded catalog, an operator's brands among them, are its ``marks``.
    """
    if not NAME.fullmatch(brand):
        return None
    try:
        return (_SHIPPED / "brands" / f"{brand}.svg").read_bytes()
    except FileNotFoundError:
        return None


def monogram(brand: str) -> bytes:
    """A mark for a brand that has none: its initials on a colour drawn from its name."""
    words = re.split(r"[-.]", brand)
    initials = "".join(word[0] for word in words if word)[:2].upper()
    hue = int.from_bytes(hashlib.sha256(brand.encode()).digest()[:2], "big") % 360
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" role="img" '
        f'aria-labelledby="t"><title id="t">{brand}</title>'
        f'<rect width="64" height="64" rx="14" fill="hsl({hue} 32% 32%)"/>'
        '<text x="32" y="33" text-anchor="middle" dominant-baseline="central" '
        'font-family="ui-sans-serif, system-ui, sans-serif" font-size="28" font-weight="600" '
        f'fill="#fff">{initials}</text></svg>\n'
    ).encode()


def _mark(brand: str, extra: Path | None) -> bytes:
    if extra is not None:
        own = extra / "brands" / f"{brand}.svg"
        if own.is_file():
            return own.read_bytes()
    return brand_mark(brand) or monogram(brand)


def _models(folder: Path) -> Iterator[Model]:
    for path in sorted(folder.glob("*.toml")):
        yield _load(path)


def _load(path: Path) -> Model:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read ({error.strerror}); let us read it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path}: not TOML: {error}; write UTF-8 TOML 1.0") from None
    try:
        model = msgspec.convert(raw, Model)
    except msgspec.ValidationError as error:
        raise CatalogError(f"{path}: {_explain(raw, error)}") from None
    if path.name != f"{model.id}.toml":
        raise CatalogError(
            f"{path}: id: '{model.id}' is not the name of the file; call the file "
            f"{model.id}.toml or the model '{path.stem}'"
        )
    for key, fault in faults(model):
        raise CatalogError(f"{path}: {key}: {fault}")
    return model


def _explain(raw: dict[str, Any], error: msgspec.ValidationError) -> str:
    """``key: what is wrong; what would be right`` for a value that does not have its type."""
    what, path = _split(error)
    key = _rendered(_located(raw, path))
    if match := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"{_join(key, match[1])}: is missing; add it"
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        table = _TABLES.get(".".join(step for step in path if isinstance(step, str)))
        known = ", ".join(table.__struct_fields__) if table else "those documented"
        return f"{_join(key, match[1])}: there is no such key; the keys here are {known}"
    if match := re.fullmatch(r"Invalid enum value (.*)", what):
        choices = ", ".join(_CHOICES.get(key.rpartition(".")[2], ()))
        return f"{key}: {match[1]} is not known; write one of {choices}"
    if "datetime" in what:
        return f"{key}: this is no time with its zone; write it like 2026-11-22T00:00:00Z"
    if match := re.fullmatch(r"Expected (.*), got (.*)", what):
        return f"{key}: this is {match[2]}; write {match[1]}"
    return f"{key}: this is out of bounds; {what[0].lower()}{what[1:]}"


def _split(error: msgspec.ValidationError) -> tuple[str, _Path]:
    """What msgspec says is wrong, and the steps of the path that it says it about."""
    what, _, path = str(error).partition(" - at `$")
    steps: _Path = []
    for name, index in re.findall(r"\.?([a-z_]+)|\[(\d+|\.\.\.)\]", path):
        steps.append(name or (None if index == "..." else int(index)))
    return what, steps


def _located(raw: dict[str, Any], path: _Path) -> _Path:
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
            if _fault(raw) == path:
                found[at] = name
                break
            table.update(others)
    return found


def _fault(raw: dict[str, Any]) -> _Path | None:
    """Where msgspec finds the first fault."""
    try:
        msgspec.convert(raw, Model)
    except msgspec.ValidationError as error:
        return _split(error)[1]
    return None


def _rendered(path: _Path) -> str:
    """The path as TOML would write the key: ``sizes."1:1".1K[0]``."""
    key = ""
    for step in path:
        if isinstance(step, int):
            key += f"[{step}]"
        elif step is not None:
            key = _join(key, step if re.fullmatch(r"[A-Za-z0-9_-]+", step) else f'"{step}"')
    return key


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
