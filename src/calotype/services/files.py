"""Files: images that are uploaded once and named as references by many tasks."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from calotype.domain.clock import Clock
from calotype.domain.errors import FileNotFound, Unavailable
from calotype.domain.files import reference_of
from calotype.domain.ids import decode, encode
from calotype.domain.task import Asset
from calotype.services.assets import Assets, Kept
from calotype.services.deleting import Deleting
from calotype.store.files import NewFile
from calotype.store.port import Store


class Uploaded(msgspec.Struct, frozen=True):
    """A file, and whether it was not there before."""

    file: Asset
    is_new: bool


class Files:
    """The files of all accounts.

    Args:
        store: the database.
        assets: the images.
        deleting: removes what was deleted.
        reference_days: for which files are kept, where their account says nothing else.
        clock: the time.

    """

    def __init__(
        self,
        store: Store,
        assets: Assets,
        *,
        deleting: Deleting,
        reference_days: int,
        clock: Clock,
    ) -> None:
        self._store = store
        self._assets = assets
        self._deleting = deleting
        self._reference_days = reference_days
        self._clock = clock

    async def add(self, kept: Kept) -> Uploaded:
        """Make a file of a stored image, or find the one that the account made of the same bytes.

        The one that is there is kept for longer then, and the new image removed.
        """
        new = NewFile(kept.asset, kept.digest, self._reference_days)
        file = await self._added(new)
        if file.id != kept.asset.id and not await self._holds(file, kept):
            # Its bytes were lost: nobody is helped by finding it.
            with suppress(FileNotFound):  # another upload of the same bytes has seen it, too
                await self.delete(encode("asset", file.id), account_id=file.account_id)
            file = await self._added(new)
        if file.id == kept.asset.id:
            return Uploaded(file, is_new=True)
        await self._assets.discard([kept.asset])
        return Uploaded(file, is_new=False)

    async def _added(self, new: NewFile) -> Asset:
        try:
            return await self._store.files.add(new, now=self._clock())
        except Unavailable:  # a file may refer to the image all the same
            raise
        except Exception:  # not when cancelled: the file may be there by then
            await self._assets.discard([new.asset])
            raise

    async def _holds(self, file: Asset, kept: Kept) -> bool:
        """Whether the file that was found still has its bytes."""
        try:
            return await self._assets.store.holds(file.key)
        except Exception:  # nothing refers to the new image
            await self._assets.discard([kept.asset])
            raise

    async def find(self, word: str, *, account_id: int) -> Asset:
        """A file by its public id.

        Raises:
            errors.FileNotFound: there is none, or it is someone else's.

        """
        file_id, file = decode("asset", word), None
        if file_id is not None:
            file = await self._store.files.find(file_id, account_id=account_id, now=self._clock())
        if file is None:
            raise _not_found()
        return file

    async def page(self, account_id: int, *, before: int | None, limit: int) -> Sequence[Asset]:
        """An account's files, newest first, those with an id below ``before``."""
        return await self._store.files.page(
            account_id, before=before, limit=limit, now=self._clock()
        )

    async def delete(self, word: str, *, account_id: int) -> None:
        """Remove a file at once; a task that still needs it fails.

        Raises:
            errors.FileNotFound: there is none of this public id, or it is someone else's.

        """
        file_id, file = decode("asset", word), None
        if file_id is not None:
            file = await self._store.files.mark(file_id, account_id=account_id, now=self._clock())
        if file is None:
            raise _not_found()
        await self._deleting.remove([file], name=word)

    def document(self, file: Asset, *, base_url: str) -> dict[str, Any]:
        """The public form of a file; ``base_url`` stands before its URL."""
        url, _ = self._assets.url(
            file.id, file.content_type, server=base_url, until=file.expires_at
        )
        return {
            "id": encode("asset", file.id),
            "object": "file",
            "reference": reference_of(file.id),
            "content_type": file.content_type,
            "width": file.width,
            "height": file.height,
            "bytes": file.bytes,
            "created_at": file.created_at // 1000,
            "expires_at": None if file.expires_at is None else file.expires_at // 1000,
            "url": url,
        }


def _not_found() -> FileNotFound:
    return FileNotFound(
        "There is no file with this id in this account; it may have been deleted, or expired."
    )
