"""Small copies of images for pages: WebP, made when the first one asks, and kept beside them."""

import asyncio
from pathlib import Path
from typing import Final

from calotype.assets.port import AssetStore
from calotype.domain.errors import AssetNotFound
from calotype.domain.task import Asset
from calotype.services.assets import place_of
from calotype.services.conversion import Converter, NotConvertible

WIDTHS: Final = (160, 320, 640, 1280)
"""Pixels; an image that is narrower stays as wide as it is."""


class Thumbnails:
    """The small copies of stored images.

    Each is made once, however many ask meanwhile, and a few at a time, each in a process of its
    own; what is half made when we die is swept away with what else was staged.

    Args:
        store: where images and their copies lie.

    """

    def __init__(self, store: AssetStore) -> None:
        self._store = store
        self._converter = Converter()
        self._making: dict[str, asyncio.Task[Path]] = {}

    async def path_of(self, asset: Asset, width: int) -> Path:
        """The file of an image's copy that is ``width`` pixels wide at most.

        Raises:
            errors.AssetNotFound: there is none of this width, the image is gone, or it is damaged.
            errors.Unavailable: it cannot be kept right now.

        """
        if width not in WIDTHS:
            widths = ", ".join(map(str, WIDTHS))
            raise AssetNotFound(f"There is no copy of this width; there are {widths}.")
        key = _key(asset, width)
        path = self._store.path(key)
        if path.is_file():
            return path
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

    async def _make(self, asset: Asset, width: int, key: str) -> Path:
        source = self._store.path(asset.key)
        _require(source)
        async with self._store.stage() as staged:
            target = await staged.finish()
            try:
                await self._converter.shrink(source, target, width)
            except NotConvertible:
                _require(source)
                raise AssetNotFound("This image is damaged, so there is no copy of it.") from None
            await staged.publish(key)
        if not source.is_file():  # deleted meanwhile, and its copies with it
            await self._store.delete([key])
        _require(source)
        return self._store.path(key)

    def _made(self, key: str, making: asyncio.Task[Path]) -> None:
        del self._making[key]
        if not making.cancelled():
            making.exception()  # whoever still waits hears of it


def thumbnail_keys(asset: Asset) -> list[str]:
    """The names of all copies that an image may have; remove them after the image itself."""
    return [_key(asset, width) for width in WIDTHS]


def _key(asset: Asset, width: int) -> str:
    return f"thumbnails/{place_of(asset.id)}-{width}.webp"


def _require(source: Path) -> None:
    if not source.is_file():
        raise AssetNotFound("This image is no longer stored.")
