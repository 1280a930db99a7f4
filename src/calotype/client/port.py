"""What the client needs of HTTP, blocking or not.

What it does is written once, in ``flows``, as coroutines over a ``Wire``. One kind of wire lets
them wait in asyncio's loop. The other one blocks: its coroutines never suspend, so that ``run``
gets from the beginning of one to its end without any loop.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

from calotype.client.requests import Call

T = TypeVar("T")


class Reply(Protocol):
    """An answer, of which the head has come."""

    @property
    def status(self) -> int:
        """Of HTTP."""

    def header(self, name: str) -> str | None:
        """A header of it."""

    async def read(self) -> bytes:
        """Its body."""

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Its body as it comes."""

    async def close(self) -> None:
        """Be done with it; it may be called again."""


class Wire(Protocol):
    """Sends requests, and waits."""

    async def send(self, call: Call) -> Reply:
        """The answer to a request; it has to be closed.

        Raises:
            ConnectionFailed: none came.

        """

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def aside(self, work: Callable[[], T]) -> T:
        """Do what touches the disk."""

    async def close(self) -> None:
        """End what the client has made itself."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over a ``SyncWire``."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        work.close()
    raise RuntimeError("A blocking client waited for a loop.")


def iterate(source: AsyncGenerator[T, None]) -> Iterator[T]:
    """What an asynchronous generator over a ``SyncWire`` yields."""
    try:
        while True:
            try:
                item = run(source.__anext__())
            except StopAsyncIteration:
                return
            yield item
    finally:
        run(source.aclose())
