"""What holds for every template and file of the console, whatever page it belongs to."""

import hashlib
import re
from pathlib import Path
from typing import Final

import jinja2
import pytest

import calotype

CONSOLE: Final = Path(calotype.__file__).parent / "console"
TEMPLATES: Final = CONSOLE / "templates"
STATIC: Final = CONSOLE / "static"
NAMES: Final = sorted(str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*.html"))
COMMENT: Final = re.compile(r"\{#.*?#\}", re.DOTALL)


def source(name: str) -> str:
    """A template without its comments."""
    return COMMENT.sub("", (TEMPLATES / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_a_template_holds_no_inline_script_or_style(name: str) -> None:
    """The content security policy would refuse it in the browser."""
    text = source(name)
    assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|hx-on|javascript:", text)
    assert not re.findall(r"<script(?![^>]*\ssrc=)", text)
    assert not re.findall(r"<(?!a\s)[^>]+\s(?:src|href)=\"(?:https?:)?//", text)


@pytest.mark.parametrize("name", NAMES)
def test_every_form_that_posts_carries_the_token(name: str) -> None:
    """A post without it is refused."""
    forms = re.findall(r"<form\b[^>]*method=\"post\".*?</form>", source(name), re.DOTALL)
    assert [form for form in forms if "csrf" not in form] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_template_can_be_read_and_names_files_that_are_there(name: str) -> None:
    """So that no page breaks when it is first asked for."""
    jinja2.Environment(autoescape=True).parse(source(name))
    named = re.findall(r"static\(['\"]([^'\"]+)['\"]\)", source(name))
    assert [path for path in named if not (STATIC / path).is_file()] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_icon_that_a_template_names_is_drawn(name: str) -> None:
    """A missing one would be an empty square that nobody is told of."""
    drawn = set(re.findall(r"<symbol id=\"(\w+)\"", (STATIC / "icons.svg").read_text("utf-8")))
    named = set(re.findall(r"\b(?:ui\.)?(?:icon|empty)\(\s*['\"](\w+)['\"]", source(name)))
    assert named - drawn == set()


def test_styles_name_files_that_are_there_and_no_other_host() -> None:
    """Fonts and pictures come from this server alone."""
    for sheet in STATIC.rglob("*.css"):
        for path in re.findall(r"url\([\"']?([^\"')]+)", sheet.read_text(encoding="utf-8")):
            assert (sheet.parent / path).is_file(), f"{sheet.name} names {path}"


def test_vendored_files_are_as_their_projects_publish_them() -> None:
    """The sums were taken from the released packages."""
    lines = (STATIC / "vendor" / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    said = {name: digest for digest, name in (line.split() for line in lines)}
    there = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (STATIC / "vendor").iterdir()
        if path.suffix in {".js", ".woff2"}
    }
    assert there == said
