"""Whose task is next: a share for every account, however much one of them has queued.

A task's priority is the moment of its submission, moved back by ``STRIDE`` for each unfinished
task that its account already has. So the first task of a quiet account overtakes the ten
thousandth of a busy one; and since moments pass, nobody waits for ever.
"""

from typing import Final

_EPOCH_MS: Final = 1_735_689_600_000  # 2025-01-01T00:00:00Z: priorities fit 32 bits until 2093
STRIDE: Final = 1
"""Seconds by which each unfinished task of an account moves its next one back."""


def priority(*, submitted_at: int, backlog: int) -> int:
    """The queue's priority, higher first.

    Args:
        submitted_at: milliseconds since 1970.
        backlog: unfinished tasks of the account at that moment.

    """
    return -((submitted_at - _EPOCH_MS) // 1000 + STRIDE * backlog)


PRIORITY_SQL: Final = f"(-((created_at - {_EPOCH_MS}) / 1000 + {STRIDE} * backlog))::int"
"""The same, for a statement that has the columns ``created_at`` and ``backlog``."""
