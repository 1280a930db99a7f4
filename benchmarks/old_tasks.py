"""A database with very many tasks of a year behind them, written past the server."""

import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

OPEN: Final = 300
"""The newest ones, which are not final."""
TAGGED: Final = 3
"""Of ten tasks, this one has metadata."""
CHUNK: Final = 20_000
YEAR_MS: Final = 365 * 24 * 3600 * 1000
DAY_MS: Final = 24 * 3600 * 1000
CHANNEL: Final = 1
PRICE: Final = 60_000
COST: Final = 40_000
MODELS: Final = ("gpt-image-2", "nano-banana-pro", "seedream-4.5", "recraft-v4.1", "flux-2-pro")
WORDS: Final = ("lighthouse", "harbour", "glacier", "orchard", "observatory", "tram", "heron")
PLACES: Final = ("in the fog", "at dusk", "seen from a train", "as a woodcut", "after the rain")
_EPOCH_MS: Final = 1_735_689_600_000

COLUMNS: Final[dict[str, str]] = {
    "tasks": "id account_id key_id request_id state progress request refs channel_id claim seq "
    "billing reserved actual released result error deadline_at abandon_at created_at updated_at "
    "completed_at metadata has_webhook",
    "assets": "id account_id task_id kind key content_type bytes width height created_at",
    "attempts": "task_id number channel_id state upstream_id started_at finished_at "
    "cost_micro_usdc code fault",
    "events": "account_id task_id seq at event state progress",
    "ledger": "account_id task_id kind amount created_at",
    "task_metadata": "account_id key value task_id",
    "webhooks": "task_id account_id url receiver event state attempts tries last_status "
    "round_at created_at",
    "webhook_attempts": "task_id number at milliseconds status error reply",
    "usage_days": "account_id day key_id model channel_id succeeded failed images spent cost",
    "audit": "at actor action subject detail outcome",
    "channel_events": "channel_id model event fault detail at",
}

Row = tuple[Any, ...]
Rows = dict[str, list[Row]]
Write = Callable[[str, Sequence[str], Sequence[Row]], Coroutine[Any, Any, None]]
_json: Final = msgspec.json.Encoder().encode


