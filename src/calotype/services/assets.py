"""Images on their way in and out: judged, measured, stored durably, served by signed URLs."""

import asyncio
import hashlib
import hmac
import logging
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from calotype.assets.port import AssetStore, Staged
from calotype.domain.clock import Clock
from calotype.domain.errors import (
    AssetNotFound,
    ExpiredUrl,
    InvalidSignature,
    ReferenceTooLarge,
    Unavailable,
    UnsupportedReferenceType,
)
from calotype.domain.fitting import Limits
from calotype.domain.ids import IdSource, decode, encode
from calotype.domain.task import Asset
from calotype.imaging.cleaning import clean_file, cleaner
from calotype.imaging.conversion import ConversionBroke, Converter, NotConvertible
from calotype.imaging.probe import ImageFacts, measure, probe
from calotype.imaging.provenance import Origin, xmp_packet
from calotype.imaging.signature import Sign, Signature
from calotype.observing.metrics import STORED_BYTES
from calotype.services.incoming import EXTENSIONS, Arrived, listed, stored_as, take_in

Kind = Literal["reference", "result"]

MAX_RESULT_BYTES: Final = 256 * 1024 * 1024
"""No upstream makes an image near this size; more is a fault."""

UPSTREAM_SECONDS: Final = 86_400
"""How long a URL for upstreams is good for, at least; a task is waited for much shorter."""
_UPSTREAM: Final = "\nupstream"
"""Signed with such a URL."""
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

log = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True):
    """A stored image."""

    asset: Asset
    digest: bytes
    """SHA-256 of its bytes as they came; empty for a result."""


