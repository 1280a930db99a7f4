"""What the machine gives at most, measured beside our own figures: no HTTP, no checks, no task."""

import asyncio
import os
import socket
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg
import pybase64

BATCH: Final = 64
"""Tasks in one transaction: as many as there are callers."""
THREADS: Final = 16
"""Files that are synced at a time."""
_DOCUMENT: Final = b"x" * 160
_TABLES: Final = (
    "CREATE TABLE accounts (id INTEGER PRIMARY KEY, reserved BIGINT NOT NULL)",
    "CREATE TABLE tasks (id {key} PRIMARY KEY, account_id INTEGER NOT NULL, request {blob})",
    "INSERT INTO accounts VALUES (1, 0)",
)


async def group_commits(folder: Path, url: str, *, seconds: float) -> float:
    """Durable rows a second, in transactions of a batch each; on PostgreSQL with an URL."""
    if url:
        return await _in_postgres(url, seconds=seconds)
    return await asyncio.to_thread(_in_sqlite, folder / "floor.db", seconds=seconds)


def _in_sqlite(path: Path, *, seconds: float) -> float:
    database = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", *_TABLES):
        database.execute(statement.format(key="INTEGER", blob="BLOB"))
    written, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        database.execute("BEGIN IMMEDIATE")
        database.execute("UPDATE accounts SET reserved = reserved + ? WHERE id = 1", (BATCH,))
        rows = [(number, 1, _DOCUMENT) for number in range(written, written + BATCH)]
        database.executemany("INSERT INTO tasks VALUES (?, ?, ?)", rows)
        database.execute("COMMIT")
        written += BATCH
    database.close()
    return written / spent


async def _in_postgres(url: str, *, seconds: float) -> float:
    database: Any = await asyncpg.connect(url)
    for statement in ("CREATE SCHEMA floor", "SET search_path = floor", *_TABLES):
        await database.execute(statement.format(key="BIGINT", blob="BYTEA"))
    batch = await database.prepare(
        "WITH paid AS (UPDATE accounts SET reserved = reserved + $3 WHERE id = 1) "
        "INSERT INTO tasks SELECT id, 1, request FROM unnest($1::bigint[], $2::bytea[]) "
        "AS new (id, request)"
    )
    written, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        ids = list(range(written, written + BATCH))
        await batch.fetch(ids, [_DOCUMENT] * BATCH, BATCH)
        written += BATCH
    await database.close()
    return written / spent


class Drained(NamedTuple):
    """What fetching and storing images costs at least."""

    per_second: float
    cpu_ms: float


async def drained(port: int, prompt: str, folder: Path, *, seconds: float) -> Drained:
    """Ask the mock, take the answer, decode it, write it and sync it, in threads."""
    return await asyncio.to_thread(_drain, port, prompt, folder, seconds=seconds)


def _drain(port: int, prompt: str, folder: Path, *, seconds: float) -> Drained:
    counts = [0] * THREADS
    request = f"POST / HTTP/1.1\r\nContent-Length: {len(prompt)}\r\n\r\n{prompt}".encode()
    began, cpu = time.perf_counter(), time.process_time()
    until = began + seconds

    def fetch(place: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            buffer = bytearray(8 * 1024 * 1024)
            while time.perf_counter() < until:
                upstream.sendall(request)
                _store(_image(upstream, buffer), folder / f"{place}-{counts[place]}")
                counts[place] += 1

    threads = [threading.Thread(target=fetch, args=(place,)) for place in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Drained(sum(counts) / spent, cpu / sum(counts) * 1000)


def _image(upstream: socket.socket, buffer: bytearray) -> bytes:
    view = memoryview(buffer)
    size = upstream.recv_into(view)
    head = buffer.find(b"\r\n\r\n", 0, size) + 4
    whole = head + int(buffer[:head].partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    while size < whole:
        size += upstream.recv_into(view[size:])
    start = buffer.find(b'"b64_json":"', head) + 12
    return pybase64.b64decode(view[start : buffer.find(b'"', start)])


def _store(image: bytes, path: Path) -> None:
    with path.open("wb") as file:
        file.write(image)
        file.flush()
        os.fdatasync(file.fileno())
