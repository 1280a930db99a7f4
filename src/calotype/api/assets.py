"""GET /v1/assets/{name}: stored images, by signed URL."""

import re
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.api.context import Context
from calotype.api.download import Download, open_file
from calotype.api.ranges import asked_range
from calotype.api.render import has_copy
from calotype.assets.serving import Streamed
from calotype.domain.errors import AssetNotFound, Unavailable
from calotype.domain.task import Asset

PREFIX: Final = "/v1/assets/"
REDIRECT_SECONDS: Final = 300
"""How long a URL of the store's own is good for: for the download that begins now."""
REDIRECT_KEPT_SECONDS: Final = 60
"""How long a client may keep a redirect; what it leads to is good for much longer."""
_SIGNED: Final = re.compile(rb"expires=(\d{1,19})&signature=([0-9a-f]{64})\Z")


class AssetFiles:
    """Serves images: by a redirect to a store that signs URLs, else through this server."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def handle(self, request: Request) -> Response:
        """The image that the signed URL names."""
        name = request.scope["path"].removeprefix(PREFIX)
        expires, signature = _signed(request)
        asset_id = self._context.assets.verify(name, expires=expires, signature=signature)
        asset = await self._context.store.asset(asset_id)
        if asset is None:
            raise AssetNotFound("This image is no longer stored.")
        self._context.assets.check_shown(asset)
        seconds, etag = self._context.assets.seconds_left(expires), f'"{name.partition(".")[0]}"'
        headers = {
            "etag": etag,
            "cache-control": f"public, max-age={seconds}, immutable"
            if self._context.assets.behind_cdn
            else "private, max-age=31536000, immutable",
            "content-disposition": f'inline; filename="{name}"',
            "x-content-type-options": "nosniff",
            "content-security-policy": "default-src 'none'; sandbox",
        }
        if has_copy(request, etag):
            return Response(status_code=304, headers=headers)
        if request.method == "GET":
            life = min(REDIRECT_SECONDS, seconds)
            url = await self._context.asset_store.signed_url(asset.key, seconds=life)
            if url is not None:
                kept = f"private, max-age={min(REDIRECT_KEPT_SECONDS, life // 2)}"
                return Response(status_code=302, headers={"location": url, "cache-control": kept})
        return await self._sent(request, asset, etag, headers)

    async def _sent(
        self, request: Request, asset: Asset, etag: str, headers: dict[str, str]
    ) -> Response:
        part = asked_range(request, etag=etag, size=asset.bytes)
        headers |= {"content-type": asset.content_type, "accept-ranges": "bytes"}
        status = 200
        if part is not None:
            headers["content-range"] = f"bytes {part.start}-{part.stop - 1}/{asset.bytes}"
            status = 206
        part = range(asset.bytes) if part is None else part
        store = self._context.asset_store
        if (path := store.path(asset.key)) is None:
            return Streamed(store, asset.key, part, status=status, headers=headers)
        return Download(await _opened(path), part, status=status, headers=headers)


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
