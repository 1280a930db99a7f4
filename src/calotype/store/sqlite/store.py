"""The port, verb by verb: writes go to the writer thread, point reads stay in the event loop.

A read by primary key takes about 15 µs, less than handing it to a thread would (measured in
``docs/concepts/performance.md``); reads whose size nobody bounds go to a thread.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from calotype.domain.errors import CalotypeError, Failure, Unavailable
from calotype.domain.health import Health
from calotype.domain.keys import ApiKey
from calotype.domain.limits import Meter
from calotype.domain.money import Balance, EntryKind
from calotype.domain.task import (
    ArrivedImage,
    Asset,
    Attempt,
    AttemptState,
    Event,
    NewTask,
    Reference,
    ResultImage,
    State,
    Task,
)
from calotype.store import rows, statements
from calotype.store.gallery import NOTHING
from calotype.store.keycache import KeyCache
from calotype.store.limits import SET_LIMITS
from calotype.store.port import (
    EVER,
    FORGOTTEN_AT_ONCE,
    IN_FULL,
    Account,
    AttemptEnd,
    Begin,
    ChannelEvent,
    Keyed,
    LoggedEvent,
    Sight,
    Standing,
    Submitted,
    Taken,
    Unfinished,
)
from calotype.store.searching import search_of
from calotype.store.sqlite import (
    accounts,
    channels,
    connection,
    log,
    proof,
    search,
    submission,
    transitions,
)
from calotype.store.sqlite.files import SqliteFiles
from calotype.store.sqlite.gallery import SqliteGallery
from calotype.store.sqlite.lifetimes import SqliteLifetimes
from calotype.store.sqlite.operating import SqliteOperating
from calotype.store.sqlite.postings import Postings, make_all
from calotype.store.sqlite.sharedmark import SharedMark
from calotype.store.sqlite.usage import SqliteUsage
from calotype.store.sqlite.webhooks import SqliteWebhooks
from calotype.store.sqlite.writer import Writer
from calotype.store.walking import Gallery

T = TypeVar("T")

_INLINE: Final = 64
"""Rows by primary key that are read in the event loop: about a millisecond."""


class SqliteStore:
    """A store in one SQLite file; see ``store.port.Store`` for what each verb means."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lazy_writer: Writer | None = None
        self._lazy_reader: sqlite3.Connection | None = None
        self._lazy_revocations: SharedMark | None = None
        self._version: int | None = None
        self._keys = KeyCache(self._revocation_mark)
        self._watchers: dict[object, Callable[[], None]] = {}
        self.gallery = Gallery(SqliteGallery(write=self._write_long, reading=self._with_own_reader))
        self.lifetimes = SqliteLifetimes(write=self._write_long, reading=self._with_own_reader)
        self.usage = SqliteUsage(self._with_own_reader)
        self.webhooks = SqliteWebhooks(
            write=self._write,
            write_long=self._write_long,
            read=self._read,
            read_in_thread=self._read_in_thread,
        )
        self.files = SqliteFiles(write=self._write, read=self._read)
        self.operating = SqliteOperating(
            write=self._write, read=self._read, read_with=self._with_own_reader
        )

    async def migrate(self) -> int:
        return await asyncio.to_thread(connection.migrate, self._path)

    async def prepare(self) -> None:
        await self.migrate()

    async def ping(self) -> None:
        await self._write(lambda db: db.execute("SELECT 1 FROM accounts LIMIT 1").fetchall())

    async def close(self) -> None:
        if self._lazy_writer is not None:
            await self._lazy_writer.close()
        if self._lazy_reader is not None:
            self._lazy_reader.close()
            self._lazy_reader = None
        if self._lazy_revocations is not None:
            self._lazy_revocations.close()
            self._lazy_revocations = None

    # Accounts, keys, money

    async def open_account(self, name: str, *, now: int) -> Account:
        return await self._write(partial(accounts.open_account, name=name, now=now))

    async def accounts(self) -> Sequence[Account]:
        found = self._read(f"SELECT {rows.ACCOUNT} FROM accounts ORDER BY name")
        return [rows.account(row) for row in found]

    async def account(self, account_id: int) -> Account | None:
        found = self._read(f"SELECT {rows.ACCOUNT} FROM accounts WHERE id = ?", account_id)
        return rows.account(found[0]) if found else None

    async def set_limits(
        self, account_id: int, *, tasks: int | None, per_minute: int | None
    ) -> bool:
        values = (account_id, tasks, per_minute)
        return bool(await self._write(lambda db: db.execute(SET_LIMITS, values).fetchall()))

    async def balance(self, account_id: int) -> Balance:
        found = self._read("SELECT balance, reserved FROM accounts WHERE id = ?", account_id)
        return Balance(balance=found[0][0], reserved=found[0][1])

    async def book(
        self, account_id: int, kind: EntryKind, amount: int, *, note: str, now: int
    ) -> Balance:
        return await self._write(
            partial(
                accounts.book, account_id=account_id, kind=kind, amount=amount, note=note, now=now
            )
        )

    async def add_key(self, key: ApiKey, *, digest: bytes) -> None:
        await self._write(partial(accounts.add_key, key=key, digest=digest))

    def known_key(self, digest: bytes) -> ApiKey | None:
        return self._keys.get(digest)

    async def find_key(self, digest: bytes) -> ApiKey | None:
        mark = self._revocation_mark()
        if (known := self._keys.get(digest)) is not None:
            return known
        found = self._read(
            f"{rows.KEYS} WHERE digest = ?",
            digest,
        )
        if not found:
            return None
        key = rows.key(found[0])
        self._keys.put(digest, key, mark=mark)
        return key

    async def key(self, key_id: int) -> ApiKey | None:
        found = self._read(f"{rows.KEYS} WHERE api_keys.id = ?", key_id)
        return rows.key(found[0]) if found else None

    async def keys(self, *, account_id: int | None = None) -> Sequence[ApiKey]:
        wanted = "" if account_id is None else "WHERE api_keys.account_id = ? "
        values = () if account_id is None else (account_id,)
        found = await self._read_in_thread(
            f"{rows.KEYS} {wanted}ORDER BY api_keys.id DESC", *values
        )
        return [rows.key(row) for row in found]

    async def meter(self, key_id: int) -> Meter | None:
        found = self._read(statements.METER, key_id)
        return rows.meter(found[0]) if found else None

    async def note_used(self, used: Mapping[int, int]) -> None:
        await self._write_long(partial(accounts.note_used, used=used))

    async def revoke_key(self, key_id: int, *, now: int) -> bool:
        revoked = await self._write(partial(accounts.revoke_key, key_id=key_id, now=now))
        self._revocations.change()
        return revoked

    # Submission and reading

    async def submit(self, new: NewTask) -> Submitted:
        submitted: Submitted = await self._writer.add(submission.submit_all, new)
        return submitted

    async def submit_batch(self, news: Sequence[NewTask]) -> Sequence[Submitted | CalotypeError]:
        return await self._write_long(partial(submission.submit_batch, tasks=news))

    async def task(self, task_id: int) -> Task | None:
        found = self._read(f"SELECT {rows.TASK} FROM tasks WHERE id = ?", task_id)
        return rows.task(found[0]) if found else None

    def version(self) -> int | None:
        """SQLite's own count of what others have committed, asked for once in a turn of the loop.

        Whoever asks in the same turn sent the request before the answer was known.
        """
        if self._version is None:
            self._version = self._read("PRAGMA data_version")[0][0]
            asyncio.get_running_loop().call_soon(self._ask_again)
        return self._version

    async def task_since(self, task_id: int, mark: int | None) -> Sight | None:
        version = self.version()
        return None if mark == version else Sight(await self.task(task_id), version)

    def _ask_again(self) -> None:
        self._version = None

    async def standing(self, task_id: int) -> Standing | None:
        found = self._read(f"SELECT {rows.STANDING} FROM tasks WHERE id = ?", task_id)
        return rows.standing(found[0]) if found else None

    async def tasks(
        self, *, account_id: int | None = None, state: State | None = None, limit: int = 20
    ) -> Sequence[Task]:
        found = await self._read_in_thread(
            f"SELECT {rows.TASK} FROM tasks WHERE (?1 IS NULL OR account_id = ?1) "
            "AND (?2 IS NULL OR state = ?2) ORDER BY id DESC LIMIT ?3",
            account_id,
            state,
            limit,
        )
        return [rows.task(row) for row in found]

    async def search(
        self,
        account_id: int,
        *,
        state: State | None = None,
        model: str | None = None,
        since: int | None = None,
        metadata: Mapping[str, str] = NOTHING,
        before: int | None = None,
        limit: int,
    ) -> Sequence[Task]:
        asked = search_of(
            account_id,
            state=state,
            model=model,
            since=since,
            metadata=metadata,
            before=before,
            limit=limit,
        )
        return await self._with_own_reader(partial(search.find, search=asked))

    async def attempts(self, task_id: int) -> Sequence[Attempt]:
        found = self._read(
            f"SELECT {rows.ATTEMPT} FROM attempts WHERE task_id = ? ORDER BY number", task_id
        )
        return [rows.attempt(row) for row in found]

    async def replayed(
        self, account_id: int, idempotency_key: str, *, fingerprint: bytes
    ) -> Submitted | None:
        found = self._read(submission.REPLAYED, account_id, idempotency_key)
        if not found or found[0][0] != fingerprint:
            return None
        _, task_id, request_id, created_at = found[0]
        return Submitted(task_id, request_id, created_at, replayed=True)

    async def keyed(
        self, account_id: int, *, lowest: str, highest: str, limit: int
    ) -> Sequence[Keyed]:
        found = self._read(submission.KEYED, account_id, lowest, highest, limit)
        return [Keyed(key, State(state), ended) for key, state, ended in found]

    async def asset(self, asset_id: int) -> Asset | None:
        found = self._read(
            f"SELECT {rows.ASSET} FROM assets WHERE id = ? AND deleted_at IS NULL", asset_id
        )
        return rows.asset(found[0]) if found else None

    async def assets(self, asset_ids: Sequence[int]) -> Sequence[Asset]:
        statement = (
            f"SELECT {rows.ASSET} FROM assets WHERE id IN (SELECT value FROM json_each(?)) "
            "AND deleted_at IS NULL"
        )
        ids = rows.encode(asset_ids).decode()
        few = len(asset_ids) <= _INLINE
        found = self._read(statement, ids) if few else await self._read_in_thread(statement, ids)
        return [rows.asset(row) for row in found]

    # Running a task

    async def unfinished(self, *, after: int, limit: int) -> Sequence[Unfinished]:
        found = self._read(
            "SELECT id, account_id, channel_id, created_at FROM tasks "
            "WHERE completed_at IS NULL AND id > ? ORDER BY id LIMIT ?",
            after,
            limit,
        )
        return [Unfinished(*row) for row in found]

    async def unfinished_channels(self) -> Sequence[int]:
        return [row[0] for row in await self._read_in_thread(statements.UNFINISHED_CHANNELS)]

    async def take(
        self, task_id: int, *, now: int, choose: Callable[[Task], Begin | None] | None = None
    ) -> Taken | None:
        loop = threading.get_ident()

        def chosen(task: Task) -> Begin | None:  # while another process writes, a thread asks
            return choose(task) if choose and threading.get_ident() == loop else None

        return await self._move(partial(transitions.take, task_id=task_id, now=now, choose=chosen))

    async def keep_references(
        self,
        task: Task,
        references: Sequence[Reference],
        assets: Sequence[Asset],
        *,
        days: int,
    ) -> None:
        await self._move(
            partial(
                transitions.keep_references,
                task=task,
                references=references,
                assets=assets,
                days=days,
            )
        )

    async def begin_attempt(self, task: Task, *, channel_id: int, event: Event, now: int) -> int:
        return await self._move(
            partial(
                transitions.begin_attempt, task=task, channel_id=channel_id, event=event, now=now
            )
        )

    async def accept_attempt(self, task: Task, number: int, *, upstream_id: str) -> None:
        await self._move(
            partial(transitions.accept_attempt, task=task, number=number, upstream_id=upstream_id)
        )

    async def close_attempt(
        self,
        task: Task,
        number: int,
        *,
        state: AttemptState,
        detail: str,
        now: int,
        code: str | None = None,
        fault: str | None = None,
    ) -> None:
        await self._move(
            partial(
                transitions.close_attempt,
                task=task,
                number=number,
                state=state,
                detail=detail,
                now=now,
                code=code,
                fault=fault,
            )
        )

    async def reroute(self, task: Task, channel_id: int, *, now: int) -> None:
        await self._move(partial(transitions.reroute, task=task, channel_id=channel_id, now=now))

    async def advance(self, task: Task, event: Event, *, progress: int, now: int) -> None:
        await self._move(
            partial(transitions.move, task=task, event=event, progress=progress, now=now)
        )

    async def cancel(self, task_id: int, *, account_id: int, now: int) -> Task | None:
        return await self._move(
            partial(transitions.cancel, task_id=task_id, account_id=account_id, now=now)
        )

    async def keep_arrived(
        self,
        task: Task,
        arrived: Sequence[ArrivedImage],
        *,
        images: Sequence[Asset],
        progress: int,
        now: int,
        days: int = 0,
    ) -> None:
        await self._move(
            partial(
                transitions.keep_arrived,
                days=days,
                task=task,
                arrived=arrived,
                images=images,
                progress=progress,
                now=now,
            )
        )

    async def complete(
        self,
        task: Task,
        number: int | None,
        *,
        images: Sequence[Asset],
        actual: int,
        cost: int | None,
        now: int,
        result: Sequence[ResultImage] | None = None,
        end: AttemptEnd = IN_FULL,
        days: int = 0,
    ) -> None:
        await self._move(
            partial(
                transitions.complete,
                days=days,
                task=task,
                number=number,
                images=images,
                actual=actual,
                cost=cost,
                now=now,
                result=result,
                end=end,
            )
        )

    async def fail(
        self,
        task: Task,
        failure: Failure,
        *,
        attempt: tuple[int, AttemptState] | None = None,
        now: int,
        fault: str | None = None,
        detail: str | None = None,
        cost: int | None = None,
        charge: int = 0,
    ) -> None:
        await self._move(
            partial(
                transitions.fail,
                task=task,
                failure=failure,
                attempt=attempt,
                now=now,
                fault=fault,
                detail=detail,
                cost=cost,
                charge=charge,
            )
        )

    # Channels

    async def next_slot(
        self, channel_id: int, *, per_minute: int, now: int, before: int | None = None
    ) -> int:
        return await self._write(
            partial(
                channels.next_slot,
                channel_id=channel_id,
                per_minute=per_minute,
                now=now,
                before=EVER if before is None else before,
            )
        )

    async def note_health(self, health: Health) -> None:
        values = rows.health_values(health)
        await self._write(partial(channels.note_health, values=values))

    async def clear_health(self, channel_id: int, model: str, *, now: int) -> None:
        values = rows.wellness_values(channel_id, model, now=now)
        await self._write(partial(channels.note_health, values=values))

    async def health(self) -> Sequence[Health]:
        return [rows.health(row) for row in self._read(statements.HEALTH)]

    async def channel_events(self, *, since: int, limit: int) -> Sequence[ChannelEvent]:
        found = await self._read_in_thread(statements.CHANNEL_EVENTS, since, limit)
        return [rows.channel_event(row) for row in found]

    # Events

    async def events(
        self,
        *,
        after: str,
        limit: int,
        account_id: int | None = None,
        task_id: int | None = None,
    ) -> Sequence[LoggedEvent]:
        statement, values = log.page(
            after=after, limit=limit, account_id=account_id, task_id=task_id
        )
        return [log.logged(row) for row in self._read(statement, *values)]

    async def events_end(self) -> str:
        return str(self._read(log.NEWEST)[0][0] or 0)

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        watching = object()
        self._watchers[watching] = callback

        def end() -> None:
            self._watchers.pop(watching, None)

        return end

    # Keeping house

    async def forget_channel_events(self, *, before: int) -> int:
        statement = statements.FORGET_CHANNEL_EVENTS
        return await self._write_long(lambda db: db.execute(statement, (before,)).rowcount)

    async def forget_idempotency_keys(self, *, before: int) -> int:
        statement = (
            "DELETE FROM idempotency_keys WHERE (account_id, key) IN (SELECT account_id, key "
            f"FROM idempotency_keys WHERE created_at < ? LIMIT {FORGOTTEN_AT_ONCE})"
        )
        return await self._write_long(lambda db: db.execute(statement, (before,)).rowcount)

    async def prove(self) -> Sequence[str]:
        return await self._with_own_reader(proof.prove)

    # Plumbing

    @property
    def _revocations(self) -> SharedMark:
        if self._lazy_revocations is None:
            self._lazy_revocations = SharedMark(self._path.with_suffix(".revocations"))
        return self._lazy_revocations

    def _revocation_mark(self) -> bytes:
        return self._revocations.read()

    @property
    def _writer(self) -> Writer:
        if self._lazy_writer is None:
            self._lazy_writer = Writer(
                partial(connection.connect, self._path),
                watchers=self._watchers.values(),
            )
        return self._lazy_writer

    async def _move(self, move: Callable[[Postings], T]) -> T:
        """Make a step of a task, together with those that others ask for."""
        made: T = await self._writer.add(make_all, move)
        return made

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._writer.run(work)

    async def _write_long(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What may take more than a few milliseconds."""
        return await self._writer.run(work, long=True)

    def _read(self, statement: str, *values: Any) -> list[rows.Row]:
        try:
            if self._lazy_reader is None:
                self._lazy_reader = connection.connect(self._path, read_only=True)
            return self._lazy_reader.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:
            raise Unavailable("The database cannot be read right now.", retry_after=2) from error

    async def _read_in_thread(self, statement: str, *values: Any) -> list[rows.Row]:
        return await self._with_own_reader(lambda db: db.execute(statement, values).fetchall())

    async def _with_own_reader(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def in_thread() -> T:
            with closing(connection.connect(self._path, read_only=True)) as reader:
                return work(reader)

        return await asyncio.to_thread(in_thread)
