"""From one machine to many: all that a SQLite file holds, copied into an empty PostgreSQL database.

All or nothing: one transaction, committed once the copy is proved equal. The file is kept from
everybody else meanwhile and is not changed. Whatever is not final gets a job, so that workers go
on with it.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec

from calotype.store.port import StoreError
from calotype.store.postgres import connection as postgres
from calotype.store.postgres import log
from calotype.store.postgres.enqueue import ENQUEUE
from calotype.store.proof import PROOFS
from calotype.store.sqlite import connection as sqlite
from calotype.store.sqlite import proof

TABLES: Final = (
    "accounts",
    "api_keys",
    "ledger",
    "tasks",
    "task_metadata",
    "events",
    "attempts",
    "assets",
    "idempotency_keys",
    "channel_slots",
    "channel_health",
    "channel_events",
    "webhook_settings",
    "webhook_disabled",
    "webhooks",
    "webhook_attempts",
    "key_meters",
    "usage_days",
    "channel_switches",
    "audit",
    "session_cutoffs",
    "spent_links",
)
"""Every table of the one, copied into the table of the same name of the other."""
_QUEUE: Final = "pgqueuer"
_LOCK_FILE: Final = "worker.lock"
_LOCK_TIMEOUT: Final = "10s"

_OF_TASK: Final = "attempts JOIN tasks ON tasks.id = attempts.task_id"
MONEY: Final = {
    "balance": ("accounts.id", "accounts.balance", "accounts"),
    "held": ("accounts.id", "accounts.reserved", "accounts"),
    "entries": ("account_id", "amount", "ledger"),
    "reserved": ("account_id", "reserved", "tasks"),
    "actual": ("account_id", "actual", "tasks"),
    "released": ("account_id", "released", "tasks"),
    "upstream cost": ("tasks.account_id", "attempts.cost_micro_usdc", _OF_TASK),
}
"""Every column of money: what it is called here, whose it is, the column, and where it stands."""

_ENQUEUE: Final = f"""
{ENQUEUE}
FROM (
    SELECT id, channel_id, created_at,
        ROW_NUMBER() OVER (PARTITION BY account_id ORDER BY id) - 1 AS backlog
    FROM tasks WHERE completed_at IS NULL
) unfinished
"""
_IDENTITIES: Final = """
SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attidentity <> '' AND c.oid = ANY(SELECT to_regclass(name) FROM unnest($1::text[]) name)
"""

Sums: TypeAlias = Mapping[str, Mapping[int, int]]
"""What each column of ``MONEY`` comes to, by account."""
_Target: TypeAlias = "asyncpg.Connection[Any]"


class Transferred(msgspec.Struct, frozen=True):
    """What was copied, and that it is equal on both sides."""

    rows: dict[str, int]
    """By table."""
    jobs: int
    """Unfinished tasks that workers go on with."""
    accounts: dict[int, str]
    """Names by id."""
    sums: Sums


async def transfer(source: Path, target: str) -> Transferred:
    """Copy the SQLite file ``source`` into the PostgreSQL database at the URL ``target``.

    Raises:
        StoreError: the source is in use, is not of this version or is not sound; the target is
            not empty or does not take it; or the two differ. The target holds no rows then.

    """
    with _exclusively(source) as old:
        faults = await asyncio.to_thread(proof.prove, old)
        _refuse_faults(f"{source}: its books do not hold, so nothing was copied", faults)
        async with _connected(target) as new:
            await _require_empty(new)
            await postgres.migrate(target)
            async with new.transaction():
                return await _copy_all(old, new)


async def _copy_all(old: sqlite3.Connection, new: _Target) -> Transferred:
    await new.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
    await new.execute(f"LOCK TABLE {', '.join((*TABLES, _QUEUE))} IN SHARE ROW EXCLUSIVE MODE")
    await _require_empty(new)
    rows = {table: await _copy(old, new, table) for table in TABLES}
    await _move_identities_on(new)
    await log.move_on(new)
    jobs = _count(await new.execute(_ENQUEUE, timeout=None))
    await new.execute(f"ANALYZE {', '.join(TABLES)}")  # the proof joins what was just written
    sums = await _require_equal(old, new, rows)
    accounts = dict(old.execute("SELECT id, name FROM accounts ORDER BY name"))
    return Transferred(rows=rows, jobs=jobs, accounts=accounts, sums=sums)


# The source


@contextmanager
def _exclusively(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, open to nobody else: neither to a worker nor to a server without one."""
    if not path.is_file():
        raise StoreError(f"{path}: there is no such file; name the SQLite database to copy.")
    with _no_worker(path.absolute().parent), closing(_open(path)) as old:
        _require_version(path, old)
        yield old


