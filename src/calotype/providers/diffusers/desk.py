"""Tells the worker what happens to its pictures."""

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from calotype.providers.diffusers.wire import Drawn, EndCode, Ended, Event


class Desk:
    """Pictures that are asked for, and the line to whoever asked.

    The end of each is told once, by whoever comes first: the drawing, or the thread that reads
    that it is to stop.

    Args:
        line: where events are written.

    """

    def __init__(self, line: BinaryIO) -> None:
        self._line = line
        self._lock = threading.RLock()
        self._open: set[str] = set()

    def tell(self, event: Event) -> None:
        """Tell the worker; the process ends where there is none any more."""
        with self._lock:
            try:
                self._line.write(msgspec.json.encode(event) + b"\n")
                self._line.flush()
            except BrokenPipeError:
                os._exit(0)

    def take(self, pictures: Iterable[str]) -> None:
        """Take these pictures on."""
        with self._lock:
            self._open.update(pictures)

    def wants(self, picture: str) -> bool:
        """Tell whether the end of this picture is still open."""
        with self._lock:
            return picture in self._open

    def finish(self, picture: str, draft: Path, file: Path) -> None:
        """Put a drawn picture where it goes, unless it was stopped."""
        with self._lock:
            if picture not in self._open:
                draft.unlink(missing_ok=True)
                return
            draft.replace(file)
            self._open.remove(picture)
            self.tell(Drawn(id=picture))

    def end(self, picture: str, code: EndCode, message: str) -> None:
        """Tell that this picture will not come, unless its end was told before."""
        with self._lock:
            if picture in self._open:
                self._open.remove(picture)
                self.tell(Ended(id=picture, code=code, message=message))
