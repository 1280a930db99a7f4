"""How commands write to stdout: lines, tables, JSON.

Names, prompts and notes were typed by somebody else: nothing of them reaches the terminal as a
control sequence or as markup.
"""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

_UNBOUNDED: Final = 100_000
"""Columns of a table that no terminal shows: nothing is folded, so that it can be searched."""


def plain(text: str, *, limit: int | None = None) -> str:
    """Text on one line without control characters, cut to ``limit`` characters."""
    safe = "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "�" for letter in text
    )
    if limit is not None and len(safe) > limit:
        return f"{safe[: limit - 1]}…"
    return safe


def moment(milliseconds: int | None, *, none: str = "") -> str:
    """A time for people, in UTC."""
    if milliseconds is None:
        return none
    return datetime.fromtimestamp(milliseconds // 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def seconds(milliseconds: int | None) -> int | None:
    """A time for machines: Unix seconds, as everywhere in the API."""
    return None if milliseconds is None else milliseconds // 1000


def size(count: int) -> str:
    """A number of bytes for people."""
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:  # noqa: PLR2004 -- what the units are made of
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def note(line: str) -> None:
    """A line beside the result, to stderr."""
    print(plain(line), file=sys.stderr)


def json(value: Any) -> None:
    """A document, indented."""
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def json_line(value: Any) -> None:
    """A document on one line, for those who read them as they come."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def pairs(lines: Mapping[str, str]) -> None:
    """Names and values, one pair a line, values beneath each other."""
    width = max(len(name) for name in lines)
    for name, value in lines.items():
        print(f"{name.ljust(width)}  {plain(value)}".rstrip())


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Rows under their columns; those in ``right`` are numbers.

    On a terminal long cells are folded; elsewhere every row is one line.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    on_terminal = sys.stdout.isatty()
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, column in enumerate(columns):
        grid.add_column(
            Text(column),
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=place == 0,  # an id is copied whole
        )
    for row in rows:
        grid.add_row(*(Text(plain(cell)) for cell in row))
    console = Console(highlight=False, width=None if on_terminal else _UNBOUNDED)
    with console.capture() as capture:
        console.print(grid)
    for line in capture.get().splitlines():
        print(line.rstrip())
