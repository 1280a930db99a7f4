"""Images on their way in and out: judged, measured, stored durably, served by signed URLs."""

import asyncio
import hashlib
import hmac
import logging
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from calotype.assets.port import AssetStore, Staged
from calotype.domain.clock import Clock
from calotype.domain.errors import (
    ExpiredUrl,
    InvalidSignature,
    ReferenceTooLarge,
    Unavailable,
    UnsupportedReferenceType,
)
from calotype.domain.ids import IdSource, decode, encode
from calotype.domain.task import Asset
from calotype.imaging.conversion import ConversionBroke, Converter, NotConvertible
from calotype.imaging.foreign import (
    FOREIGN,
    ForeignType,
    converted_types,
    judge_foreign,
    sniff_foreign,
)
from calotype.imaging.probe import ContentType, probe, sniff
from calotype.imaging.provenance import Origin
from calotype.imaging.signing import Sign, Signature

Kind = Literal["reference", "result"]

EXTENSIONS: Final = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}
_OPAQUE: Final = ("image/jpeg", "image/png", "image/webp")
"""What an image of a type that is not stored becomes: the first of these that is taken."""
_CLEAR: Final = ("image/png", "image/webp", "image/jpeg")
"""The same for one that can be seen through."""
MAX_RESULT_BYTES: Final = 256 * 1024 * 1024
"""No upstream makes an image near this size; more is a fault."""

_HEAD: Final = 16
"""Bytes from which a type is told."""
_ROUNDING: Final = 3600
"""Expiry times are rounded up to a whole hour, so that a URL stays the same for a while and
caches can hold on to it."""
_FOLDER_LETTERS: Final = 4
"""Leading letters of an id that name its folder: about two hours of assets in each."""
_NAME: Final = re.compile(r"(asset_[0-9a-z]{13})\.(?:jpg|png|webp)\Z")

log = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True):
    """A stored image and the SHA-256 of its bytes."""

    asset: Asset
    digest: bytes


