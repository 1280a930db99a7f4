"""GET /v1/assets/{name}: stored images, by signed URL."""

import re
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.api.context import Context
from calotype.api.ranges import asked_range
from calotype.api.render import has_copy
from calotype.assets.download import Download, open_file
from calotype.domain.errors import AssetNotFound, Unavailable

_SIGNED: Final = re.compile(rb"expires=(\d{1,19})&signature=([0-9a-f]{64})\Z")


class AssetFiles:
    """Serves images as files."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def handle(self, request: Request) -> Response:
        """The image that the signed URL names."""
        name = request.path_params["name"]
        expires, signature = _signed(request)
        asset_id = self._context.assets.verify(name, expires=expires, signature=signature)
        asset = await self._context.store.asset(asset_id)
        path = None if asset is None else self._context.asset_store.path(asset.key)
        if asset is None or path is None:
            raise AssetNotFound("This image is no longer stored.")
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
        part = asked_range(request, etag=etag, size=asset.bytes)
        if part is not None:
            headers["content-range"] = f"bytes {part.start}-{part.stop - 1}/{asset.bytes}"
        return Download(
            await _opened(path),
            range(asset.bytes) if part is None else part,
            status=200 if part is None else 206,
            headers={**headers, "content-type": asset.content_type, "accept-ranges": "bytes"},
        )


def _signed(request: Request) -> tuple[str, str]:
    """What the query says of the time and the signature."""
    as_we_write_it = _SIGNED.match(request.scope["query_string"])
    if as_we_write_it is not None:  # a fifth of the request's cost is saved
        return as_we_write_it[1].decode(), as_we_write_it[2].decode()
    query = request.query_params
    return query.get("expires", ""), query.get("signature", "")


async def _opened(path: Path) -> int:
    try:
        return await open_file(path)
    except FileNotFoundError:
        raise AssetNotFound("This image is no longer stored.") from None
    except OSError as error:
        raise Unavailable("Images cannot be read right now.", retry_after=5) from error
