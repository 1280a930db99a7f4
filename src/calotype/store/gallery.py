"""What a store shows of an account's pictures: a port of its own."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

import msgspec

from calotype.domain.task import Asset, State, Task

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Page(msgspec.Struct, frozen=True):
    """Tasks that were found, newest first, and how far was looked for them."""

    tasks: Sequence[Task]
    searched_to: int | None
    """The id before which to go on; None when there is nothing older."""


class Deletion(msgspec.Struct, frozen=True):
    """A task that is to be deleted."""

    task: Task
    """As it is now; without ``deleted_at`` where it is not final."""
    assets: Sequence[Asset]
    """Its images whose files may still be there."""


class GalleryStore(Protocol):
    """The pictures of one database."""

    async def pictures(
        self,
        account_id: int,
        *,
        model: str | None = None,
        since: int | None = None,
        until: int | None = None,
        text: str = "",
        metadata: Mapping[str, str] = NOTHING,
        before: int | None = None,
        now: int = 0,
        limit: int,
    ) -> Page:
        """An account's tasks that have images to show ``now``, newest first; see ``tasks``."""
        ...

    async def tasks(
        self,
        account_id: int,
        *,
        state: State | None = None,
        model: str | None = None,
        since: int | None = None,
        until: int | None = None,
        text: str = "",
        metadata: Mapping[str, str] = NOTHING,
        before: int | None = None,
        limit: int,
    ) -> Page:
        """An account's tasks, newest first, by id.

        A page looks at a few thousand tasks at most, so it may hold fewer than there are, or none,
        and say all the same where to go on.

        Args:
            account_id: whose tasks.
            state: only those in this state.
            model: only those of this model.
            since: only those created at this time or later.
            until: only those created before this time.
            text: only those whose prompt has this in it, in letters of any case.
            metadata: only those that carry all of these pairs.
            before: only those with an id below this one: where the page before ended.
            limit: how many at most.

        """
        ...

    async def delete(self, task_id: int, *, account_id: int, now: int) -> Deletion | None:
        """Mark a final task of an account and its images as deleted; None where it has none such.

        From then on no image of it is found by ``Store.asset``. A task that is not final stays as
        it is; one that was marked before keeps its time.
        """
        ...

    async def doomed(self, *, after: int = 0, limit: int) -> Sequence[Asset]:
        """Images that are marked and may still have files, by id, those after one."""
        ...

    async def bury(self, asset_ids: Sequence[int]) -> None:
        """Forget marked images, whose files are gone."""
        ...
