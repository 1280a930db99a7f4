"""Server-sent events out of the bytes of a stream."""

import json
from typing import Any, Final, NamedTuple

from calotype.client.errors import unexpected

LONGEST_EVENT: Final = 8 * 1024 * 1024
"""Bytes of one event, or of a line."""
_OK: Final = 200


class Received(NamedTuple):
    """One event."""

    id: str
    data: dict[str, Any]


class EventReader:
    """Puts events together, however the stream was cut into chunks.

    Lines end with a line feed only, as JSON may hold the other characters that end lines for
    ``str.splitlines``.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, str] = {}
        self._size = 0
        self.alive = False
        """Whether the last chunk brought an event or a comment to its end."""

    def feed(self, chunk: bytes) -> list[Received]:
        """The events that are whole now.

        Raises:
            APIError: one is longer than any event, an ``unexpected_response``.

        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self.alive, events = False, []
        for line in lines:
            name, colon, value = line.decode(errors="replace").removesuffix("\r").partition(":")
            if name:
                self._grow(len(line))
                self._fields[name] = value.removeprefix(" ")
            elif colon:
                self.alive = True
            elif (event := self._end()) is not None:
                self.alive = True
                events.append(event)
        self._grow(0)
        return events

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size + len(self._rest) > LONGEST_EVENT:
            message = f"An event has more than {LONGEST_EVENT} bytes; check base_url"
            raise unexpected(_OK, message)

    def _end(self) -> Received | None:
        fields, self._fields, self._size = self._fields, {}, 0
        try:
            data = json.loads(fields.get("data", ""))
        except ValueError:
            return None
        return Received(fields.get("id", ""), data) if isinstance(data, dict) else None
