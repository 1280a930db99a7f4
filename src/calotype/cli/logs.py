"""The server's log: one line on stderr for each record, pretty for people or JSON for machines."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final, Literal

from calotype.observing import context

if TYPE_CHECKING:
    from structlog.stdlib import ProcessorFormatter
    from structlog.typing import Processor

ACCESS: Final = "calotype.access"
"""The logger of requests."""
_TALKATIVE: Final = ("httpx2", "mcp", "opentelemetry", "uvicorn")
"""They tell of each request, with its URL, of each message, with what is in it, or of each step."""
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Fields = MutableMapping[str, Any]


class OneLine(logging.Formatter):
    """Makes of a record of the standard library one line, by structlog's processors.

    A traceback stands in the line, its line ends written out: what reads a log line by line sees
    one record, and no text of a client's can pass for one or speak to a terminal.

    structlog is imported with the first record: a server that has nothing to tell starts sooner.

    Args:
        form: what a line looks like.
        colours: whether a pretty one has any.

    """

    def __init__(self, form: Literal["pretty", "json"], *, colours: bool = False) -> None:
        super().__init__()
        self._form = form
        self._colours = colours
        self._made: ProcessorFormatter | None = None

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        self._made = self._made or self._make()
        return self._made.format(record)

    def _make(self) -> "ProcessorFormatter":
        from structlog import dev, processors, stdlib

        ends: list[Processor] = [processors.JSONRenderer()]
        if self._form == "pretty":
            ends = [_escaped, dev.ConsoleRenderer(colors=self._colours, sort_keys=False)]
        return stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                stdlib.add_log_level,
                stdlib.add_logger_name,
                stdlib.ExtraAdder(),
                _timed,
                _bound,
            ],
            processors=[
                stdlib.ProcessorFormatter.remove_processors_meta,
                processors.format_exc_info,
                _with_traceback,
                *ends,
            ],
        )


def _timed(_logger: Any, _name: str, fields: Fields) -> Fields:
    """When it happened, as ``2026-11-22T10:00:00.123Z``."""
    from datetime import UTC, datetime

    record: logging.LogRecord = fields["_record"]
    at = datetime.fromtimestamp(record.created, UTC)
    return {"timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03}Z", **fields}


def _bound(_logger: Any, _name: str, fields: Fields) -> Fields:
    """What the work belonged to."""
    return {**fields, **context.bound()}


def _with_traceback(_logger: Any, _name: str, fields: Fields) -> Fields:
    """A traceback as a field like others; the pretty form would begin lines of its own for it."""
    if "exception" in fields:
        fields["traceback"] = fields.pop("exception")
    return fields


def _escaped(_logger: Any, _name: str, fields: Fields) -> Fields:
    """No control character but those of the renderer."""
    return {
        name: _CONTROL.sub(_written_out, value) if isinstance(value, str) else value
        for name, value in fields.items()
    }


def _written_out(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def configure(
    level: str, form: Literal["auto", "pretty", "json"] = "auto", *, access: bool = False
) -> None:
    """Send all records of ``level`` and above to stderr; ``access``: and one for each request."""
    terminal = sys.stderr.isatty()
    if form == "auto":
        form = "pretty" if terminal else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(form, colours=terminal))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger(ACCESS).setLevel(logging.INFO if access else logging.WARNING)
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(logging.WARNING)
