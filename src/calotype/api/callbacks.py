"""POST /v1/callbacks/{channel}: where upstreams tell that a job ended."""

from contextlib import aclosing
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.api.body import check_length, stream
from calotype.services.callbacks import Callbacks

MAX_CALLBACK_BYTES: Final = 1024 * 1024


class CallbackRoute:
    """Takes callbacks in; the sender's signature is its key."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks

    async def handle(self, request: Request) -> Response:
        """One callback; a repeated one does no harm."""
        check_length(request.scope, limit=MAX_CALLBACK_BYTES)
        async with aclosing(stream(request.receive, limit=MAX_CALLBACK_BYTES)) as body:
            chunks = [chunk async for chunk in body]
        headers = {name.lower(): value for name, value in request.headers.items()}
        await self._callbacks.receive(request.path_params["channel"], headers, b"".join(chunks))
        return Response(status_code=204)
