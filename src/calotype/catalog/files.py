"""Reading one TOML file of the catalog into its struct."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from calotype.tables import explain

T = TypeVar("T", bound=msgspec.Struct)


class CatalogError(Exception):
    """A file of the catalog is wrong; the message names it, the key, and what would be right."""


def read(path: Path) -> dict[str, Any]:
    """What stands in a file.

    Raises:
        CatalogError: it cannot be read, or is no TOML.

    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read ({error.strerror}); let us read it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path}: not TOML: {error}; write UTF-8 TOML 1.0") from None


def converted(path: Path, raw: dict[str, Any], kind: type[T]) -> T:
    """What stands in a file, as a struct.

    Raises:
        CatalogError: a key is unknown or missing, or a value has another type.

    """
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise CatalogError(f"{path}: {explain(raw, error, kind)}") from None
