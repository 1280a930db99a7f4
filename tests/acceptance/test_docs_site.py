"""The documentation site: built strictly, whole, and loading nothing from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LOADED = re.compile(
    r"""(?:<(?:script|img|iframe|source)\b[^>]*\bsrc=|<link\b(?![^>]*rel="?canonical)[^>]*\bhref=|url\()["']?(https?:)?//""",
)


def build(folder: Path) -> None:
    """Build the site as `make docs` does."""
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # noqa: TID251 -- as make hands it on
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr


def test_the_site_has_every_page_loads_nothing_from_elsewhere_and_tells_language_models(
    tmp_path: Path,
) -> None:
    build(tmp_path)
    every_page_is_in_the_navigation(tmp_path)
    nothing_is_loaded_from_elsewhere(tmp_path)
    the_map_for_language_models_leads_to_every_page(tmp_path)


def every_page_is_in_the_navigation(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    navigation = home[home.index('aria-label="Navigation"') :]
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix(".html")
        assert (site / name).is_file()
        assert f'href="{name.as_posix()}" class="md-nav__link' in navigation


def nothing_is_loaded_from_elsewhere(site: Path) -> None:
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(files) > 50
    for file in files:
        assert not LOADED.search(file.read_text(encoding="utf-8")), file


def the_map_for_language_models_leads_to_every_page(site: Path) -> None:
    told = (site / "llms.txt").read_text(encoding="utf-8")
    assert re.match(r"# Calotype\n\n> \S", told)
    links = re.findall(r"\]\(([^)]+)\)", told)
    assert len(links) == len([*DOCS.rglob("*.md")]) - 1
    assert all((site / link).is_file() for link in links)
    full = (site / "llms-full.txt").read_text(encoding="utf-8")
    for page in {*DOCS.rglob("*.md")} - {*(DOCS / "decisions").iterdir(), DOCS / "index.md"}:
        assert page.read_text(encoding="utf-8") in full
