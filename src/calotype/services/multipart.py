"""Multipart forms, parsed as they come: text to fields, files straight to the asset store."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import msgspec
import multipart

from calotype.domain.catalog import quoted
from calotype.domain.errors import (
    BodyTooLarge,
    InvalidParameter,
    InvalidRequest,
    MalformedBody,
    MissingField,
    TooManyReferences,
    UnsupportedParameter,
)
from calotype.domain.task import Reference
from calotype.domain.validation import REFERENCE_FIELD
from calotype.services.assets import Kept

MAX_PARTS: Final = 64
MAX_TEXT_BYTES: Final = 256 * 1024
"""Of one text field: the longest prompt in any script fits."""

_FILES: Final = {"image", "image[]"}
FILE_FIELD: Final = "file"
_ONE_FILE: Final = {FILE_FIELD, "image"}
"""Of the form that is one file."""
_URLS: Final = {"image_input", "image_input[]"}

Event = Any  # the parser's segments, payload chunks and None; it ships without types
Keep = Callable[[AsyncIterator[bytes]], Awaitable[Kept | None]]
Judge = Callable[[object], list[Reference]]


class Form(msgspec.Struct):
    """A form: its text fields, and its references in the order in which they came."""

    fields: dict[str, object]
    references: list[Reference | Kept]

    @property
    def uploads(self) -> list[Kept]:
        """The references that are stored already."""
        return [reference for reference in self.references if isinstance(reference, Kept)]


async def read_form(
    chunks: AsyncIterator[bytes],
    form: Form,
    *,
    content_type: bytes,
    keep: Keep,
    judge: Judge,
    max_references: int,
) -> None:
    """Read a form into ``form``, which holds what was stored even when this raises.

    Args:
        chunks: the body.
        form: filled part by part.
        content_type: the request's header, for the boundary.
        keep: stores one file; None leaves it out.
        judge: judges URLs of references.
        max_references: more than that no model takes.

    Raises:
        errors.CalotypeError: the form is malformed, over a limit, or a reference is refused.

    """
    async with _parsed(chunks, content_type) as events:
        async for segment in events:
            async with aclosing(_payload(events)) as payload:
                await _read_part(segment, payload, form, keep=keep, judge=judge)
            if len(form.references) > max_references:
                raise too_many_references(max_references)


async def read_file(
    chunks: AsyncIterator[bytes], form: Form, *, content_type: bytes, keep: Keep
) -> None:
    """Read a form that is one file into ``form``, which holds it even when this raises.

    Raises:
        errors.CalotypeError: there is no file, or something besides it; the form is malformed or
            over a limit; or the file is refused.

    """
    async with _parsed(chunks, content_type) as events:
        async for segment in events:
            name = segment.name.encode("latin-1").decode(errors="replace")
            if name not in _ONE_FILE:
                raise UnsupportedParameter(
                    f"This form holds one file, as 'file'; leave {quoted(name)} out."
                )
            if not _is_file(segment, name):
                raise InvalidParameter(f"{name} must be a file, not text.", param=FILE_FIELD)
            if form.references:
                raise InvalidParameter(
                    "The form holds more than one file; send each in a request of its own.",
                    param=FILE_FIELD,
                )
            async with aclosing(_payload(events)) as payload:
                kept = await keep(payload)
            if kept is not None:
                form.references.append(kept)
    if not form.references:
        raise MissingField("The form holds no file; send it as 'file'.", param=FILE_FIELD)


def too_many_references(limit: int) -> TooManyReferences:
    """The refusal of more references than any model takes."""
    return TooManyReferences(
        f"No model takes more than {limit} reference images.", param=REFERENCE_FIELD
    )


@asynccontextmanager
async def _parsed(
    chunks: AsyncIterator[bytes], content_type: bytes
) -> AsyncIterator[AsyncIterator[Event]]:
    """The events of a form; whatever is wrong with its making is told in our words."""
    events = _events(chunks, _boundary(content_type))
    try:
        yield events
    except multipart.ParserLimitReached as error:
        raise BodyTooLarge(f"The form is over a limit: {error}.") from None
    except multipart.MultipartError as error:
        raise MalformedBody(f"The multipart form cannot be parsed: {error}.") from None
    finally:
        await events.aclose()


async def _events(chunks: AsyncIterator[bytes], boundary: str) -> AsyncGenerator[Event, None]:
    # Latin-1 decodes every byte: names that we know are ASCII, and file names carry no meaning.
    with multipart.PushMultipartParser(
        boundary, max_segment_count=MAX_PARTS, header_charset="latin-1"
    ) as parser:
        async for chunk in chunks:
            for event in parser.parse(chunk):
                yield event


async def _read_part(
    segment: Event,
    payload: AsyncIterator[bytes],
    form: Form,
    *,
    keep: Keep,
    judge: Judge,
) -> None:
    name = segment.name.encode("latin-1").decode(errors="replace")
    if not name:
        raise MalformedBody("A part of the form has no name; name each field.")
    if not _is_file(segment, name):
        if name in _FILES:
            raise InvalidParameter(
                f"{name} must be a file; give URLs as image_input.", param="image"
            )
        text = await _text(name, payload)
        if name in _URLS:
            form.references += judge([text])
        elif name in form.fields:
            raise InvalidParameter(f"{name} was sent twice; send it once.", param=name)
        else:
            form.fields[name] = text
        return
    if name not in _FILES:
        raise InvalidParameter(
            f"{name} was sent as a file; send files as 'image' or 'image[]'.", param=name
        )
    first = await anext(payload, b"")
    if not first and segment.filename == "":
        return  # a browser's file input that was left empty
    try:
        async with aclosing(_rejoined(first, payload)) as chunks:
            kept = await keep(chunks)
    except InvalidRequest as error:
        error.param = "image"
        raise
    if kept is not None:
        form.references.append(kept)


def _is_file(segment: Event, name: str) -> bool:
    """Whether a part is a file.

    Old clients name some files only as ``filename*`` (RFC 5987), and generated ones may send an
    image without a name, but with its type.
    """
    if segment.filename is not None or "filename*=" in segment["Content-Disposition"]:
        return True
    kind = segment.content_type or "text/plain"
    return name in _FILES | _ONE_FILE and not kind.startswith("text/")


async def _payload(events: AsyncIterator[Event]) -> AsyncGenerator[bytes, None]:
    """The chunks of the part that has just begun."""
    async for event in events:
        if event is None:
            return
        yield event


async def _rejoined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    yield first
    async for chunk in rest:
        yield chunk


async def _text(name: str, payload: AsyncIterator[bytes]) -> str:
    content = bytearray()
    async for chunk in payload:
        content += chunk
        if len(content) > MAX_TEXT_BYTES:
            raise BodyTooLarge(
                f"The field {name} has more than {MAX_TEXT_BYTES} bytes.", param=name
            )
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise MalformedBody(f"The field {name} is not UTF-8 text.", param=name) from None


def _boundary(content_type: bytes) -> str:
    _, options = multipart.parse_options_header(content_type.decode("latin-1"))
    boundary: str = options.get("boundary", "")
    if not boundary:
        raise MalformedBody("The Content-Type of the form names no boundary.")
    return boundary
