"""Small copies of images for pages: WebP, made when the first one asks, and kept beside them."""

import asyncio
from typing import Final

from calotype.assets.port import AssetStore
from calotype.domain.errors import AssetNotFound, Unavailable
from calotype.domain.task import Asset
from calotype.imaging.conversion import ConversionBroke, Converter, NotConvertible
from calotype.services.assets import place_of

WIDTHS: Final = (160, 320, 640, 1280)
"""Pixels; an image that is narrower stays as wide as it is."""
_DAMAGED: Final = "This image is damaged, so there is no copy of it."
_NOT_NOW: Final = "The copy of this image cannot be made right now."
_DAMAGED_KEPT: Final = 10_000
"""Damaged images that are remembered, the last ones found."""


class Thumbnails:
    """The small copies of stored images.

    Each is made once, however many ask meanwhile; what is half made when we die is swept away with
    what else was staged. Images that were found to be damaged are not tried again until the next
    start.

    Args:
        store: where images and their copies lie.
        converter: makes them, a few at a time, and fairly among accounts; None: one of its own.

    """

    def __init__(self, store: AssetStore, converter: Converter | None = None) -> None:
        self._store = store
        self.converter = converter or Converter()
        self._making: dict[str, asyncio.Task[str]] = {}
        self._damaged: dict[int, None] = {}

    async def key_of(self, asset: Asset, width: int) -> str:
        """The name in the store of an image's copy that is ``width`` pixels wide at most.

        Raises:
            errors.AssetNotFound: there is none of this width, the image is gone, or it is damaged.
            errors.Unavailable: it cannot be made or kept right now.

        """
        if width not in WIDTHS:
            widths = ", ".join(map(str, WIDTHS))
            raise AssetNotFound(f"There is no copy of this width; there are {widths}.")
        key = _key(asset, width)
        if await self._store.holds(key):
            return key
        if (making := self._making.get(key)) is None:
            making = asyncio.create_task(self._make(asset, width, key))
            self._making[key] = making
            making.add_done_callback(lambda done: self._made(key, done))
        return await asyncio.shield(making)

    async def close(self) -> None:
        """Stop what is being made."""
        making = list(self._making.values())
        for each in making:
            each.cancel()
        await asyncio.gather(*making, return_exceptions=True)

    async def _make(self, asset: Asset, width: int, key: str) -> str:
        async with self._store.file(asset.key) as source, self._store.stage() as staged:
            if asset.id in self._damaged:
                raise AssetNotFound(_DAMAGED)
            target = await staged.finish()
            try:
                await self.converter.shrink(source, target, width, account_id=asset.account_id)
            except NotConvertible as error:
                await self._require(asset)
                if isinstance(error, ConversionBroke):
                    raise Unavailable(_NOT_NOW, retry_after=10) from error
                self._remember(asset)
                raise AssetNotFound(_DAMAGED) from None
            await staged.publish(key, content_type="image/webp")
        try:
            await self._require(asset)
        except AssetNotFound:  # deleted meanwhile, and its copies with it
            await self._store.delete([key])
            raise
        return key

    async def _require(self, asset: Asset) -> None:
        if not await self._store.holds(asset.key):
            raise AssetNotFound("This image is no longer stored.")

    def _remember(self, damaged: Asset) -> None:
        if len(self._damaged) >= _DAMAGED_KEPT:
            del self._damaged[next(iter(self._damaged))]
        self._damaged[damaged.id] = None

    def _made(self, key: str, making: asyncio.Task[str]) -> None:
        del self._making[key]
        if not making.cancelled():
            making.exception()  # whoever still waits hears of it


def thumbnail_keys(asset: Asset) -> list[str]:
    """The names of all copies that an image may have; remove them after the image itself."""
    return [_key(asset, width) for width in WIDTHS]


def _key(asset: Asset, width: int) -> str:
    return f"thumbnails/{place_of(asset.id)}-{width}.webp"
