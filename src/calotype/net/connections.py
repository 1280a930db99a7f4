"""Connections to upstreams: what is known of a send that fails, and which are used again."""

import asyncio
import select
import time
from contextlib import aclosing
from contextvars import ContextVar
from typing import Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from calotype.net.bodies import Body

REST_SECONDS: Final = 0.1
"""So long a connection is left alone after an answer: who hangs up behind it has done so then."""
KEPT_SECONDS: Final = 1.0
"""So long it is good for another create: far less than any server lets one be idle."""


class Call:
    """What is to be known of a call that fails."""

    __slots__ = ("connected",)

    def __init__(self) -> None:
        self.connected = False


UNDER_WAY: Final[ContextVar[Call]] = ContextVar("call")


class Connector(aiohttp.TCPConnector):
    """Tells a call that it has a connection, as aiohttp's tracing would, which costs far more."""

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 -- the base's own
    ) -> Connection:
        """Tell the call, once there is one."""
        connection = await super().connect(req, traces, timeout)
        if (call := UNDER_WAY.get(None)) is not None:  # None: it is a WebSocket's
            call.connected = True
        return connection


class Rested(Connector):
    """Uses no connection again right behind an answer, where some servers hang up unannounced."""

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        now = time.monotonic()
        for protocol, since in self._conns.get(key, ()):  # the longest idle first, as below
            if now - since > KEPT_SECONDS or _is_cut(protocol.transport):
                protocol.close()  # so the next one may be taken: it must have rested, too
            elif now - since < REST_SECONDS:
                return None
            else:
                break
        return await super()._get(key, traces)


def _is_cut(transport: asyncio.Transport | None) -> bool:
    """Whether the peer has ended a connection on which nothing is due.

    The system is asked: a busy event loop has not looked yet.
    """
    if transport is None or transport.is_closing():
        return True
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    return bool(poll.poll(0))


class Sending(aiohttp.Payload):
    """A body on its way out, and what went wrong with reading it."""

    _autoclose = True

    def __init__(self, body: Body) -> None:
        super().__init__(body, content_type=body.content_type)
        self._size = body.length
        self._body = body
        self.fault: Exception | None = None

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all of it."""
        await self.write_with_length(writer, None)

    async def write_with_length(
        self,
        writer: AbstractStreamWriter,
        content_length: int | None,  # noqa: ARG002 -- the base's own; ours is exact
    ) -> None:
        """Write all of it, piece by piece."""
        # A chunk is held back until the next one is there, so that what fails is never whole.
        held = b""
        async with aclosing(self._body.chunks()) as chunks:
            while True:
                try:
                    chunk = await anext(chunks, None)
                except Exception as error:
                    self.fault = error
                    raise
                if held:
                    await writer.write(held)
                if chunk is None:
                    return
                held = chunk

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002 -- the base's own
        """Refuse to be shown."""
        raise TypeError("A body is not kept, so it cannot be shown.")
