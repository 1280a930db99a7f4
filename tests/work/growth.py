"""A history for a database, and how many of its rows an operation looks at."""

import asyncio
import sqlite3
from contextlib import closing
from typing import Final

import asyncpg

from calotype.core import build_core
from calotype.settings import Settings
from conformance.tasks import PRICE, funded, new_task
from work.site import Site

OLD: Final = 10_000
TIMES: Final = 20
_END: Final = """
UPDATE tasks
SET state = 'fail', billing = 'released', released = reserved, completed_at = updated_at
WHERE completed_at IS NULL;
UPDATE accounts SET reserved = 0, unfinished = 0;
"""
_END_OF_JOBS: Final = "DELETE FROM pgqueuer; ANALYZE"
_READ: Final = """
SELECT SUM(seq_tup_read) + SUM(COALESCE(idx_tup_fetch, 0)) FROM pg_stat_user_tables
"""
_OTHERS: Final = """
SELECT COUNT(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


async def add_old_tasks(site: Site) -> None:
    """Tasks of an account of their own, submitted past the server and over since."""
    core = build_core(Settings(data_dir=site.root / "data", database_url=site.database_url))
    try:
        account_id = await funded(core.store, credit=OLD * PRICE, name="old")
        await asyncio.gather(*(core.store.submit(new_task(account_id)) for _ in range(OLD)))
    finally:
        await core.store.close()
    if site.database_url:
        connection = await asyncpg.connect(site.database_url)
        await connection.execute(_END + _END_OF_JOBS)
        await connection.close()
    else:
        with closing(sqlite3.connect(site.database)) as database:
            database.executescript(_END)


async def looked_at(site: Site) -> int:
    """How many rows of PostgreSQL, or steps of SQLite, a few tasks and questions take."""
    before = await _rows_read(site)
    await site.serve()
    for _ in range(TIMES):
        document = await site.one(site.submission("a lighthouse"))
        while await site.unfinished():
            await asyncio.sleep(0.002)
        await site.one(site.retrieval(document["task_id"]))
    steps: int = (await site.counts())["steps"]
    await site.stop()
    return steps or await _rows_read(site) - before


async def _rows_read(site: Site) -> int:
    """All rows that were ever read, which each connection tells of at its end at the latest."""
    if not site.database_url:
        return 0
    connection = await asyncpg.connect(site.database_url)
    try:
        while await connection.fetchval(_OTHERS):
            await asyncio.sleep(0.02)
        return int(await connection.fetchval(_READ))
    finally:
        await connection.close()
