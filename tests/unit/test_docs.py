"""The documentation holds what there is: settings, errors, commands, routes, words, links."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from calotype.api.openapi import build_document
from calotype.api.render import STATUSES
from calotype.catalog import load_catalog
from calotype.cli.main import add_the_rest
from calotype.domain import errors
from calotype.domain.catalog import Model
from calotype.domain.channel import Channel
from calotype.domain.money import EntryKind
from calotype.domain.pricing import price
from calotype.domain.secret import Secret
from calotype.domain.task import AttemptState, BillingStatus, Event, State
from calotype.domain.validation import normalise
from calotype.providers.sandbox.steering import WORDS
from calotype.settings import CLIENT_VARIABLES, Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.rglob("*.md")})
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
EXAMPLE = re.compile(r"<!-- test -->\n```toml\n(.*?)```", re.DOTALL)


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Each table of a page: its header, and its rows."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()]
        yield cells[0], cells[2:]


def rows_under(text: str, *header: str) -> list[list[str]]:
    """The rows of the one table whose header begins like this."""
    (rows,) = [rows for found, rows in tables(text) if found[: len(header)] == list(header)]
    return rows


def words(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def sections(text: str) -> dict[str, str]:
    """The page by its second-level headings."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def shown(default: Any) -> str:
    """A default as the tables write it."""
    if default is msgspec.NODEFAULT:
        return "required"
    if default in ("", None, (), Secret("")):
        return "empty"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


