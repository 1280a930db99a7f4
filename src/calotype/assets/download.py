"""A file as an answer, whole or in part."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from calotype.assets.cached import SHORT, open_now, read_now

SMALL: Final = 131072
"""Up to so many bytes are quicker read and written than sent by the system."""


class Download(Response):
    """Sends a part of a file, or all of it, and closes it.

    Args:
        descriptor: of the file, open for reading.
        part: bytes of it that are sent.
        status: of HTTP.
        headers: all of them.

    """

    def __init__(
        self, descriptor: int, part: range, *, status: int, headers: Mapping[str, str]
    ) -> None:
        self.status_code = status
        self.background = None
        self.init_headers({**headers, "content-length": str(len(part))})
        self._descriptor = descriptor
        self._part = part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send head and body.

        Raises:
            EOFError: the file is shorter than it should be.

        """
        del receive
        part = self._part
        body: bytes | bytearray = b""
        try:
            small = len(part) <= SMALL and scope["method"] != "HEAD"
            if small:
                body = await self._read()
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            if not small and scope["method"] != "HEAD":
                await self._send_rest(scope, send)
            await send({"type": "http.response.body", "body": body})
        finally:
            os.close(self._descriptor)

    async def _send_rest(self, scope: Scope, send: Send) -> None:
        send_file, part = scope.get("state", {}).get("send_file"), self._part
        if send_file is not None:
            await send_file(self._descriptor, start=part.start, count=len(part))
            return
        for at in range(part.start, part.stop, SMALL):  # within this process there is no socket
            count = min(SMALL, part.stop - at)
            body = await asyncio.to_thread(os.pread, self._descriptor, count, at)
            if len(body) < count:
                raise EOFError(SHORT)
            await send({"type": "http.response.body", "body": body, "more_body": True})

    async def _read(self) -> bytes | bytearray:
        start, count = self._part.start, len(self._part)
        found = read_now(self._descriptor, start=start, count=count)
        if found is not None:
            return found
        read = await asyncio.to_thread(os.pread, self._descriptor, count, start)
        if len(read) < count:
            raise EOFError(SHORT)
        return read


async def open_file(path: Path) -> int:
    """A descriptor of a file, to be closed.

    Raises:
        OSError: it cannot be read.

    """
    descriptor = open_now(path)
    if descriptor is None:
        descriptor = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    return descriptor
