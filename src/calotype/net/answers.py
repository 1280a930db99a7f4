"""What an upstream answered: status, headers, a document, and images that were set aside."""

import binascii
import email.utils
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import msgspec
import pybase64

from calotype.domain.outcomes import ImageSource, SourceError
from calotype.net.jsonstream import JsonScanner, Malformed, first_sight
from calotype.net.spool import Spool

TEXT: Final = 2000
"""Most characters kept of a body that is no JSON."""
LONGEST_WAIT: Final = 86_400.0
"""Seconds; an upstream that says more is taken to say this."""
_JSON_STARTS: Final = frozenset(b'{["-0123456789tfnNI\xef')
"""The last one begins a byte order mark."""
_HEAD: Final = 4 * TEXT
_NUMBER: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_DATA: Final = b"data:"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, received to its end.

    Args:
        status: of HTTP.
        headers: names in lower case; one that came twice has its values joined by commas.
        document: the decoded JSON, in which a token stands for every long base64 string; None
            where the body was none, or no event was kept.
        text: the beginning of a body that was no JSON, at most ``TEXT`` characters.
        retry_after: seconds after which the upstream wants to be asked again, where it says so.
        spools: token → image.

    """

    status: int
    headers: Mapping[str, str] = {}
    document: Any = None
    text: str = ""
    retry_after: float | None = None
    spools: Mapping[str, Spool] = {}

    def blob(self, value: object) -> ImageSource | None:
        """The image that a string of ``document`` holds, as base64 or as a ``data:`` URL of it.

        None where it is no such string at first sight. Whether it is one to its end shows when
        it is opened.
        """
        if not isinstance(value, str):
            return None
        if (spool := self.spools.get(value)) is not None:
            return spool
        start = first_sight(value.encode(errors="replace")) if value else None
        return None if start is None else _Short(value[start:])


class _Short:
    """An image that stands in the document itself."""

    def __init__(self, letters: str) -> None:
        self._letters = letters

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """The image in one chunk."""
        try:
            image = pybase64.b64decode(self._letters, validate=True)
        except (binascii.Error, ValueError):
            raise SourceError(
                "The image in the upstream's answer is no valid base64.", retryable=False
            ) from None
        yield _once(image)


async def _once(image: bytes) -> AsyncIterator[bytes]:
    if image:
        yield image


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds to wait by ``retry-after-ms`` or ``retry-after``; None where neither says so.

    Args:
        headers: names in lower case.
        now: Unix time, against which a date is read where the answer has no date of its own.

    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return min(milliseconds / 1000, LONGEST_WAIT)
    told = headers.get("retry-after")
    if told is None:
        return None
    if (seconds := _number(told)) is not None:
        return min(seconds, LONGEST_WAIT)
    until = _date(told)
    if until is None:
        return None
    sent = _date(headers.get("date"))
    wait = until - (now if sent is None else sent)
    return min(wait, LONGEST_WAIT) if wait >= 0 else None


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and _NUMBER.fullmatch(text.strip()) else None


def _date(text: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text or "").timestamp()
    except (ValueError, OverflowError):
        return None


class Reader(Protocol):
    """Takes a body in, chunk by chunk."""

    @property
    def full(self) -> bool:
        """Whether it is time to ``write``."""
        ...

    @property
    def held(self) -> bool:
        """Whether memory is set aside for what is being read."""
        ...

    @property
    def done(self) -> bool:
        """Whether what is left of the body does not matter."""
        ...

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes.

        Raises:
            TooLarge: there is more in it than is read.

        """
        ...

    async def write(self) -> None:
        """Move decoded images to their files.

        Raises:
            CannotKeep: that failed; it may be called again.

        """
        ...

    def close(self) -> tuple[Any, str, Mapping[str, Spool]]:
        """The document, the text and the images, at the end of the body."""
        ...


