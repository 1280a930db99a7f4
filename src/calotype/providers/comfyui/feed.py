"""Progress of the jobs in flight, over one WebSocket that is open while there are any.

Nothing depends on it: while it is closed, progress is not known, and polls go on.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import aiohttp
import msgspec

from calotype.domain.clock import Clock
from calotype.net.client import BrokenOff, NotSent
from calotype.providers.local import fields, text

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds between tries to connect."""
FORGOTTEN_MS: Final = 300_000
"""A job that nobody asked about for so long is followed no more."""
_MOST: Final = 99
_STEPS: Final = 1_000_000

log = logging.getLogger(__name__)

Connect = Callable[[], AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]]


class Feed:
    """Listens for one channel.

    Args:
        connect: opens the WebSocket.
        clock: the time.
        first_pause: seconds after which it is opened again for the first time.

    """

    def __init__(self, connect: Connect, clock: Clock, *, first_pause: float = FIRST_PAUSE) -> None:
        self._connect = connect
        self._clock = clock
        self._first_pause = first_pause
        self._percent: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        self._listening: asyncio.Task[None] | None = None
        self._ending = set[asyncio.Task[None]]()

    def follow(self, prompt_id: str) -> None:
        """A job is about to be sent; listen from now on."""
        self._asked[prompt_id] = self._clock()
        self._percent.setdefault(prompt_id, 0)
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen())

    def percent(self, prompt_id: str) -> int | None:
        """How far a job is, where that is known."""
        if prompt_id in self._percent:
            self._asked[prompt_id] = self._clock()
        return self._percent.get(prompt_id) or None

    def forget(self, prompt_id: str) -> None:
        """A job has ended; with the last one the WebSocket is closed."""
        self._asked.pop(prompt_id, None)
        self._percent.pop(prompt_id, None)
        if not self._percent:
            self._stop()

    async def close(self) -> None:
        """Listen no more."""
        self._percent.clear()
        self._asked.clear()
        self._stop()
        if self._ending:
            await asyncio.wait(self._ending)

    def _stop(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            self._ending.add(self._listening)
            self._listening.add_done_callback(self._ending.discard)
            self._listening = None

    async def _listen(self) -> None:
        pause = self._first_pause
        while self._still_asked():
            try:
                async with self._connect() as socket:
                    async for message in socket:
                        pause = self._first_pause
                        if isinstance(message.data, str):
                            self._note(message.data)
                        if not self._still_asked():
                            return
            except (aiohttp.ClientError, OSError, TimeoutError, NotSent, BrokenOff) as error:
                log.debug("no progress for now: %s", error)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    def _still_asked(self) -> bool:
        old = self._clock() - FORGOTTEN_MS
        for prompt_id in [each for each, asked in self._asked.items() if asked < old]:
            del self._asked[prompt_id], self._percent[prompt_id]
        return bool(self._percent)

    def _note(self, message: str) -> None:
        try:
            event = msgspec.json.decode(message)
        except (msgspec.DecodeError, RecursionError):
            return
        data = fields(fields(event).get("data"))
        prompt_id = text(data, "prompt_id")
        if prompt_id not in self._percent:
            return
        match text(event, "type"):
            case "progress":
                nodes = [data]
            case "progress_state":
                nodes = [fields(node) for node in fields(data.get("nodes")).values()]
                nodes = [node for node in nodes if text(node, "state") == "running"]
            case _:
                return
        seen = max((_share(node) for node in nodes), default=0)
        self._percent[prompt_id] = max(seen, self._percent[prompt_id])


def _share(node: dict[str, Any]) -> int:
    """Percent of a node's own steps; a node of one step tells nothing."""
    value, most = node.get("value"), node.get("max")
    if not isinstance(value, int | float) or not isinstance(most, int | float):
        return 0
    if not 0 <= value <= most <= _STEPS or most <= 1:
        return 0
    return min(_MOST, int(100 * value / most))
