"""Deleting images for good: a task's when its owner wants that, and those whose time is over.

A mark in the database comes first, and from then on nobody is shown them. Then their files go, then
their rows; whatever keeps us from that, housekeeping goes on with it, so a kill between any two
steps leaves nothing behind. The task itself stays, for the books.

What is deleted does not come back, so a clock that leaps ahead is not believed for a while:
somebody may be setting it right.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from calotype.assets.port import AssetStore
from calotype.domain.clock import Clock
from calotype.domain.errors import TaskNotFinal, TaskNotFound, Unavailable
from calotype.domain.ids import decode
from calotype.domain.task import Asset, Task
from calotype.services.thumbnails import thumbnail_keys
from calotype.store.lifetimes import FIRST
from calotype.store.port import Store

BATCH: Final = 100
"""Images whose files are removed before their rows are."""
LATE_MS: Final = 60_000
"""So long an image is left after its time: a submission that named it just before may still be on
its way into the database, and machines' clocks differ."""
TRIALS: Final = 2
"""So many that cannot be removed one after the other, and it is the store that has trouble."""
LEAP_MS: Final = 3600 * 1000
"""A clock that went ahead of the time that passed by more than this leapt."""
DOUBTED_SECONDS: Final = 3600.0
"""For so long no image's time is over by it."""

log = logging.getLogger(__name__)


class Deleting:
    """Deletes for owners and when the time of images is over, and finishes what was begun.

    ``passed`` counts seconds that really pass, from any moment on.
    """

    def __init__(
        self,
        store: Store,
        assets: AssetStore,
        *,
        clock: Clock,
        passed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._assets = assets
        self._clock = clock
        self._passed = passed
        self._seen = (clock(), passed())
        self._doubted_until = passed()

    async def delete(self, task_word: str, *, account_id: int) -> Task:
        """Delete the images of a final task; once more is no error.

        Raises:
            errors.TaskNotFound: there is none of this public id, or it is someone else's.
            errors.TaskNotFinal: it is still being developed.

        """
        number, deletion = decode("task", task_word), None
        if number is not None:
            deletion = await self._store.gallery.delete(
                number, account_id=account_id, now=self._clock()
            )
        if deletion is None:
            raise TaskNotFound("There is no task with this id in this account.")
        if deletion.task.deleted_at is None:
            raise TaskNotFinal(
                f"The task is {deletion.task.state}; cancel it first, or wait until it is final."
            )
        await self.remove(deletion.assets, name=task_word)
        return deletion.task

    async def expire(self) -> int:
        """Remove images whose time is over and that no task needs; returns how many.

        While the asset store has trouble no more are begun; ``finish`` removes those that were.
        """
        removed, after = 0, FIRST
        while not self._is_doubtful():
            now = self._clock() - LATE_MS
            batch = await self._store.lifetimes.expire(now=now, after=after, limit=BATCH)
            gone = await self._remove_what_goes(batch.images) if batch.images else 0
            removed += gone
            if batch.last is None or gone < len(batch.images):
                break
            after = batch.last
        if removed:
            log.info("%d images are gone whose time was over", removed)
        return removed

    def _is_doubtful(self) -> bool:
        """Whether the clock leapt ahead lately."""
        (clock, passed), self._seen = self._seen, (self._clock(), self._passed())
        leap = self._seen[0] - clock - (self._seen[1] - passed) * 1000
        if leap > LEAP_MS:
            log.warning(
                "the clock leapt ahead by %d s; no image expires in the next hour", leap // 1000
            )
            self._doubted_until = self._seen[1] + DOUBTED_SECONDS
        return self._seen[1] < self._doubted_until

    async def remove(self, images: Sequence[Asset], *, name: str) -> None:
        """Remove the marked images of what goes by this name, now or as soon as that can be."""
        try:
            await self._remove(images)
        except Unavailable:
            log.warning("%s is deleted; its files go when they can be removed", name)

    async def finish(self) -> int:
        """Remove what is marked; returns how many images.

        What cannot be removed keeps nothing else, and is tried again the next time.

        Raises:
            errors.Unavailable: the asset store does not answer, and is asked for no more.

        """
        removed, after = 0, 0
        while doomed := await self._store.gallery.doomed(after=after, limit=BATCH):
            after = doomed[-1].id
            gone = await self._remove_what_goes(doomed)
            removed += gone
            if not gone:
                await self._assets.ping()
        return removed

    async def _remove_what_goes(self, images: Sequence[Asset]) -> int:
        try:
            await self._unlink(images)
            gone = list(images)
        except Unavailable:  # of one of them; the others are to go
            gone = await self._unlinked(images)
            log.warning(
                "the files of %d deleted images cannot be removed yet", len(images) - len(gone)
            )
        await self._store.gallery.bury([image.id for image in gone])
        return len(gone)

    async def _unlinked(self, images: Sequence[Asset]) -> list[Asset]:
        """Those that go one by one, until some in a row do not.

        In any order: those that never go must not stand before the others each time.
        """
        gone, failed = list[Asset](), 0
        for image in random.sample(images, len(images)):
            try:
                await self._unlink([image])
            except Unavailable:
                failed += 1
                if failed == TRIALS:
                    break
            else:
                gone.append(image)
                failed = 0
        return gone

    async def _remove(self, images: Sequence[Asset]) -> None:
        if images:
            await self._unlink(images)
            await self._store.gallery.bury([image.id for image in images])

    async def _unlink(self, images: Sequence[Asset]) -> None:
        await self._assets.delete([image.key for image in images])
        copies = [key for image in images for key in thumbnail_keys(image)]
        await self._assets.delete(copies)  # after the images: who makes one looks for those last
