"""Finished images as OpenAI's clients take them, streamed from the asset store in pieces."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Literal

import msgspec
import pybase64

from calotype.assets.port import AssetStore
from calotype.domain.task import ResultImage, Task

Kind = Literal["image_generation", "image_edit"]
Picture = tuple[ResultImage, str]
"""A result, and its key in the asset store."""

FORMATS: Final = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}
"""Content type → what OpenAI calls it."""
_BACKGROUNDS: Final = ("transparent", "opaque")
_NO_USAGE: Final = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}
"""Their clients expect it in an event; images are charged by the piece, no tokens are counted."""

_encode = msgspec.json.Encoder().encode


def linked(task: Task, urls: Sequence[str]) -> bytes:
    """The whole answer, images as links."""
    return _encode({**_about(task), "data": [{"url": url} for url in urls]})


async def inline(
    task: Task, pictures: Sequence[Picture], store: AssetStore
) -> AsyncIterator[bytes]:
    """The whole answer, images as base64."""
    yield _encode(_about(task))[:-1] + b',"data":['
    for place, (_, key) in enumerate(pictures):
        yield b',{"b64_json":"' if place else b'{"b64_json":"'
        async for piece in _base64(store, key):
            yield piece
        yield b'"}'
    yield b"]}"


async def events(
    kind: Kind, task: Task, pictures: Sequence[Picture], store: AssetStore
) -> AsyncIterator[bytes]:
    """An event for each image."""
    for image, key in pictures:
        document = {
            "type": f"{kind}.completed",
            "created_at": (task.completed_at or 0) // 1000,
            "background": task.request.parameters.get("background", "auto"),
            "quality": task.request.parameters.get("quality", "auto"),
            **_form(image),
            "usage": _NO_USAGE,
        }
        head = f"event: {kind}.completed\ndata: ".encode()
        yield head + _encode(document)[:-1] + b',"b64_json":"'
        async for piece in _base64(store, key):
            yield piece
        yield b'"}\n\n'


def error_event(body: bytes) -> bytes:
    """The event for an error, from the body that it would have as an answer."""
    return b'event: error\ndata: {"type":"error",%b\n\n' % body[1:]


def media_type(*, stream: bool) -> bytes:
    """The content type of an answer."""
    return b"text/event-stream; charset=utf-8" if stream else b"application/json"


def keep_alive(*, stream: bool) -> bytes:
    """What may be sent before an answer and means nothing: a comment, or blank before JSON."""
    return b": still here\n\n" if stream else b"\n"


def _about(task: Task) -> dict[str, Any]:
    """What is known of all the images."""
    about: dict[str, Any] = {"created": (task.completed_at or 0) // 1000, **_form(task.result[0])}
    parameters = task.request.parameters
    if parameters.get("background") in _BACKGROUNDS:
        about["background"] = parameters["background"]
    if parameters.get("quality", "auto") != "auto":
        about["quality"] = parameters["quality"]
    return about


def _form(image: ResultImage) -> dict[str, Any]:
    return {
        "output_format": FORMATS[image.content_type],
        "size": f"{image.width}x{image.height}",
    }


async def _base64(store: AssetStore, key: str) -> AsyncIterator[bytes]:
    left = b""
    async with store.open(key) as chunks:
        async for chunk in chunks:
            held = left + chunk
            whole = len(held) - len(held) % 3
            yield pybase64.b64encode(held[:whole])
            left = held[whole:]
    yield pybase64.b64encode(left)
