"""The one way in which a task gets its job, as the head of a statement."""

from typing import Final

from calotype.domain.fairness import PRIORITY_SQL


def _head(priority: str) -> str:
    return f"""
INSERT INTO pgqueuer (priority, entrypoint, payload, execute_after, dedupe_key, headers, status)
SELECT {priority}, 'channel-' || channel_id, convert_to(id::text, 'UTF8'), now(), id::text,
    '{{}}'::jsonb, 'queued'
"""


ENQUEUE: Final = _head(PRIORITY_SQL)
"""To be followed by FROM what has the columns id, channel_id, created_at and backlog."""
ENQUEUE_AGAIN: Final = _head(f"COALESCE(priority, {PRIORITY_SQL})")
"""The same for a task that keeps the ``priority`` of the job it had, where there was one."""
