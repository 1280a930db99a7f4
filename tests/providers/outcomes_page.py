"""Writes ``docs/reference/outcomes.md`` from the tables that the suite proves.

``PYTHONPATH=tests python -m providers.outcomes_page --write``; without ``--write`` it prints.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from providers.bed import protocols
from providers.protocol import USUAL, Expected, Protocol, Table
from providers.scripts import MEANINGS

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "outcomes.md"
COMMAND: Final = "PYTHONPATH=tests .venv/bin/python -m providers.outcomes_page --write"

HEAD: Final = f"""# Outcomes

What becomes of a task for each thing that its upstream can do. The test suite proves every row
against a fake of the upstream (`tests/providers/`), and this page is written from the suite's
tables by `{COMMAND}`.

First what is the same wherever it can happen, then, protocol by protocol, what differs.

- **task**, **code**: how the task ends, and the `code` of its error ([Errors](errors.md)).
- **sent again**: nothing was taken, so it was sent once more: here to the same upstream, as the
  tests have one channel; with several, another may get it. A send that may have been taken is
  repeated only where that is free.
- **client pays**: the reservation is committed; otherwise it is released.
- **bought**: how many jobs the upstream took, or may have taken.
- **blamed**: where the fault of the first attempt lies, which is what the channel's health goes by.
  What ends in `upstream_outcome_unknown` is listed for the operator as possibly paid.
"""
COLUMNS: Final = (
    "the upstream",
    "task",
    "code",
    "sent again",
    "client pays",
    "bought",
    "blamed",
)


def page() -> str:
    """The whole page."""
    names = sorted(protocols())
    parts = [
        HEAD,
        *(f"## {group}\n\n{_table(rows, MEANINGS)}" for group, rows in USUAL.items()),
        *(_section(protocols()[name]) for name in names),
    ]
    return "\n".join(parts)


def _section(protocol: Protocol) -> str:
    usual = {script: row for rows in USUAL.values() for script, row in rows.items()}
    meanings = {**MEANINGS, **protocol.meanings}
    ordered = sorted(protocol.expected, key=list(meanings).index)
    differs = {
        script: protocol.expected[script]
        for script in ordered
        if protocol.expected[script] != usual.get(script)
    }
    parts = [f"## {protocol.provider}\n", _table(differs, meanings)]
    if absent := list(_absent(protocol)):
        parts.append(f"What cannot happen here, or is not told apart: {'; '.join(absent)}.\n")
    return "\n".join(parts)


def _absent(protocol: Protocol) -> Iterator[str]:
    """The rows above that a protocol does not have; a whole group by its name."""
    for group, rows in USUAL.items():
        missing = [script for script in rows if script not in protocol.expected]
        if len(missing) == len(rows):
            yield f"all under [{group}](#{group.lower().replace(' ', '-')})"
        else:
            yield from (MEANINGS[script] for script in missing)


def _table(rows: Table, meanings: Mapping[str, str]) -> str:
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        f"|{' --- |' * len(COLUMNS)}",
        *(_row(meanings[script], row) for script, row in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _row(meaning: str, row: Expected) -> str:
    cells = [
        meaning,
        f"`{row.state}`",
        f"`{row.code}`" if row.code else "",
        "yes" if row.retried else "no",
        "yes" if row.billed else "no",
        str(row.purchases),
        f"`{row.fault}`" if row.fault else "",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
