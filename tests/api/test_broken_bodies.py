"""A request that breaks off leaves no half-read body to the garbage collector."""

import gc
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest

from calotype.console.forms import MAX_BYTES
from harness import Server

GARBAGE = bytes(300_000)
"""No image, as its first bytes show; more of it comes than a server reads at once."""


@contextmanager
def left_over() -> Iterator[list[str]]:
    """The names of the generators that were begun meanwhile and that nobody closed."""
    before, names = sys.get_asyncgen_hooks(), list[str]()

    def finalized(generator: AsyncGenerator[Any, Any]) -> None:
        names.append(str(generator))
        if before.finalizer is not None:
            before.finalizer(generator)

    sys.set_asyncgen_hooks(before.firstiter, finalized)
    try:
        yield names
        gc.collect()
    finally:
        sys.set_asyncgen_hooks(*before)


def form(field: str, content: bytes, content_type: str = "image/png") -> aiohttp.FormData:
    """A form with one file."""
    made = aiohttp.FormData({"prompt": "a", "model": "gpt-image-2"} if field == "image" else {})
    made.add_field(field, content, filename="a.png", content_type=content_type)
    return made


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/images/generations", lambda: form("image", GARBAGE), 400),
        ("/v1/images/generations", lambda: form("prompt", GARBAGE), 400),
        ("/v1/files", lambda: form("file", GARBAGE), 400),
        ("/v1/files", lambda: form("other", GARBAGE), 400),
        ("/v1/files", lambda: GARBAGE, 400),
        ("/console/sign-in", lambda: bytes(MAX_BYTES + 300_000), 413),
    ],
    ids=["reference", "field", "file", "wrong-field", "image", "console"],
)
async def test_a_body_that_is_refused_before_its_end_is_put_away(
    idle_server: Server, path: str, body: Any, status: int
) -> None:
    headers = {} if isinstance(body(), aiohttp.FormData) else {"Content-Type": "image/png"}
    with left_over() as names:
        reply = await idle_server.call("POST", path, data=body(), headers=headers)
    assert reply.status == status, reply.body
    assert names == []
