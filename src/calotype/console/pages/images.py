"""GET /console/images/{asset}/…: stored images as pages show them, whole or as small copies.

They come through this server wherever they lie: pages may not load images from elsewhere.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.assets.serving import GUARDS, image_response
from calotype.console.access import Visitor, anyones_page
from calotype.console.context import Console
from calotype.domain.errors import AssetNotFound, UnknownRoute
from calotype.domain.ids import decode
from calotype.domain.task import Asset
from calotype.services.thumbnails import WIDTHS

_WIDTHS: Final = {str(width): width for width in WIDTHS}
_KEPT_SECONDS: Final = 86_400
"""Browsers keep a picture no longer: whoever deletes an image is not to meet it for long."""
_NO_PICTURE: Final = b"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 240" width="320" height="240">\
<g fill="none" stroke="#8b7d6b" stroke-width="3" stroke-linecap="round" stroke-linejoin="round">\
<rect x="118" y="84" width="84" height="64" rx="8"/><path d="m126 140 22-24 16 16 10-10 20 18"/>\
<circle cx="176" cy="104" r="6"/><path d="m108 160 104-88"/></g></svg>
"""


def routes(console: Console) -> list[Route]:
    """The routes of this group."""

    async def shown(name: str, visitor: Visitor) -> Asset:
        asset_id = decode("asset", name)
        asset = None if asset_id is None else await console.store.asset(asset_id)
        if asset is None or not _may_see(visitor, asset):
            raise AssetNotFound("There is no such image in this account.")
        console.assets.check_shown(asset)
        return asset

    async def copy(request: Request, visitor: Visitor) -> Response:
        name, width = request.path_params["name"], request.path_params["width"]
        if width not in _WIDTHS:
            raise UnknownRoute(f"There are copies that are {', '.join(_WIDTHS)} px wide.")
        asset = await shown(name, visitor)
        etag = f'"{name}-{width}"'
        headers = {"etag": etag, "cache-control": _kept(asset, now=console.clock())}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={**GUARDS, **headers})
        try:
            key = await console.thumbnails.key_of(asset, _WIDTHS[width])
        except AssetNotFound:  # it is damaged or gone: a picture of that stands in its place
            return Response(_NO_PICTURE, 404, media_type="image/svg+xml")
        return await image_response(
            console.asset_store, key, headers=headers, media_type="image/webp"
        )

    async def whole(request: Request, visitor: Visitor) -> Response:
        name = request.path_params["name"]
        asset = await shown(name, visitor)
        etag = f'"{name}"'
        headers = {
            "etag": etag,
            "cache-control": _kept(asset, now=console.clock()),
        }
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={**GUARDS, **headers})
        return await image_response(
            console.asset_store,
            asset.key,
            headers=headers,
            media_type=asset.content_type,
        )

    return [
        Route("/console/images/{name}/whole", anyones_page(console, whole)),
        Route("/console/images/{name}/{width}.webp", anyones_page(console, copy)),
    ]


def _may_see(visitor: Visitor, asset: Asset) -> bool:
    return visitor.api_key is None or asset.account_id == visitor.account_id


def _kept(asset: Asset, *, now: int) -> str:
    left = _KEPT_SECONDS
    if asset.expires_at is not None:
        left = min(left, max(0, asset.expires_at - now) // 1000)
    return f"private, max-age={left}, immutable"
