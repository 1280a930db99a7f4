"""Collecting the images of a task: each is stored as it comes, and none of them twice."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from time import monotonic
from typing import Final

import msgspec

from calotype.domain.catalog import OUTPUT_FORMAT, Model
from calotype.domain.clock import Clock
from calotype.domain.errors import InvalidRequest
from calotype.domain.ids import encode
from calotype.domain.outcomes import Done, ImageSource, SourceError
from calotype.domain.task import ArrivedImage, Asset, Task
from calotype.imaging.conversion import CONTENT_TYPES
from calotype.imaging.provenance import Origin
from calotype.observing import metrics, tracing
from calotype.services.assets import MAX_RESULT_BYTES, Assets
from calotype.store.port import Store

BODIES: Final = 64
"""Images read from upstreams at a time: more costs memory and brings no speed."""

Keep = Callable[[Callable[[], Awaitable[None]], Sequence[Asset]], Awaitable[None]]
"""Does a write that images come with, for as long as the database does not answer."""


class Harvest(msgspec.Struct, frozen=True):
    """The images of a task that can be used, all of them stored."""

    images: tuple[ArrivedImage, ...]
    """By their place."""
    fresh: tuple[Asset, ...]
    """Those that the database does not know of yet."""
    faults: tuple[str, ...]
    """Why others cannot be used, for good."""


class Collector:
    """Takes in what upstreams made."""

    def __init__(
        self,
        store: Store,
        assets: Assets,
        *,
        days: Callable[[str], int],
        clock: Clock,
        keep: Keep,
    ) -> None:
        self._store = store
        self._assets = assets
        self._days = days
        self._clock = clock
        self._write_with = keep
        self._bodies = asyncio.Semaphore(BODIES)

    async def collect(self, task: Task, model: Model, done: Done) -> Harvest:
        """Store the images that have not arrived yet.

        Of a task that asked for several, each is written down before the next is fetched; the
        last is left to the write that ends the task.

        Raises:
            SourceError: one could not be read, and asking for it again may help.
            Fenced: the task is another worker's, or the client has asked for it to be stopped.

        """
        arrived = {each.place: each for each in task.arrived}
        fresh, faults = list[Asset](), list[str]()
        again: SourceError | None = None
        for place, source in enumerate(done.images):
            if place in arrived:
                continue
            if fresh and task.request.n > 1:
                await self._write_down(task, arrived, fresh)
                fresh = []
            try:
                image = await self._keep(task, model, source, trained=done.trained)
            except InvalidRequest as error:
                faults.append(
                    f"The upstream's answer is no image that can be used: {error.message}"
                )
            except SourceError as error:
                if error.retryable:
                    again = error
                else:
                    faults.append(f"The image cannot be read: {error}")
            except BaseException:
                await self._assets.discard(fresh)
                raise
            else:
                fresh.append(image)
                arrived[place] = _arrived(image, place)
        if again is None:
            return Harvest(_in_order(arrived.values()), tuple(fresh), tuple(faults))
        if task.request.n > 1 and fresh:
            await self._write_down(task, arrived, fresh)
        else:
            await self._assets.discard(fresh)
        raise again

    async def _write_down(
        self, task: Task, arrived: dict[int, ArrivedImage], fresh: Sequence[Asset]
    ) -> None:
        write = partial(
            self._store.keep_arrived,
            task,
            _in_order(arrived.values()),
            images=fresh,
            progress=100 * len(arrived) // task.request.n,
            now=self._clock(),
            days=self._days(task.model),
        )
        await self._write_with(write, fresh)

    async def _keep(self, task: Task, model: Model, source: ImageSource, *, trained: bool) -> Asset:
        origin = Origin(encode("task", task.id), model.name if trained else None)
        asked = task.request.parameters.get(OUTPUT_FORMAT, model.output_format)
        begun = monotonic()
        with tracing.span("store image"):
            kept = await self._taken_in(task, source, origin, wanted=CONTENT_TYPES[str(asked)])
        metrics.IMAGE_SECONDS.note(monotonic() - begun)
        return kept

    async def _taken_in(
        self, task: Task, source: ImageSource, origin: Origin, *, wanted: str
    ) -> Asset:
        async with self._bodies, source.open() as chunks:
            kept = await self._assets.keep(
                chunks,
                account_id=task.account_id,
                kind="result",
                max_bytes=MAX_RESULT_BYTES,
                wanted=wanted,
                origin=origin,
            )
        return kept.asset


def _in_order(images: Collection[ArrivedImage]) -> tuple[ArrivedImage, ...]:
    return tuple(sorted(images, key=lambda each: each.place))


def _arrived(asset: Asset, place: int) -> ArrivedImage:
    return ArrivedImage(asset.id, asset.content_type, asset.width, asset.height, asset.bytes, place)
