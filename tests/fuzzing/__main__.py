"""Looks for longer: first by what the OpenAPI document says, then byte by byte.

make fuzz-api ARGS="--seconds 600 --seed 7"
make fuzz-api ARGS="--half bytes --cases 100000 --seed 7"
"""

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from api.test_schemathesis import SHIPPED, Judgement, judged
from fuzzing.wire import fuzz
from postgres import fresh_database, running_postgres


def main() -> None:
    """Run as the command line says, print what came of it, and fail where something is wrong."""
    every = sorted(file.stem for file in SHIPPED.glob("*.toml"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="of each half")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--examples", type=int, default=200, help="of each operation in a round")
    parser.add_argument("--half", choices=("document", "bytes"), help="instead of both")
    parser.add_argument(
        "--postgres", action="store_true", help="the document's half, not on SQLite"
    )
    parser.add_argument("--cases", type=int, help="of bytes, instead of a time")
    parser.add_argument("--models", nargs="+", default=every, help="instead of all", metavar="ID")
    chosen = parser.parse_args()
    sys.stdout.write(f"seed       {chosen.seed}\n")
    sys.stdout.flush()
    halves = {"document": by_document, "bytes": by_bytes}
    wrong = [half(chosen) for name, half in halves.items() if chosen.half in {None, name}]
    sys.exit(any(wrong))


def by_document(chosen: argparse.Namespace) -> bool:
    """Let schemathesis send what the document makes it think of; whether anything is wrong."""
    options = [f"--seed={chosen.seed}", f"--max-time={chosen.seconds}"]
    options.append(f"--max-examples={chosen.examples}")
    with tempfile.TemporaryDirectory(prefix="calotype-fuzz-") as folder:
        judgement = asyncio.run(_judged(Path(folder), options, chosen))
    sys.stdout.write(judgement.words)
    sys.stdout.flush()
    return bool(judgement.exit_code)


async def _judged(folder: Path, options: list[str], chosen: argparse.Namespace) -> Judgement:
    if not chosen.postgres:
        return await judged(folder, options, models=chosen.models)
    with (
        tempfile.TemporaryDirectory(prefix="calotype-pg-") as data,
        running_postgres(Path(data)) as server,
    ):
        async with fresh_database(server) as url:
            return await judged(folder, options, models=chosen.models, database_url=url)


def by_bytes(chosen: argparse.Namespace) -> bool:
    """Send requests that are wrong byte for byte; whether anything is wrong."""
    much = {"seconds": chosen.seconds} if chosen.cases is None else {"cases": chosen.cases}
    with tempfile.TemporaryDirectory(prefix="calotype-fuzz-") as folder:
        verdict = asyncio.run(fuzz(Path(folder), seed=chosen.seed, **much))
    sys.stdout.write(f"{verdict}\n")
    return bool(verdict.faults)


if __name__ == "__main__":
    main()
