"""The server's log: one line on stderr for each record."""

import logging
import sys
import time
from typing import Final

_TALKATIVE: Final = ("httpx2", "mcp")
"""They tell of each request, with its URL, and of each message, with what is in it."""


class OneLine(logging.Formatter):
    r"""``2026-11-22T10:00:00.123Z INFO calotype.queue: what happened``.

    A traceback follows on the same line, its line ends written as ``\n``: what reads a log line
    by line sees one record, and no text of a client's can pass for one.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        return super().format(record).replace("\r", "\\r").replace("\n", "\\n")


def configure(level: str) -> None:
    """Send all records of ``level`` and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(logging.WARNING)
