"""Images that were made at once and lie at URLs: these go into the upstream's id of the job.

So they are stored before the download, which can begin again, elsewhere too.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

_ID_BYTES: Final = 4096


class Made(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Finished images at their URLs, and micro-USDC that they cost, where that is told."""

    urls: tuple[str, ...]
    cost: int | None = None


def kept(urls: Sequence[str], cost: int | None, *, prefix: str = "") -> str | None:
    """The id that holds them, after a prefix; None where they are too long for one."""
    upstream_id = prefix + msgspec.json.encode(Made(tuple(urls), cost)).decode()
    return upstream_id if len(upstream_id.encode()) <= _ID_BYTES else None


def made_of(upstream_id: str) -> Made | None:
    """What an id without its prefix holds; None for the name of a job."""
    try:
        return msgspec.json.decode(upstream_id, type=Made)
    except msgspec.MsgspecError:
        return None
