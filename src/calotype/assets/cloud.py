"""Images in a cloud store, through obstore: S3 and what speaks its protocol, Google's and Azure's.

Imported only where such a store is configured. A small image is sent from memory;
a larger one is staged in a folder of this machine and sent from there, so that no more than a few
parts of it are in memory at a time.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import BaseError

from calotype.assets.address import Bucket
from calotype.assets.clients import Client, client_of
from calotype.assets.faults import diagnosed, reason, status_of
from calotype.assets.port import Misconfigured, Stored
from calotype.assets.staging import (
    CHUNK,
    StagedFile,
    Staging,
    not_there,
    unavailable,
)
from calotype.domain.errors import AssetNotFound

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult

PART: Final = 5 * 1024 * 1024
"""Bytes of a part; what is not longer is sent at once. S3 takes no shorter parts."""
UPLOADS: Final = 4
"""Images that are sent at a time from their files: each has a part or two in memory."""
SMALL_UPLOADS: Final = 32
"""Of those that are small, and in memory."""
RESUMES: Final = 5
"""How often in a row a download that broke off is gone on with, without a byte in between."""
_ANSWER_SECONDS: Final = 25.0
"""Longest wait for an answer that is no image, tries again included."""
_PREPARE_SECONDS: Final = 15.0
_DELETES: Final = 10
_LONGEST_URL: Final = 7 * 24 * 3600
"""Seconds; S3 signs for no longer."""
_PROOF_SECONDS: Final = 10.0
"""For so long a store that took an image is believed to take another."""
_PING: Final = "ping"
"""Written to prove that images can be; overwritten each time."""
_KEPT: Final = "private, max-age=86400"
"""By whoever was sent to the store: a day, so that a deleted image is not met for long."""
_KEY: Final = re.compile(r"[a-z]+/[0-9a-z]+/asset_[0-9a-z]+(?:-\d+)?\.[a-z]+")
"""What is ours where others use the bucket too."""
_NOT_SATISFIABLE: Final = 416

log = logging.getLogger(__name__)


class CloudAssets:
    """An asset store in a bucket.

    Args:
        bucket: where it is.
        staging: a folder on this machine for images on their way in, and for copies.
        signs: whether clients are sent to the store by URLs that it signed.

    Raises:
        Misconfigured: the library cannot use the options or the credentials.

    """

    def __init__(self, bucket: Bucket, *, staging: Path, signs: bool) -> None:
        self._bucket = bucket
        self._client = client_of(bucket)
        self._staging = Staging(staging)
        self._signs = signs
        self._uploads = asyncio.Semaphore(UPLOADS)
        self._small_uploads = asyncio.Semaphore(SMALL_UPLOADS)
        self._proved_at = float("-inf")
        self._trouble = False

    async def prepare(self) -> None:
        """Write, read, list, sign and delete once; a store that does not answer is waited for."""
        try:
            async with asyncio.timeout(_PREPARE_SECONDS):
                await _Trial(self._bucket, signs=self._signs).run()
        except (BaseError, OSError, TimeoutError) as error:
            self._note(error)

    async def close(self) -> None:
        """Let go of the staging folder, which is empty by now."""
        self._staging.release()

    @asynccontextmanager
    async def stage(self) -> AsyncIterator["_StagedFile"]:
        """Begin to take an image in."""
        staged = _StagedFile(self, self._staging)
        try:
            yield staged
        finally:
            staged.discard()

    async def put(
        self, key: str, image: bytes | Path, *, content_type: str, in_parts: bool
    ) -> None:
        """Send an image, whole or not at all; a path is that of its file.

        Raises:
            errors.Unavailable: the store did not take it, though asked again for a while.

        """
        async with self._uploads if isinstance(image, Path) else self._small_uploads:
            with self._told(missing_is_trouble=True):
                await obstore.put_async(
                    self._client,
                    key,
                    image,
                    attributes={
                        "Content-Type": content_type,
                        "Cache-Control": _KEPT,
                        "Content-Disposition": f'inline; filename="{key.rpartition("/")[2]}"',
                    },
                    use_multipart=in_parts,
                    chunk_size=PART,
                    max_concurrency=1,
                )
        self._proved_at = monotonic()

    @asynccontextmanager
    async def open(
        self, key: str, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of an image from ``start`` up to ``stop``, in chunks."""
        chunks = self._chunks(key, await self._get(key, start, stop), start)
        try:
            yield chunks
        finally:
            await chunks.aclose()

    @asynccontextmanager
    async def file(self, key: str) -> AsyncIterator[Path]:
        """A copy of an image on this machine, gone at the end."""
        async with self.open(key) as chunks, self.stage() as copy:
            async for chunk in chunks:
                await copy.write(chunk)
            yield await copy.finish()

    def path(self, key: str) -> None:
        """It lies on no disk of ours."""

    async def signed_url(self, key: str, *, seconds: int) -> str | None:
        """A URL by which the store itself sends the image, where clients are sent to it."""
        if not self._signs:
            return None
        life = timedelta(seconds=min(seconds, _LONGEST_URL))
        with self._told():
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await obstore.sign_async(self._client, "GET", key, life)

    async def holds(self, key: str) -> bool:
        """Whether there is an image of this key."""
        try:
            with self._told():
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await obstore.head_async(self._client, key)
        except AssetNotFound:
            return False
        return True

    async def walk(self) -> AsyncIterator[Sequence[Stored]]:
        """Every stored image, a page of the listing at a time; what others put there is none."""
        pages = obstore.list(self._client, chunk_size=1000)
        while True:
            with self._told(missing_is_trouble=True):
                try:
                    page = await anext(pages)
                except StopAsyncIteration:
                    return
            yield [
                Stored(each["path"], each["size"], int(each["last_modified"].timestamp() * 1000))
                for each in page
                if _KEY.fullmatch(each["path"])
            ]

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove images; one that is not there is no error."""
        if not keys:
            return
        try:
            with self._told():
                await obstore.delete_async(self._client, list(keys))
        except AssetNotFound:  # Google's and Azure's stop at the first that is not there
            turns = asyncio.Semaphore(_DELETES)
            results = await asyncio.gather(
                *(self._delete(key, turns) for key in keys), return_exceptions=True
            )
            for error in results:
                if error is not None:
                    raise error from None

    async def ping(self) -> None:
        """Write a small object, unless one was written just now."""
        if monotonic() - self._proved_at < _PROOF_SECONDS:
            return
        with self._told(missing_is_trouble=True):
            async with asyncio.timeout(_ANSWER_SECONDS):
                await obstore.put_async(self._client, _PING, b"ping")
        self._proved_at = monotonic()

    async def sweep(self) -> int:
        """Remove what a process that is gone left staged; its uploads end by the store's rule."""
        return await self._staging.sweep()

    async def _delete(self, key: str, turns: asyncio.Semaphore) -> None:
        async with turns:
            try:
                with self._told():
                    await obstore.delete_async(self._client, key)
            except AssetNotFound:
                return

    async def _get(self, key: str, start: int, stop: int | None) -> "GetResult | None":
        """The answer with the bytes from ``start`` on; None: there are none."""
        if stop is not None and stop <= start:
            return None
        asked: GetOptions = {"range": {"offset": start} if stop is None else (start, stop)}
        if start == 0 and stop is None:
            asked = {}
        with self._told():
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    return await obstore.get_async(self._client, key, options=asked)
            except BaseError as error:
                if status_of(error) == _NOT_SATISFIABLE:
                    return None
                raise

    async def _chunks(
        self, key: str, result: "GetResult | None", start: int
    ) -> AsyncGenerator[bytes, None]:
        at, broken = start, 0
        while result is not None:
            end, trouble = result.range[1], None
            try:
                async for chunk in result.stream(min_chunk_size=CHUNK):
                    at, broken = at + len(chunk), 0
                    yield chunk
            except (BaseError, OSError) as error:
                trouble = error
            if at >= end:
                return
            broken += 1
            if broken > RESUMES:
                self._note(trouble or ConnectionError("the image ends too early"))
                raise unavailable()
            result = await self._get(key, at, end)

    @contextmanager
    def _told(self, *, missing_is_trouble: bool = False) -> Iterator[None]:
        """Turn the store's faults into ours, told to the log when they begin and end."""
        try:
            yield
        except FileNotFoundError as error:
            if missing_is_trouble or diagnosed(error, self._bucket) is not None:
                self._note(error)
                raise unavailable() from None
            raise not_there() from None
        except (BaseError, OSError) as error:  # a TimeoutError is an OSError
            self._note(error)
            raise unavailable() from None
        if self._trouble:
            self._trouble = False
            log.info("the asset store %s answers again", self._bucket)

    def _note(self, error: BaseException) -> None:
        self._proved_at = float("-inf")
        if not self._trouble:
            self._trouble = True
            log.warning("the asset store %s is in trouble: %s", self._bucket, reason(error))


