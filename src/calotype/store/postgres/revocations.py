"""Hearing of keys that other processes revoke."""

import asyncio
import secrets
import time
from typing import Any, Final

import asyncpg

from calotype.store.postgres.connection import CONNECT_SECONDS, OUTAGES

CHANNEL: Final = "calotype_key_revoked"


class Revocations:
    """A mark that changes with every revocation anywhere, over a connection that hears of them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._attaching = asyncio.Lock()
        self._deaf_until = 0.0
        self._listener: asyncpg.Connection[Any] | None = None
        self._mark = b""

    def mark(self) -> bytes | None:
        """The mark as it is now; None while nobody listens, and no key may be kept."""
        return self._mark if self._hears() else None

    def change(self) -> None:
        """Change the mark of this process; the others hear by ``CHANNEL``."""
        self._mark = secrets.token_bytes(8)

    async def listen(self) -> None:
        """Listen, unless it does already or has failed to a moment ago."""
        if self._hears() or self._attaching.locked() or time.monotonic() < self._deaf_until:
            return
        async with self._attaching:
            try:
                listener = await asyncpg.connect(self._url, timeout=CONNECT_SECONDS)
                self.change()
                await listener.add_listener(CHANNEL, lambda *_: self.change())
            except OUTAGES:
                self._deaf_until = time.monotonic() + CONNECT_SECONDS
            else:
                self._listener = listener

    async def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            await self._listener.close()
            self._listener = None

    def _hears(self) -> bool:
        return self._listener is not None and not self._listener.is_closed()
