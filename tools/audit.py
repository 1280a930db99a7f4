"""Look what is locked up among the known vulnerabilities.

That is each version in ``requirements/runtime.lock`` that this machine would install. Needs the
network. Ends with 0 when each was looked up and none is known to be vulnerable, with 1 when one
is, and with 75 when the database, or some of what is locked, could not be reached: then nothing
may be concluded, and it says so.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

LOCK: Final = Path("requirements/runtime.lock")
CLEAN, VULNERABLE, NOT_REACHED = 0, 1, 75
"""75 is ``EX_TEMPFAIL``: it may go well another time."""
_SECONDS: Final = 120
_SHOWN: Final = 300


def main() -> int:
    """Ask, and say what came of it."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--format", "json"]
    # What is locked is all that is asked about: nothing is resolved, downloaded or installed.
    command += ["--require-hashes", "--disable-pip", "--progress-spinner", "off"]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return told(None, f"no answer within {_SECONDS} seconds")
    try:
        answer = json.loads(asked.stdout)
    except ValueError:
        lines = asked.stderr.strip().splitlines() or ["pip-audit said nothing"]
        return told(None, lines[-1][:_SHOWN])
    return told(answer["dependencies"], "")


def told(found: list[dict[str, Any]] | None, reason: str) -> int:
    """Print the outcome; returns the exit status.

    Args:
        found: what pip-audit says of each package; None where it could not ask.
        reason: why it could not.

    """
    if found is None:
        print(f"audit: NOT REACHED, nothing was looked up: {reason}")
        return NOT_REACHED
    vulnerable = [each for each in found if each.get("vulns")]
    for each in vulnerable:
        for fault in each["vulns"]:
            mended = ", ".join(fault["fix_versions"]) or "no version yet"
            print(f"{each['name']} {each['version']}: {fault['id']}, mended in {mended}")
    missed = [each["name"] for each in found if "vulns" not in each]
    judged = f"{len(found) - len(missed)} of {len(found)} locked packages were looked up"
    if vulnerable:
        print(f"audit: {len(vulnerable)} known to be vulnerable; {judged}")
        return VULNERABLE
    if missed or not found:
        names = ", ".join(missed)[:_SHOWN]
        print(f"audit: NOT REACHED, {judged}; the database here does not know {names}")
        return NOT_REACHED
    print(f"audit: none is known to be vulnerable; {judged}")
    return CLEAN


if __name__ == "__main__":
    sys.exit(main())
