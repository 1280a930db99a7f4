"""Images on their way in and out: judged, measured, stored durably, served by signed URLs."""

import asyncio
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from calotype.assets.port import AssetStore
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
from calotype.imaging.probe import probe, sniff

Kind = Literal["reference", "result"]

EXTENSIONS: Final = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}
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
    ) -> None:
        self.store = store
        self._signing_key = hmac.digest(secret, b"calotype asset url v1", "sha256")
        self._url_seconds = url_seconds
        self._ids = ids
        self._clock = clock
        self.converter = converter or Converter()

    async def keep(
        self,
        chunks: AsyncIterator[bytes],
        *,
        account_id: int,
        kind: Kind,
        max_bytes: int,
        content_types: Sequence[str] = tuple(EXTENSIONS),
        wanted: str | None = None,
    ) -> Kept:
        """Store an image from a stream; nothing stays behind when it is refused.

        Args:
            chunks: its bytes.
            account_id: whose it is.
            kind: what it is to its task.
            max_bytes: most bytes of it.
            content_types: what it may be.
            wanted: the content type to which it is converted if it is another one.

        Raises:
            errors.ReferenceTooLarge: over ``max_bytes``, or a pixel bomb.
            errors.UnsupportedReferenceType: no image, damaged, or of another type.
            errors.Unavailable: it cannot be converted or stored right now.

        """
        digest, size, head = hashlib.sha256(), 0, b""
        async with self.store.stage() as staged:
            async for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                if len(head) < _HEAD:
                    head += chunk[:_HEAD]
                    if len(head) >= _HEAD:
                        _judge_type(head, content_types)
                digest.update(chunk)
                await staged.write(chunk)
            if len(head) < _HEAD:
                raise UnsupportedReferenceType(
                    f"The file has {size} bytes, which is no image; send {_listed(content_types)}."
                )
            path = await staged.finish()
            facts = await asyncio.to_thread(probe, str(path))
            asset = Asset(
                id=self._ids.next(),
                account_id=account_id,
                key="",
                content_type=wanted or facts.content_type,
                bytes=size,
                width=facts.width,
                height=facts.height,
                created_at=self._clock(),
            )
            asset = msgspec.structs.replace(asset, key=_key(asset, kind))
            if asset.content_type == facts.content_type:
                await staged.publish(asset.key, content_type=asset.content_type)
            else:
                asset = await self._convert(path, asset)
        return Kept(asset, digest.digest())

    async def _convert(self, path: Path, asset: Asset) -> Asset:
        """Store the image at ``path`` as what the asset is to be."""
        async with self.store.stage() as staged:
            target = await staged.finish()
            try:
                await self.converter.convert(
                    path, target, asset.content_type, account_id=asset.account_id
                )
            except ConversionBroke as error:
                raise Unavailable(str(error), retry_after=10) from error
            except NotConvertible as error:
                raise UnsupportedReferenceType(str(error)) from error
            facts = await asyncio.to_thread(probe, str(target))
            size = (await asyncio.to_thread(target.stat)).st_size
            await staged.publish(asset.key, content_type=asset.content_type)
        return msgspec.structs.replace(asset, bytes=size, width=facts.width, height=facts.height)

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


def _judge_type(head: bytes, content_types: Sequence[str]) -> None:
    found = sniff(head)
    if found not in content_types:
        what = f"The file is {found}" if found else "The file is no image that we know"
        raise UnsupportedReferenceType(f"{what}; send {_listed(content_types)}.")


def _listed(content_types: Sequence[str]) -> str:
    return ", ".join(kind.removeprefix("image/").upper() for kind in content_types)


def _too_large(max_bytes: int) -> ReferenceTooLarge:
    return ReferenceTooLarge(
        f"The file has more than {max_bytes} bytes ({max_bytes // (1024 * 1024)} MiB); "
        "send a smaller one."
    )
