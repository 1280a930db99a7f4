"""Server-sent events out of the bytes of a stream."""

import json
from typing import Any, NamedTuple


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

    def feed(self, chunk: bytes) -> list[Received]:
        """The events that are whole now."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events = []
        for line in lines:
            name, _, value = line.decode(errors="replace").removesuffix("\r").partition(":")
            if name:
                self._fields[name] = value.removeprefix(" ")
            elif not value and (event := self._end()) is not None:
                events.append(event)
        return events

    def _end(self) -> Received | None:
        fields, self._fields = self._fields, {}
        try:
            data = json.loads(fields.get("data", ""))
        except ValueError:
            return None
        return Received(fields.get("id", ""), data) if isinstance(data, dict) else None
