"""The clock, as something that can be handed in: milliseconds since 1970."""

import time
from collections.abc import Callable

Clock = Callable[[], int]


def system_clock() -> int:
    """The machine's own time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000
