"""Processes that draw, so that the server's own loop never waits for a picture."""

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from calotype.domain.outcomes import SourceError
from calotype.imaging.processes import Processes, ProcessGone

_MODULE: Final = "calotype.providers.sandbox.easel"


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
        self._processes = Processes(_MODULE, most=processes)

    async def draw(self, order_in: Callable[[Path], Awaitable[Order]]) -> BinaryIO:
        """Have a picture drawn, and return it open for reading; no file is left.

        Args:
            order_in: makes the order when its turn has come, with its files in the folder given.

        Raises:
            SourceError: it could not be drawn.

        """
        async with self._processes.turn() as process:
            with tempfile.TemporaryDirectory(prefix="calotype-sandbox-") as folder:
                order = await order_in(Path(folder))
                try:
                    reply = await process.ask(order, Reply)
                except ProcessGone as error:
                    raise SourceError("The drawing process went away.") from error
                if reply.error:
                    raise SourceError(reply.error)
                # It can be read although its folder goes now.
                return Path(order.target).open("rb")  # noqa: ASYNC230 -- just written, opens at once

    async def close(self) -> None:
        """End the processes."""
        await self._processes.close()
