"""JSON answers with images in them, read without ever holding an image.

A string that is long and base64 is decoded into a ``Spool`` while it arrives, and a token stands
for it in the document. What is left, the reduced document, is small and parsed as a whole.

All work is done by the stretch: between two quotation marks, or up to the end of a chunk.
"""

import binascii
import codecs
import json
import random
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

import msgspec
import pybase64

from calotype.net.spool import Spool

LONG: Final = 16 * 1024
MAX_DOCUMENT: Final = 4 * 1024 * 1024
"""Most bytes of a reduced document."""
MAX_SPOOLS: Final = 64
"""Most long strings of one document: each holds a file."""
WRITE: Final = 256 * 1024
"""From how many decoded bytes on it is time to write."""

DATA_URL: Final = re.compile(rb"data:(?:[\w.+;= /-]|\\/){0,200};base64,", re.IGNORECASE)
_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]*+={0,2}")
_STRING: Final = re.compile(
    rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+', re.DOTALL
)
_CUT_ESCAPE: Final = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_ESCAPE: Final = len(rb"\u002")
"""Most bytes of an escape that is cut."""
_CHANCE: Final = random.Random()  # noqa: S311 -- seeded by the system, and never shown
_INVALID: Final = "The image in the upstream's answer is no valid base64."


class TooLarge(Exception):
    """An answer is larger than is read."""


class Malformed(ValueError):
    """What was read is no JSON document, or not all of one."""


class _Mode(Enum):
    TEXT = auto()
    """In the reduced document, on the look-out for a long string."""
    RUN = auto()
    """In a long stretch that belongs to the reduced document, up to the next quotation mark."""
    BASE64 = auto()
    """In an image."""
    SPOILED = auto()
    """In a string that began as an image and turned out not to be one."""


