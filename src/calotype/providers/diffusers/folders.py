"""The folder in which a worker and its engine hand each other files."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_PREFIX: Final = "calotype-diffusers-"


class Exchange:
    """A folder of its own, which nobody but its process uses; it goes with ``close``.

    Whatever a process left that was killed, the next one removes: a folder whose lock nobody holds.
    """

    def __init__(self) -> None:
        self._held: tuple[Path, int] | None = None

    def fresh(self, name: str) -> Path:
        """A new empty folder in it, which is made anew if somebody cleared it away."""
        if self._held is not None and not self._held[0].exists():
            self.close()
        if self._held is None:
            _remove_left_behind()
            self._held = _make()
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._held[0]))

    def close(self) -> None:
        """Remove it with all that is in it."""
        if self._held is not None:
            folder, lock = self._held
            self._held = None
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _make() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = _locked(folder)
        if lock is not None and folder.exists():
            return folder, lock
        if lock is not None:  # another one that starts took it for one left behind
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """The folder, locked; None where somebody else holds it, or it is not ours."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _remove_left_behind() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if (lock := _locked(folder)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
