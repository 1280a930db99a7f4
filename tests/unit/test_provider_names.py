"""No upstream is named outside its own files and the catalog."""

import re
import tokenize
from pathlib import Path

import calotype
from calotype.catalog import load_catalog

PACKAGE = Path(calotype.__file__).parent
SPOKEN = {"openai": ("api", "console"), "diffusers": ("cli",)}
"""Names that mean something else in packages: OpenAI's own clients and the brand of its models, and
the library that `calotype local` is for."""
NAMES = sorted(load_catalog().upstreams)


def own_files(name: str) -> set[Path]:
    """The provider's module, or its folder, and modules that begin with its name."""
    stem = name.replace("-", "_")
    return {
        *(PACKAGE / "providers").glob(f"{stem}*.py"),
        *(PACKAGE / "providers" / stem).rglob("*.py"),
    }


def words_of(path: Path) -> set[str]:
    """Identifiers, and words of strings that are not docstrings."""
    words: set[str] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.NAME:
                words |= {token.string, *token.string.split("_")}
            elif token.type == tokenize.STRING and not token.string.startswith(('"""', 'r"""')):
                words |= set(re.findall(r"[a-z0-9-]+", token.string.lower()))
    return words


def test_no_providers_name_occurs_outside_its_file_and_the_catalog() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        relatives = {name for name in NAMES if path in own_files(name)}
        if relatives or path.is_relative_to(PACKAGE / "catalog"):
            continue
        words = words_of(path)
        found += [
            f"{path.relative_to(PACKAGE)}: {name}"
            for name in NAMES
            if (name in words or name.replace("-", "_") in words)
            and path.relative_to(PACKAGE).parts[0] not in SPOKEN.get(name, ())
        ]
    assert found == []


def test_the_search_would_find_one() -> None:
    written = {word for path in own_files("comfyui") for word in words_of(path)}
    assert {"comfyui", "import"} <= written