class JsonScanner:
    """Reads one document, chunk by chunk.

    Args:
        new_spool: makes the file for an image.
        long: from how many bytes on, as written, a string is taken for an image.

    """

    def __init__(self, new_spool: Callable[[], Spool], *, long: int = LONG) -> None:
        self._new_spool = new_spool
        self._long = long
        # Marks stay in this process. The system's own chance would let other threads in meanwhile.
        self._mark = f"calotype-image-{_CHANCE.getrandbits(128):032x}-"
        self.spools: dict[str, Spool] = {}
        """Token → the image that it stands for."""
        self._waiting = 0
        self._mode = _Mode.TEXT
        self._tail = b""
        self._text = bytearray()
        self._in_string = False
        self._escaped = False
        self._padded = False
        self._letters = b""
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    @property
    def full(self) -> bool:
        """Whether it is time to ``write``."""
        return self._waiting >= WRITE

    @property
    def held(self) -> bool:
        """Whether what is being read is an image for which memory is set aside."""
        return self._mode is _Mode.BASE64 and self._spool.held

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes.

        Raises:
            TooLarge: what is no image of it exceeds ``MAX_DOCUMENT``, or there are too many.
            Malformed: it is no JSON; nothing more may be fed. Most faults only show in ``close``.

        """
        data = self._tail + chunk if self._tail else chunk
        self._tail = b""
        at = 0
        while at < len(data):
            match self._mode:
                case _Mode.TEXT:
                    at = self._read_text(data, at)
                case _Mode.RUN:
                    at = self._read_run(data, at)
                case _Mode.BASE64:
                    at = self._read_base64(data, at)
                case _Mode.SPOILED:
                    at = self._read_spoiled(data, at)

    async def write(self) -> None:
        """Move what was decoded to the files.

        Raises:
            CannotKeep: that failed; it may be called again.

        """
        for spool in self.spools.values():
            await spool.write()
        self._waiting = 0

    def close(self) -> Any:
        """The reduced document, at the end of the bytes.

        Raises:
            Malformed: they were no JSON document, or not all of one.

        """
        if self._mode in {_Mode.BASE64, _Mode.SPOILED}:
            raise Malformed("The document ends within a string.")
        self._keep(self._tail)
        self._tail = b""
        try:
            return msgspec.json.decode(self._text)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
        try:
            # More tolerant, for what servers in Python write: NaN, halves of surrogate pairs.
            return json.loads(self._text.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise Malformed("This is no JSON document.") from error

    def _read_text(self, data: bytes, at: int) -> int:
        quote = _long_stretch(data, at, self._long)
        if quote < 0:
            quote = data.rfind(b'"', at)
            end = len(data) if quote < 0 else quote
            self._keep(data[at:end])
            self._tail = data[end:]
            return len(data)
        self._keep(data[at:quote])
        first = data[quote + 1 : quote + 1 + self._long]
        start = None if self._in_string else first_sight(first)
        if start is None:
            self._keep(b'"')
            self._mode = _Mode.RUN
            return quote + 1
        self._begin_image()
        return quote + 1 + start

    def _read_run(self, data: bytes, at: int) -> int:
        quote = data.find(b'"', at)
        if quote < 0:
            self._keep(data[at:])
            return len(data)
        self._keep(data[at:quote])
        self._mode = _Mode.TEXT
        return quote

    def _begin_image(self) -> None:
        if len(self.spools) == MAX_SPOOLS:
            raise TooLarge(f"The answer holds more than {MAX_SPOOLS} images.")
        token = f"{self._mark}{len(self.spools)}"
        self._spool = self.spools[token] = self._new_spool()
        self._text += b'"%b"' % token.encode()
        self._letters = b""
        self._padded = False
        self._mode = _Mode.BASE64

    def _read_base64(self, data: bytes, at: int) -> int:
        quote = data.find(b'"', at)
        end = len(data) if quote < 0 else quote
        letters: bytes | memoryview | None
        if data.find(b"\\", at, end) < 0:
            letters = memoryview(data)[at:end]
        else:
            if quote < 0 and (cut := _CUT_ESCAPE.search(data, max(at, end - _ESCAPE))):
                end = cut.start()
            letters = _unescaped(data[at:end])
        if letters is None or not self._decode(letters):
            self._spool.spoil(_INVALID)
            self._utf8.reset()
            self._mode = _Mode.SPOILED
            return at
        if quote < 0:
            self._tail = data[end:]
            return len(data)
        if self._letters:
            self._spool.spoil(_INVALID)
        else:
            self._spool.complete()
        self._mode = _Mode.TEXT
        return quote + 1

    def _decode(self, letters: bytes | memoryview) -> bool:
        """Decode all whole groups of four; False: this is no base64."""
        if self._padded and letters:
            return False
        if self._letters:
            letters = b"".join((self._letters, letters))
        whole = len(letters) - len(letters) % 4
        self._letters = bytes(letters[whole:])
        if self._letters.translate(None, _LETTERS):
            return False
        if whole:
            self._padded = letters[whole - 1] == ord("=")
            try:
                decoded = pybase64.b64decode(memoryview(letters)[:whole], validate=True)
            except binascii.Error:
                return False
            self._waiting += self._spool.add(decoded)
        return True

    def _read_spoiled(self, data: bytes, at: int) -> int:
        matched = _STRING.match(data, at)
        end = matched.end() if matched else at
        try:
            self._utf8.decode(data[at:end], final=data[end : end + 1] == b'"')
        except UnicodeDecodeError as error:
            raise Malformed("This is no UTF-8.") from error
        if end == len(data):
            return end
        if data[end] == ord('"'):
            self._mode = _Mode.TEXT
            return end + 1
        if _CUT_ESCAPE.match(data, end) is None:
            raise Malformed("A string holds what no string may hold.")
        self._tail = data[end:]
        return len(data)

    def _keep(self, piece: bytes) -> None:
        """Add to the reduced document, and know whether its end is within a string."""
        if not piece:
            return
        self._text += piece
        if len(self._text) > MAX_DOCUMENT:
            raise TooLarge(f"The answer holds more than {MAX_DOCUMENT} bytes besides its images.")
        if self._escaped:
            piece = piece[1:]
            self._escaped = False
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"")
            self._escaped = piece.endswith(b"\\")
        quotes = piece.count(b'"') - piece.count(b'\\"')
        self._in_string ^= bool(quotes % 2)


def _long_stretch(data: bytes, at: int, long: int) -> int:
    """The first quotation mark from ``at`` on with ``long`` bytes and no other behind it, or -1.

    Such a stretch covers one of the places that are ``long`` apart: only around these it is sought.
    """
    for place in range(at + long, len(data), long):
        quote = data.rfind(b'"', place - long, place)
        end = quote + 1 + long
        if quote >= 0 and end <= len(data) and data.find(b'"', place, end) < 0:
            return quote
    return -1


def first_sight(string: bytes) -> int | None:
    """Where base64 begins in the beginning of a string as JSON writes it; None where it is none.

    What calls itself a data URL in base64 is believed to be one.
    """
    if named := DATA_URL.match(string):
        return named.end()
    letters: bytes | None = string
    if b"\\" in string:
        cut = _CUT_ESCAPE.search(string)
        letters = _unescaped(string[: cut.start()] if cut else string)
    return 0 if letters is not None and _is_base64(letters) else None


def _is_base64(letters: bytes) -> bool:
    """Whether it is the beginning of base64."""
    if len(letters) % 4 == 0:
        try:
            pybase64.b64decode(letters, validate=True)
        except binascii.Error:
            pass
        else:
            return True  # as nearly always, and 30 times as quick
    return _BASE64.fullmatch(letters) is not None


def _unescaped(string: bytes) -> bytes | None:
    """A stretch of a string without its escapes; None when there is more than ASCII in it."""
    try:
        return msgspec.json.decode(b'"%b"' % string, type=str).encode("ascii")
    except (msgspec.MsgspecError, UnicodeError):
        return None
