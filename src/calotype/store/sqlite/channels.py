"""What is known of channels: the times at which they may be sent to, and their health."""

import bisect
import sqlite3
from collections.abc import Sequence
from typing import Any

from calotype.store import rows
from calotype.store.port import MINUTE_MS
from calotype.store.statements import NOTE_HEALTH

_KEEP_SLOTS = (
    "INSERT INTO channel_slots (channel_id, slots, not_before) VALUES (?, ?, ?) "
    "ON CONFLICT (channel_id) DO UPDATE SET slots = excluded.slots, "
    "not_before = excluded.not_before"
)
_TELL = f"INSERT INTO channel_events ({rows.CHANNEL_EVENT}) VALUES (?, ?, ?, ?, ?, ?)"


def next_slot(
    connection: sqlite3.Connection, channel_id: int, *, per_minute: int, now: int, before: int
) -> int:
    """Reserve a time for one send; one later than ``before`` is only told."""
    found = connection.execute(
        "SELECT slots, not_before FROM channel_slots WHERE channel_id = ?", (channel_id,)
    ).fetchone()
    slots = [int(at) for at in found[0].split()] if found else []
    slot = max(now, found[1] if found else 0)
    if len(slots) >= per_minute:
        slot = max(slot, slots[-per_minute] + MINUTE_MS)
    if slot > before:
        return slot
    bisect.insort(slots, slot)
    forgotten, kept = slots[:-per_minute], slots[-per_minute:]
    not_before = max(found[1] if found else 0, forgotten[-1] + MINUTE_MS if forgotten else 0)
    connection.execute(_KEEP_SLOTS, (channel_id, " ".join(map(str, kept)), not_before))
    return slot


def note_health(connection: sqlite3.Connection, values: Sequence[Any]) -> None:
    """Keep what is known of a breaker, and what that changed."""
    for told in connection.execute(NOTE_HEALTH, values).fetchall():
        if told[2] is not None:
            connection.execute(_TELL, told)
