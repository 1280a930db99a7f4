"""Images on their way in and out: judged, measured, stored durably, served by signed URLs."""

import asyncio
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from calotype.assets.port import AssetStore, Staged
from calotype.domain.clock import Clock
from calotype.domain.errors import (
    AssetNotFound,
    ExpiredUrl,
    InvalidSignature,
    ReferenceTooLarge,
    UnsupportedReferenceType,
)
from calotype.domain.fitting import Limits
from calotype.domain.ids import IdSource, decode, encode
from calotype.domain.task import Asset
from calotype.imaging.cleaning import clean_file, cleaner, mend
from calotype.imaging.conversion import Converter, NotConvertible
from calotype.imaging.exif import UPRIGHT
from calotype.imaging.probe import ContentType, ImageFacts, probe, sniff
from calotype.imaging.provenance import Origin, xmp_packet
from calotype.imaging.sieve import Sieve

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

_KEY: Final = re.compile(
    r"(?:results|references|thumbnails)/([0-9a-z]{4})/asset_([0-9a-z]{13})(?:-\d+)?"
    r"\.(?:jpg|png|webp)\Z"
)


class Kept(msgspec.Struct, frozen=True):
    """A stored image and the SHA-256 of its bytes as they came."""

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
        provenance: write into results where they come from.
        keep_upstream_metadata: leave in results what their upstreams wrote into them.
        base_url: what URLs begin with where a CDN stands before us; empty where none does.

    """

    def __init__(
        self,
        store: AssetStore,
        *,
        secret: bytes,
        url_seconds: int,
        ids: IdSource,
        clock: Clock,
        provenance: bool = True,
        keep_upstream_metadata: bool = False,
        base_url: str = "",
    ) -> None:
        self.store = store
        self._signing_key = hmac.digest(secret, b"calotype asset url v1", "sha256")
        self._url_seconds = url_seconds
        self._ids = ids
        self._clock = clock
        self._base_url = base_url.rstrip("/")
        self._converter = Converter()
        self._provenance = provenance
        self._keep_metadata = keep_upstream_metadata

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
        """Store an image from a stream, clean of what it says of itself, and upright.

        Nothing stays behind when it is refused.

        Args:
            chunks: its bytes.
            account_id: whose it is.
            kind: what it is to its task.
            max_bytes: most bytes of it.
            content_types: what it may be.
            wanted: the content type to which it is converted if it is another one.
            origin: what is written into it.

        Raises:
            errors.ReferenceTooLarge: over ``max_bytes``, or a pixel bomb.
            errors.UnsupportedReferenceType: no image, damaged, or of another type.

        """
        created_at = self._clock()
        coming = _Coming(
            max_bytes=max_bytes,
            content_types=content_types,
            xmp=self._packet(origin, created_at),
            whole=self._keep_metadata and kind == "result",
        )
        async with self.store.stage() as staged:
            sieve = await coming.into(staged, chunks)
            path = await staged.finish()
            facts = await asyncio.to_thread(_look_at, path, sieve)
            asset = Asset(
                id=self._ids.next(),
                account_id=account_id,
                key="",
                content_type=wanted or facts.content_type,
                bytes=sieve.size,
                width=facts.width,
                height=facts.height,
                created_at=created_at,
            )
            asset = msgspec.structs.replace(asset, key=_key(asset, kind))
            if asset.content_type == facts.content_type and coming.presentable(sieve):
                await staged.publish(asset.key, content_type=asset.content_type)
            else:
                asset = await self._convert(path, asset, coming.xmp)
        return Kept(asset, coming.digest.digest())

    def _packet(self, origin: Origin | None, made_at: int) -> bytes | None:
        if origin is None or not self._provenance:
            return None
        return xmp_packet(origin, made_at=made_at)

    async def _convert(self, path: Path, asset: Asset, xmp: bytes | None) -> Asset:
        """Store the image at ``path`` upright, and as what the asset is to be."""
        async with self.store.stage() as plain, self.store.stage() as staged:
            made, target = await plain.finish(), await staged.finish()
            try:
                await self._converter.convert(path, made, asset.content_type)
            except NotConvertible as error:
                raise UnsupportedReferenceType(str(error)) from error
            content_type = (await asyncio.to_thread(probe, str(made))).content_type
            sieve = cleaner(content_type, xmp=xmp)
            await asyncio.to_thread(clean_file, made, target, sieve)
            facts = await asyncio.to_thread(probe, str(target))
            await staged.publish(asset.key, content_type=asset.content_type)
        return msgspec.structs.replace(
            asset, bytes=sieve.size, width=facts.width, height=facts.height
        )

    async def fit(self, asset: Asset, limits: Limits) -> Asset:
        """Store a copy of a reference that is within the limits.

        Raises:
            ConversionBroke: it may be done another time.
            NotConvertible: there can be none.
            errors.AssetNotFound: the reference is no longer stored.

        """
        async with self.store.file(asset.key) as source, self.store.stage() as staged:
            target = await staged.finish()
            await self._converter.fit(source, target, limits)
            facts = await asyncio.to_thread(probe, str(target))
            copy = Asset(
                id=self._ids.next(),
                account_id=asset.account_id,
                key="",
                content_type=facts.content_type,
                bytes=(await asyncio.to_thread(target.stat)).st_size,
                width=facts.width,
                height=facts.height,
                created_at=self._clock(),
            )
            copy = msgspec.structs.replace(copy, key=_key(copy, "reference"))
            await staged.publish(copy.key, content_type=copy.content_type)
        return copy

    async def discard(self, assets: Sequence[Asset]) -> None:
        """Remove images that nothing refers to."""
        await self.store.delete([asset.key for asset in assets])

    def signed_path(
        self, asset_id: int, content_type: str, *, until: int | None = None
    ) -> tuple[str, int]:
        """Path and query under which an image is served, and the Unix time until which it is.

        ``until`` is when the image goes, in ms, where that is known: no URL is good for longer.
        """
        name = f"{encode('asset', asset_id)}.{EXTENSIONS[content_type]}"
        good_until = self._clock() // 1000 + self._url_seconds
        expires = -(-good_until // _ROUNDING) * _ROUNDING
        if until is not None:
            expires = min(expires, until // 1000)
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

    @property
    def behind_cdn(self) -> bool:
        """Whether caches that many share may keep images for as long as their URL is good."""
        return bool(self._base_url)

    def url(
        self, asset_id: int, content_type: str, *, server: str, until: int | None = None
    ) -> tuple[str, int]:
        """Where an image is served, and the Unix time until which it is.

        ``server`` stands before the path where no CDN does; ``until`` as of ``signed_path``.
        """
        path, expires = self.signed_path(asset_id, content_type, until=until)
        return (self._base_url or server) + path, expires

    def check_shown(self, asset: Asset) -> None:
        """Whether an image may still be shown.

        Raises:
            errors.AssetNotFound: its time is over.

        """
        if asset.expires_at is not None and not asset.is_shown(now=self._clock()):
            until = datetime.fromtimestamp(asset.expires_at / 1000, UTC)
            raise AssetNotFound(f"This image was kept until {until:%Y-%m-%d %H:%M} UTC.")

    def seconds_left(self, expires: str) -> int:
        """How long a URL that was verified is still good for, at least one second."""
        return max(1, int(expires) - self._clock() // 1000)

    def _signature(self, name: str, expires: str) -> str:
        named = f"{name}\n{expires}".encode(errors="replace")
        return hmac.digest(self._signing_key, named, "sha256").hex()


class _Coming:
    """An image on its way in: measured, told by its first bytes, and cleaned as it passes."""

    def __init__(
        self, *, max_bytes: int, content_types: Sequence[str], xmp: bytes | None, whole: bool
    ) -> None:
        self._max_bytes = max_bytes
        self._content_types = content_types
        self.xmp = xmp
        self._whole = whole
        self.digest = hashlib.sha256()

    async def into(self, staged: Staged, chunks: AsyncIterator[bytes]) -> Sieve:
        """Write what is clean of it; returns what cleaned it."""
        size, head = 0, b""
        sieve: Sieve | None = None
        async for chunk in chunks:
            size += len(chunk)
            if size > self._max_bytes:
                raise _too_large(self._max_bytes)
            self.digest.update(chunk)
            coming = chunk
            if sieve is None:
                head += chunk
                if len(head) < _HEAD:
                    continue
                coming, found = head, _judged_type(head, self._content_types)
                sieve = cleaner(found, xmp=self.xmp, whole=self._whole)
            if clean := sieve.feed(coming):
                await staged.write(clean)
        if sieve is None:
            raise UnsupportedReferenceType(
                f"The file has {size} bytes, which is no image; "
                f"send {_listed(self._content_types)}."
            )
        await staged.write(sieve.end())
        return sieve

    def presentable(self, sieve: Sieve) -> bool:
        """Whether the image can be given out as it is by now."""
        return self._whole or (sieve.understood and sieve.orientation == UPRIGHT)


def _look_at(path: Path, sieve: Sieve) -> ImageFacts:
    mend(path, sieve.mends)
    return probe(str(path))


def place_of(asset_id: int) -> str:
    """The folder and the name of an image's files, without their ending."""
    word = encode("asset", asset_id)
    return f"{word.removeprefix('asset_')[:_FOLDER_LETTERS]}/{word}"


def asset_of(key: str) -> int | None:
    """The image that a file of the asset store belongs to; None: it is not called like ours."""
    match = _KEY.match(key)
    if match is None or not match[2].startswith(match[1]):
        return None
    return decode("asset", f"asset_{match[2]}")


def _key(asset: Asset, kind: Kind) -> str:
    return f"{kind}s/{place_of(asset.id)}.{EXTENSIONS[asset.content_type]}"


def _judged_type(head: bytes, content_types: Sequence[str]) -> ContentType:
    found = sniff(head)
    if found is None or found not in content_types:
        what = f"The file is {found}" if found else "The file is no image that we know"
        raise UnsupportedReferenceType(f"{what}; send {_listed(content_types)}.")
    return found


def _listed(content_types: Sequence[str]) -> str:
    return ", ".join(kind.removeprefix("image/").upper() for kind in content_types)


def _too_large(max_bytes: int) -> ReferenceTooLarge:
    return ReferenceTooLarge(
        f"The file has more than {max_bytes} bytes ({max_bytes // (1024 * 1024)} MiB); "
        "send a smaller one."
    )
