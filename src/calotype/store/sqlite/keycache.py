"""API keys kept in memory, and dropped at once when any process revokes one.

A lookup in the database is cheap by itself, but it lets go of the interpreter's lock and then
waits for the writer thread to give it back, 100 µs under load. So every process maps one small
file beside the database; whoever revokes a key changes it, and a look at it costs nothing.
"""

import mmap
import os
import secrets
import time
from pathlib import Path
from typing import Final

from calotype.domain.keys import ApiKey

MAX_AGE_SECONDS: Final = 5.0
"""A process that dies between revoking and saying so leaves others this far behind, no more."""
MAX_KEYS: Final = 10_000
_MARK: Final = 16


class KeyCache:
    """Keys by digest, good until the mark in the file changes."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(descriptor).st_size < _MARK:
                os.ftruncate(descriptor, _MARK)
            self._shared = mmap.mmap(descriptor, _MARK)
        finally:
            os.close(descriptor)
        self._seen = b""
        self._good_until = 0.0
        self._keys: dict[bytes, ApiKey] = {}

    def get(self, digest: bytes) -> ApiKey | None:
        """A key that is known not to have been revoked since it was put."""
        if self._shared[:] != self._seen or time.monotonic() > self._good_until:
            self._keys.clear()
            self._seen = self._shared[:]
            self._good_until = time.monotonic() + MAX_AGE_SECONDS
        return self._keys.get(digest)

    def put(self, digest: bytes, key: ApiKey) -> None:
        """Keep a key that was read after the last ``get``."""
        if len(self._keys) >= MAX_KEYS:
            self._keys.clear()
        self._keys[digest] = key

    def invalidate(self) -> None:
        """Tell every process that a key was revoked."""
        self._shared[:] = secrets.token_bytes(_MARK)

    def close(self) -> None:
        """Let go of the file."""
        self._shared.close()
