"""POST /mcp: the door through which agents come in.

Key, type and size are judged here, in the contract's shape; what is wrong with a message of the
protocol is answered by the SDK, as the protocol has it.
"""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import ExitStack, aclosing
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
from starlette.types import Message, Receive, Scope, Send

from calotype.api.body import MAX_JSON_BYTES, ClientGone, check_length, stream
from calotype.api.context import Context, base_url, bearer, header
from calotype.api.render import json_answer
from calotype.domain.errors import BodyTooLarge, UnsupportedMediaType
from calotype.mcp.arguments import MAX_REFERENCES
from calotype.mcp.message import Cuts, TooLarge, cut

if TYPE_CHECKING:
    from calotype.mcp.web import Web

MAX_BYTES: Final = 16 * 1024 * 1024
"""Of a request: room for a few references as data: URIs."""
_IN_MEMORY: Final = 256 * 1024
"""Bytes of a request that are held, and parsed as they are."""
_AT_ONCE: Final = 2
"""Larger ones that are looked through at a time."""
_TYPE: Final = (b"content-type", b"application/json")
_ACCEPT: Final = (b"accept", b"application/json, text/event-stream")
_SPELLED_OUT: Final = frozenset({b"content-type", b"accept"})


class _Named(msgspec.Struct):
    """What is read of a message here."""

    id: Any = msgspec.UNSET


# To the SDK a request whose id it cannot read is a notification, which nobody answers.
_MISNAMED: Final = json_answer(
    400,
    {
        "jsonrpc": "2.0",
        "id": None,
        "error": {
            "code": -32600,
            "message": "id must be a string or an integer; leave it out of a notification.",
        },
    },
)
_decode = msgspec.json.Decoder(_Named).decode


class AgentDoor:
    """An ASGI application."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._web: Web | None = None
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one message of an agent.

        Raises:
            errors.AuthenticationError: there is no good key.
            errors.UnsupportedMediaType: it is no JSON.
            errors.BodyTooLarge: over ``MAX_BYTES``, or without the images that are references
                over ``MAX_JSON_BYTES``.

        """
        key = bearer(scope)
        await self._context.accounts.authenticate(key)
        _check_type(scope)
        check_length(scope, limit=MAX_BYTES)
        web = self._web or await self._opened(scope)
        with ExitStack() as held:
            body, cuts = await self._read(receive, held)
            if not _is_named_well(body):
                await _MISNAMED.response()(scope, receive, send)
                return
            # Who does not say that it reads events gets JSON, also for a */*: the SDK would
            # refuse it.
            events = b"text/event-stream" in (header(scope, b"accept") or b"").lower()
            kept = [pair for pair in scope["headers"] if pair[0] not in _SPELLED_OUT]
            answer = web.answer(
                {**scope, "headers": [*kept, _TYPE, _ACCEPT]},
                _again(body, receive),
                send,
                key=key,
                base_url=_address(scope, self._context.public_url),
                request_id=scope["state"]["request_id"],
                stream=events,
                cuts=cuts,
            )
            await (answer if events else _while_there(answer, receive))

    async def _read(self, receive: Receive, held: ExitStack) -> tuple[bytes, Cuts | None]:
        """The body, to be read once more, and the images that were cut out of a large one."""
        pieces, waiting, file = list[bytes](), 0, None
        async with aclosing(stream(receive, limit=MAX_BYTES)) as chunks:
            async for chunk in chunks:
                pieces.append(chunk)
                waiting += len(chunk)
                if waiting > _IN_MEMORY:
                    if file is None:
                        file = held.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 -- it does
                    await asyncio.to_thread(file.writelines, pieces)
                    pieces, waiting = [], 0
        if file is None:
            return b"".join(pieces), None
        async with self._turns:
            return await asyncio.to_thread(_cut, file, pieces)

    async def _opened(self, scope: Scope) -> "Web":
        """What answers; it is imported when the first agent comes, aside from everyone else."""
        made = await asyncio.to_thread(_import)
        if self._web is None:  # nobody else did meanwhile
            feed = self._context.feed
            self._web = made(scope["app"], stopping=lambda: feed.closing, limit=MAX_BYTES)
        return self._web


def _import() -> "type[Web]":
    from calotype.mcp.web import Web

    return Web


def _cut(file: IO[bytes], pieces: list[bytes]) -> tuple[bytes, Cuts]:
    file.writelines(pieces)
    try:
        return cut(file, limit=MAX_JSON_BYTES)
    except TooLarge:
        raise BodyTooLarge(
            f"Without the data: URIs of its references, {MAX_REFERENCES} at most, the body has "
            f"more than {MAX_JSON_BYTES} bytes; send a smaller one."
        ) from None


def _address(scope: Scope, public_url: str) -> str:
    """How the caller reaches us; where its ``Host`` is none, how the server is reached."""
    address = base_url(scope, public_url)
    try:
        split = urlsplit(address)
        good = bool(split.hostname) and split.port != 0
    except ValueError:
        good = False
    return address if good else base_url({**scope, "headers": []}, public_url)


def _check_type(scope: Scope) -> None:
    kind = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        said = kind.decode("latin-1") or "missing"
        raise UnsupportedMediaType(f"Content-Type is '{said}'; send application/json.")


def _is_named_well(body: bytes) -> bool:
    """Whether the ``id``, if there is one, can be one. Anything else is the SDK's to judge."""
    try:
        named = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return named.id is msgspec.UNSET or type(named.id) in {str, int}


async def _while_there(answer: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Answer unless the caller hangs up first; the SDK watches over its streams only."""

    async def hang_up() -> None:
        await receive()

    answering, gone = asyncio.create_task(answer), asyncio.create_task(hang_up())
    try:
        await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientGone
        answering.result()
    finally:
        for each in (answering, gone):
            each.cancel()
        await asyncio.wait({answering, gone})


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, to be read once more; then whatever comes after it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message