class _StagedFile(StagedFile):
    def __init__(self, store: CloudAssets, staging: Staging) -> None:
        super().__init__(staging)
        self._store = store

    async def publish(self, key: str, *, content_type: str) -> None:
        image: bytes | Path | None = self.held
        in_parts = False
        if image is None:
            image = await self.finish()
            in_parts = (await self.trip(image.stat)).st_size > PART
        await self._store.put(key, image, content_type=content_type, in_parts=in_parts)


class _Trial:
    """Does once what will be done with the store, and says what its configuration does not let."""

    def __init__(self, bucket: Bucket, *, signs: bool) -> None:
        self._bucket = bucket
        self._client: Client = client_of(bucket, patient=False)
        self._signs = signs

    async def run(self) -> None:
        with self._judged("write"):
            await obstore.put_async(self._client, _PING, b"ping")
        with self._judged("read"):
            await (await obstore.get_async(self._client, _PING)).bytes_async()
        with self._judged("list"):
            await anext(obstore.list(self._client, chunk_size=1), None)
        if self._signs:
            await self._sign()
        with self._judged("delete"):
            await obstore.delete_async(self._client, _PING)

    async def _sign(self) -> None:
        try:
            await obstore.sign_async(self._client, "GET", _PING, timedelta(minutes=1))
        except BaseError as error:
            raise Misconfigured(
                f"{self._bucket}: these credentials cannot sign URLs ({reason(error)}); set "
                "asset_delivery to proxy, or use credentials that can."
            ) from None

    @contextmanager
    def _judged(self, deed: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            fault = diagnosed(error, self._bucket, deed=deed)
            if fault is not None:
                raise Misconfigured(fault) from None
            raise
