"""A history for a database, and whether statements look for something in it row by row."""

import asyncio
import json
import re
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import asyncpg

from calotype.core import build_core
from calotype.settings import Settings
from conformance.tasks import PRICE, funded, new_task
from work.site import Site

OLD: Final = 10_000
_SHORT: Final = {"webhooks_next"}
"""Indexes that hold no more than what is yet to be done."""
_SCAN: Final = re.compile(r"SCAN (?!.*(?:CONSTANT ROW|VIRTUAL TABLE))\w+(?:.* INDEX (\w+))?")
_NO_PLAN: Final = re.compile(
    r"(?!SELECT|INSERT|UPDATE|DELETE|WITH)|.*\bpg_(?:type|catalog)\b", re.DOTALL
)


async def add_old_tasks(site: Site) -> None:
    """Tasks of an account of their own, submitted past the server."""
    core = build_core(Settings(data_dir=site.root / "data", database_url=site.database_url))
    try:
        account_id = await funded(core.store, credit=OLD * PRICE, name="old")
        await asyncio.gather(*(core.store.submit(new_task(account_id)) for _ in range(OLD)))
    finally:
        await core.store.close()


async def scans(site: Site, statements: Collection[str]) -> list[str]:
    """Which of these statements read a table or an index from one end to the other."""
    plain = [text for text in statements if not _NO_PLAN.match(text)]
    if not site.database_url:
        return list(_sqlite_scans(site.database, plain))
    connection = await asyncpg.connect(site.database_url)
    try:
        await connection.execute("ANALYZE; SET enable_seqscan = off")  # only where nothing else can
        found = []
        for text in plain:
            explained = await connection.fetchval(
                f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {text} /* pg_stat_statements */"
            )
            if any(map(_reads_all, _nodes(json.loads(explained)[0]["Plan"]))):
                found.append(text)
        return found
    finally:
        await connection.close()


def _sqlite_scans(database: Path, statements: Collection[str]) -> Iterator[str]:
    with closing(sqlite3.connect(database)) as connection:
        for text in statements:
            for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {text}"):
                if (scan := _SCAN.match(step)) and scan[1] not in _SHORT:
                    yield text


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _reads_all(node: dict[str, Any]) -> bool:
    kind: str = node["Node Type"]
    if kind.startswith(("Index", "Bitmap Index")):
        return "Index Cond" not in node and node["Index Name"] not in _SHORT
    return kind == "Seq Scan"
