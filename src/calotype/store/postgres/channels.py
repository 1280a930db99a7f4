"""What is known of channels: the times at which they may be sent to, and their health.

One statement each, so that nobody holds a row over a round trip: a process that is held up in
the midst of one would hold up all others.
"""

from typing import Final

from calotype.store import rows, statements
from calotype.store.port import MINUTE_MS

NEXT_SLOT: Final = f"""
INSERT INTO channel_slots AS ring (channel_id, slots, not_before, answer)
VALUES ($1, CASE WHEN $3::bigint <= $4 THEN $3::text ELSE '' END, 0, $3)
ON CONFLICT (channel_id) DO UPDATE SET (slots, not_before, answer) = (
    SELECT
        CASE WHEN slot > $4::bigint THEN ring.slots
            ELSE array_to_string(slots[cardinality(slots) - $2::int + 1:], ' ') END,
        CASE WHEN slot > $4 THEN ring.not_before
            ELSE GREATEST(ring.not_before, slots[cardinality(slots) - $2] + {MINUTE_MS}) END,
        slot
    FROM (
        SELECT slot, ARRAY(SELECT at FROM unnest(known || slot) AS at ORDER BY at) AS slots
        FROM (
            SELECT known, GREATEST(
                $3::bigint, ring.not_before, known[cardinality(known) - $2 + 1] + {MINUTE_MS}
            ) AS slot
            FROM (SELECT string_to_array(ring.slots, ' ')::bigint[] AS known OFFSET 0) AS kept
            OFFSET 0
        ) AS asked
        OFFSET 0
    ) AS answered
)
RETURNING answer
"""
"""``OFFSET 0``: otherwise the whole ring is made anew at each place that names it."""

NOTE_HEALTH: Final = f"""
WITH noted AS ({statements.NOTE_HEALTH.replace("?", "$")})
INSERT INTO channel_events ({rows.CHANNEL_EVENT})
SELECT channel_id, model, event, fault, detail, updated_at FROM noted WHERE event IS NOT NULL
"""

CHANNEL_EVENTS: Final = statements.CHANNEL_EVENTS.replace("?", "$")
FORGET_CHANNEL_EVENTS: Final = statements.FORGET_CHANNEL_EVENTS.replace("?", "$")
