"""``make bench``: every path that has a goal, beside what the machine allows in the same run.

Server, load generator, upstream and database share the machine's cores: compare ratios, and CPU,
before you compare rates.
"""

import argparse
import os
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop

import growth
import hot_paths
import moments
import standing
import whole_tasks
from postgres import running_postgres
from servers import Engine, allow_files, script
from table import Figures, Rows, console
from wrk import RefusedError


async def table(engines: list[Engine], options: argparse.Namespace) -> None:
    """The runs, each through all the rows, and then the table of whatever was measured."""
    figures, seconds = Figures(), options.seconds
    try:
        for run in range(options.runs):
            for engine in engines:
                console.print(f"run {run + 1} of {options.runs}, {engine.name}")
                await _tried(standing.start(engine, figures))
                await _tried(hot_paths.measure(engine, figures, seconds=seconds))
                async with script("mock_upstream.py") as mock:
                    for size in (whole_tasks.small, whole_tasks.large, whole_tasks.slow):
                        await _tried(size(engine, mock, figures, seconds=seconds))
                    await _tried(moments.measure(engine, mock, figures, tasks=20))
                    await _tried(standing.in_flight(engine, mock, figures))
        for engine in engines:
            await _tried(
                growth.measure(
                    engine, figures, tasks=options.growth, runs=options.runs, seconds=seconds
                )
            )
    finally:
        console.print(
            f"\n{os.cpu_count()} cores; the median of {options.runs} runs (least to most)\n"
        )
        figures.show()


async def _tried(stage: Coroutine[Any, Any, None]) -> None:
    """A stage whose failure does not cost the figures of the others."""
    try:
        await stage
    except RefusedError as error:
        console.print(f"  GIVEN UP: {error}")


async def others(folder: Path, options: argparse.Namespace) -> None:
    """One of the stages that have a table of their own."""
    import cleaning
    import images
    import pages
    import waiters

    rows = Rows()
    if options.assets:
        cleaning.measure(rows)
        await images.measure(folder, rows)
    if options.console:
        stages = {"sqlite": pages.embedded, "postgres": pages.shared}
    else:
        stages = {"sqlite": waiters.embedded, "postgres": waiters.shared}
    for database, stage in stages.items():
        if options.only in {None, database} and not options.assets:
            await stage(folder / database, rows)
    rows.show()


async def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of every row; 5")
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement of a rate; 4")
    parser.add_argument("--growth", type=int, default=1_000_000, help="old tasks; 1,000,000")
    parser.add_argument("--quick", action="store_true", help="one run of 2 s, 100,000 old tasks")
    parser.add_argument("--only", choices=["sqlite", "postgres"], help="one database only")
    stages = parser.add_mutually_exclusive_group()
    stages.add_argument("--waiters", action="store_true", help="nothing but those who wait")
    stages.add_argument("--console", action="store_true", help="nothing but the console's pages")
    stages.add_argument("--assets", action="store_true", help="nothing but images in and out")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.seconds, options.growth = 1, 2, 100_000
    allow_files()
    with tempfile.TemporaryDirectory(prefix="calotype-bench-", dir=Path.cwd()) as name:
        folder = Path(name)
        if options.waiters or options.console or options.assets:
            await others(folder, options)
            return
        with (
            tempfile.TemporaryDirectory(prefix="calotype-pg-") as data,
            running_postgres(Path(data), "max_connections=200", "shared_buffers=512MB") as server,
        ):
            engines = [Engine("SQLite", folder), Engine("PostgreSQL", folder, server)]
            if options.only:
                engines = [
                    each
                    for each in engines
                    if each.name.lower() in {options.only, f"{options.only}ql"}
                ]
            await table(engines, options)


if __name__ == "__main__":
    uvloop.run(main())
