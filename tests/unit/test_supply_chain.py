"""What is shipped is listed whole, and an audit that reached nothing passes for no good one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements" / "runtime.lock").read_text(encoding="utf-8")
FAKE = """
import pathlib, sys
assert "--disable-pip" in sys.argv and "--require-hashes" in sys.argv, sys.argv
told = pathlib.Path(__file__).with_name("told")
if not told.exists():
    sys.exit("ConnectionError: nobody is there")
print(told.read_text())
"""


def run(tool: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},  # noqa: TID251 -- the program's own, and more
    )


def test_the_list_of_what_is_shipped_is_whole_and_the_same_each_time(tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    for target in (first, second):
        made = run("sbom.py", str(target))
        assert made.returncode == 0, made.stdout + made.stderr
    assert first.read_bytes() == second.read_bytes()
    listed = json.loads(first.read_text(encoding="utf-8"))
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == (
        "CycloneDX",
        "calotype",
    )
    pins = re.findall(r"^([\w.-]+)==([\w.]+)(?:.*\\\n(?:    --hash=.*\n)+)", LOCK, re.MULTILINE)
    assert len(pins) > 50
    found = {each["purl"]: each for each in listed["components"]}
    assert found.keys() == {f"pkg:pypi/{name}@{version}" for name, version in pins}
    for each in found.values():
        hashes = [one for place in each["externalReferences"] for one in place["hashes"]]
        assert hashes, each["name"]
        assert {one["alg"] for one in hashes} == {"SHA-256"}
        assert all(f"sha256:{one['content']}" in LOCK for one in hashes)


def package(name: str, *vulnerabilities: str, skipped: str = "") -> dict[str, Any]:
    if skipped:
        return {"name": name, "skip_reason": skipped}
    faults = [{"id": fault, "fix_versions": ["9.9"]} for fault in vulnerabilities]
    return {"name": name, "version": "1.0", "vulns": faults}


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        ([package("a"), package("b")], 0, "2 of 2 locked packages were looked up"),
        ([package("a"), package("b", "CVE-1")], 1, "b 1.0: CVE-1, mended in 9.9"),
        ([package("a", "CVE-1"), package("b", skipped="unknown")], 1, "1 of 2 locked packages"),
        ([package("a"), package("b", skipped="unknown")], 75, "NOT REACHED, 1 of 2"),
        ([package("a", skipped="unknown")], 75, "NOT REACHED, 0 of 1"),
        ([], 75, "NOT REACHED"),
        (None, 75, "NOT REACHED, nothing was looked up: ConnectionError: nobody is there"),
    ],
)
def test_an_audit_says_what_it_looked_up_and_what_it_could_not(
    tmp_path: Path, found: list[dict[str, Any]] | None, status: int, words: str
) -> None:
    """Asked of a stand-in for pip-audit, in whose place it is found first."""
    (tmp_path / "pip_audit.py").write_text(FAKE, encoding="utf-8")
    if found is not None:
        (tmp_path / "told").write_text(json.dumps({"dependencies": found}), encoding="utf-8")
    audit = run("audit.py", PYTHONPATH=str(tmp_path))
    assert (audit.returncode, audit.stderr) == (status, "")
    assert words in audit.stdout


def test_ci_lists_and_audits_and_fails_on_what_is_known_to_be_vulnerable(tmp_path: Path) -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make sbom" in script
    (line,) = [line for line in script.splitlines() if "tools/audit.py" in line]
    for status, wanted in ((0, 0), (1, 1), (2, 1), (75, 0)):
        program = tmp_path / "audit"
        program.write_text(f"#!/bin/sh\nexit {status}\n", encoding="utf-8")
        program.chmod(0o755)
        told = line.replace(".venv/bin/python tools/audit.py", str(program))
        done = subprocess.run(["/bin/bash", "-euc", f"{told}\necho on"], check=False)
        assert done.returncode == wanted, status
