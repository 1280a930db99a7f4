"""Prints ``budgets.toml`` as it would be today.

PYTHONPATH=tests python -m work.calibrate >tests/work/budgets.toml
"""

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
# test_budgets.py. For what is done 64 times at once, the cost of all 64.
#
#   statements   of SQL
#   commits      transactions that wrote, each of which waits for the disk
#   syncs        fsync and fdatasync of the server itself; PostgreSQL's are its commits
#   rows         that SQLite wrote; wal_records: PostgreSQL's entries in its log
#   calls        of Python functions, in all threads, libraries included
#   bytes        that Python holds for a task whose upstream works
#
# A budget is not to be more than what is spent by more than the share `slack`, or a tenth: noise
# finds room in it, and half of it was added to what was measured.
"""
_SLACK: Final = {"calls": 0.15, "bytes": 0.2, "wal_records": 0.1}
_RACING: Final = 0.35
"""Slack of a whole task on PostgreSQL: what happens beside each other there is batched or not."""


async def _costs(engine: str) -> Costs:
    with tempfile.TemporaryDirectory() as folder:
        async with site_on(engine, Path(folder)) as site:
            return (await measure(site)).costs


def _table(engine: str, costs: Costs) -> Iterator[str]:
    for operation, spent in costs.items():
        yield f'\n[{engine}."{operation}"]'
        racing = engine == "postgres" and operation.startswith("task, ")
        if racing:
            yield f"slack = {_RACING}"
        for what, amount in spent.items():
            if what != "steps":  # they hang on SQLite's version
                slack = _RACING if racing else _SLACK.get(what, 0 if amount.is_integer() else 0.1)
                yield f"{what} = {ceil(amount * (1 + slack / 2))}"


def main() -> None:
    """Print the table."""
    slack = ", ".join(f"{what} = {share}" for what, share in _SLACK.items())
    print(f"{_HEAD}\npython = {list(sys.version_info[:2])}\nslack = {{ {slack} }}")  # noqa: T201 -- for a file
    for engine in ENGINES:
        print("\n".join(_table(engine, asyncio.run(_costs(engine)))))  # noqa: T201 -- same


if __name__ == "__main__":
    main()
