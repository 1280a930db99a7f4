"""Files sent by the system, from its cache of the disk to the socket: no byte passes through here.

``scope["state"]["send_file"]`` does that, beside ASGI's ``send``. The event loop waits for neither
side: what the system does not have in memory is read into it in a thread first, and a socket that
takes no more is waited for as every other one. Connections are plain: TLS is a proxy's work.
"""

import asyncio
import os
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from calotype.assets.cached import SHORT, is_in_memory

PIECE: Final = 512 * 1024
"""Bytes handed to the system at a time."""


class FileSender(HttpToolsProtocol):
    """A connection that can send files."""

    _answering: RequestResponseCycle
    """One at a time: pipelined requests are answered one after the other."""
    _full: asyncio.Future[None] | None = None
    """Done when a socket that was full takes more, or is gone."""

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self.scope["state"]["send_file"] = self.send_file
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever is sending: nobody will read it."""
        super().connection_lost(exc)
        self._wake()

    async def send_file(self, descriptor: int, *, start: int, count: int) -> None:
        """Send a part of a file as a part of the body, after the head.

        A client that hangs up ends it early and in silence, as it does ``send``.

        Args:
            descriptor: of the file.
            start: the first byte of it that is sent.
            count: how many are.

        Raises:
            EOFError: the file has not so many.

        """
        cycle = self._answering
        # Counted as sent, whatever becomes of it: that a client is gone is no fault of the answer.
        cycle.expected_content_length -= count
        if not await self._flushed(cycle):
            return
        # The transport may close its socket at any time; this one cannot become another's.
        ours = os.dup(self.transport.get_extra_info("socket").fileno())
        at, end = start, start + count
        try:
            while at < end and not cycle.disconnected:
                at += await self._send_piece(ours, descriptor, at, min(PIECE, end - at))
        except OSError:  # of the socket; a disk at fault is noticed where the file is read
            self.transport.abort()
        finally:
            os.close(ours)
            if not self.transport.is_closing():
                self.transport.set_write_buffer_limits()

    async def _flushed(self, cycle: RequestResponseCycle) -> bool:
        """Wait until what was written is on its way; whether there is still a client."""
        if not self.transport.is_closing():
            self.transport.set_write_buffer_limits(high=0)
            await self.flow.drain()
        return not (cycle.disconnected or self.transport.is_closing())

    async def _send_piece(self, ours: int, descriptor: int, at: int, size: int) -> int:
        """How many bytes of a piece were sent; the rest, when the socket takes more."""
        if not is_in_memory(descriptor, start=at, count=size):
            await asyncio.to_thread(os.pread, descriptor, size, at)
        try:
            sent = os.sendfile(ours, descriptor, at, size)
        except BlockingIOError:
            sent = 0
        else:
            if not sent:
                raise EOFError(SHORT)
        if sent < size:
            await self._writable(ours)
        return sent

    async def _writable(self, ours: int) -> None:
        self._full = self.loop.create_future()
        self.loop.add_writer(ours, self._wake)
        try:
            await self._full
        finally:
            self.loop.remove_writer(ours)

    def _wake(self) -> None:
        if self._full is not None and not self._full.done():
            self._full.set_result(None)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)
