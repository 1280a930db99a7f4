"""Prints ``budgets.toml`` as it would be today: ``PYTHONPATH=tests python -m work.calibrate``."""

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Final

from work.measuring import ENGINES, Costs, measure, site_on

_HEAD: Final = """\
# What one operation may cost: written by `PYTHONPATH=tests python -m work.calibrate`, judged by
# test_work.py. For what is done 64 times at once, the cost of all 64.
#
#   statements   of SQL; on PostgreSQL those about tasks, not the queue's looking for jobs
#   commits      transactions that wrote, each of which waits for the disk
#   syncs        fsync and fdatasync of the server itself; PostgreSQL's are its commits
#   rows         that SQLite wrote; wal_records: PostgreSQL's entries in its log
#   calls        of Python functions, in all threads, libraries included
#   bytes        that Python holds for a task whose upstream works
#
# On SQLite a budget is not to be more than what is spent by more than the share `slack`, or a
# tenth: noise finds room in it, and half of it was added to what was measured. On PostgreSQL, and
# for bytes, there is more room and no such rule: what happens beside each other is done together
# or not.
"""
_SLACK: Final = {"calls": 0.15}
_ROOM: Final = {"commits": 0.5, "calls": 0.35, "wal_records": 0.35, "bytes": 0.3}
"""What is added where work that happens beside each other is done together or not."""


async def _costs(engine: str) -> Costs:
    with tempfile.TemporaryDirectory() as folder:
        async with site_on(engine, Path(folder)) as site:
            return await measure(site)


def _table(engine: str, costs: Costs) -> Iterator[str]:
    for operation, spent in costs.items():
        yield f'\n[{engine}."{operation}"]'
        for what, amount in spent.items():
            if what != "steps":  # they hang on SQLite's version
                yield f"{what} = {ceil(amount * (1 + _added(engine, what, amount)))}"


def _added(engine: str, what: str, amount: float) -> float:
    if engine == "postgres" or what == "bytes":
        return _ROOM.get(what, 0.1)
    return _SLACK.get(what, 0 if amount.is_integer() else 0.1) / 2


def _inline(table: dict[str, float]) -> str:
    return f"{{ {', '.join(f'{what} = {share}' for what, share in table.items())} }}"


def main() -> None:
    """Print the table."""
    print(f"{_HEAD}\npython = {list(sys.version_info[:2])}\nslack = {_inline(_SLACK)}")  # noqa: T201 -- for a file
    for engine in ENGINES:
        print("\n".join(_table(engine, asyncio.run(_costs(engine)))))  # noqa: T201 -- same


if __name__ == "__main__":
    main()