class Assets:
    """The images of all accounts.

    Args:
        store: where they lie.
        secret: signs URLs; whoever knows it can make them.
        url_seconds: how long a URL is good for, at least.
        ids: names new images.
        clock: the time.
        converter: makes them other formats; None: one of its own.
        signature: with what results are signed; None: they are not.

    """

    def __init__(
        self,
        store: AssetStore,
        *,
        secret: bytes,
        url_seconds: int,
        ids: IdSource,
        clock: Clock,
        converter: Converter | None = None,
        signature: Signature | None = None,
    ) -> None:
        self.store = store
        self._signing_key = hmac.digest(secret, b"calotype asset url v1", "sha256")
        self._url_seconds = url_seconds
        self._ids = ids
        self._clock = clock
        self.converter = converter or Converter()
        self._signs_with = signature

    async def keep(
        self,
        chunks: AsyncIterator[bytes],
        *,
        account_id: int,
        kind: Kind,
        max_bytes: int,
        content_types: Sequence[str] = tuple(EXTENSIONS),
        wanted: str | None = None,
        origin: Origin | None = None,
    ) -> Kept:
        """Store an image from a stream; nothing stays behind when it is refused.

        Args:
            chunks: its bytes.
            account_id: whose it is.
            kind: what it is to its task.
            max_bytes: most bytes of it.
            content_types: what it may be; GIF, AVIF and HEIC are converted to one of them.
            wanted: the content type to which it is converted if it is another one.
            origin: what is said of it where it is signed.

        Raises:
            errors.ReferenceTooLarge: over ``max_bytes``, or a pixel bomb.
            errors.UnsupportedReferenceType: no image, damaged, or of another type.
            errors.Unavailable: it cannot be converted or stored right now.

        """
        digest, size, head = hashlib.sha256(), 0, b""
        found: ContentType | ForeignType | None = None
        async with self.store.stage() as staged:
            async for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                if len(head) < _HEAD:
                    head += chunk[:_HEAD]
                    if len(head) >= _HEAD:
                        found = _judged_type(head, content_types)
                digest.update(chunk)
                await staged.write(chunk)
            if found is None:
                raise UnsupportedReferenceType(
                    f"The file has {size} bytes, which is no image; "
                    f"send {_sendable(content_types)}."
                )
            path = await staged.finish()
            await asyncio.to_thread(_judge, path, found)
            asset = Asset(
                id=self._ids.next(),
                account_id=account_id,
                key="",
                content_type=found,
                bytes=size,
                width=0,
                height=0,
                created_at=self._clock(),
            )
            if found == wanted or (wanted is None and found in EXTENSIONS):
                asset = await self._publish(staged, path, asset, kind, origin)
            else:
                targets = (wanted, wanted) if wanted else _stored_as(content_types)
                asset = await self._convert(path, asset, kind, targets, origin)
        if asset.content_type != found and asset.bytes > max_bytes:
            await self.discard([asset])
            raise ReferenceTooLarge(
                f"Made {_listed([asset.content_type])}, as which it is stored, the file has "
                f"{asset.bytes} bytes, more than {max_bytes}; send a smaller one."
            )
        return Kept(asset, digest.digest())

    async def _convert(
        self,
        path: Path,
        asset: Asset,
        kind: Kind,
        targets: tuple[str, str],
        origin: Origin | None,
    ) -> Asset:
        """Store the image at ``path`` as the first of two types, or the second if it is clear."""
        async with self.store.stage() as staged:
            target = await staged.finish()
            try:
                content_type = await self.converter.convert(
                    *(path, target, targets[0]), clear=targets[1], account_id=asset.account_id
                )
            except ConversionBroke as error:
                raise Unavailable(str(error), retry_after=10) from error
            except NotConvertible as error:
                raise UnsupportedReferenceType(str(error)) from error
            asset = msgspec.structs.replace(
                asset,
                content_type=content_type,
                bytes=(await asyncio.to_thread(target.stat)).st_size,
            )
            return await self._publish(staged, target, asset, kind, origin)

    async def _publish(
        self, staged: Staged, path: Path, asset: Asset, kind: Kind, origin: Origin | None
    ) -> Asset:
        """Store the image at ``path``, signed where it is to be."""
        facts = await asyncio.to_thread(probe, str(path))
        asset = msgspec.structs.replace(
            asset, key=_key(asset, kind), width=facts.width, height=facts.height
        )
        if origin is None or self._signs_with is None:
            await staged.publish(asset.key, content_type=asset.content_type)
            return asset
        async with self.store.stage() as another:
            target = await another.finish()
            order = Sign(
                *(str(path), str(target), asset.content_type), self._signs_with, origin.model
            )
            try:
                await self.converter.sign(order, account_id=asset.account_id)
            except NotConvertible as error:  # an image is never lost for want of a signature
                log.error("%s: an image is stored unsigned: %s", origin.task, error)  # noqa: TRY400 -- it says all
                await staged.publish(asset.key, content_type=asset.content_type)
                return asset
            size = (await asyncio.to_thread(target.stat)).st_size
            await another.publish(asset.key, content_type=asset.content_type)
        return msgspec.structs.replace(asset, bytes=size)

    async def discard(self, assets: Sequence[Asset]) -> None:
        """Remove images that nothing refers to."""
        await self.store.delete([asset.key for asset in assets])

    def signed_path(self, asset_id: int, content_type: str) -> tuple[str, int]:
        """Path and query under which an image is served, and the Unix time until which it is."""
        name = f"{encode('asset', asset_id)}.{EXTENSIONS[content_type]}"
        good_until = self._clock() // 1000 + self._url_seconds
        expires = -(-good_until // _ROUNDING) * _ROUNDING
        signature = self._signature(name, str(expires))
        return f"/v1/assets/{name}?expires={expires}&signature={signature}", expires

    def verify(self, name: str, *, expires: str, signature: str) -> int:
        """The id of the image that a signed URL names.

        Raises:
            errors.InvalidSignature: not made by us, or changed since.
            errors.ExpiredUrl: past its time.

        """
        match = _NAME.match(name)
        expected = self._signature(name, expires)
        if match is None or not hmac.compare_digest(
            signature.encode(errors="replace"), expected.encode()
        ):
            raise InvalidSignature(
                "This URL was not signed by this server; read the task again for a fresh one."
            )
        if int(expires) < self._clock() // 1000:
            raise ExpiredUrl("This URL has expired; read the task again for a fresh one.")
        return decode("asset", match[1]) or 0

    def _signature(self, name: str, expires: str) -> str:
        named = f"{name}\n{expires}".encode(errors="replace")
        return hmac.digest(self._signing_key, named, "sha256").hex()


def place_of(asset_id: int) -> str:
    """The folder and the name of an image's files, without their ending."""
    word = encode("asset", asset_id)
    return f"{word.removeprefix('asset_')[:_FOLDER_LETTERS]}/{word}"


def _key(asset: Asset, kind: Kind) -> str:
    return f"{kind}s/{place_of(asset.id)}.{EXTENSIONS[asset.content_type]}"


def _judged_type(head: bytes, content_types: Sequence[str]) -> ContentType | ForeignType:
    native, foreign = sniff(head), sniff_foreign(head)
    if native is not None and native in content_types:
        return native
    if foreign is not None and foreign in converted_types():
        return foreign
    found = native or foreign
    what = f"The file is {found}" if found else "The file is no image that we know"
    if foreign:
        what += ", which this server cannot read"
    raise UnsupportedReferenceType(f"{what}; send {_sendable(content_types)}.")


def _judge(path: Path, content_type: ContentType | ForeignType) -> None:
    if content_type in EXTENSIONS:
        probe(str(path))
    else:
        judge_foreign(str(path), content_type)


def _stored_as(content_types: Sequence[str]) -> tuple[str, str]:
    """What an image of a type that is not stored becomes: opaque, and one that is clear."""
    opaque = next((each for each in _OPAQUE if each in content_types), _OPAQUE[0])
    return opaque, next((each for each in _CLEAR if each in content_types), _CLEAR[0])


def _sendable(content_types: Sequence[str]) -> str:
    return _listed((*content_types, *(each for each in converted_types() if each in FOREIGN)))


def _listed(content_types: Sequence[str]) -> str:
    return ", ".join(kind.removeprefix("image/").upper() for kind in content_types)


def _too_large(max_bytes: int) -> ReferenceTooLarge:
    return ReferenceTooLarge(
        f"The file has more than {max_bytes} bytes ({max_bytes // (1024 * 1024)} MiB); "
        "send a smaller one."
    )
