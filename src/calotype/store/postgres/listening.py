"""Hearing what other processes notify, over a connection that mends itself."""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any, Final

import asyncpg

from calotype.store.postgres.connection import COMMAND_SECONDS, CONNECT_SECONDS

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 5.0
LIFE_SECONDS: Final = 30.0
"""How often a connection that is silent is asked whether it lives."""
MAX_PAYLOAD: Final = 4096
"""Bytes; PostgreSQL takes somewhat less than 8000, the topic included."""
_CHANNEL: Final = "calotype"
_TOPIC: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")

Hear = Callable[[str], None]

log = logging.getLogger(__name__)


class Listener:
    """Listens to one of PostgreSQL's channels.

    Args:
        url: the database.
        channel: its name there.
        hear: gets each payload, in the event loop.

    """

    def __init__(self, url: str, channel: str, hear: Hear) -> None:
        self._url = url
        self._channel = channel
        self._hear = hear
        self._tried = asyncio.Event()
        self._task = asyncio.create_task(self._keep_listening())

    async def tried(self) -> None:
        """Wait until it listens, or has failed to for the first time."""
        await self._tried.wait()

    async def close(self) -> None:
        """Stop listening."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _keep_listening(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                connection = await asyncpg.connect(self._url, timeout=CONNECT_SECONDS)
                pause = FIRST_PAUSE
                try:
                    await self._attend(connection)
                finally:
                    connection.terminate()
            except Exception as error:  # noqa: BLE001 -- whatever it was, another one is set up
                log.warning("the listener was lost (%s); another one is set up", _name(error))
            self._tried.set()
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    async def _attend(self, connection: "asyncpg.Connection[Any]") -> None:
        """Listen until the connection is lost."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(self._channel, self._on_notification)
        self._tried.set()
        while not lost.is_set():
            try:
                async with asyncio.timeout(LIFE_SECONDS):
                    await lost.wait()
            except TimeoutError:
                await connection.execute("SELECT 1", timeout=COMMAND_SECONDS)

    def _on_notification(self, _connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        try:
            self._hear(payload)
        except Exception:
            log.exception("a notification could not be dealt with")


def _name(error: Exception) -> str:
    return type(error).__name__


def bulletin(topic: str, payload: str) -> tuple[str, str]:
    """What ``pg_notify`` takes for a bulletin.

    Raises:
        ValueError: the topic or the payload is not one.

    """
    if not _TOPIC.match(topic):
        raise ValueError(
            f"{topic!r} is no topic; take lower-case letters, digits, '.', '_' and '-', 63 at most."
        )
    if len(payload.encode()) > MAX_PAYLOAD or "\0" in payload:
        raise ValueError(f"A payload has at most {MAX_PAYLOAD} bytes of UTF-8, and no NUL.")
    return _CHANNEL, f"{topic} {payload}"


async def hear_bulletins(url: str, callback: Callable[[str, str], None]) -> Listener:
    """Listen to bulletins."""

    def hear(said: str) -> None:
        topic, _, payload = said.partition(" ")
        callback(topic, payload)

    listener = Listener(url, _CHANNEL, hear)
    await listener.tried()
    return listener
