"""API keys kept in memory, and dropped at once when any process revokes one."""

import time
from collections.abc import Callable
from typing import Final

from calotype.domain.keys import ApiKey

MAX_AGE_SECONDS: Final = 5.0
"""A process that dies between revoking and saying so leaves others this far behind, no more."""
MAX_KEYS: Final = 10_000


class KeyCache:
    """Keys by digest.

    Args:
        mark: changes whenever a key was revoked anywhere; None while nobody can say.

    """

    def __init__(self, mark: Callable[[], bytes | None]) -> None:
        self._mark = mark
        self._seen: bytes | None = None
        self._good_until = 0.0
        self._keys: dict[bytes, ApiKey] = {}

    def get(self, digest: bytes) -> ApiKey | None:
        """A key that is known not to have been revoked since it was put."""
        mark = self._mark()
        if mark is None or mark != self._seen or time.monotonic() > self._good_until:
            self._keys.clear()
            self._seen = mark
            self._good_until = time.monotonic() + MAX_AGE_SECONDS
        return self._keys.get(digest)

    def put(self, digest: bytes, key: ApiKey, *, mark: bytes | None) -> None:
        """Keep a key that was read after the mark was what it is."""
        if mark is None or mark != self._seen:
            return
        if len(self._keys) >= MAX_KEYS:
            self._keys.clear()
        self._keys[digest] = key
