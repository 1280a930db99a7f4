"""API keys and their limits."""

from typing import Final

from calotype.store import statements

ADD_KEY: Final = statements.ADD_KEY.replace("?", "$")
ADD_METER: Final = statements.ADD_METER.replace("?", "$")
NOTE_USED: Final = """
UPDATE api_keys SET last_used_at = GREATEST(last_used_at, seen.at)
FROM unnest($1::bigint[], $2::bigint[]) AS seen (id, at) WHERE api_keys.id = seen.id
"""
