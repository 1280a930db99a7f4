"""What the database knows of the whole installation, asked for whoever watches it."""

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Final

import msgspec

from calotype.domain.clock import Clock
from calotype.store.operating import QueueDepth, Totals
from calotype.store.port import Store

FRESH_SECONDS: Final = 5.0
SHARE: Final = 20
"""So many times as long as asking took is what was found shown: a twentieth of one core at most."""


class Standings(msgspec.Struct, frozen=True):
    """What was found."""

    depths: Sequence[QueueDepth]
    totals: Totals
    at: int


class Gauges:
    """Asks the database, and not too often."""

    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._asking = asyncio.Lock()
        self._found: Standings | None = None
        self._fresh_until = 0.0

    async def standings(self) -> Standings:
        """What there is now, or was a moment ago.

        Raises:
            Unavailable: the database does not answer.

        """
        async with self._asking:
            if self._found is None or monotonic() >= self._fresh_until:
                begun, operating = monotonic(), self._store.operating
                self._found = None
                self._found = Standings(
                    await operating.depth(), await operating.totals(), self._clock()
                )
                took = monotonic() - begun
                self._fresh_until = monotonic() + max(FRESH_SECONDS, SHARE * took)
            return self._found
