"""Bodies of requests: their exact length is known before, and they are never whole in memory."""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final

import msgspec
import pybase64

Open = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""Opens a file as a stream of chunks, as often as wanted."""

_HTML_ESCAPES: Final = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})
_PIECE: Final = 48 * 1024
"""Most bytes handed on at once; a multiple of three, so that it becomes base64 without a rest."""


class WrongSize(Exception):
    """A file that was to be sent has not the size that it was said to have; ours to mend."""


class Body(msgspec.Struct, frozen=True):
    """The body of a request.

    Args:
        content_type: as it goes into the header.
        length: bytes.
        chunks: makes the bytes anew, each time that it is called. Where it raises, the upstream
            gets no complete request, and ``UpstreamClient.call`` raises ``BodyBroken``.

    """

    content_type: str
    length: int
    chunks: Callable[[], AsyncGenerator[bytes, None]]


class Inline:
    """A file within a JSON document, written there as one string: ``prefix``, then base64.

    No struct, as ``msgspec`` would write that out field by field.

    Args:
        open: opens it as a stream of chunks.
        size: its bytes, exactly.
        prefix: such as ``data:image/png;base64,``.

    """

    __slots__ = ("open", "prefix", "size")

    def __init__(self, open: Open, size: int, prefix: str = "") -> None:  # noqa: A002 -- the port's own word
        self.open = open
        self.size = size
        self.prefix = prefix


class FilePart(msgspec.Struct, frozen=True):
    """A file within a form.

    Args:
        filename: as the upstream is told.
        content_type: of the file.
        size: its bytes, exactly.
        open: opens it as a stream of chunks.

    """

    filename: str
    content_type: str
    size: int
    open: Open


class _File(msgspec.Struct, frozen=True):
    """A stretch of a body that is a file, plain or in base64."""

    open: Open
    size: int
    base64: bool = False

    @property
    def length(self) -> int:
        return -(-self.size // 3) * 4 if self.base64 else self.size


def json_body(document: object) -> Body:
    """A JSON document, in which ``Inline`` may stand as any value."""
    files: list[_File] = []
    mark = ""

    def leave_out(value: object) -> str:
        nonlocal mark
        if not isinstance(value, Inline):
            raise NotImplementedError(f"{type(value).__name__} cannot be written as JSON")
        # Drawn for this document alone, so that nothing in it can be taken for one.
        mark = mark or secrets.token_hex(16)
        files.append(_File(value.open, value.size, base64=True))
        return f"{value.prefix}{mark}"

    written = msgspec.json.encode(document, enc_hook=leave_out)
    if not files:
        return _body("application/json", [written])
    first, *others = written.split(mark.encode())
    pieces: list[bytes | _File] = [first]
    for file, text in zip(files, others, strict=True):
        pieces += (file, text)
    return _body("application/json", pieces)


def form_body(fields: Sequence[tuple[str, str | FilePart]]) -> Body:
    """A form as ``multipart/form-data``, its fields in the order given."""
    boundary = f"calotype-{secrets.token_hex(16)}"
    pieces: list[bytes | _File] = []
    for name, value in fields:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"'
        if isinstance(value, FilePart):
            head += f'; filename="{_quoted(value.filename)}"\r\nContent-Type: {value.content_type}'
            pieces += (f"{head}\r\n\r\n".encode(), _File(value.open, value.size), b"\r\n")
        else:
            pieces.append(f"{head}\r\n\r\n{value}\r\n".encode())
    pieces.append(f"--{boundary}--\r\n".encode())
    return _body(f"multipart/form-data; boundary={boundary}", pieces)


def raw_body(content_type: str, size: int, open: Open) -> Body:  # noqa: A002 -- the port's own word
    """A file as it is."""
    return _body(content_type, [_File(open, size)])


def _quoted(text: str) -> str:
    return text.translate(_HTML_ESCAPES)


def _body(content_type: str, pieces: Sequence[bytes | _File]) -> Body:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            async with aclosing(_based(piece) if piece.base64 else _plain(piece)) as stream:
                async for chunk in stream:
                    yield chunk

    length = sum(len(piece) if isinstance(piece, bytes) else piece.length for piece in pieces)
    return Body(content_type, length, chunks)


async def _plain(file: _File) -> AsyncGenerator[bytes, None]:
    """The bytes of a file, in pieces of bounded size.

    Raises:
        WrongSize: they are more or fewer than announced.

    """
    taken = 0
    async with file.open() as stream:
        async for chunk in stream:
            taken += len(chunk)
            if taken > file.size:
                break
            for at in range(0, len(chunk), _PIECE):
                yield chunk[at : at + _PIECE]
    if taken != file.size:
        raise WrongSize(f"A file of {file.size} bytes was to be sent, and it has another size.")


async def _based(file: _File) -> AsyncGenerator[bytes, None]:
    """The base64 of a file; three bytes become four letters, so what is left over waits."""
    rest = b""
    async with aclosing(_plain(file)) as stream:
        async for chunk in stream:
            joined = rest + chunk
            whole = len(joined) - len(joined) % 3
            rest = joined[whole:]
            if whole:
                yield pybase64.b64encode(joined[:whole])
    if rest:
        yield pybase64.b64encode(rest)
