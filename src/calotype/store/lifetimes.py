"""How long images are kept: a port of its own, and the SQL that the stores share.

``Store.submit``, ``keep_references``, ``keep_arrived`` and ``complete`` write with each image when
its time is over. Here images are taken whose time is, in an order that lets no two servers wait for
each other in a circle. All times are milliseconds since 1970.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from calotype.domain.task import Asset

FIRST: Final = (0, 0)
"""Before every place."""

Place = tuple[int, int]
"""Where an image stands among all that expire: its time and its id."""

SET_DAYS: Final = (
    "UPDATE accounts SET result_days = ?2, reference_days = ?3 WHERE id = ?1 RETURNING id"
)
FREE: Final = (
    "COALESCE(assets.expires_at <= (SELECT MIN(created_at) FROM tasks "
    "WHERE tasks.account_id = assets.account_id AND completed_at IS NULL), true)"
)
"""No unfinished task of its account was created before its time was over; one look-up in an index.

By ``created_at``, not by the least id: the two part where a clock is set back.
"""
OVER: Final = (
    "SELECT expires_at, id FROM assets WHERE expires_at <= ?1 AND deleted_at IS NULL "
    f"AND (expires_at, id) > (?2, ?3) AND {FREE} ORDER BY expires_at, id LIMIT ?4"
)


class Expired(msgspec.Struct, frozen=True):
    """A batch of images whose time is over."""

    images: Sequence[Asset]
    """Those that are marked as deleted now."""
    last: Place | None
    """Where to go on; None: no more is expired."""


class LifetimeStore(Protocol):
    """How long the images of one database are kept."""

    async def set_days(
        self, account_id: int, *, results: int | None, references: int | None
    ) -> bool:
        """Say how many days an account's images are kept that come from now on.

        None leaves that to the model and the settings; 0: until they are deleted. False: there is
        no such account.
        """
        ...

    async def expire(self, *, now: int, after: Place = FIRST, limit: int) -> Expired:
        """Mark images whose time is over as deleted: at most ``limit``, first those due first.

        An image stays while an unfinished task of its account was created before its time was
        over: that task may name it. What another server is marking or using is left to it.
        """
        ...

    async def stored(self, *, after: int = 0, limit: int) -> Sequence[Asset]:
        """The images that are not marked as deleted, by id, those after one."""
        ...

    async def keys(self, asset_ids: Sequence[int]) -> Mapping[int, str]:
        """The names in the asset store of those that have a row, marked or not, by id."""
        ...
