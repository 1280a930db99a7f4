"""Finding what the asset store and the database do not agree on: files of nobody, images gone.

Memory stays flat however many images there are: the store is walked some at a time, and which
images were met is noted in a file of this machine that has no name.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from typing import Final

import msgspec

from calotype.assets.port import AssetStore, Stored
from calotype.domain.task import Asset
from calotype.services.assets import asset_of
from calotype.store.port import Store

AGE_MS: Final = 24 * 3600 * 1000
"""What is younger may be under way: a file comes before its row."""
SHOWN: Final = 5
"""Names that are told of."""
_PAGE: Final = 500

_NOTE: Final = "INSERT OR IGNORE INTO met SELECT value FROM json_each(?)"
_MET: Final = "SELECT id FROM met WHERE id IN (SELECT value FROM json_each(?))"


class Tally(msgspec.Struct):
    """Files or images: how many, how large, and the names of the first few."""

    count: int = 0
    bytes: int = 0
    names: list[str] = []

    def add(self, name: str, size: int) -> None:
        """One more."""
        self.count += 1
        self.bytes += size
        if len(self.names) < SHOWN:
            self.names.append(name)


class Agreement(msgspec.Struct):
    """What store and database say of each other."""

    orphans: Tally
    """Files of images that no row names, small copies among them."""
    foreign: Tally
    """Files that are not called like ours; they are left alone."""
    missing: Tally
    """Images that a row names and whose file is gone."""
    files: int = 0
    images: int = 0

    @property
    def is_of_strangers(self) -> bool:
        """Whether the database hardly is the one of these files: then no orphan is to be removed.

        More of them are nobody's than somebody's, or most images have no file.
        """
        named = self.files - self.orphans.count - self.foreign.count
        return self.orphans.count > named or self.missing.count > self.images / 2


class Orphans:
    """Compares an asset store with a database.

    Args:
        store: says which images there are.
        assets: has their files.
        before: files that were changed at this time or later are left out.

    """

    def __init__(self, store: Store, assets: AssetStore, *, before: int) -> None:
        self._store = store
        self._assets = assets
        self._before = before

    async def compare(self) -> Agreement:
        """Look at every file and at every row."""
        found = Agreement(Tally(), Tally(), Tally())
        with closing(sqlite3.connect("", check_same_thread=False)) as notes:
            notes.execute("CREATE TABLE met (id INTEGER PRIMARY KEY) STRICT")
            async for files in self._pages():
                found.files += len(files)
                whole = [
                    asset_of(each.key) or 0 for each in files if not each.key.startswith(_COPIES)
                ]
                await asyncio.to_thread(notes.execute, _NOTE, [_json(whole)])
                await self._judge(files, found)
            await self._find_missing(notes, found)
        return found

    async def remove(self) -> Tally:
        """Remove the orphans that there are now; returns which."""
        removed = Tally()
        async for files in self._pages():
            orphans = await self._orphans(files)
            await self._assets.delete([each.key for each in orphans])
            for each in orphans:
                removed.add(each.key, each.size)
        return removed

    async def _pages(self) -> AsyncIterator[Sequence[Stored]]:
        async for files in self._assets.walk():
            for start in range(0, len(files), _PAGE):
                yield files[start : start + _PAGE]

    async def _judge(self, files: Sequence[Stored], found: Agreement) -> None:
        for each in files:
            if asset_of(each.key) is None:
                found.foreign.add(each.key, each.size)
        for each in await self._orphans(files):
            found.orphans.add(each.key, each.size)

    async def _orphans(self, files: Sequence[Stored]) -> list[Stored]:
        """Those of some files that are old enough, called like ours, and named by no row."""
        old = [(asset_of(each.key), each) for each in files if each.modified_at < self._before]
        ours = [(id_, each) for id_, each in old if id_ is not None]
        if not ours:
            return []
        named = await self._store.lifetimes.keys(sorted({id_ for id_, _ in ours}))
        return [
            each
            for id_, each in ours
            if id_ not in named or (named[id_] != each.key and not each.key.startswith(_COPIES))
        ]

    async def _find_missing(self, notes: sqlite3.Connection, found: Agreement) -> None:
        after = 0
        while images := await self._store.lifetimes.stored(after=after, limit=_PAGE):
            after = images[-1].id
            found.images += len(images)
            ids = _json([image.id for image in images])
            met = {row[0] for row in notes.execute(_MET, [ids])}
            for image in images:
                if image.id not in met and await self._is_missing(image):
                    found.missing.add(image.key, image.bytes)

    async def _is_missing(self, image: Asset) -> bool:
        """Whether it is really gone, not just new since, or deleted meanwhile."""
        if await self._assets.holds(image.key):
            return False
        return await self._store.asset(image.id) is not None


_COPIES: Final = "thumbnails/"


def _json(ids: Sequence[int]) -> str:
    return msgspec.json.encode(ids).decode()
