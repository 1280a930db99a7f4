"""The one way in which a task gets its job, as the head of a statement."""

from typing import Final

from calotype.domain.fairness import PRIORITY_SQL

ENQUEUE: Final = f"""
INSERT INTO pgqueuer (priority, entrypoint, payload, execute_after, dedupe_key, headers, status)
SELECT {PRIORITY_SQL}, 'channel-' || channel_id, convert_to(id::text, 'UTF8'), now(), id::text,
    '{{}}'::jsonb, 'queued'
"""
"""To be followed by FROM what has the columns id, channel_id, created_at and backlog."""
