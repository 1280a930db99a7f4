"""A few bytes that every process on one data folder sees change, without asking the database.

A lookup in SQLite is cheap by itself, but it lets go of the interpreter's lock and then waits for
the writer thread to give it back, 100 µs under load; a look at mapped memory costs nothing.
"""

import mmap
import os
import secrets
from pathlib import Path
from typing import Final

_SIZE: Final = 16


class SharedMark:
    """A mark in a small file that is mapped into every process."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(descriptor).st_size < _SIZE:
                os.ftruncate(descriptor, _SIZE)
            self._shared = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)

    def read(self) -> bytes:
        """The mark as it is now."""
        return self._shared[:]

    def change(self) -> None:
        """Change it, for every process."""
        self._shared[:] = secrets.token_bytes(_SIZE)

    def close(self) -> None:
        """Let go of the file."""
        self._shared.close()
