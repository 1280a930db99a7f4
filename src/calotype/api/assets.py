"""GET /v1/assets/{name}: stored images, by signed URL."""

import re
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from calotype.api.context import Context
from calotype.api.render import has_copy
from calotype.assets.serving import image_response
from calotype.domain.errors import AssetNotFound, RangeNotSatisfiable

REDIRECT_SECONDS: Final = 300
"""How long a URL of the store's own is good for: for the download that begins now."""
REDIRECT_KEPT_SECONDS: Final = 60
"""How long a client may keep a redirect; what it leads to is good for much longer."""
_ONE_RANGE: Final = re.compile(r"bytes=(?:(\d{1,15})-(\d{0,15})|-(\d{1,15}))\Z")


class _Picture(msgspec.Struct, frozen=True):
    """What is sent."""

    key: str
    name: str
    """Of the file, without its folder."""
    content_type: str
    size: int

    @property
    def etag(self) -> str:
        return f'"{self.name.partition(".")[0]}"'


class AssetFiles:
    """Serves images: by a redirect to a store that signs URLs, else through this server."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def handle(self, request: Request) -> Response:
        """The image that the signed URL names."""
        name, expires = request.path_params["name"], request.query_params.get("expires", "")
        asset_id = self._context.assets.verify(
            name, expires=expires, signature=request.query_params.get("signature", "")
        )
        asset = await self._context.store.asset(asset_id)
        if asset is None:
            raise AssetNotFound("This image is no longer stored.")
        picture = _Picture(asset.key, name, asset.content_type, asset.bytes)
        return await self._sent(request, picture, self._context.assets.seconds_left(expires))

    async def _sent(self, request: Request, picture: _Picture, seconds: int) -> Response:
        store, headers = self._context.asset_store, self._headers(picture, seconds)
        if has_copy(request, picture.etag):
            return Response(status_code=304, headers=headers)
        if request.method == "GET":
            life = min(REDIRECT_SECONDS, seconds)
            if (url := await store.signed_url(picture.key, seconds=life)) is not None:
                kept = f"private, max-age={min(REDIRECT_KEPT_SECONDS, life // 2)}"
                return Response(status_code=302, headers={"location": url, "cache-control": kept})
        return image_response(
            store,
            picture.key,
            headers=headers,
            media_type=picture.content_type,
            size=picture.size,
            span=_span(request, picture),
        )

    def _headers(self, picture: _Picture, seconds: int) -> dict[str, str]:
        return {
            "etag": picture.etag,
            "cache-control": f"public, max-age={seconds}, immutable"
            if self._context.assets.behind_cdn
            else "private, max-age=31536000, immutable",
            "content-disposition": f'inline; filename="{picture.name}"',
            "x-content-type-options": "nosniff",
            "content-security-policy": "default-src 'none'; sandbox",
        }


def _span(request: Request, picture: _Picture) -> tuple[int, int] | None:
    """The one sound range asked for; RFC 9110, 14.2, lets a server ignore every other form.

    What is ignored is taken out of the request.
    """
    asked = request.headers.get("range")
    if asked is None or request.headers.get("if-range", picture.etag) != picture.etag:
        return None  # or the whole image is sent, as its copy there is another
    match = _ONE_RANGE.match(asked)
    if match is None or (match[2] and int(match[1]) > int(match[2])):
        headers = request.scope["headers"]
        request.scope["headers"] = [pair for pair in headers if pair[0] != b"range"]
        return None
    size = picture.size
    if int(match[1] or 0) >= size or match[3] == "0":
        raise RangeNotSatisfiable(f"The image has {size} bytes.", size=size)
    if match[3]:
        return max(0, size - int(match[3])), size
    return int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
