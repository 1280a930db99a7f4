"""GET /v1/assets/{name}: stored images, by signed URL."""

import re
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from calotype.api.context import Context
from calotype.api.render import has_copy
from calotype.domain.errors import AssetNotFound, InvalidParameter, RangeNotSatisfiable
from calotype.services.thumbnails import WIDTHS

_WIDTHS: Final = {str(width): width for width in WIDTHS}
_ONE_RANGE: Final = re.compile(r"bytes=(?:(\d{1,15})-(\d{0,15})|-(\d{1,15}))\Z")


class AssetFiles:
    """Serves images as files: ranges, validators and sending are the framework's work."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def handle(self, request: Request) -> Response:
        """The image that the signed URL names."""
        name = request.path_params["name"]
        expires = request.query_params.get("expires", "")
        asset_id = self._context.assets.verify(
            name, expires=expires, signature=request.query_params.get("signature", "")
        )
        width = _width(request)
        asset = await self._context.store.asset(asset_id)
        if asset is None:
            raise AssetNotFound("This image is no longer stored.")
        key, size, content_type = asset.key, asset.bytes, asset.content_type
        if width is not None:
            key = await self._context.thumbnails.key_of(asset, width)
            name, content_type = f"{name.partition('.')[0]}-{width}.webp", "image/webp"
        path = self._context.asset_store.path(key)
        if path is None or not path.is_file():
            raise AssetNotFound("This image is no longer stored.")
        if width is not None:
            size = path.stat().st_size
        etag = f'"{name.partition(".")[0]}"'
        headers = {
            "etag": etag,
            "cache-control": "private, max-age=31536000, immutable",
            "content-disposition": f'inline; filename="{name}"',
            "x-content-type-options": "nosniff",
            "content-security-policy": "default-src 'none'; sandbox",
        }
        if has_copy(request, etag):
            return Response(status_code=304, headers=headers)
        if request.headers.get("if-range", etag) == etag:  # else the whole image is sent
            _judge_range(request, size)
        return FileResponse(path, headers=headers, media_type=content_type)


def _width(request: Request) -> int | None:
    """How wide a copy is asked for; None: the image itself."""
    asked = request.query_params.get("width")
    if asked is None:
        return None
    if asked not in _WIDTHS:
        raise InvalidParameter(
            f"There are copies that are {', '.join(_WIDTHS)} pixels wide; ask for one of them, or "
            "leave width out for the image itself.",
            param="width",
        )
    return _WIDTHS[asked]


def _judge_range(request: Request, size: int) -> None:
    """Let one sound range through; RFC 9110, 14.2, lets a server ignore every other form."""
    asked = request.headers.get("range")
    if asked is None:
        return
    match = _ONE_RANGE.match(asked)
    if match is None or (match[2] and int(match[1]) > int(match[2])):
        headers = request.scope["headers"]
        request.scope["headers"] = [pair for pair in headers if pair[0] != b"range"]
    elif int(match[1] or 0) >= size or match[3] == "0":
        raise RangeNotSatisfiable(f"The image has {size} bytes.", size=size)
