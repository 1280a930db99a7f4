"""API keys and their limits."""

from typing import Final

from calotype.store import rows, statements

ADD_KEY: Final = statements.ADD_KEY.replace("?", "$")
ADD_METER: Final = statements.ADD_METER.replace("?", "$")
METER: Final = statements.METER.replace("?", "$")
LOCK_METERS: Final = (
    f"SELECT {rows.METER} FROM key_meters WHERE key_id = ANY($1) ORDER BY key_id FOR UPDATE"
)
KEEP_METER: Final = statements.KEEP_METER.replace("?", "$")
NOTE_USED: Final = """
WITH locked AS (  -- in the same order everywhere, so that two processes never wait for each other
    SELECT id FROM api_keys WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE
)
UPDATE api_keys SET last_used_at = GREATEST(last_used_at, seen.at)
FROM unnest($1::bigint[], $2::bigint[]) AS seen (id, at) JOIN locked USING (id)
WHERE api_keys.id = seen.id
"""
