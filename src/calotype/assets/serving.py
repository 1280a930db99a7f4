"""A stored image as the answer to a request, in the way of its store."""

from collections.abc import Mapping

from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from calotype.assets.port import AssetStore
from calotype.assets.staging import not_there
from calotype.domain.errors import Unavailable


def image_response(
    store: AssetStore,
    key: str,
    *,
    headers: Mapping[str, str],
    media_type: str,
    size: int | None = None,
    span: tuple[int, int] | None = None,
) -> Response:
    """The answer that sends an image: a file by the system, of a cloud store as it comes in.

    Args:
        store: where it lies.
        key: its name there.
        headers: besides those on type and length.
        media_type: its type.
        size: bytes of it, where they are known.
        span: the one range that is asked for, start and stop within ``size``.

    Raises:
        errors.AssetNotFound: its file is gone.

    """
    path = store.path(key)
    if path is None:
        return _Streamed(store, key, headers=headers, media_type=media_type, size=size, span=span)
    if not path.is_file():
        raise not_there()
    return FileResponse(path, headers=headers, media_type=media_type)


class _Streamed(StreamingResponse):
    def __init__(
        self,
        store: AssetStore,
        key: str,
        *,
        headers: Mapping[str, str],
        media_type: str,
        size: int | None,
        span: tuple[int, int] | None,
    ) -> None:
        self._store, self._key, self._span = store, key, span
        named = dict(headers)
        if size is not None:
            named |= {"accept-ranges": "bytes", "content-length": str(size)}
        if span is not None:
            start, stop = span
            named["content-range"] = f"bytes {start}-{stop - 1}/{size}"
            named["content-length"] = str(stop - start)
        status = 200 if span is None else 206
        super().__init__((), status, headers=named, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            if not await self._store.holds(self._key):
                raise not_there()
            await Response.__call__(_bodiless(self), scope, receive, send)
            return
        start, stop = self._span or (0, None)
        async with self._store.open(self._key, start=start, stop=stop) as chunks:
            self.body_iterator = chunks
            try:
                await super().__call__(scope, receive, send)
            except Unavailable:  # nobody is to take what came for the whole image
                scope["state"]["hang_up"]()


def _bodiless(response: Response) -> Response:
    """Its status and headers alone."""
    empty = Response(status_code=response.status_code)
    empty.raw_headers = response.raw_headers
    return empty
