"""A TCP proxy whose network goes bad for a while, in one way."""

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

KINDS: Final = ("well", "latency", "narrow", "reset", "half-open", "corrupt", "early")
SHARE: Final = 0.7
"""Of the answers that something happens to while it is bad."""
LATENCY_SECONDS: Final = 0.3
JITTER_SECONDS: Final = 1.0
NARROW_BYTES: Final = 1024
"""In a second."""
_PIECE: Final = 128
_RESET: Final = struct.pack("ii", 1, 0)


class FaultProxy:
    """Passes bytes on to a port of this machine.

    While it is bad, something happens to most answers: ``latency`` with jitter; ``narrow``, which
    is 1 KB a second; ``reset`` in the middle; ``half-open``, after which nothing comes any more
    until the network is well again; ``corrupt`` bytes in a body; ``early``, which is a close when
    the request comes, before or after it was passed on.
    """

    def __init__(self, target: int, kind: str, chance: random.Random) -> None:
        self.kind = kind
        self.port = 0
        self.happened: Counter[str] = Counter()
        self._target = target
        self._chance = chance
        self._bad = False
        self._well = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._handling: set[asyncio.Task[None]] = set()

    def worsen(self) -> None:
        """From now on it is bad."""
        self._bad = self.kind != "well"
        self._well.clear()

    def heal(self) -> None:
        """From now on it is well; what hung is broken off."""
        self._bad = False
        self._well.set()

    async def close(self) -> None:
        """Break everything off, and wait until nothing is passed on any more."""
        self.heal()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*self._handling)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if (task := asyncio.current_task()) is not None:
            self._handling.add(task)
            task.add_done_callback(self._handling.discard)
        self._open.add(writer)
        try:
            back, on = await asyncio.open_connection("127.0.0.1", self._target)
            self._open.add(on)
            try:
                await self._pass(reader, writer, back, on)
            finally:
                self._open.discard(on)
                on.transport.abort()
        except OSError:
            pass
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamReader,
        on: asyncio.StreamWriter,
    ) -> None:
        ways = [
            asyncio.create_task(self._requests(reader, on)),
            asyncio.create_task(self._answers(back, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _requests(self, reader: asyncio.StreamReader, on: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            early = self.kind == "early" and self._strikes()
            if not early or self._chance.random() < 0.5:
                on.write(data)
                await on.drain()
            if early:
                return

    async def _answers(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await back.read(1 << 16):
            if self.kind != "early" and self._strikes():
                if not await self._worse(data, writer):
                    return
            else:
                writer.write(data)
                await writer.drain()

    def _strikes(self) -> bool:
        struck = self._bad and self._chance.random() < SHARE
        self.happened[self.kind] += struck
        return struck

    async def _worse(self, data: bytes, writer: asyncio.StreamWriter) -> bool:
        """Pass on a part of an answer as a bad network does; False: nothing follows."""
        match self.kind:
            case "latency":
                wait = LATENCY_SECONDS + self._chance.uniform(0, JITTER_SECONDS)
                await asyncio.sleep(wait)
            case "narrow":
                for start in range(0, len(data), _PIECE):
                    writer.write(data[start : start + _PIECE])
                    await writer.drain()
                    await asyncio.sleep(_PIECE / NARROW_BYTES)
                return True
            case "reset":
                writer.write(data[: self._chance.randrange(len(data))])
                await writer.drain()
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                return False
            case "half-open":
                await self._well.wait()
                return False
            case "corrupt":
                data = self._corrupted(data)
        writer.write(data)
        await writer.drain()
        return True

    def _corrupted(self, data: bytes) -> bytes:
        """Some bytes of a body are others; a head's are not, or a status could lie of a sale."""
        found, first = bytearray(data), data.find(b"\r\n\r\n") + 4
        for _ in range(self._chance.randint(1, 3) if first < len(data) else 0):
            found[self._chance.randrange(first, len(data))] = self._chance.randrange(256)
        return bytes(found)


@asynccontextmanager
async def fault_proxy(target: int, kind: str, chance: random.Random) -> AsyncIterator[FaultProxy]:
    """A way to a port of this machine, well until told otherwise."""
    proxy = FaultProxy(target, kind, chance)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
