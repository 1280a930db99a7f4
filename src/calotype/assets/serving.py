"""A stored image as the answer to a request, in the way of its store."""

import os
from collections.abc import Mapping
from typing import Final

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from calotype.assets.download import Download, open_file
from calotype.assets.port import AssetStore
from calotype.assets.staging import faults_told, not_there
from calotype.domain.errors import AssetNotFound, Unavailable

GUARDS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "x-content-type-options": "nosniff",
}
"""With every image: whatever else its bytes may be, a browser takes them for nothing else."""


async def image_response(
    store: AssetStore,
    key: str,
    *,
    headers: Mapping[str, str],
    media_type: str,
    size: int | None = None,
    part: range | None = None,
) -> Response:
    """The answer that sends an image: by the system where it lies on a disk, else as it comes in.

    Args:
        store: where it lies.
        key: its name there.
        headers: besides ``GUARDS`` and those on type and length.
        media_type: its type.
        size: its bytes, where they are known.
        part: those of them that are asked for; None: all.

    Raises:
        errors.AssetNotFound: its file is gone.
        errors.Unavailable: it cannot be read right now.

    """
    named = {**GUARDS, **headers, "content-type": media_type}
    if size is not None:
        named["accept-ranges"] = "bytes"
    if part is not None:
        named["content-range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    status = 200 if part is None else 206
    if part is None and size is not None:
        part = range(size)
    path = store.path(key)
    if path is None:
        return Streamed(store, key, part, status=status, headers=named)
    with faults_told():
        try:
            descriptor = await open_file(path)
        except FileNotFoundError:
            raise not_there() from None
    if part is None:
        part = range(os.fstat(descriptor).st_size)
    return Download(descriptor, part, status=status, headers=named)


class Streamed(StreamingResponse):
    """Sends a part of a stored image, or all of it, as the store gives it.

    Args:
        store: where it lies.
        key: its name there.
        part: bytes of it that are sent; None: all of them, however many there are.
        status: of HTTP.
        headers: all of them but the length.

    """

    def __init__(
        self,
        store: AssetStore,
        key: str,
        part: range | None,
        *,
        status: int,
        headers: Mapping[str, str],
    ) -> None:
        self._store, self._key, self._part = store, key, part
        length = {} if part is None else {"content-length": str(len(part))}
        super().__init__((), status, headers={**headers, **length})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send head and body.

        Raises:
            errors.AssetNotFound: there is none of this key.
            errors.Unavailable: the store cannot be read right now.

        """
        if scope["method"] == "HEAD":
            if not await self._store.holds(self._key):
                raise not_there()
            await Response.__call__(_bodiless(self), scope, receive, send)
            return
        start, stop = (0, None) if self._part is None else (self._part.start, self._part.stop)
        async with self._store.open(self._key, start=start, stop=stop) as chunks:
            self.body_iterator = chunks
            try:
                await super().__call__(scope, receive, send)
            except (AssetNotFound, Unavailable):  # nobody is to take what came for the whole image
                scope["state"]["hang_up"]()


def _bodiless(response: Response) -> Response:
    """Its status and headers alone."""
    empty = Response(status_code=response.status_code)
    empty.raw_headers = response.raw_headers
    return empty
