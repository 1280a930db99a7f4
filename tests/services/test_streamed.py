"""An image that is sent as its store gives it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from calotype.assets.serving import Streamed
from calotype.domain.errors import AssetNotFound, CalotypeError, Unavailable


class _Ending:
    """A store whose images end in the middle."""

    def __init__(self, error: CalotypeError) -> None:
        self._error = error

    @asynccontextmanager
    async def open(self, key: str, **named: object) -> AsyncIterator[AsyncIterator[bytes]]:
        del key, named

        async def chunks() -> AsyncIterator[bytes]:
            yield b"abc"
            raise self._error

        yield chunks()


@pytest.mark.parametrize("error", [AssetNotFound("It is gone."), Unavailable("Not now.")])
async def test_an_image_that_cannot_be_sent_to_its_end_ends_the_connection(
    error: CalotypeError,
) -> None:
    sent: list[Any] = []
    hung_up: list[bool] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    store: Any = _Ending(error)
    scope = {
        "type": "http",
        "method": "GET",
        "asgi": {"spec_version": "2.4"},
        "state": {"hang_up": lambda: hung_up.append(True)},
    }
    await Streamed(store, "key", range(10), status=200, headers={})(scope, receive, send)
    assert hung_up == [True]
    assert [message.get("body") for message in sent] == [None, b"abc"]