async def fill_sqlite(path: Path, tasks: int) -> None:
    """Fill a database that the server is not running on."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA synchronous = OFF")
    database.execute("BEGIN")

    async def write(table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        places = ", ".join("?" * len(columns))
        named = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608 -- our own names
        database.executemany(named, rows)

    owners = database.execute("SELECT id, account_id FROM api_keys ORDER BY id").fetchall()
    await _fill(owners, write, tasks)
    for account_id, open_tasks in _open_of(owners, tasks).items():
        database.execute(_UNFINISHED, (account_id, open_tasks, open_tasks * PRICE))
    database.execute("COMMIT")
    database.close()


async def fill_postgres(url: str, tasks: int) -> None:
    """Fill a database."""
    database = await asyncpg.connect(url)

    async def write(table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        await database.copy_records_to_table(table, records=rows, columns=columns, timeout=None)

    found = await database.fetch("SELECT id, account_id FROM api_keys ORDER BY id")
    owners = [(row[0], row[1]) for row in found]
    await _fill(owners, write, tasks)
    for account_id, open_tasks in _open_of(owners, tasks).items():
        await database.execute(
            _UNFINISHED.replace("?", "$"), account_id, open_tasks, open_tasks * PRICE
        )
    await database.execute("ANALYZE", timeout=None)
    await database.close()


_UNFINISHED: Final = "UPDATE accounts SET unfinished = ?2, reserved = ?3 WHERE id = ?1"


def _open_of(owners: Sequence[tuple[int, int]], tasks: int) -> dict[int, int]:
    """How many open tasks each account has."""
    found = dict.fromkeys((account_id for _, account_id in owners), 0)
    for number in range(tasks - OPEN, tasks):
        found[_owner(owners, number)[1]] += 1
    return found


def _owner(owners: Sequence[tuple[int, int]], number: int) -> tuple[int, int]:
    """Key and account of a task: four of five are the first one's."""
    return owners[0] if number % 5 else owners[-1 - number // 5 % max(1, len(owners) - 1)]


async def _fill(owners: Sequence[tuple[int, int]], write: Write, tasks: int) -> None:
    now = int(time.time() * 1000)
    usage: dict[Row, list[int]] = {}
    for first in range(0, tasks, CHUNK):
        rows: Rows = {table: [] for table in COLUMNS}
        for number in range(first, min(first + CHUNK, tasks)):
            at = now - YEAR_MS + number * YEAR_MS // tasks
            _task(rows, usage, owners, number, at, is_open=number >= tasks - OPEN)
        if not first:
            rows["audit"] = list(_actions(now))
            rows["channel_events"] = list(_faults(now))
        for table, these in rows.items():
            await write(table, COLUMNS[table].split(), these)
    days = [(*key, *figures) for key, figures in usage.items()]
    await write("usage_days", COLUMNS["usage_days"].split(), days)


def _task(
    rows: Rows,
    usage: dict[Row, list[int]],
    owners: Sequence[tuple[int, int]],
    number: int,
    at: int,
    *,
    is_open: bool,
) -> None:
    key_id, account_id = _owner(owners, number)
    task_id, model = (at - _EPOCH_MS) << 22, MODELS[number * 2_654_435_761 // 1000 % len(MODELS)]
    fails = number % 12 == 0
    is_unknown, has_webhook = number % 1200 == 0, number % 5 < 2 and not is_open
    end, state = at + 9000, "fail" if fails else "success"
    metadata = {"order": str(number), "shop": "north" if number % 20 == TAGGED else "south"}
    image = {
        "asset_id": task_id + 1,
        "content_type": "image/png",
        "width": 1024,
        "height": 1536 if number % 3 else 1024,
        "bytes": 1_500_000,
    }
    failure = {"code": "content_policy_violation", "message": "No.", "type": "upstream_error"}
    request = {"model": model, "prompt": _prompt(number), "n": 1, "parameters": {}}
    paid = 0 if fails or is_open else PRICE
    rows["tasks"].append(
        (
            *(task_id, account_id, key_id, f"req_{number}"),
            *(("generating", 40) if is_open else (state, 0 if fails else 100)),
            *(_json(request), b"[]", CHANNEL, 1, 3),
            "reserved" if is_open else "released" if fails else "committed",
            *(PRICE, paid, 0 if is_open else PRICE - paid),
            None if fails or is_open else _json([image]),
            _json(failure) if fails and not is_open else None,
            *(at + 3_600_000, at + 7_200_000, at, end, None if is_open else end),
            *(_json(metadata) if number % 10 == TAGGED else None, int(has_webhook)),
        )
    )
    events = [("submit", "waiting", 0), ("take", "queuing", 0), ("run", "generating", 40)]
    events += [] if is_open else [("fail", state, 0) if fails else ("complete", state, 100)]
    rows["events"] += (
        (account_id, task_id, seq, at + seq * 1000, event, entered, progress)
        for seq, (event, entered, progress) in enumerate(events, 1)
    )
    rows["ledger"].append((account_id, task_id, "reserve", PRICE, at))
    if number % 10 == TAGGED:
        rows["task_metadata"] += ((account_id, *pair, task_id) for pair in metadata.items())
    attempt = "accepted" if is_open else "unknown" if is_unknown else "failed" if fails else "done"
    rows["attempts"].append(
        (
            *(task_id, 1, CHANNEL, attempt, f"job-{number}", at + 100, None if is_open else end),
            None if fails or is_open else COST,
            *(("content_policy_violation", "request") if fails and not is_open else (None, None)),
        )
    )
    if is_open:
        return
    rows["ledger"].append((account_id, task_id, "release" if fails else "commit", PRICE, end))
    if not fails:
        rows["assets"].append(
            (
                *(task_id + 1, account_id, task_id, "result", f"{number}", "image/png"),
                *(1_500_000, 1024, 1536 if number % 3 else 1024, end),
            )
        )
    if has_webhook:
        missed = number % 100 == 0
        rows["webhooks"].append(
            (
                *(task_id, account_id, "https://example.com/hook", f"{account_id}/example.com:443"),
                *(f"task.{state}", "failed" if missed else "delivered", 1, 1),
                *(500 if missed else 200, end, end),
            )
        )
        rows["webhook_attempts"].append(
            (task_id, 1, end, 80, 500 if missed else 200, None, "thank you")
        )
    figures = usage.setdefault((account_id, end // DAY_MS, key_id, model, CHANNEL), [0] * 5)
    for place, more in enumerate((int(not fails), int(fails), int(not fails), paid, COST)):
        figures[place] += more


def _prompt(number: int) -> str:
    what, where = WORDS[number % len(WORDS)], PLACES[number // 7 % len(PLACES)]
    return (
        f"A {what} {where}, number {number}, with more words than anybody reads in a list of them"
    )


def _actions(now: int) -> Iterator[Row]:
    for number in range(5000):
        at = now - YEAR_MS + number * YEAR_MS // 5000
        yield (at, "cli", "key.create", f"key {number}", "", "done")


def _faults(now: int) -> Iterator[Row]:
    for number in range(2000):
        model = MODELS[number % len(MODELS)]
        event = "opened" if number % 2 else "closed"
        yield (CHANNEL, model, event, "overloaded", "", now - number * 600_000)
