"""Reading request bodies, within limits."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final

import msgspec
from starlette.types import Message, Receive, Scope

from calotype.api.context import header
from calotype.domain.errors import BodyTooLarge, MalformedBody, UnsupportedMediaType

MAX_JSON_BYTES: Final = 1024 * 1024
LINGER_SECONDS: Final = 30.0
"""How long the rest of a refused body is waited for."""

_decode = msgspec.json.Decoder().decode


class ClientGone(Exception):
    """The client hung up before its request was complete."""


class Incoming:
    """A request's body on its way in: passes on ASGI's ``receive`` and knows when the end came."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        # Whoever sends ``Expect: 100-continue`` sends nothing until the body is asked for.
        self.ended = header(scope, b"expect") is not None

    async def receive(self) -> Message:
        """The next message."""
        message = await self._receive()
        self.ended = not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Let the rest come and forget it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.ended:
                    await self.receive()


async def stream(receive: Receive, *, limit: int) -> AsyncGenerator[bytes, None]:
    """The body in chunks, for ``aclosing``: whoever reads may stop before the end.

    Raises:
        errors.BodyTooLarge: over ``limit`` bytes.
        ClientGone: cut short.

    """
    size, more = 0, True
    while more:
        chunk, more = await _next(receive)
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        if chunk:
            yield chunk


async def _next(receive: Receive) -> tuple[bytes, bool]:
    """The next piece of a body, and whether more is to come."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


async def _whole(receive: Receive, *, limit: int) -> bytes:
    """A body in one piece, as most come; raises as ``stream``."""
    first, more = await _next(receive)
    if not more and len(first) <= limit:
        return first
    body = bytearray(first)
    while more and len(body) <= limit:
        chunk, more = await _next(receive)
        body += chunk
    if len(body) > limit:
        raise too_large(limit)
    return bytes(body)


def check_length(scope: Scope, *, limit: int) -> None:
    """Refuse a body that announces itself as too large, before any of it is read."""
    announced = header(scope, b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > limit:
        raise too_large(limit)


def too_large(limit: int) -> BodyTooLarge:
    """The refusal of a body over ``limit`` bytes."""
    return BodyTooLarge(f"The body has more than {limit} bytes; send a smaller one.")


async def read_json(
    scope: Scope, receive: Receive, *, limit: int = MAX_JSON_BYTES, optional: bool = False
) -> dict[str, object]:
    """A body that is one JSON object; where it is optional, none at all is an empty one.

    Raises:
        errors.BodyTooLarge: over ``limit`` bytes.
        errors.MalformedBody: no JSON, or no object.

    """
    check_length(scope, limit=limit)
    body = await _whole(receive, limit=limit)
    if optional and not body:
        return {}
    try:
        document = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"The body is not valid JSON: {error}.") from None
    if not isinstance(document, dict):
        raise MalformedBody('The body must be a JSON object, such as {"model": …}.')
    return document


def media_type(scope: Scope) -> tuple[str, bytes]:
    """The body's media type in lower case, and the whole header.

    Raises:
        errors.UnsupportedMediaType: neither JSON nor a multipart form.

    """
    kind, whole = body_type(scope)
    if kind not in {"application/json", "multipart/form-data"}:
        raise UnsupportedMediaType(
            f"Content-Type is '{kind or 'missing'}'; send application/json or multipart/form-data."
        )
    return kind, whole


def body_type(scope: Scope) -> tuple[str, bytes]:
    """What a body says that it is, in lower case, and the whole header; empty where it does not."""
    whole = header(scope, b"content-type") or b""
    return whole.partition(b";")[0].strip().lower().decode("latin-1"), whole
