"""The models that are shipped, one ``<id>.toml`` each, and how upstreams take them.

``upstreams/<provider>.toml`` says for one provider how each model goes out.

An operator's folder has the same form: a model's file there takes the place of the shipped one of
the same id, or adds a model; ``brands/<brand>.svg`` beside it is the mark of a brand. Of an
upstream's file there the ``models`` are added to the shipped ones or take their places, one by
one; any other key takes the place of the shipped one, whole.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from calotype.catalog import checks, wirechecks
from calotype.catalog.checks import NAME
from calotype.catalog.files import CatalogError, converted, read
from calotype.domain.catalog import Catalog, Model
from calotype.domain.wire import Upstream

__all__ = ["CatalogError", "brand_mark", "load_catalog", "monogram"]

_SHIPPED: Final = Path(__file__).parent

_UPSTREAMS: Final = "upstreams"


def load_catalog(extra: Path | None = None) -> Catalog:
    """Everything that is shipped, and over it what an operator has in a folder of his own.

    Args:
        extra: the operator's folder.

    Raises:
        CatalogError: the folder or a file of it is not as it should be.

    """
    models = {model.id: model for model in _models(_SHIPPED)}
    upstreams = dict(_upstreams(_SHIPPED / _UPSTREAMS, models))
    files: dict[str, str] = {}
    if extra is not None:
        if not extra.is_dir():
            raise CatalogError(
                f"{extra}: no such folder; make it, or take it out of the configuration"
            )
        own_models = {model.id: model for model in _models(extra)}
        models |= own_models
        files = {id_: str(extra / f"{id_}.toml") for id_ in own_models}
        for provider, own in _upstreams(extra / _UPSTREAMS, models):
            upstreams[provider] = _merged(upstreams.get(provider, {}), own)
    return Catalog(
        models=dict(sorted(models.items())),
        marks={brand: _mark(brand, extra) for brand in {each.brand for each in models.values()}},
        upstreams={
            provider: msgspec.convert(raw, Upstream) for provider, raw in sorted(upstreams.items())
        },
        files=files,
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
    model = converted(path, read(path), Model)
    if path.name != f"{model.id}.toml":
        raise CatalogError(
            f"{path}: id: '{model.id}' is not the name of the file; call the file "
            f"{model.id}.toml or the model '{path.stem}'"
        )
    for key, fault in checks.faults(model):
        raise CatalogError(f"{path}: {key}: {fault}")
    return model


def _upstreams(folder: Path, models: Mapping[str, Model]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each file of a folder that may not be there, judged by itself, as its provider and table."""
    for path in sorted(folder.glob("*.toml")):
        if not NAME.fullmatch(path.stem):
            raise CatalogError(f"{path}: is not called like a provider; use lower-case letters")
        raw = read(path)
        for key, fault in wirechecks.faults(converted(path, raw, Upstream), models):
            raise CatalogError(f"{path}: {key}: {fault}")
        yield path.stem, raw


def _merged(shipped: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    models = {**shipped.get("models", {}), **own.get("models", {})}
    return {**shipped, **own, "models": models}
