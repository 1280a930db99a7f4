"""A message of an agent on its way in: the images in a large one stay on disk.

A message that is parsed takes several times its size in memory, for as long as its answer takes.
So the ``data:`` URIs of a large one are cut out before. In the place of each stands a name that
nobody can guess, by which ``References`` reads it when its turn has come.
"""

import re
import secrets
from collections.abc import Mapping
from itertools import islice
from typing import IO, Final

import msgspec

from calotype.mcp.arguments import MAX_REFERENCES

# A quote without a backslash before it, and with a letter after it, opens a string in JSON.
_DATA_URI: Final = re.compile(rb'(?<!\\)"data:[^"]{0,200};base64,[^"]*+(?<!\\)"')


class TooLarge(Exception):
    """Too much is left of a message without the images that are references."""


class Cuts:
    """What was cut out of a message, by the names that stand in its place.

    Args:
        file: holds the message.
        places: where each begins and ends.

    """

    def __init__(self, file: IO[bytes], places: Mapping[str, tuple[int, int]]) -> None:
        self._file = file
        self._places = places

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def read(self, name: str) -> bytes:
        """One of them, a data: URI; blocks.

        Raises:
            ValueError: it is no JSON string.

        """
        begin, end = self._places[name]
        self._file.seek(begin)
        text = self._file.read(end - begin)
        if b"\\" not in text:
            return text[1:-1]
        try:
            return msgspec.json.decode(text, type=str).encode()
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from None

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def cut(file: IO[bytes], *, limit: int) -> tuple[bytes, Cuts]:
    """What is left of the message in a file without its images, and those; blocks.

    It is left whole where anything that looks like an image is no reference.

    Raises:
        TooLarge: more than ``limit`` bytes are left.

    """
    file.seek(0)
    text = file.read()
    found = [each.span() for each in islice(_DATA_URI.finditer(text), MAX_REFERENCES)]
    if len(text) - sum(end - begin for begin, end in found) > limit:
        raise TooLarge
    places = {f"cut-{secrets.token_hex(16)}": place for place in found}
    pieces, at = list[bytes](), 0
    for name, (begin, end) in places.items():
        pieces += [text[at:begin], b'"', name.encode(), b'"']
        at = end
    rest = b"".join([*pieces, text[at:]])
    if not places.keys() <= _references(rest):
        if len(text) > limit:
            raise TooLarge
        return text, Cuts(file, {})
    return rest, Cuts(file, places)


class _Arguments(msgspec.Struct):
    references: list[str] = []


class _Params(msgspec.Struct):
    arguments: _Arguments


class _Call(msgspec.Struct):
    params: _Params


def _references(text: bytes) -> set[str]:
    """What a message names as references; nothing where it is no call."""
    try:
        return set(msgspec.json.decode(text, type=_Call).params.arguments.references)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return set()
