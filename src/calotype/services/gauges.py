"""What the database knows of the whole installation, asked for whoever watches it."""

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Final

import msgspec

from calotype.domain.clock import Clock
from calotype.domain.errors import Unavailable
from calotype.store.operating import QueueDepth, Totals
from calotype.store.port import Store

ASK_SECONDS: Final = 5.0
"""So long a question is waited for: half of what Prometheus gives a whole answer by default."""
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
        self._asked: asyncio.Task[Standings | None] | None = None
        self._fresh_until = 0.0

    async def standings(self) -> Standings | None:
        """What there is now, or was a moment ago; None while the database does not answer."""
        asked = self._asked
        if asked is None or (asked.done() and monotonic() >= self._fresh_until):
            asked = self._asked = asyncio.create_task(self._ask())
        # A question that takes longer goes on, and whoever comes next waits for it as well.
        done, _ = await asyncio.wait([asked], timeout=ASK_SECONDS)
        return asked.result() if done else None

    async def _ask(self) -> Standings | None:
        begun, operating = monotonic(), self._store.operating
        try:
            found = Standings(await operating.depth(), await operating.totals(), self._clock())
        except Unavailable:
            return None
        took = monotonic() - begun
        self._fresh_until = monotonic() + max(FRESH_SECONDS, SHARE * took)
        return found
