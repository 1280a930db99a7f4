"""The gate as `make check` runs it: as a program, over folders made here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GATE = Path(__file__).parents[2] / "tools" / "size_gate.py"
CODE_FOLDERS = ["src", "tests", "tools", "benchmarks"]

# Put together here, so that the gate does not find them in this file.
REGISTRY = "pypi" + ".org"
NODE_REGISTRY = "registry.npmjs" + ".org"
INDEX_OPTION = "--" + "index-url"
EXTRA_INDEX_OPTION = "--extra-" + "index-url"
LINKS_OPTION = "--" + "find-links"
HOME = "/" + "home/someone"
ROOT_HOME = "/" + "root/.cache"
WORK = "/" + "work/main"


def judge(root: Path) -> tuple[int, list[str]]:
    """The gate's exit code and the findings it prints, without the closing line."""
    run = subprocess.run(
        [sys.executable, str(GATE), str(root)], capture_output=True, text=True, check=False
    )
    assert run.stderr == ""
    return run.returncode, run.stdout.splitlines()[:-1]


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def function(lines: int, parameters: str = "") -> str:
    """A function of that many lines, counted from its def."""
    return f"def grow({parameters}):\n" + "    x = 1\n" * (lines - 1)


def names(count: int, prefix: str = "p") -> str:
    return ", ".join(f"{prefix}{number}" for number in range(count))


def test_code_at_every_limit_passes(tmp_path: Path) -> None:
    write(tmp_path, "src/a.py", "x = 1\n" * 800)
    write(tmp_path, "src/b.py", "@staticmethod\n" + function(100, names(10)))
    write(tmp_path, "src/c.py", f"class C:\n    def m(self, {names(10)}): ...\n")
    write(tmp_path, "src/d.py", f"class C:\n    def m(cls, {names(10)}): ...\n")
    write(tmp_path, "src/e.py", f"f = lambda {names(10)}: 0\n")
    assert judge(tmp_path) == (0, [])


def test_an_empty_folder_passes(tmp_path: Path) -> None:
    assert judge(tmp_path) == (0, [])


@pytest.mark.parametrize("folder", CODE_FOLDERS)
def test_a_long_module_is_found_in_each_folder_of_code(tmp_path: Path, folder: str) -> None:
    write(tmp_path, f"{folder}/deep/er/a.py", "x = 1\n" * 801)
    assert judge(tmp_path) == (
        1,
        [f"{folder}/deep/er/a.py:1: the module has 801 lines; 800 are allowed"],
    )


def test_code_elsewhere_is_nobodys_to_measure(tmp_path: Path) -> None:
    write(tmp_path, "docs/example.py", "x = 1\n" * 801)
    write(tmp_path, "src/notes.txt", "x = 1\n" * 801)
    assert judge(tmp_path) == (0, [])


@pytest.mark.parametrize("start", ["", "async "])
def test_a_long_function_is_found_at_its_def(tmp_path: Path, start: str) -> None:
    write(tmp_path, "src/a.py", "# first\n@decorated\n" + start + function(101))
    assert judge(tmp_path) == (1, ["src/a.py:3: grow() has 101 lines; 100 are allowed"])


@pytest.mark.parametrize(
    "parameters",
    [
        names(11),
        f"{names(5)}, /, {names(6, 'q')}",
        f"{names(5)}, *, {names(6, 'q')}",
        f"{names(9)}, *rest, **more",
        f"self, {names(11)}",
    ],
)
def test_parameters_of_every_kind_count(tmp_path: Path, parameters: str) -> None:
    write(tmp_path, "src/a.py", function(2, parameters))
    assert judge(tmp_path) == (1, ["src/a.py:1: grow() takes 11 parameters; 10 are allowed"])


def test_a_lambda_counts_too(tmp_path: Path) -> None:
    write(tmp_path, "src/a.py", f"f = lambda {names(11)}: 0\n")
    assert judge(tmp_path) == (1, ["src/a.py:1: the lambda takes 11 parameters; 10 are allowed"])


def test_no_comment_buys_a_size_off(tmp_path: Path) -> None:
    bought = "def f(" + names(11) + "): ...  # noqa: PLR0913 -- there are many\n"
    write(tmp_path, "src/a.py", bought)
    assert judge(tmp_path) == (1, ["src/a.py:1: f() takes 11 parameters; 10 are allowed"])


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa: S311 -- repeatable on purpose",
        "# noqa: S311, PLR2004 -- 'seeded', and the paper's own figure",
        "# ruff: noqa: T201 -- a script that prints",
        "# type: ignore[attr-defined]  # the stub lacks it",
        "# type: ignore[attr-defined, misc]  # the stub lacks it",
        "# type: ignore[misc]  # the stub is wrong  # noqa: S311 -- repeatable on purpose",
        "# every noqa has a reason, every type: ignore as well",
        "#: a plain word on what follows",
    ],
)
def test_an_ignore_with_its_rule_and_reason_passes(tmp_path: Path, comment: str) -> None:
    write(tmp_path, "src/a.py", f"x = 1  {comment}\n")
    assert judge(tmp_path) == (0, [])


