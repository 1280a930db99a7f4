"""The references of a task as each upstream gets them: as they are, or as copies made to fit."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec

from calotype.domain.fitting import FittedCopy, Limits, Shape, shape_of
from calotype.domain.task import Asset, Reference, Task
from calotype.domain.wire import Wire
from calotype.imaging.conversion import ConversionBroke, NotConvertible
from calotype.providers.port import ReferenceImage
from calotype.services.assets import Assets
from calotype.store.port import Fenced, Store


class CannotFit(Exception):
    """No copy of a reference is within an upstream's limits; the message is for the client."""


def shapes(references: Sequence[ReferenceImage]) -> list[Shape]:
    """What limits are held against, and routing goes by."""
    return [Shape(one.content_type, one.width, one.height, one.size) for one in references]


class Fitter:
    """Finds the references of tasks, and makes the copies that upstreams ask for.

    A copy is always made from the original, once for each set of limits; it is written down in the
    task before anything is sent, so that whoever goes on with the task finds it.

    Args:
        days: how long references of a model are kept, where their account says nothing.
        url: our public URL of a stored reference, as ``Links.reference_url``.

    """

    def __init__(
        self,
        store: Store,
        assets: Assets,
        *,
        days: Callable[[str], int],
        url: Callable[[Asset], Awaitable[str | None]],
    ) -> None:
        self._store = store
        self._assets = assets
        self._days = days
        self._url = url

    async def originals(self, task: Task) -> tuple[ReferenceImage, ...] | None:
        """The references as they came, in their order; None when one is no longer there."""
        found = [await self._stored(reference.asset_id) for reference in task.references]
        images = [await self._image(asset) for asset in found if asset is not None]
        return tuple(images) if len(images) == len(found) else None

    async def known(self, task: Task) -> tuple[ReferenceImage, ...]:
        """The references as the database knows them: the asset store is asked nothing."""
        found = [await self._store.asset(reference.asset_id or 0) for reference in task.references]
        return tuple(self._shown(asset, None) for asset in found if asset is not None)

    async def given(
        self, task: Task, originals: Sequence[ReferenceImage], wire: Wire | None
    ) -> tuple[ReferenceImage, ...]:
        """What an upstream gets: the copies for its limits where there are some."""
        if wire is None:
            return tuple(originals)
        images = []
        for reference, original in zip(task.references, originals, strict=True):
            copy = reference.copy_for(wire.limits)
            asset = await self._stored(copy.asset_id) if copy else None
            images.append(await self._image(asset) if asset else original)
        return tuple(images)

    async def fit(
        self, task: Task, originals: Sequence[ReferenceImage], wire: Wire, *, channel_id: int
    ) -> Task:
        """The task with a copy of each reference that the upstream does not take as it is.

        It is the same task when nothing was to be done.

        Raises:
            CannotFit: there can be no such copy.
            ConversionBroke: it may be done another time.
            Fenced: the task was taken over, or has ended.

        """
        references: list[Reference] = []
        made: list[Asset] = []
        try:
            for number, (reference, shape) in enumerate(
                zip(task.references, shapes(originals), strict=True), start=1
            ):
                limits = wire.limits
                if not limits.faults(shape) or await self._has_copy(reference, limits):
                    references.append(reference)
                    continue
                asset = await self._copy(reference, limits, number=number)
                made.append(asset)
                copy = FittedCopy(asset.id, channel_id, limits, shape, shape_of(asset))
                others = [each for each in reference.fitted if each.limits != limits]
                references.append(msgspec.structs.replace(reference, fitted=(*others, copy)))
        except BaseException:
            await self._assets.discard(made)
            raise
        if not made:
            return task
        try:
            days = self._days(task.model)
            await self._store.keep_references(task, references, made, days=days)
        except Fenced:  # in any other case it may have been written
            await self._assets.discard(made)
            raise
        return msgspec.structs.replace(task, references=tuple(references))

    async def _has_copy(self, reference: Reference, limits: Limits) -> bool:
        copy = reference.copy_for(limits)
        return copy is not None and await self._stored(copy.asset_id) is not None

    async def _copy(self, reference: Reference, limits: Limits, *, number: int) -> Asset:
        original = await self._store.asset(reference.asset_id or 0)
        if original is None:
            raise CannotFit(f"Reference image {number} is no longer stored.")
        try:
            copy = await self._assets.fit(original, limits)
        except ConversionBroke:
            raise
        except NotConvertible as error:
            raise CannotFit(_cannot(number, limits, shape_of(original))) from error
        if limits.faults(shape_of(copy)):
            await self._assets.discard([copy])
            raise CannotFit(_cannot(number, limits, shape_of(original)))
        return copy

    async def _stored(self, asset_id: int | None) -> Asset | None:
        asset = await self._store.asset(asset_id) if asset_id else None
        return asset if asset and await self._assets.store.holds(asset.key) else None

    async def _image(self, asset: Asset) -> ReferenceImage:
        return self._shown(asset, await self._url(asset))

    def _shown(self, asset: Asset, url: str | None) -> ReferenceImage:
        return ReferenceImage(
            content_type=asset.content_type,
            width=asset.width,
            height=asset.height,
            size=asset.bytes,
            open=partial(self._assets.store.open, asset.key),
            url=url,
        )


def _cannot(number: int, limits: Limits, shape: Shape) -> str:
    reasons = "; ".join(limits.faults(shape))
    return f"Reference image {number} cannot be made to fit the upstream: {reasons}."