# Links and the map


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_map_names_every_page() -> None:
    index = DOCS / "index.md"
    linked = {(DOCS / link).resolve() for link in LINK.findall(index.read_text(encoding="utf-8"))}
    assert linked == {page for page in PAGES if page.is_relative_to(DOCS)} - {index}


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").iterdir()), ids=named)
def test_a_decision_says_its_status_context_decision_and_consequences(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {page.name[:4]}: ")
    assert re.search(r"^Status: \w+", text, re.MULTILINE)
    assert list(sections(text)) == ["Context", "Decision", "Consequences"]


def test_the_tests_that_the_threat_model_names_exist() -> None:
    named = re.findall(r"`(tests/[^`]+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_changelog_has_an_unreleased_section() -> None:
    changelog = sections((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert "### " in changelog["[Unreleased]"]


def test_the_files_that_the_architecture_names_exist() -> None:
    package = ROOT / "src" / "calotype"
    prose = re.sub(r"(?ms)^```.*?^```", "", text_of("concepts/architecture.md"))
    files = [name for name in words(prose) if name.endswith((".py", "/"))]
    assert len(files) > 30
    assert [name for name in files if not (package / name).exists()] == []


# Settings


def test_every_setting_is_documented_with_its_variable_and_default() -> None:
    rows = rows_under(text_of("reference/settings.md"), "variable", "key", "default")
    documented = [(words(row[0]), words(row[1]), row[2]) for row in rows]
    assert documented == [
        ([f"CALOTYPE_{field.name.upper()}"], [field.name], shown(field.default))
        for field in msgspec.structs.fields(Settings)
        if field.name not in {"channels", "said_by"}
    ]
    assert all(row[3] for row in rows)


def test_every_key_of_a_channel_is_documented_with_its_default() -> None:
    rows = rows_under(text_of("reference/settings.md"), "key", "default")
    assert {words(row[0])[0]: row[1] for row in rows} == {
        field.name: shown(field.default) for field in msgspec.structs.fields(Channel)
    }


def test_the_variables_of_the_command_line_are_documented() -> None:
    rows = rows_under(text_of("reference/settings.md"), "variable", "meaning")
    assert {words(row[0])[0] for row in rows} == CLIENT_VARIABLES


@pytest.mark.parametrize("page", ["reference/settings.md", "guides/sandbox.md"])
def test_an_example_of_a_configuration_loads(page: str, tmp_path: Path) -> None:
    (example,) = EXAMPLE.findall(text_of(page))
    file = tmp_path / "calotype.toml"
    file.write_text(example, encoding="utf-8")
    assert Settings.load({}, file) != Settings()


# Errors


def families(kind: type[errors.CalotypeError] = errors.CalotypeError) -> dict[str, str]:
    """Code → family of every class of the tree."""
    found: dict[str, str] = {kind.code: kind.family} if hasattr(kind, "code") else {}
    for each in kind.__subclasses__():
        found |= families(each)
    return found


def linkable(anchor: str, code: str) -> str:
    """The first cell of a row that a link can lead to."""
    return f'<a id="{anchor}"></a>`{code}`'


def test_every_code_of_a_refusal_is_documented_with_its_status_and_family() -> None:
    rows = rows_under(text_of("reference/errors.md"), "code", "status", "type", "cause")
    documented = {words(row[0])[0]: (int(row[1]), words(row[2])[0]) for row in rows}
    family = families()
    assert documented == {code: (status, family[code]) for code, status in STATUSES.items()}
    assert all(row[3] and row[4] for row in rows)
    assert [row[0] for row in rows] == [linkable(code, code) for code in documented]


def test_every_code_of_a_failed_task_is_documented_with_its_family() -> None:
    rows = rows_under(text_of("reference/errors.md"), "code", "status", "type", "retryable")
    documented = {words(row[0])[0]: (words(row[2])[0], row[3] == "yes") for row in rows}
    assert documented == errors.FAILURES
    assert all(row[1] == "task failure" and row[4] and row[5] for row in rows)
    assert [row[0] for row in rows] == [linkable(f"failure-{code}", code) for code in documented]


# The API, the sandbox, states and money


def test_every_route_is_documented() -> None:
    rows = rows_under(text_of("reference/api.md"), "route")
    document = build_document(load_catalog(), lambda _: (), public_url="")
    assert {words(row[0])[0] for row in rows} == {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method in operations
    }


def test_every_steering_word_is_documented() -> None:
    rows = rows_under(text_of("guides/sandbox.md"), "in the prompt")
    documented = [re.fullmatch(r"sandbox:([a-z0-9-]+)(=NUMBER)?", words(row[0])[0]) for row in rows]
    assert [match and match[1] for match in documented] == list(WORDS)
    for row in rows:
        code = words(row[3])
        assert row[3] == "none" or code[0] in errors.FAILURES


def test_every_state_event_attempt_and_entry_is_documented() -> None:
    states, money = text_of("concepts/states.md"), text_of("concepts/money.md")
    first = {word for _, rows in tables(states) for row in rows for word in words(row[0])}
    assert first >= {*State, *Event, *BillingStatus, *AttemptState}
    assert {words(row[0])[0] for row in rows_under(money, "entry")} == {*EntryKind}


# The command line


def commands(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its whole name."""
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(path), command
    else:
        for name, child in children.items():
            yield from commands(child, *path, name)


COMMANDS = dict(commands(typer.main.get_command(add_the_rest()), "calotype"))


def test_every_command_is_documented_and_no_other() -> None:
    headings = [name for name in sections(text_of("reference/cli.md")) if name != "calotype"]
    assert set(headings) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_of_a_command_is_documented_and_no_other(name: str) -> None:
    section = sections(text_of("reference/cli.md"))[name]
    parameters = COMMANDS[name].params
    options = {
        spelling
        for one in parameters
        if one.param_type_name == "option"
        for spelling in (*one.opts, *one.secondary_opts)
        if spelling not in {"--help", "-h"}
    }
    listed = {
        word.split()[0]
        for header, rows in tables(section)
        if header[0] == "option"
        for row in rows
        for word in words(row[0])
    }
    assert listed == options
    for one in parameters:
        if one.param_type_name == "argument":
            assert (one.metavar or one.name.upper()) in section


# Models


def test_the_example_of_a_model_loads_validates_and_has_a_price(tmp_path: Path) -> None:
    (example,) = EXAMPLE.findall(text_of("guides/models.md"))
    name = tomllib.loads(example)["id"]
    (tmp_path / f"{name}.toml").write_text(example, encoding="utf-8")
    catalog = load_catalog(tmp_path)
    asked = normalise(catalog, {"model": name, "prompt": "x", "careful": True, "n": 2}, text=False)
    assert asked.parameters["resolution"] == "1K"
    assert price(catalog.get(name), asked.parameters, asked.n) == 100_000


def test_every_key_of_a_model_is_documented() -> None:
    rows = rows_under(text_of("guides/models.md"), "key", "default")
    documented = {re.split(r"\W+", word.strip("["))[0] for row in rows for word in words(row[0])}
    assert documented == {field.name for field in msgspec.structs.fields(Model)}