class Named(msgspec.Struct, frozen=True):
    """What a signed URL names."""

    asset_id: int
    for_upstream: bool
    """It was given to an upstream, for a live task, and to no client."""


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
        provenance: bool = True,
        keep_upstream_metadata: bool = False,
        base_url: str = "",
        converter: Converter | None = None,
        signature: Signature | None = None,
    ) -> None:
        self.store = store
        self._signing_key = hmac.digest(secret, b"calotype asset url v1", "sha256")
        self._url_seconds = url_seconds
        self._ids = ids
        self._clock = clock
        self._base_url = base_url.rstrip("/")
        self.converter = converter or Converter()
        self._provenance = provenance
        self._keep_metadata = keep_upstream_metadata
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
        """Store an image from a stream, clean of what it says of itself, and upright.

        Nothing stays behind when it is refused. A result that cannot be made what it is wanted to
        be is stored as what it is.

        Args:
            chunks: its bytes.
            account_id: whose it is.
            kind: what it is to its task.
            max_bytes: most bytes of it.
            content_types: what it may be; GIF, AVIF and HEIC are converted to one of them.
            wanted: the content type to which it is converted if it is another one.
            origin: what is written into it, and said of it where it is signed.

        Raises:
            errors.ReferenceTooLarge: over ``max_bytes``, or a pixel bomb.
            errors.UnsupportedReferenceType: no image, damaged, or of another type.
            errors.Unavailable: it cannot be converted or stored right now.

        """
        created_at = self._clock()
        written = origin if self._provenance else None
        xmp = None if written is None else xmp_packet(written, made_at=created_at)
        whole = self._keep_metadata and kind == "result"
        digest = hashlib.sha256() if kind == "reference" else None
        async with self.store.stage() as staged:
            arrived = await take_in(
                *(chunks, staged),
                max_bytes=max_bytes,
                content_types=content_types,
                xmp=xmp,
                whole=whole,
                digest=digest,
            )
            made = _Making(
                kind,
                Asset(self._ids.next(), account_id, "", arrived.content_type, 0, 0, 0, created_at),
                origin,
                xmp,
            )
            if arrived.presentable and wanted in {None, arrived.content_type}:
                asset = await self._publish(staged, made, arrived.facts)
            else:
                targets = stored_as(wanted or arrived.content_type, content_types)
                try:
                    asset = await self._convert(staged, made, targets)
                except UnsupportedReferenceType as error:
                    if kind == "reference":
                        raise
                    asset = await self._save(staged, arrived, made, str(error))
        grown = asset.content_type != arrived.content_type and asset.bytes > max_bytes
        if kind == "reference" and grown:
            await self.discard([asset])
            raise ReferenceTooLarge(
                f"Made {listed([asset.content_type])}, as which it is stored, the file has "
                f"{asset.bytes} bytes, more than {max_bytes}; send a smaller one."
            )
        STORED_BYTES.add(kind, by=asset.bytes)
        return Kept(asset, b"" if digest is None else digest.digest())

    async def _convert(self, source: Staged, made: "_Making", targets: tuple[str, str]) -> Asset:
        """Store a staged image as the first of two types, or the second if it is clear."""
        async with self.store.stage() as plain, self.store.stage() as staged:
            converted, target = await plain.finish(), await staged.finish()
            try:
                content_type = await self.converter.convert(
                    *(await source.finish(), converted, targets[0]),
                    clear=targets[1],
                    account_id=made.asset.account_id,
                )
            except ConversionBroke as error:
                raise Unavailable(str(error), retry_after=10) from error
            except NotConvertible as error:
                raise UnsupportedReferenceType(str(error)) from error
            facts = await asyncio.to_thread(probe, str(converted))
            sieve = cleaner(facts.content_type, xmp=made.xmp)
            await asyncio.to_thread(clean_file, converted, target, sieve)
            asset = msgspec.structs.replace(made.asset, content_type=content_type)
            return await self._publish(staged, msgspec.structs.replace(made, asset=asset))

    async def _save(self, staged: Staged, arrived: Arrived, made: "_Making", fault: str) -> Asset:
        """Store a result that cannot be made what was wanted as what it is, clean all the same."""
        if arrived.clean:
            asset = await self._publish(staged, made, arrived.facts)
        else:
            asset = await self._convert(
                staged, made, stored_as(arrived.content_type, tuple(EXTENSIONS))
            )
        name = "a result" if made.origin is None else made.origin.task
        kind = listed([asset.content_type])
        log.error("%s: an image is stored as %s, not as it was asked for: %s", name, kind, fault)
        return asset

    async def _publish(
        self, staged: Staged, made: "_Making", facts: ImageFacts | None = None
    ) -> Asset:
        """Store a staged image, signed where it is to be; ``facts``: where they are known."""
        if facts is None:
            facts = await staged.look(measure)
        asset = made.measured(facts)
        if made.origin is not None and self._signs_with is not None:
            async with self.store.stage() as another:
                target = await another.finish()
                source = str(await staged.finish()), str(target), asset.content_type
                order = Sign(*source, self._signs_with, made.origin.model)
                try:
                    await self.converter.sign(order, account_id=asset.account_id)
                except NotConvertible as error:  # an image is never lost for want of a signature
                    log.error("%s: an image is stored unsigned: %s", made.origin.task, error)  # noqa: TRY400 -- it says all
                else:
                    signed = made.measured(await another.look(measure))
                    await another.publish(signed.key, content_type=signed.content_type)
                    return signed
        await staged.publish(asset.key, content_type=asset.content_type)
        return asset

    async def fit(self, original: Asset, limits: Limits) -> Asset:
        """Store a copy of a reference that is within the limits.

        Raises:
            ConversionBroke: it may be done another time.
            NotConvertible: there can be none.
            errors.AssetNotFound: the reference is no longer stored.

        """
        async with self.store.file(original.key) as source, self.store.stage() as staged:
            target = await staged.finish()
            await self.converter.fit(source, target, limits, account_id=original.account_id)
            facts = await asyncio.to_thread(probe, str(target))
            number, account_id = self._ids.next(), original.account_id
            copy = Asset(number, account_id, "", facts.content_type, 0, 0, 0, self._clock())
            return await self._publish(staged, _Making("reference", copy, None, None))

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

    def upstream_url(self, asset: Asset, *, server: str) -> str:
        """Where an upstream gets an image of a live task, for as long as one may take.

        It is good beyond the image's own time, which is over for clients alone while a task needs
        the image; so no client is to see it.
        """
        name = f"{encode('asset', asset.id)}.{EXTENSIONS[asset.content_type]}"
        good_until = self._clock() // 1000 + max(self._url_seconds, UPSTREAM_SECONDS)
        expires = str(-(-good_until // _ROUNDING) * _ROUNDING)
        signature = self._signature(name, expires, purpose=_UPSTREAM)
        path = f"/v1/assets/{name}?expires={expires}&signature={signature}"
        return (self._base_url or server) + path

    def verify(self, name: str, *, expires: str, signature: str) -> Named:
        """The image that a signed URL names.

        Raises:
            errors.InvalidSignature: not made by us, or changed since.
            errors.ExpiredUrl: past its time.

        """
        match, given = _NAME.match(name), signature.encode(errors="replace")
        is_for_client = hmac.compare_digest(given, self._signature(name, expires).encode())
        if match is None or not (
            is_for_client
            or hmac.compare_digest(
                given, self._signature(name, expires, purpose=_UPSTREAM).encode()
            )
        ):
            raise InvalidSignature(
                "This URL was not signed by this server; read the task again for a fresh one."
            )
        if int(expires) < self._clock() // 1000:
            raise ExpiredUrl("This URL has expired; read the task again for a fresh one.")
        return Named(decode("asset", match[1]) or 0, for_upstream=not is_for_client)

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

    def _signature(self, name: str, expires: str, *, purpose: str = "") -> str:
        named = f"{name}\n{expires}{purpose}".encode(errors="replace")
        return hmac.digest(self._signing_key, named, "sha256").hex()


class _Making(msgspec.Struct, frozen=True):
    """An image that is being made fit to be stored."""

    kind: Kind
    asset: Asset
    """Without what is known only of its file."""
    origin: Origin | None
    xmp: bytes | None
    """What is written into it."""

    def measured(self, facts: ImageFacts) -> Asset:
        """What the asset is with this file."""
        return msgspec.structs.replace(
            self.asset,
            key=f"{self.kind}s/{place_of(self.asset.id)}.{EXTENSIONS[self.asset.content_type]}",
            bytes=facts.size,
            width=facts.width,
            height=facts.height,
        )


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
