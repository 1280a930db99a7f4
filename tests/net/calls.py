"""Short forms of what the tests of the client say over and over."""

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from calotype.domain.outcomes import ImageSource
from calotype.net.bodies import Body, Open
from calotype.net.client import Answer, UpstreamClient

IMAGE = bytes(range(256)) * 400
LETTERS = base64.b64encode(IMAGE)
CREDENTIAL = {"Authorization": "Bearer hunter2"}


async def create(
    client: UpstreamClient,
    url: str,
    body: Body | None = None,
    *,
    method: str = "POST",
    fresh: bool = True,
    timeout_seconds: float = 20,
    max_bytes: int = 10_000_000,
    on_event: Callable[[Any], bool] | None = None,
) -> Answer:
    return await client.call(
        method,
        url,
        headers=CREDENTIAL,
        body=body,
        fresh=fresh,
        timeout_seconds=timeout_seconds,
        max_bytes=max_bytes,
        on_event=on_event,
    )


def open_files() -> set[str]:
    """The file descriptors of this process."""
    return set(names_in(Path("/dev/fd")))


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def bytes_of(source: ImageSource | None) -> bytes:
    assert source is not None
    async with source.open() as stream:
        return b"".join([chunk async for chunk in stream])


def opening(*chunks: bytes, fault: Exception | None = None) -> Open:
    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncIterator[bytes]]:
        async def stream() -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk
            if fault is not None:
                raise fault

        yield stream()

    return opened
