"""Cursors of the event log: ``place``, or ``place-task-seq`` where many events share a place."""

import re
from typing import Final

from calotype.store.port import EVER

_FORM: Final = re.compile(r"([0-9]{1,19})(?:-([0-9]{1,19})-([0-9]{1,19}))?", re.ASCII)


def parse(cursor: str) -> tuple[int, int, int]:
    """Place, task and number of the last event that was read.

    A place alone means that all of it was read, and the empty cursor that nothing was.

    Raises:
        ValueError: it is no cursor.

    """
    if not cursor:
        return (0, 0, 0)
    match = _FORM.fullmatch(cursor)
    if match is None:
        raise ValueError(f"'{cursor[:60]}' is no cursor of the event log.")
    place, task_id, seq = (EVER if part is None else int(part) for part in match.groups())
    if max(place, task_id, seq) > EVER:
        raise ValueError(f"'{cursor}' is no cursor of the event log.")
    return place, task_id, seq