class WholeBody:
    """Reads a body that is one document, or something else."""

    done = False

    def __init__(self, new_spool: Callable[[], Spool]) -> None:
        self._scanner: JsonScanner | None = JsonScanner(new_spool)
        self._begun = False
        self._head = bytearray()

    @property
    def full(self) -> bool:
        """Whether it is time to ``write``."""
        return self._scanner is not None and self._scanner.full

    @property
    def held(self) -> bool:
        """Whether memory is set aside for what is being read."""
        return self._scanner is not None and self._scanner.held

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes."""
        if len(self._head) < _HEAD:
            self._head += chunk[:_HEAD]
        if not self._begun and (start := chunk.lstrip()):
            self._begun = True
            if start[0] not in _JSON_STARTS:
                self._scanner = None
        if self._scanner is not None:
            try:
                self._scanner.feed(chunk)
            except Malformed:
                self._scanner = None

    async def write(self) -> None:
        """Move decoded images to their files."""
        if self._scanner is not None:
            await self._scanner.write()

    def close(self) -> tuple[Any, str, Mapping[str, Spool]]:
        """The document and its images, or the text."""
        if self._scanner is not None and self._begun:
            try:
                return self._scanner.close(), "", self._scanner.spools
            except Malformed:
                pass
        return None, self._head.decode(errors="replace").strip()[:TEXT], {}


class EventStream:
    """Reads ``text/event-stream`` up to the event that is wanted.

    Args:
        new_spool: makes the file for an image.
        on_event: called with the JSON object of each event; True keeps it and ends the reading.

    """

    def __init__(self, new_spool: Callable[[], Spool], on_event: Callable[[Any], bool]) -> None:
        self._new_spool = new_spool
        self._on_event = on_event
        self._event: JsonScanner | None = None
        self._spoiled = False
        self._kept: Any = None
        self._head = b""
        """Of the line being read, until its field is known."""
        self._in_data: bool | None = None
        """Whether the line being read is data; None until that is known."""
        self._after_cr = False
        self.done = False

    @property
    def full(self) -> bool:
        """Whether it is time to ``write``."""
        return self._event is not None and self._event.full

    @property
    def held(self) -> bool:
        """Whether memory is set aside for what is being read."""
        return self._event is not None and self._event.held

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes; ``on_event`` is called from here."""
        if not chunk:
            return
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        for line in chunk.splitlines(keepends=True):
            text = line.rstrip(b"\r\n")
            self._read(text)
            if len(text) < len(line):
                self._end_line()
                if self.done:
                    return

    async def write(self) -> None:
        """Move decoded images to their files."""
        if self._event is not None:
            await self._event.write()

    def close(self) -> tuple[Any, str, Mapping[str, Spool]]:
        """The event that was kept and its images; the end of the stream ends the last event."""
        if not self.done:
            self._end_line()
            self._end_event()
        if self._event is None or not self.done:
            return None, "", {}
        return self._kept, "", self._event.spools

    def _read(self, text: bytes) -> None:
        """Take in a part of a line."""
        if self._in_data is None:
            self._head += text
            if len(self._head) <= len(_DATA):
                return
            self._in_data = self._head.startswith(_DATA)
            text = self._begin_data() if self._in_data else b""
            self._head = b""
        if self._in_data:
            self._take(text)

    def _begin_data(self) -> bytes:
        """What a line of data holds so far; several lines of an event are one document."""
        text = self._head.removeprefix(_DATA).removeprefix(b" ")
        if self._event is None:
            self._event = JsonScanner(self._new_spool)
            self._spoiled = False
        else:
            self._take(b"\n")
        return text

    def _take(self, text: bytes) -> None:
        if self._event is not None and not self._spoiled:
            try:
                self._event.feed(text)
            except Malformed:
                self._spoiled = True

    def _end_line(self) -> None:
        if self._in_data is None and not self._head:
            self._end_event()
        self._head = b""
        self._in_data = None

    def _end_event(self) -> None:
        """Hand the event on; one that is no JSON object, such as ``[DONE]``, is passed over."""
        event, spoiled = self._event, self._spoiled
        self._event = None
        if event is None or spoiled:
            return
        try:
            document = event.close()
        except Malformed:
            return
        if isinstance(document, dict) and self._on_event(document):
            self._event, self._kept, self.done = event, document, True
