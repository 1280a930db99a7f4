"""What a form sends."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import parse_qsl

from starlette.requests import Request

from calotype.domain.errors import BodyTooLarge, MalformedBody, UnsupportedMediaType

MAX_BYTES: Final = 64 * 1024
MAX_FIELDS: Final = 1000
_URLENCODED: Final = "application/x-www-form-urlencoded"


class Form:
    """Fields by name, each with every value that it has."""

    def __init__(self, fields: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        self._fields = fields

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def get(self, name: str, default: str = "") -> str:
        """The first value without the space around it; the default where there is none."""
        return self.all(name)[0].strip() if name in self._fields else default

    def all(self, name: str) -> Sequence[str]:
        """Every value of a field, such as a list of checkboxes, as it was sent."""
        return self._fields.get(name, ())

    @property
    def plain(self) -> dict[str, str]:
        """The first value of every field, as it was sent."""
        return {name: values[0] for name, values in self._fields.items()}

    @classmethod
    async def read(cls, request: Request, *, limit: int = MAX_BYTES) -> Self:
        """The form in the body of a request; one that is empty needs no content type.

        Raises:
            errors.UnsupportedMediaType: the body is none.
            errors.BodyTooLarge: over ``limit`` bytes or ``MAX_FIELDS`` fields.
            errors.MalformedBody: it cannot be read, or holds a NUL.

        """
        body = bytearray()
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    raise BodyTooLarge(f"The form has more than {limit} bytes; send less.")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and kind != _URLENCODED:
            raise UnsupportedMediaType(f"Send the form as {_URLENCODED}.")
        return cls.parse(bytes(body))

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """The form that was encoded for a URL so."""
        if body.count(b"&") >= MAX_FIELDS:
            raise BodyTooLarge(f"The form has more than {MAX_FIELDS} fields; send fewer.")
        try:
            pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict")
        except UnicodeDecodeError:
            raise MalformedBody("The form is not text in UTF-8.") from None
        fields: dict[str, list[str]] = {}
        for name, value in pairs:
            if "\0" in name or "\0" in value:
                raise MalformedBody("The form holds a NUL; take it out.")
            fields.setdefault(name, []).append(value)
        return cls(fields)


def sentence(words: str) -> str:
    """What is wrong with a field, as it stands beside it."""
    return words[:1].upper() + words[1:]
