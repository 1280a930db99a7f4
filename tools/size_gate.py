"""The gate that nothing silences: how long code may be, what may be ignored, what a file may name.

Over the Python of ``src``, ``tests``, ``tools`` and ``benchmarks``:

- a module has at most 800 lines, a function 100 (from its ``def`` to its end) and 10 parameters
  (``self`` and ``cls`` not counted);
- an ignored finding names its rule and says why: ``# noqa: X123 -- why`` and
  ``# type: ignore[code]  # why``. There is no other way of ignoring one.

Over every text file of the repository: no package registry's host, no option that names one, no
path of the machine it was written on.

Usage: ``python tools/size_gate.py [FOLDER]``. Prints ``path:line: what is wrong`` for each
offender and ends with 1 when there is one.
"""

import ast
import io
import os
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

MODULE_LINES: Final = 800
FUNCTION_LINES: Final = 100
PARAMETERS: Final = 10

CODE_FOLDERS: Final = ("src", "tests", "tools", "benchmarks")
SKIPPED_FOLDERS: Final = frozenset({"__pycache__", "build", "calotype-data", "dist"})
DOT_FOLDERS_READ: Final = frozenset({".ci", ".github"})

IGNORED_LINT: Final = re.compile(r"#\s*(?:(?:ruff|flake8)\s*:\s*)?noqa\b", re.IGNORECASE)
GOOD_LINT: Final = re.compile(r"#\s*(?:ruff: )?noqa: [A-Z]+[0-9]+(?:, [A-Z]+[0-9]+)* -- \S")
IGNORED_TYPE: Final = re.compile(r"#\s*type:\s*ignore\b")
GOOD_TYPE: Final = re.compile(r"#\s*type: ignore\[[a-z-]+(?:, ?[a-z-]+)*\]  # (?!noqa\b)\w")
OTHER_IGNORE: Final = re.compile(
    r"#\s*(?:(?:mypy|pyright|pylint)\s*:|ruff\s*:\s*(?:file-ignore|ignore|disable)\b)"
)

# Written so that none of them matches its own line.
UNWANTED_TEXT: Final = (
    (
        re.compile(
            r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:com|org)|(?:deb|security)\.debian\.org)\b"
        ),
        "names a package registry's host",
    ),
    (
        re.compile(r"--(?:extra-)?index-url\b|--(?:find-links|trusted-host)\b"),
        "says where packages come from; that is the installing machine's business",
    ),
    (
        re.compile(r"(?<![\w.~)}-])/(?:work|root|home)/"),
        "holds a path of the machine it was written on",
    ),
)


class Finding(NamedTuple):
    """One thing to mend: where it stands and what is wrong."""

    path: Path
    line: int
    message: str


def text_files(root: Path) -> Iterator[Path]:
    """Every file of the repository that can hold text, in a stable order.

    Folders with a dot in front, built things and virtual environments are left out.
    """
    for folder, subfolders, names in os.walk(root):
        here = Path(folder)
        subfolders[:] = sorted(
            name
            for name in subfolders
            if name not in SKIPPED_FOLDERS
            and (not name.startswith(".") or name in DOT_FOLDERS_READ)
            and not (here / name / "pyvenv.cfg").exists()
        )
        files = (here / name for name in sorted(names) if name != ".git")  # a file in a worktree
        yield from (path for path in files if path.is_file())


def long_modules(text: str) -> Iterator[tuple[int, str]]:
    """The one finding of a module that is too long."""
    if (lines := len(text.splitlines())) > MODULE_LINES:
        yield 1, f"the module has {lines} lines; {MODULE_LINES} are allowed"


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> list[str]:
    """The names of a function's parameters, ``self`` and ``cls`` left out."""
    given = function.args
    by_position = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    if by_position[:1] in (["self"], ["cls"]):
        del by_position[0]
    rest = (given.vararg, *given.kwonlyargs, given.kwarg)
    return by_position + [argument.arg for argument in rest if argument is not None]


def large_functions(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Functions that are too long or take too much."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        name = "the lambda" if isinstance(node, ast.Lambda) else f"{node.name}()"
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > FUNCTION_LINES:
            yield node.lineno, f"{name} has {lines} lines; {FUNCTION_LINES} are allowed"
        if (count := len(parameters(node))) > PARAMETERS:
            yield node.lineno, f"{name} takes {count} parameters; {PARAMETERS} are allowed"


def bare_ignores(text: str) -> Iterator[tuple[int, str]]:
    """Comments that silence a checker without saying which rule and why."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, comment = token.start[0], token.string
        if len(IGNORED_LINT.findall(comment)) > len(GOOD_LINT.findall(comment)):
            yield line, "an ignored lint rule is written '# noqa: X123 -- why'"
        if len(IGNORED_TYPE.findall(comment)) > len(GOOD_TYPE.findall(comment)):
            yield line, "an ignored type error is written '# type: ignore[code]  # why'"
        if OTHER_IGNORE.search(comment):
            yield line, "only '# noqa: X123 -- why' and '# type: ignore[code]  # why' may silence"


def code_findings(text: str) -> Iterator[tuple[int, str]]:
    """All that is wrong with one Python file."""
    yield from long_modules(text)
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield error.lineno or 1, f"is no Python: {error.msg}"
        return
    yield from large_functions(tree)
    yield from bare_ignores(text)


def text_findings(text: str) -> Iterator[tuple[int, str]]:
    """Words that no file of the repository may hold."""
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, message in UNWANTED_TEXT:
            if pattern.search(line):
                yield number, message


def findings(root: Path) -> Iterator[Finding]:
    """Everything to mend in the repository at ``root``, file by file."""
    for path in text_files(root):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture, say
            continue
        shown = path.relative_to(root)
        found = set(text_findings(text))
        if path.suffix == ".py" and shown.parts[0] in CODE_FOLDERS:
            found.update(code_findings(text))
        yield from (Finding(shown, line, message) for line, message in sorted(found))


def main(arguments: list[str]) -> int:
    """Print what is to mend; 1 when there is anything, 2 when the folder is none."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    if not root.is_dir():
        print(f"{root} is no folder", file=sys.stderr)
        return 2
    found = list(findings(root))
    for path, line, message in found:
        print(f"{path}:{line}: {message}")
    print(f"{len(found)} to mend" if found else "sizes, ignores and names are in order")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
