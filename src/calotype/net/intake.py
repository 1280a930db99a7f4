"""Taking in the bodies of answers: a few large ones at a time, which bounds the memory for all."""

import asyncio
import logging
from typing import Final

import aiohttp

from calotype.net.answers import Reader
from calotype.net.jsonstream import TooLarge
from calotype.net.spool import CannotKeep

RETRY_SECONDS: Final = 2.0
"""Between two attempts to write an image to a disk that does not take it."""
_LARGE: Final = 64 * 1024
"""From how many bytes on a body waits for its turn, where no memory is set aside for it."""
_STALL_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class Intake:
    """Takes in one body.

    Args:
        reader: what the bytes go to.
        turns: how many large bodies are taken in at a time.
        deadline: of the call; it stands still while this waits for a turn.
        max_bytes: limit on the body, uncompressed.

    """

    def __init__(
        self,
        reader: Reader,
        turns: asyncio.Semaphore,
        deadline: asyncio.Timeout,
        *,
        max_bytes: int,
    ) -> None:
        self._reader = reader
        self._turns = turns
        self._deadline = deadline
        self._max_bytes = max_bytes
        self._has_turn = False
        self._trouble: str | None = None
        """Why an image could not be written at once."""

    async def take_in(self, content: aiohttp.StreamReader) -> None:
        """Hand the body to the reader, to its end or to where the reader wants no more.

        Raises:
            TooLarge: it is over the limit, or over the reader's.
            CannotKeep: an image could not be written to disk, or not before the connection broke.
            aiohttp.ClientError: the connection broke.

        """
        taken = 0
        try:
            while not self._reader.done and (chunk := await self._next_chunk(content)):
                taken += len(chunk)
                if taken > self._max_bytes:
                    raise too_large(self._max_bytes)
                self._reader.feed(chunk)
                if taken > _LARGE and not self._has_turn and not self._reader.held:
                    await self._wait_for_turn()
                if self._reader.full:
                    await self.write()
        except (aiohttp.ClientError, OSError) as error:
            if self._trouble is None:
                raise
            raise CannotKeep(self._trouble) from error.with_traceback(None)
        finally:
            self._give_turn()

    async def write(self) -> None:
        """Move decoded images to their files, however often it takes while the call has time.

        A body that waits for the disk keeps what it has, and gives its turn away.

        Raises:
            CannotKeep: the disk did not take them in time.

        """
        if self._trouble is None and await self._written():
            return  # as nearly always, within the deadline as it stands
        until = self._deadline.when()
        self._deadline.reschedule(None)
        try:
            async with asyncio.timeout_at(until):
                while not await self._written():
                    self._give_turn()
                    await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError as error:
            if self._trouble is None:
                raise
            raise CannotKeep(self._trouble) from error
        self._deadline.reschedule(until)

    async def _written(self) -> bool:
        try:
            await self._reader.write()
        except CannotKeep as error:
            if self._trouble is None:
                log.warning("an image that an upstream sent waits for the disk: %s", error)
            self._trouble = str(error)
            return False
        return True

    async def _next_chunk(self, content: aiohttp.StreamReader) -> bytes:
        """More of the body; empty at its end.

        A body that stalls gives its turn away, with what it has in memory written down.
        """
        if self._has_turn:
            try:
                async with asyncio.timeout(_STALL_SECONDS):
                    return await content.readany()
            except TimeoutError:
                await self.write()
                self._give_turn()
        return await content.readany()

    async def _wait_for_turn(self) -> None:
        if self._turns.locked():
            now = asyncio.get_running_loop().time
            until = self._deadline.when()
            left = None if until is None else until - now()
            self._deadline.reschedule(None)
            await self._turns.acquire()
            self._deadline.reschedule(None if left is None else now() + left)
        else:
            await self._turns.acquire()
        self._has_turn = True

    def _give_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._turns.release()


def too_large(max_bytes: int) -> TooLarge:
    """What is said of an answer over the limit."""
    return TooLarge(f"The answer is larger than {max_bytes} bytes.")
