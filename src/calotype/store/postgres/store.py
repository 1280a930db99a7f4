"""The port, verb by verb: submissions and reads of tasks go in batches, the rest over a pool."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from pgqueuer.ports import RepositoryPort

from calotype.domain.errors import Failure
from calotype.domain.keys import ApiKey
from calotype.domain.money import EFFECTS, Balance, EntryKind
from calotype.domain.task import (
    Asset,
    Attempt,
    AttemptState,
    Event,
    NewTask,
    Reference,
    State,
    Task,
)
from calotype.store import rows
from calotype.store.keycache import KeyCache
from calotype.store.port import (
    FORGOTTEN_AT_ONCE,
    Account,
    Entry,
    Fenced,
    Reconciled,
    Submitted,
    Taken,
    Unfinished,
)
from calotype.store.postgres import connection, jobs, reconciliation, submission, transitions
from calotype.store.postgres.batcher import Batcher
from calotype.store.postgres.connection import (
    ACQUIRE_SECONDS,
    COMMAND_SECONDS,
    CONNECT_SECONDS,
    OUTAGES,
    POOL,
    Connection,
    outages_told,
)
from calotype.store.proof import PROOFS
from calotype.store.refusals import cannot_take_away

_REVOKED = "calotype_key_revoked"


class PostgresStore:
    """A store in a PostgreSQL database; see ``store.port.Store`` for what each verb means."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opening = asyncio.Lock()
        self._attaching = asyncio.Lock()
        self._deaf_until = 0.0
        self._lazy_pool: asyncpg.Pool[Any] | None = None
        self._submissions = Batcher(self._submit_all)
        self._tasks = Batcher(self._read_tasks)
        self._jobs: jobs.Jobs | None = None
        self._listener: asyncpg.Connection[Any] | None = None
        self._mark = b""
        self._keys = KeyCache(self._revocation_mark)

    async def migrate(self) -> int:
        return await connection.migrate(self._url)

    async def prepare(self) -> None:
        await connection.check(self._url)

    async def open_jobs(self) -> RepositoryPort:
        """The queue that submissions enqueue to, for a worker of this process."""
        async with outages_told():
            self._jobs = await jobs.open_jobs(self._url)
        return self._jobs

    async def reconcile(self, *, now: int) -> Reconciled | None:
        """Set right what no worker will; None while another process is at it."""
        async with self._connection() as db:
            return await reconciliation.reconcile(db, now=now)

    async def ping(self) -> None:
        async with self._connection() as db:
            await db.execute("UPDATE accounts SET name = name WHERE false")

    async def close(self) -> None:
        await self._submissions.close()
        await self._tasks.close()
        if self._jobs is not None:
            await self._jobs.close()
            self._jobs = None
        if self._listener is not None:
            await self._listener.close()
            self._listener = None
        if self._lazy_pool is not None:
            await self._lazy_pool.close()
            self._lazy_pool = None

    # Accounts, keys, money

    async def open_account(self, name: str, *, now: int) -> Account:
        await self._execute(
            "INSERT INTO accounts (name, created_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            name,
            now,
        )
        found = await self._fetch(f"SELECT {rows.ACCOUNT} FROM accounts WHERE name = $1", name)
        return rows.account(found[0])

    async def accounts(self) -> Sequence[Account]:
        found = await self._fetch(f"SELECT {rows.ACCOUNT} FROM accounts ORDER BY name")
        return [rows.account(row) for row in found]

    async def balance(self, account_id: int) -> Balance:
        found = await self._fetch(
            "SELECT balance, reserved FROM accounts WHERE id = $1", account_id
        )
        return Balance(balance=found[0][0], reserved=found[0][1])

    async def book(
        self, account_id: int, kind: EntryKind, amount: int, *, note: str, now: int
    ) -> Balance:
        booked = await self._fetch(
            "WITH booked AS (UPDATE accounts SET balance = balance + $1 "
            "WHERE id = $2 AND balance + $1 >= reserved RETURNING id, balance, reserved), "
            "entry AS (INSERT INTO ledger (account_id, kind, amount, note, created_at) "
            "SELECT id, $3, $4, $5, $6 FROM booked) SELECT balance, reserved FROM booked",
            EFFECTS[kind].balance * amount,
            account_id,
            kind,
            amount,
            note,
            now,
        )
        if not booked:
            raise cannot_take_away(-amount)
        return Balance(balance=booked[0][0], reserved=booked[0][1])

    async def entries(self, account_id: int, *, limit: int) -> Sequence[Entry]:
        found = await self._fetch(
            "SELECT kind, amount, task_id, created_at, note FROM ledger "
            "WHERE account_id = $1 ORDER BY id DESC LIMIT $2",
            account_id,
            limit,
        )
        return [Entry(EntryKind(kind), *rest) for kind, *rest in found]

    async def add_key(self, key: ApiKey, *, digest: bytes) -> None:
        await self._execute(
            "INSERT INTO api_keys (id, account_id, name, prefix, digest, created_at, expires_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7)",
            key.id,
            key.account_id,
            key.name,
            key.prefix,
            digest,
            key.created_at,
            key.expires_at,
        )

    async def find_key(self, digest: bytes) -> ApiKey | None:
        if (known := self._keys.get(digest)) is not None:
            return known
        await self._listen()
        mark = self._revocation_mark()
        found = await self._fetch(
            f"SELECT {rows.KEY} FROM api_keys JOIN accounts ON accounts.id = account_id "
            "WHERE digest = $1",
            digest,
        )
        if not found:
            return None
        key = rows.key(found[0])
        self._keys.put(digest, key, mark=mark)
        return key

    async def keys(self) -> Sequence[ApiKey]:
        found = await self._fetch(
            f"SELECT {rows.KEY} FROM api_keys JOIN accounts ON accounts.id = account_id "
            "ORDER BY api_keys.id DESC"
        )
        return [rows.key(row) for row in found]

    async def revoke_key(self, key_id: int, *, now: int) -> bool:
        found = await self._fetch(
            "WITH revoked AS (UPDATE api_keys SET revoked_at = $2 "
            "WHERE id = $1 AND revoked_at IS NULL RETURNING id) "
            f"SELECT id, pg_notify('{_REVOKED}', id::text) FROM revoked",
            key_id,
            now,
        )
        self._mark = secrets.token_bytes(8)
        return bool(found)

    # Submission and reading

    async def submit(self, new: NewTask) -> Submitted:
        return await self._submissions.add(new)

    async def task(self, task_id: int) -> Task | None:
        return await self._tasks.add(task_id)

    async def tasks(
        self, *, account_id: int | None = None, state: State | None = None, limit: int = 20
    ) -> Sequence[Task]:
        found = await self._fetch(
            f"SELECT {rows.TASK} FROM tasks WHERE ($1::bigint IS NULL OR account_id = $1) "
            "AND ($2::text IS NULL OR state = $2) ORDER BY id DESC LIMIT $3",
            account_id,
            state,
            limit,
        )
        return [rows.task(row) for row in found]

    async def attempts(self, task_id: int) -> Sequence[Attempt]:
        found = await self._fetch(
            f"SELECT {rows.ATTEMPT} FROM attempts WHERE task_id = $1 ORDER BY number", task_id
        )
        return [rows.attempt(row) for row in found]

    async def asset(self, asset_id: int) -> Asset | None:
        found = await self._fetch(f"SELECT {rows.ASSET} FROM assets WHERE id = $1", asset_id)
        return rows.asset(found[0]) if found else None

    # Running a task

    async def unfinished(self, *, after: int, limit: int) -> Sequence[Unfinished]:
        found = await self._fetch(
            "SELECT id, account_id, channel_id, created_at FROM tasks "
            "WHERE completed_at IS NULL AND id > $1 ORDER BY id LIMIT $2",
            after,
            limit,
        )
        return [Unfinished(*row) for row in found]

    async def take(self, task_id: int, *, now: int) -> Taken | None:
        async with self._connection(patient=True) as db:
            found = await db.fetch(transitions.TAKE, task_id, now)
            if not found:
                return None
            attempts = await db.fetch(
                f"SELECT {rows.ATTEMPT} FROM attempts WHERE task_id = $1 ORDER BY number", task_id
            )
        return Taken(rows.task(found[0]), tuple(rows.attempt(row) for row in attempts))

    async def keep_references(
        self, task: Task, references: Sequence[Reference], assets: Sequence[Asset]
    ) -> None:
        await self._guarded(
            transitions.KEEP_REFERENCES, task, rows.encode(references), *_columns(assets)
        )

    async def begin_attempt(self, task: Task, *, channel_id: int, event: Event, now: int) -> int:
        statement = transitions.BEGIN_ATTEMPT[event]
        return await self._guarded(statement, task, 0, now, channel_id)

    async def accept_attempt(self, task: Task, number: int, *, upstream_id: str) -> None:
        await self._guarded(transitions.ACCEPT_ATTEMPT, task, number, upstream_id)

    async def close_attempt(
        self, task: Task, number: int, *, state: AttemptState, detail: str, now: int
    ) -> None:
        await self._guarded(transitions.CLOSE_ATTEMPT, task, number, state, detail, now)

    async def advance(self, task: Task, event: Event, *, progress: int, now: int) -> None:
        await self._guarded(transitions.MOVE[event], task, progress, now)

    async def complete(
        self,
        task: Task,
        number: int,
        *,
        images: Sequence[Asset],
        actual: int,
        cost: int | None,
        now: int,
    ) -> None:
        result = rows.encode_result(images)
        await self._guarded(
            transitions.COMPLETE, task, actual, result, now, number, cost, *_columns(images)
        )

    async def fail(
        self,
        task: Task,
        failure: Failure,
        *,
        attempt: tuple[int, AttemptState] | None = None,
        now: int,
    ) -> None:
        number, state = attempt or (None, None)
        error = rows.encode(failure)
        await self._guarded(transitions.FAIL, task, error, now, number, state, failure.message)

    # Keeping house

    async def forget_idempotency_keys(self, *, before: int) -> int:
        done = await self._execute(
            "DELETE FROM idempotency_keys WHERE (account_id, key) IN (SELECT account_id, key "
            f"FROM idempotency_keys WHERE created_at < $1 LIMIT {FORGOTTEN_AT_ONCE})",
            before,
        )
        return int(done.rpartition(" ")[2])

    async def prove(self) -> Sequence[str]:
        faults: list[str] = []
        async with (
            self._connection() as db,
            db.transaction(isolation="repeatable_read", readonly=True),
        ):
            for statement, tell in PROOFS:
                faults += map(tell, await db.fetch(statement, timeout=None))
        return faults

    # Plumbing

    @asynccontextmanager
    async def _connection(self, *, patient: bool = False) -> AsyncIterator[Connection]:
        """A connection; who is ``patient`` waits in line for one however long the line is."""
        async with outages_told():
            async with self._opening:
                if self._lazy_pool is None:
                    self._lazy_pool = await asyncpg.create_pool(
                        self._url,
                        min_size=0,
                        max_size=POOL,
                        command_timeout=COMMAND_SECONDS,
                        timeout=CONNECT_SECONDS,
                    )
            async with self._lazy_pool.acquire(timeout=None if patient else ACQUIRE_SECONDS) as db:
                yield db

    async def _fetch(self, statement: str, *values: Any) -> list[rows.Row]:
        async with self._connection() as db:
            return await db.fetch(statement, *values)

    async def _execute(self, statement: str, *values: Any) -> str:
        async with self._connection() as db:
            return await db.execute(statement, *values)

    async def _guarded(self, statement: str, task: Task, *values: Any) -> int:
        """Run a statement that finds one row while the claim and the state hold."""
        async with self._connection(patient=True) as db:
            found = await db.fetch(statement, task.id, task.claim, *values)
        if not found:
            raise Fenced
        return int(found[0][0])

    async def _submit_all(self, tasks: Sequence[NewTask]) -> Sequence[Submitted | Exception]:
        async with self._connection() as db:
            return await submission.submit_all(db, tasks)

    async def _read_tasks(self, ids: Sequence[int]) -> Sequence[Task | None]:
        found = await self._fetch(f"SELECT {rows.TASK} FROM tasks WHERE id = ANY($1)", ids)
        by_id = {row[0]: rows.task(row) for row in found}
        return [by_id.get(task_id) for task_id in ids]

    async def _listen(self) -> None:
        """Hear of revocations in other processes; while nobody listens, no key is kept."""
        if self._hears() or self._attaching.locked() or time.monotonic() < self._deaf_until:
            return
        async with self._attaching:
            try:
                listener = await asyncpg.connect(self._url, timeout=CONNECT_SECONDS)
                self._mark = secrets.token_bytes(8)
                await listener.add_listener(_REVOKED, self._on_revoked)
            except OUTAGES:
                self._deaf_until = time.monotonic() + CONNECT_SECONDS
            else:
                self._listener = listener

    def _on_revoked(self, *_: object) -> None:
        self._mark = secrets.token_bytes(8)

    def _hears(self) -> bool:
        return self._listener is not None and not self._listener.is_closed()

    def _revocation_mark(self) -> bytes | None:
        return self._mark if self._hears() else None


def _columns(assets: Sequence[Asset]) -> list[list[Any]]:
    """The columns that ``transitions`` unnests."""
    return [
        [asset.id for asset in assets],
        [asset.key for asset in assets],
        [asset.content_type for asset in assets],
        [asset.bytes for asset in assets],
        [asset.width for asset in assets],
        [asset.height for asset in assets],
        [asset.created_at for asset in assets],
    ]
