"""Programs of the system; a machine without one gets it."""

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

_PLACES: Final = "/usr/sbin:/usr/bin"


def installed(program: str, package: str) -> str:
    """Where a program is, which its package is installed for by one process at a time."""
    with (Path(tempfile.gettempdir()) / "calotype-tests-installing").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # until it is closed
        if (found := shutil.which(program, path=_PLACES)) is None:
            for command in (["update"], ["install", "--yes", "--no-install-recommends", package]):
                command[:0] = ["apt-get", "-qq"]
                subprocess.run(command, check=True, capture_output=True)
            found = shutil.which(program, path=_PLACES)
    assert found is not None
    return found
