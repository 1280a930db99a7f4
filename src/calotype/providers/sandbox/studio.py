"""Processes that draw, so that the server's own loop never waits for a picture.

A process is started when the first picture is asked for and reads one line of JSON per picture
from its standard input. When the server dies, however it dies, that input ends and so does the
process: nothing is left behind, which a process pool cannot promise after kill -9.
"""

import asyncio
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from calotype.domain.outcomes import SourceError

_MODULE: Final = "calotype.providers.sandbox.easel"
_LINE_LIMIT: Final = 1024 * 1024
_GOODBYE_SECONDS: Final = 5.0


class Order(msgspec.Struct, frozen=True):
    """A picture to draw, and the file to draw it into."""

    prompt: str
    model: str
    width: int
    height: int
    format: str
    label: str
    references: tuple[str, ...]
    target: str
    place: int = 0
    """Which of several it is."""


class Reply(msgspec.Struct, frozen=True):
    """What became of an order; ``error`` is empty when it was drawn."""

    error: str = ""


class Studio:
    """At most ``processes`` drawing processes, each drawing one picture at a time."""

    def __init__(self, processes: int) -> None:
        self._free = asyncio.Semaphore(processes)
        self._idle: list[Process] = []

    async def draw(self, order_in: Callable[[Path], Awaitable[Order]]) -> BinaryIO:
        """Have a picture drawn, and return it open for reading; no file is left.

        Args:
            order_in: makes the order when its turn has come, with its files in the folder given.

        Raises:
            SourceError: it could not be drawn.

        """
        async with self._free:
            with tempfile.TemporaryDirectory(prefix="calotype-sandbox-") as folder:
                order = await order_in(Path(folder))
                await self._have_drawn(order)
                # It can be read although its folder goes now.
                return Path(order.target).open("rb")  # noqa: ASYNC230 -- just written, opens at once

    async def _have_drawn(self, order: Order) -> None:
        process = self._idle.pop() if self._idle else await self._start()
        try:
            reply = await _ask(process, order)
        except BaseException:
            await _end(process)
            raise
        self._idle.append(process)
        if reply.error:
            raise SourceError(reply.error)

    async def close(self) -> None:
        """End the processes."""
        while self._idle:
            await _end(self._idle.pop())

    async def _start(self) -> Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", _MODULE),
            stdin=PIPE,
            stdout=PIPE,
            limit=_LINE_LIMIT,
            start_new_session=True,  # Ctrl-C would end it before it can say that it ignores that
        )


async def _ask(process: Process, order: Order) -> Reply:
    if process.stdin is None or process.stdout is None:
        raise SourceError("The drawing process has no pipes.")
    try:
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
    except OSError as error:
        raise SourceError("The drawing process went away.") from error
    if not line:
        raise SourceError("The drawing process went away.")
    return msgspec.json.decode(line, type=Reply)


async def _end(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_GOODBYE_SECONDS):
            await process.wait()
    except (TimeoutError, asyncio.CancelledError):
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
