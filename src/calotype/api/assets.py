"""GET /v1/assets/{name}: stored images and their small copies, by signed URL."""

import asyncio
import re
from typing import Final, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from calotype.api.context import Context
from calotype.api.ranges import asked_range
from calotype.api.render import has_copy
from calotype.assets.serving import GUARDS, image_response
from calotype.domain.errors import AssetNotFound, InvalidParameter
from calotype.domain.task import Asset
from calotype.observing.metrics import SERVED_BYTES
from calotype.services.thumbnails import WIDTHS

PREFIX: Final = "/v1/assets/"
REDIRECT_SECONDS: Final = 300
"""How long a URL of the store's own is good for: for the download that begins now."""
REDIRECT_KEPT_SECONDS: Final = 60
"""How long a client may keep a redirect; what it leads to is good for much longer."""
_SIGNED: Final = re.compile(rb"expires=(\d{1,19})&signature=([0-9a-f]{64})\Z")
_WIDTHS: Final = {str(width): width for width in WIDTHS}


class _Asked(NamedTuple):
    """The query of a signed URL."""

    expires: str
    signature: str
    width: str | None
    """How wide a copy is asked for; None: the image itself."""


class _Picture(msgspec.Struct, frozen=True):
    """What is sent."""

    key: str
    name: str
    """Of the file, without its folder."""
    content_type: str
    size: int | None
    """Bytes; None where only its store knows."""

    @property
    def etag(self) -> str:
        return f'"{self.name.partition(".")[0]}"'


class AssetFiles:
    """Serves images: by a redirect to a store that signs URLs, else through this server."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def handle(self, request: Request) -> Response:
        """The image that the signed URL names, or a copy of it."""
        name = request.scope["path"].removeprefix(PREFIX)
        asked = _asked(request)
        named = self._context.assets.verify(name, expires=asked.expires, signature=asked.signature)
        asset = await self._context.store.asset(named.asset_id)
        if asset is None:
            raise AssetNotFound("This image is no longer stored.")
        if not named.for_upstream:
            self._context.assets.check_shown(asset)
        if asked.width is None:
            picture = _Picture(asset.key, name, asset.content_type, asset.bytes)
        else:
            picture = await self._copy(asset, name, _width(asked.width))
        seconds = self._context.assets.seconds_left(asked.expires)
        return await self._sent(request, picture, seconds)

    async def _copy(self, asset: Asset, name: str, width: int) -> _Picture:
        key = await self._context.thumbnails.key_of(asset, width)
        path = self._context.asset_store.path(key)
        size = None if path is None else (await asyncio.to_thread(path.stat)).st_size
        return _Picture(key, f"{name.partition('.')[0]}-{width}.webp", "image/webp", size)

    async def _sent(self, request: Request, picture: _Picture, seconds: int) -> Response:
        store, headers = self._context.asset_store, self._headers(picture, seconds)
        if has_copy(request, picture.etag):
            return Response(status_code=304, headers={**GUARDS, **headers})
        if request.method == "GET":
            life = min(REDIRECT_SECONDS, seconds)
            if (url := await store.signed_url(picture.key, seconds=life)) is not None:
                kept = f"private, max-age={min(REDIRECT_KEPT_SECONDS, life // 2)}"
                return Response(status_code=302, headers={"location": url, "cache-control": kept})
        part = None
        if picture.size is not None:
            part = asked_range(request, etag=picture.etag, size=picture.size)
        answer = await image_response(
            store,
            picture.key,
            headers=headers,
            media_type=picture.content_type,
            size=picture.size,
            part=part,
        )
        if request.method == "GET":
            SERVED_BYTES.add(by=int(answer.headers.get("content-length", 0)))
        return answer

    def _headers(self, picture: _Picture, seconds: int) -> dict[str, str]:
        return {
            "etag": picture.etag,
            "cache-control": f"public, max-age={seconds}, immutable"
            if self._context.assets.behind_cdn
            else f"private, max-age={seconds}, immutable",
            "content-disposition": f'inline; filename="{picture.name}"',
        }


def _asked(request: Request) -> _Asked:
    """What the query says."""
    as_we_write_it = _SIGNED.match(request.scope["query_string"])
    if as_we_write_it is not None:  # a fifth of the request's cost is saved
        return _Asked(as_we_write_it[1].decode(), as_we_write_it[2].decode(), None)
    query = request.query_params
    return _Asked(query.get("expires", ""), query.get("signature", ""), query.get("width"))


def _width(asked: str) -> int:
    if asked not in _WIDTHS:
        raise InvalidParameter(
            f"There are copies that are {', '.join(_WIDTHS)} pixels wide; ask for one of them, or "
            "leave width out for the image itself.",
            param="width",
        )
    return _WIDTHS[asked]
