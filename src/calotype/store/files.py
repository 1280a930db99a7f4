"""What a store keeps of files, which are uploaded once for many tasks: a port of its own.

A file is an image of task 0 with the digest of what was uploaded. Past its ``expires_at`` it is
not found, whether it is still stored or not.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from calotype.domain.files import gone
from calotype.domain.task import Asset, NewTask

NO_TASK: Final = 0
"""What stands for the task of a file."""
IS_FILE: Final = f"task_id = {NO_TASK} AND digest IS NOT NULL AND deleted_at IS NULL"
"""Whether an image is a file, as a condition of SQL."""


def alive(now: str) -> str:
    """Whether an image is a file that has not expired, as a condition of SQL."""
    return f"{IS_FILE} AND (expires_at IS NULL OR expires_at > {now})"


class NewFile(msgspec.Struct, frozen=True):
    """An image that was uploaded and stored.

    Args:
        asset: where it lies; what it says of its own expiry is not looked at.
        digest: SHA-256 of what was uploaded.
        reference_days: for which it is kept, where its account says nothing else.

    """

    asset: Asset
    digest: bytes
    reference_days: int


class FileStore(Protocol):
    """The files of one database."""

    async def add(self, new: NewFile, *, now: int) -> Asset:
        """Keep a file, or find the account's file of the same digest and keep that for longer.

        It has expired and is still stored: then it is found, too.
        """
        ...

    async def find(self, file_id: int, *, account_id: int, now: int) -> Asset | None:
        """An account's file."""
        ...

    async def page(
        self, account_id: int, *, before: int | None = None, limit: int, now: int
    ) -> Sequence[Asset]:
        """An account's files, newest first, those with an id below ``before``."""
        ...

    async def mark(self, file_id: int, *, account_id: int, now: int) -> Asset | None:
        """Mark an account's file as deleted; from then on nobody finds it.

        What is marked is buried as ``GalleryStore.bury`` does it, once it has no bytes any more.
        """
        ...


def check_named(new: NewTask, ends: Mapping[int, int]) -> None:
    """Whether the images that a task names are there when it is submitted.

    Args:
        new: the task.
        ends: when the images expire that are there, by id.

    Raises:
        errors.InvalidParameter: one of them is not.

    """
    for asset_id in sorted(new.named):
        if ends.get(asset_id, 0) <= new.created_at:
            raise gone(asset_id)
