"""Connections that the server ends for what their clients do: each is counted, and told of.

A flood of them is not to fill a disk: the log gets one line a second for each reason.
"""

import logging
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Final

from calotype.domain.errors import Unavailable
from calotype.observing.metrics import CUT

NOT_TAKEN: Final = "answer_not_taken"
NOTHING_ASKED: Final = "nothing_asked"
LINE_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class Cuts:
    """Counts cuts, and tells of those since the last line.

    Args:
        clock: seconds.

    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._next_line: dict[str, float] = {}
        self._untold: Counter[str] = Counter()

    def note(self, reason: str, client: tuple[str, int] | None) -> None:
        """Take in one cut: the code of the refusal, or why there was none."""
        CUT.add(reason)
        self._untold[reason] += 1
        now = self._clock()
        if now < self._next_line.get(reason, now):
            return
        self._next_line[reason] = now + LINE_SECONDS
        # Room for connections is the operator's to make; the rest is what clients do.
        level = logging.WARNING if reason == Unavailable.code else logging.INFO
        address = "unknown" if client is None else client[0]
        log.log(
            level,
            "connections cut: %d, %s, the last of %s",
            self._untold.pop(reason),
            reason,
            address,
        )
