"""What is said of a question must never be said of a send: after ``TryLater`` it goes out again."""

import ast
from pathlib import Path
from typing import Final

import pytest

import calotype.providers

FILES: Final = sorted(Path(calotype.providers.__path__[0]).rglob("*.py"))
OF_QUESTIONS: Final = {"on_read", "unread", "unreadable"}
OF_SENDS: Final = {"submit", "_read", "create", "refuse", "beforehand"}
"""``_read`` is a step of ``submit`` in the family of the Images API."""


def called(function: ast.AST) -> set[str]:
    """The names of what a function calls, of methods too."""
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    names = {call.id for call in calls if isinstance(call, ast.Name)}
    return names | {call.attr for call in calls if isinstance(call, ast.Attribute)}


def reached(source: str) -> set[str]:
    """What a send may call, over the functions of the same file."""
    functions: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.setdefault(node.name, set()).update(called(node))
    found, left = set[str](), OF_SENDS & functions.keys()
    while left:
        found |= left
        left = {name for each in left for name in functions.get(each, ())} - found
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_no_send_is_judged_as_a_question(file: Path) -> None:
    assert not reached(file.read_text(encoding="utf-8")) & OF_QUESTIONS


def test_a_send_that_is_would_be_found() -> None:
    source = "class A:\n async def submit(self): return self._b()\n def _b(self): return on_read(1)"
    assert reached(source) & OF_QUESTIONS == {"on_read"}
