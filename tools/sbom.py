"""Write what is shipped, version by version, as CycloneDX: ``dist/calotype.cdx.json``.

It is made of ``requirements/runtime.lock`` alone, without the network, and is the same bytes each
time. What cannot be written whole is not written: every locked package has to be in it.

Usage: ``python tools/sbom.py [FILE]``.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

LOCK: Final = Path("requirements/runtime.lock")
TARGET: Final = Path("dist/calotype.cdx.json")
_PIN: Final = re.compile(r"^([a-z0-9.-]+)==([^ ;\\]+)", re.MULTILINE)


def locked() -> set[tuple[str, str]]:
    """Name and version of every package in the lock."""
    return set(_PIN.findall(LOCK.read_text(encoding="utf-8")))


def listed(target: Path) -> set[tuple[str, str]]:
    """Name and version of every component in the file."""
    components = json.loads(target.read_text(encoding="utf-8"))["components"]
    return {(each["name"], each["version"]) for each in components}


def main(target: Path) -> int:
    """Write the file and see that it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # The root names no direct dependencies, as a lock does not say which they are; hence -W.
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", str(LOCK)]
    command += ["--pyproject", "pyproject.toml", "--output-reproducible", "--of", "JSON"]
    # The library knows its own schema; judging the file by it takes five times as long.
    subprocess.run([*command, "--no-validate", "-o", str(target)], check=True, capture_output=True)
    missing = locked() - listed(target)
    if missing or not locked():
        print(f"sbom: {target} lacks {sorted(missing) or 'everything'}")
        return 1
    print(f"sbom: {target} lists {len(listed(target))} packages of {LOCK}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET))
