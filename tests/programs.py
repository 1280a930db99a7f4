"""Programs of the system; a machine without one gets it."""

import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PLACES: Final = "/usr/sbin:/usr/bin"
_UNPACKED: Final = Path(__file__).parents[1] / "build" / "packages"


def installed(program: str, package: str) -> str:
    """Where a program is, which its package is installed for by one process at a time."""
    with _turn():
        if (found := shutil.which(program, path=_PLACES)) is None:
            _apt("update")
            _apt("install", "--yes", "--no-install-recommends", package)
            found = shutil.which(program, path=_PLACES)
    assert found is not None
    return found


def unpacked(program: str, package: str) -> str:
    """The same without installing, for a package that would start a service of the system."""
    with _turn():
        if (found := shutil.which(program, path=_PLACES)) is not None:
            return found
        folder = _UNPACKED / package
        if not folder.exists():
            _UNPACKED.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=_UNPACKED) as made:
                _apt("update")
                _apt("download", package, folder=made)
                (archive,) = Path(made).glob("*.deb")
                whole = Path(made) / "whole"
                extract = ["dpkg-deb", "--extract", str(archive), str(whole)]
                subprocess.run(extract, check=True)
                whole.rename(folder)
        found = shutil.which(program, path=str(folder / "usr" / "bin"))
    assert found is not None
    return found


@contextmanager
def _turn() -> Iterator[None]:
    with (Path(tempfile.gettempdir()) / "calotype-tests-installing").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # until it is closed
        yield


def _apt(*arguments: str, folder: str | None = None) -> None:
    command = ["apt-get", "-qq", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