@pytest.mark.parametrize(
    ("comment", "form"),
    [
        ("# noqa", "# noqa: X123 -- why"),
        ("# NOQA", "# noqa: X123 -- why"),
        ("# noqa: S311", "# noqa: X123 -- why"),
        ("# noqa: S311 --", "# noqa: X123 -- why"),
        ("# noqa: S311 - short dash", "# noqa: X123 -- why"),
        ("# noqa: S311 (in brackets)", "# noqa: X123 -- why"),
        ("# noqa -- every rule", "# noqa: X123 -- why"),
        ("#noqa:S311", "# noqa: X123 -- why"),
        ("# ruff: noqa", "# noqa: X123 -- why"),
        ("# flake8: noqa", "# noqa: X123 -- why"),
        ("# noqa: S311 -- good  # noqa", "# noqa: X123 -- why"),
        ("# type: ignore", "# type: ignore[code]  # why"),
        ("# type: ignore[misc]", "# type: ignore[code]  # why"),
        ("# type: ignore[misc] why", "# type: ignore[code]  # why"),
        ("# type: ignore  # why", "# type: ignore[code]  # why"),
        ("# type: ignore[misc]  # noqa: S311 -- why", "# type: ignore[code]  # why"),
        ("# mypy: ignore-errors", "may silence"),
        ("# pyright: basic", "may silence"),
        ("# pylint: disable=all", "may silence"),
        ("# ruff: disable[S311]", "may silence"),
        ("# ruff: file-ignore[S311]", "may silence"),
    ],
)
def test_an_ignore_without_rule_or_reason_is_found(tmp_path: Path, comment: str, form: str) -> None:
    write(tmp_path, "src/a.py", f"x = 1\ny = 2  {comment}\n")
    code, found = judge(tmp_path)
    assert code == 1
    assert len(found) == 1
    assert found[0].startswith("src/a.py:2: ")
    assert form in found[0]


def test_words_in_a_string_ignore_nothing(tmp_path: Path) -> None:
    write(tmp_path, "src/a.py", 'x = "# noqa"\ny = """\n# type: ignore\n"""\n')
    assert judge(tmp_path) == (0, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"https://{REGISTRY}/simple", "names a package registry's host"),
        (NODE_REGISTRY, "names a package registry's host"),
        (f"pip install {INDEX_OPTION} x", "says where packages come from"),
        (EXTRA_INDEX_OPTION, "says where packages come from"),
        (LINKS_OPTION, "says where packages come from"),
        (f"see {HOME}/notes", "holds a path of the machine"),
        (f"path={ROOT_HOME}", "holds a path of the machine"),
        (f'"{WORK}"', "holds a path of the machine"),
        (f"file://{WORK}", "holds a path of the machine"),
    ],
)
def test_a_file_that_names_this_machine_or_a_registry_is_found(
    tmp_path: Path, text: str, message: str
) -> None:
    write(tmp_path, "README.md", f"fine\n{text}\n")
    code, found = judge(tmp_path)
    assert code == 1
    assert len(found) == 1
    assert found[0].startswith("README.md:2: ")
    assert message in found[0]


def test_such_names_are_looked_for_in_every_text_file(tmp_path: Path) -> None:
    places = ["Makefile", ".ci/run", "docs/guides/start.md", "requirements/dev.lock", "src/a.py"]
    for name in places:
        write(tmp_path, name, f"# {HOME}\n")
    _, found = judge(tmp_path)
    assert [line.split(":")[0] for line in found] == places


@pytest.mark.parametrize(
    "text",
    [
        f"https://example.com{HOME}",
        f"the{WORK}",
        f"~{WORK}",
        f"${{base}}{WORK}",
        "pypi, the registry",
        "--no-emit-" + "index-url",
    ],
)
def test_what_only_looks_like_it_passes(tmp_path: Path, text: str) -> None:
    write(tmp_path, "README.md", text)
    assert judge(tmp_path) == (0, [])


def test_what_is_not_ours_is_not_read(tmp_path: Path) -> None:
    for name in [
        ".venv/a.py",
        ".git/config",
        "src/__pycache__/a.py",
        "calotype-data/log",
        "dist/a",
    ]:
        write(tmp_path, name, HOME)
    write(tmp_path, "environment/pyvenv.cfg", HOME)
    write(tmp_path, "environment/lib/a.py", HOME)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff" + HOME.encode())
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert judge(tmp_path) == (0, [])


def test_a_worktrees_own_pointer_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, ".git", f"gitdir: {WORK}")
    assert judge(tmp_path) == (0, [])


def test_a_file_that_is_no_python_is_found(tmp_path: Path) -> None:
    write(tmp_path, "src/a.py", "x = 1\ndef f(:\n")
    code, found = judge(tmp_path)
    assert code == 1
    assert found[0].startswith("src/a.py:2: is no Python: ")


def test_findings_come_in_a_stable_order(tmp_path: Path) -> None:
    write(tmp_path, "src/b.py", "x = 1  # noqa\ny = 1  # noqa\n")
    write(tmp_path, "src/a.py", f"x = 1  # {HOME}\n")
    _, found = judge(tmp_path)
    assert [line.split(": ")[0] for line in found] == ["src/a.py:1", "src/b.py:1", "src/b.py:2"]


def test_the_closing_line_counts_what_is_to_mend(tmp_path: Path) -> None:
    write(tmp_path, "src/a.py", "x = 1  # noqa\ny = 1  # noqa\n")
    run = subprocess.run(
        [sys.executable, str(GATE), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.stdout.splitlines()[-1] == "2 to mend"


def test_a_folder_that_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(GATE), str(tmp_path / "missing")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "is no folder" in run.stderr