@contextmanager
def _no_worker(folder: Path) -> Iterator[None]:
    """Hold the place of the data folder's only worker."""
    lock = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"{folder / _LOCK_FILE}: a server develops tasks in this data folder; "
                "stop it, and start no other until the copy is done."
            ) from None
        yield
    finally:
        os.close(lock)


def _open(path: Path) -> sqlite3.Connection:
    old = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        old.execute("PRAGMA locking_mode = EXCLUSIVE")  # refused while anybody has it open
        old.execute("PRAGMA query_only = ON")
        old.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        old.close()
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise StoreError(
                f"{path}: another process has it open; stop every server and command on it, "
                "those with --no-worker too."
            ) from error
        raise StoreError(f"{path}: cannot be read as a SQLite database ({error}).") from error
    return old


def _require_version(path: Path, old: sqlite3.Connection) -> None:
    migrations = Path(sqlite.__file__).parent / "migrations"
    known = max(int(file.name[:4]) for file in migrations.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    (found,) = old.execute("PRAGMA user_version").fetchone()
    if found == known:
        return
    cure = (
        "use the newer Calotype that wrote it"
        if found > known
        else f"bring it up to date first: CALOTYPE_DATABASE_URL=sqlite:///{path} calotype migrate"
    )
    raise StoreError(
        f"{path}: the schema has version {found}, this Calotype copies {known}; {cure}."
    )


# The target


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[_Target]:
    """A connection whose every trouble is told as that of the target."""
    try:
        new = await asyncpg.connect(url)
    except ValueError:  # its message may hold a part of the password
        raise StoreError(
            "The PostgreSQL URL cannot be parsed; percent-encode special characters in the "
            "password, such as / as %2F and # as %23."
        ) from None
    except (*postgres.OUTAGES, asyncpg.PostgresError) as error:
        raise StoreError(
            f"The PostgreSQL database cannot be reached ({error}); "
            "check host, port, name and password."
        ) from error
    try:
        yield new
    except (*postgres.OUTAGES, asyncpg.PostgresError) as error:
        raise StoreError(
            f"The PostgreSQL database refused the copy ({error}); nothing was copied."
        ) from error
    finally:
        await new.close()


async def _require_empty(new: _Target) -> None:
    for table in (*TABLES, _QUEUE):
        if await new.fetchval("SELECT to_regclass($1)", table) is None:
            continue
        if await new.fetchval(f"SELECT EXISTS (SELECT 1 FROM {table})"):
            raise StoreError(
                f"The PostgreSQL database is not empty: there are rows in '{table}'. "
                "Make a fresh database and copy into that."
            )


async def _copy(old: sqlite3.Connection, new: _Target, table: str) -> int:
    """Stream a table across; what is under way is never more than a buffer of asyncpg's."""
    columns = [name for _, name, *_ in old.execute(f"PRAGMA table_info({table})")]
    rows = old.execute(f"SELECT {', '.join(columns)} FROM {table}")
    return _count(
        await new.copy_records_to_table(table, records=rows, columns=columns, timeout=None)
    )


async def _move_identities_on(new: _Target) -> None:
    """Let the next id that PostgreSQL gives be above all that were copied."""
    for table, column in await new.fetch(_IDENTITIES, TABLES):
        top = await new.fetchval(f"SELECT COALESCE(MAX({column}), 0) FROM {table}")
        await new.execute(f"ALTER TABLE {table} ALTER COLUMN {column} RESTART WITH {top + 1}")


# The proof


async def _require_equal(old: sqlite3.Connection, new: _Target, rows: Mapping[str, int]) -> Sums:
    faults = []
    for table, copied in rows.items():
        count = f"SELECT COUNT(*) FROM {table}"
        before, after = old.execute(count).fetchone()[0], await new.fetchval(count, timeout=None)
        if not before == copied == after:
            faults.append(f"'{table}' has {before} rows here, {after} there.")
    sums: dict[str, dict[int, int]] = {}
    for name, (owner, column, tables) in MONEY.items():
        total = f"CAST(COALESCE(SUM({column}), 0) AS BIGINT)"
        statement = f"SELECT {owner}, {total} FROM {tables} GROUP BY {owner}"
        sums[name] = dict(old.execute(statement).fetchall())
        there = {row[0]: row[1] for row in await new.fetch(statement, timeout=None)}
        if sums[name] != there:
            faults.append(f"'{name}' comes to other sums there.")
    for statement, tell in PROOFS:
        faults += map(tell, await new.fetch(statement, timeout=None))
    _refuse_faults("The copy does not hold, so it was undone", faults)
    return sums


def _refuse_faults(what: str, faults: list[str]) -> None:
    if faults:
        more = f" And {len(faults) - 1} more." if len(faults) > 1 else ""
        raise StoreError(f"{what}: {faults[0]}{more}")


def _count(done: str) -> int:
    return int(done.rpartition(" ")[2])
