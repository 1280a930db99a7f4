"""Which part of an image a request asks for."""

import re
from typing import Final

from starlette.requests import Request

from calotype.domain.errors import RangeNotSatisfiable

_ONE_RANGE: Final = re.compile(r"bytes=(?:(\d{1,15})-(\d{0,15})|-(\d{1,15}))\Z")


def asked_range(request: Request, *, etag: str, size: int) -> range | None:
    """The bytes that are asked for, of ``size`` in all; None: all of them, as an answer 200.

    One sound range is followed; RFC 9110, 14.2, lets a server ignore every other form.

    Raises:
        errors.RangeNotSatisfiable: it begins after the end, or asks for nothing.

    """
    asked = request.headers.get("range")
    if asked is None or request.headers.get("if-range", etag) != etag:
        return None
    match = _ONE_RANGE.match(asked)
    if match is None or (match[2] and int(match[1]) > int(match[2])):
        return None
    if int(match[1] or 0) >= size or match[3] == "0":
        raise RangeNotSatisfiable(f"The image has {size} bytes.", size=size)
    if match[3]:
        return range(max(0, size - int(match[3])), size)
    return range(int(match[1]), min(size, int(match[2]) + 1) if match[2] else size)
