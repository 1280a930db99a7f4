"""The port, verb by verb: submissions and reads of tasks go in batches, the rest over a pool."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from pgqueuer.ports import RepositoryPort

from calotype.domain.errors import CalotypeError, Failure
from calotype.domain.health import Health
from calotype.domain.keys import ApiKey
from calotype.domain.limits import Meter
from calotype.domain.money import EFFECTS, Balance, EntryKind
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
    Fenced,
    Keyed,
    LoggedEvent,
    Reconciled,
    Sight,
    Standing,
    Submitted,
    Taken,
    Unfinished,
)
from calotype.store.postgres import (
    batch,
    cancelling,
    channels,
    connection,
    jobs,
    keys,
    listening,
    log,
    reconciliation,
    search,
    submission,
    taking,
    transitions,
)
from calotype.store.postgres.batcher import Batcher
from calotype.store.postgres.connection import HOT, HOT_SESSION, outages_told
from calotype.store.postgres.database import Database
from calotype.store.postgres.files import PostgresFiles
from calotype.store.postgres.gallery import PostgresGallery
from calotype.store.postgres.lifetimes import PostgresLifetimes
from calotype.store.postgres.listening import Listener
from calotype.store.postgres.moves import Move, Moves, Step
from calotype.store.postgres.news import News
from calotype.store.postgres.operating import PostgresOperating
from calotype.store.postgres.revocations import CHANNEL as REVOKED
from calotype.store.postgres.revocations import Revocations
from calotype.store.postgres.usage import PostgresUsage
from calotype.store.postgres.webhooks import PostgresWebhooks
from calotype.store.proof import PROOFS
from calotype.store.refusals import cannot_take_away
from calotype.store.searching import search_of
from calotype.store.walking import Gallery

_NO_MARK: Final = 0
"""No transaction's number, so that no row is as it was then."""
_SINCE: Final = (
    f"SELECT place, tasks.xmin, {rows.TASK} "
    "FROM unnest($1::bigint[], $2::xid[]) WITH ORDINALITY AS asked (task_id, mark, place) "
    "LEFT JOIN tasks ON id = task_id WHERE tasks.xmin IS DISTINCT FROM mark"
)
"""Of the tasks asked for, those that another transaction has written since, or that are gone.

``xmin`` is who wrote a row last, so a task that has not changed costs a look at its row alone.
"""


def _sight(row: rows.Row) -> Sight:
    """A row of ``_SINCE``."""
    _, mark, *columns = row
    if columns[0] is None:
        return Sight(None, None)
    task = rows.task(columns)
    with_others = task.references or task.has_webhook  # what is shown is in other rows as well
    return Sight(task, None if with_others else mark)


class PostgresStore:
    """A store in a PostgreSQL database; see ``store.port.Store`` for what each verb means."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._db = Database(url)
        self._hot = Database(url, connections=HOT, session=HOT_SESSION)
        self._submissions = Batcher(self._submit_all)
        self._tasks = Batcher(self._read_tasks)
        self._sights = Batcher(self._read_since)
        self._standings = Batcher(self._read_standings)
        self._digests = Batcher(self._read_keys)
        self._news = News(self._hot)
        self._moves = Moves(self._hot, then=self._news.tell)
        self._jobs: jobs.Jobs | None = None
        self._listeners = set[Listener]()
        self._revocations = Revocations(url)
        self._keys = KeyCache(self._revocations.mark)
        self.gallery = Gallery(PostgresGallery(self._db))
        self.lifetimes = PostgresLifetimes(self._db)
        self.usage = PostgresUsage(self._db)
        self.webhooks = PostgresWebhooks(self._db)
        self.files = PostgresFiles(self._db)
        self.operating = PostgresOperating(self._db)

    async def migrate(self) -> int:
        return await connection.migrate(self._url)

    async def prepare(self) -> None:
        await connection.check(self._url)

    async def open_jobs(self) -> RepositoryPort:
        """The queue that submissions enqueue to, for a worker of this process."""
        async with outages_told():
            self._jobs = await jobs.open_jobs(self._url)
        return self._jobs

    async def reconcile(
        self, *, now: int, price: Callable[[Task, int], int], days: Callable[[str], int]
    ) -> Reconciled | None:
        """Set right what no worker will; None while another process is at it."""
        async with self._db.connection() as db:
            done = await reconciliation.reconcile(db, now=now, price=price, days=days)
        if done is not None and done.ended:
            self._news.tell()
        return done

    async def ping(self) -> None:
        async with self._db.connection() as db:
            await db.execute("UPDATE accounts SET name = name WHERE false")

    async def close(self) -> None:
        await self._submissions.close()
        await self._tasks.close()
        await self._standings.close()
        await self._digests.close()
        await self._moves.close()
        await self._news.close()
        if self._jobs is not None:
            await self._jobs.close()
            self._jobs = None
        for listener in list(self._listeners):
            await self._deafen(listener)
        await self._revocations.close()
        await self._hot.close()
        await self._db.close()

    # Accounts, keys, money

    async def open_account(self, name: str, *, now: int) -> Account:
        await self._db.execute(
            "INSERT INTO accounts (name, created_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            name,
            now,
        )
        found = await self._db.fetch(f"SELECT {rows.ACCOUNT} FROM accounts WHERE name = $1", name)
        return rows.account(found[0])

    async def accounts(self) -> Sequence[Account]:
        found = await self._db.fetch(f"SELECT {rows.ACCOUNT} FROM accounts ORDER BY name")
        return [rows.account(row) for row in found]

    async def account(self, account_id: int) -> Account | None:
        statement = f"SELECT {rows.ACCOUNT} FROM accounts WHERE id = $1"
        found = await self._db.fetch(statement, account_id)
        return rows.account(found[0]) if found else None

    async def set_limits(
        self, account_id: int, *, tasks: int | None, per_minute: int | None
    ) -> bool:
        statement = SET_LIMITS.replace("?", "$")
        return bool(await self._db.fetch(statement, account_id, tasks, per_minute))

    async def balance(self, account_id: int) -> Balance:
        found = await self._db.fetch(
            "SELECT balance, reserved FROM accounts WHERE id = $1", account_id
        )
        return Balance(balance=found[0][0], reserved=found[0][1])

    async def book(
        self, account_id: int, kind: EntryKind, amount: int, *, note: str, now: int
    ) -> Balance:
        booked = await self._db.fetch(
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

    async def add_key(self, key: ApiKey, *, digest: bytes) -> None:
        async with self._db.connection() as db, db.transaction():
            await db.execute(keys.ADD_KEY, *rows.key_values(key, digest))
            if key.metered:
                await db.execute(keys.ADD_METER, *rows.meter_values(key))

    def known_key(self, digest: bytes) -> ApiKey | None:
        return self._keys.get(digest)

    async def find_key(self, digest: bytes) -> ApiKey | None:
        return self._keys.get(digest) or await self._digests.add(digest)

    async def key(self, key_id: int) -> ApiKey | None:
        found = await self._db.fetch(f"{rows.KEYS} WHERE api_keys.id = $1", key_id)
        return rows.key(found[0]) if found else None

    async def keys(self, *, account_id: int | None = None) -> Sequence[ApiKey]:
        wanted = "" if account_id is None else "WHERE api_keys.account_id = $1 "
        values = () if account_id is None else (account_id,)
        found = await self._db.fetch(f"{rows.KEYS} {wanted}ORDER BY api_keys.id DESC", *values)
        return [rows.key(row) for row in found]

    async def meter(self, key_id: int) -> Meter | None:
        found = await self._db.fetch(keys.METER, key_id)
        return rows.meter(found[0]) if found else None

    async def note_used(self, used: Mapping[int, int]) -> None:
        await self._db.execute(keys.NOTE_USED, [*used], [*used.values()])

    async def revoke_key(self, key_id: int, *, now: int) -> bool:
        found = await self._db.fetch(
            "WITH revoked AS (UPDATE api_keys SET revoked_at = $2 "
            "WHERE id = $1 AND revoked_at IS NULL RETURNING id) "
            f"SELECT id, pg_notify('{REVOKED}', id::text) FROM revoked",
            key_id,
            now,
        )
        self._revocations.change()
        return bool(found)

    # Submission and reading

    async def submit(self, new: NewTask) -> Submitted:
        return await self._submissions.add(new)

    async def submit_batch(self, news: Sequence[NewTask]) -> Sequence[Submitted | CalotypeError]:
        async with self._db.connection() as db:
            submitted = await batch.submit_batch(db, news)
        self._news.tell()
        return submitted

    def version(self) -> int | None:
        return None

    async def task(self, task_id: int) -> Task | None:
        return await self._tasks.add(task_id)

    async def task_since(self, task_id: int, mark: int | None) -> Sight | None:
        return await self._sights.add((task_id, mark or _NO_MARK))

    async def standing(self, task_id: int) -> Standing | None:
        return await self._standings.add(task_id)

    async def tasks(
        self, *, account_id: int | None = None, state: State | None = None, limit: int = 20
    ) -> Sequence[Task]:
        found = await self._db.fetch(
            f"SELECT {rows.TASK} FROM tasks WHERE ($1::bigint IS NULL OR account_id = $1) "
            "AND ($2::text IS NULL OR state = $2) ORDER BY id DESC LIMIT $3",
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
        return await search.find(self._db, asked)

    async def attempts(self, task_id: int) -> Sequence[Attempt]:
        found = await self._db.fetch(
            f"SELECT {rows.ATTEMPT} FROM attempts WHERE task_id = $1 ORDER BY number", task_id
        )
        return [rows.attempt(row) for row in found]

    async def replayed(
        self, account_id: int, idempotency_key: str, *, fingerprint: bytes
    ) -> Submitted | None:
        found = await self._db.fetch(submission.REPLAYED, account_id, idempotency_key)
        if not found or found[0][0] != fingerprint:
            return None
        _, task_id, request_id, created_at = found[0]
        return Submitted(task_id, request_id, created_at, replayed=True)

    async def keyed(
        self, account_id: int, *, lowest: str, highest: str, limit: int
    ) -> Sequence[Keyed]:
        found = await self._db.fetch(submission.KEYED, account_id, lowest, highest, limit)
        return [Keyed(key, State(state), ended) for key, state, ended in found]

    async def asset(self, asset_id: int) -> Asset | None:
        statement = f"SELECT {rows.ASSET} FROM assets WHERE id = $1 AND deleted_at IS NULL"
        found = await self._db.fetch(statement, asset_id)
        return rows.asset(found[0]) if found else None

    async def assets(self, asset_ids: Sequence[int]) -> Sequence[Asset]:
        statement = f"SELECT {rows.ASSET} FROM assets WHERE id = ANY($1) AND deleted_at IS NULL"
        return [rows.asset(row) for row in await self._db.fetch(statement, asset_ids)]

    # Running a task

    async def unfinished(self, *, after: int, limit: int) -> Sequence[Unfinished]:
        found = await self._db.fetch(
            "SELECT id, account_id, channel_id, created_at FROM tasks "
            "WHERE completed_at IS NULL AND id > $1 ORDER BY id LIMIT $2",
            after,
            limit,
        )
        return [Unfinished(*row) for row in found]

    async def unfinished_channels(self) -> Sequence[int]:
        return [row[0] for row in await self._db.fetch(statements.UNFINISHED_CHANNELS)]

    async def take(
        self, task_id: int, *, now: int, choose: Callable[[Task], Begin | None] | None = None
    ) -> Taken | None:
        try:
            step = Step((task_id, now), choose=choose)
            _, task, begun = await self._moves.make(taking.TAKE_AND_BEGIN, step)
        except Fenced:
            return None
        attempts = () if task.claim == 1 else tuple(await self.attempts(task_id))
        return Taken(task, attempts, begun)

    async def keep_references(
        self,
        task: Task,
        references: Sequence[Reference],
        assets: Sequence[Asset],
        *,
        days: int,
    ) -> None:
        values = (rows.encode(references), days)
        await self._move(transitions.KEEP_REFERENCES, task, *values, images=assets)

    async def begin_attempt(self, task: Task, *, channel_id: int, event: Event, now: int) -> int:
        begun = await self._move(transitions.BEGIN_ATTEMPT[event], task, 0, now, channel_id)
        number: int = begun[1]
        return number

    async def accept_attempt(self, task: Task, number: int, *, upstream_id: str) -> None:
        await self._move(transitions.ACCEPT_ATTEMPT, task, number, upstream_id)

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
        values = (number, state, detail, now, code, fault)
        await self._move(transitions.CLOSE_ATTEMPT, task, *values)

    async def reroute(self, task: Task, channel_id: int, *, now: int) -> None:
        await self._guarded(transitions.REROUTE, task, channel_id, now)

    async def advance(self, task: Task, event: Event, *, progress: int, now: int) -> None:
        await self._move(transitions.MOVE[event], task, progress, now)

    async def cancel(self, task_id: int, *, account_id: int, now: int) -> Task | None:
        async with self._db.connection() as db, db.transaction():
            task = await cancelling.cancel(db, task_id, account_id=account_id, now=now)
        self._news.tell()
        return task

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
        written = rows.encode(arrived)
        values = (progress, written, now, days)
        try:
            await self._move(transitions.KEEP_ARRIVED, task, *values, images=images)
        except Fenced:
            await self._guarded(transitions.ARRIVED, task, written)

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
        shown = rows.encode_result(images, result)
        closing = (number, cost, end.state, end.detail, end.code, end.fault)
        values = (actual, shown, now, *closing, *transitions.webhook_columns(task), days)
        earlier = rows.earlier(images, result)
        await self._move(transitions.COMPLETE, task, *values, images=images, earlier=earlier)

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
        number, state = attempt or (None, None)
        error = rows.encode(failure)
        why = (detail or failure.message, failure.code, fault, cost)
        to = transitions.webhook_columns(task)
        await self._move(transitions.FAIL, task, error, now, number, state, *why, charge, *to)

    # Channels

    async def next_slot(
        self, channel_id: int, *, per_minute: int, now: int, before: int | None = None
    ) -> int:
        limit = EVER if before is None else before
        found = await self._db.fetch(
            channels.NEXT_SLOT, channel_id, per_minute, now, limit, patient=True
        )
        slot: int = found[0][0]
        return slot

    async def note_health(self, health: Health) -> None:
        await self._db.fetch(channels.NOTE_HEALTH, *rows.health_values(health), patient=True)

    async def clear_health(self, channel_id: int, model: str, *, now: int) -> None:
        values = rows.wellness_values(channel_id, model, now=now)
        await self._db.fetch(channels.NOTE_HEALTH, *values, patient=True)

    async def health(self) -> Sequence[Health]:
        return [rows.health(row) for row in await self._db.fetch(statements.HEALTH)]

    async def channel_events(self, *, since: int, limit: int) -> Sequence[ChannelEvent]:
        found = await self._db.fetch(channels.CHANNEL_EVENTS, since, limit)
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
        return [log.logged(row) for row in await self._hot.fetch(statement, *values)]

    async def events_end(self) -> str:
        return str((await self._hot.fetch(log.END))[0][0])

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._news.watch(callback)

    # What processes tell each other

    async def publish(self, topic: str, payload: str) -> None:
        await self._db.fetch("SELECT pg_notify($1, $2)", *listening.bulletin(topic, payload))

    async def listen(self, callback: Callable[[str, str], None]) -> Callable[[], Awaitable[None]]:
        listener = await listening.hear_bulletins(self._url, callback)
        self._listeners.add(listener)
        return partial(self._deafen, listener)

    # Keeping house

    async def forget_idempotency_keys(self, *, before: int) -> int:
        return await self._db.execute(
            "DELETE FROM idempotency_keys WHERE (account_id, key) IN (SELECT account_id, key "
            f"FROM idempotency_keys WHERE created_at < $1 LIMIT {FORGOTTEN_AT_ONCE})",
            before,
        )

    async def forget_channel_events(self, *, before: int) -> int:
        return await self._db.execute(channels.FORGET_CHANNEL_EVENTS, before)

    async def prove(self) -> Sequence[str]:
        faults: list[str] = []
        async with (
            self._db.connection() as db,
            db.transaction(isolation="repeatable_read", readonly=True),
        ):
            for statement, tell in PROOFS:
                faults += map(tell, await db.fetch(statement, timeout=None))
        return faults

    # Plumbing

    async def _move(
        self,
        move: Move,
        task: Task,
        *values: Any,
        images: Sequence[Asset] = (),
        earlier: Sequence[int] = (),
    ) -> rows.Row:
        """Make a move while the claim and the state hold."""
        step = Step((task.id, task.claim, *values), images, earlier)
        return await self._moves.make(move, step)

    async def _guarded(self, statement: str, task: Task, *values: Any) -> int:
        """Run a statement that finds one row while the claim and the state hold."""
        found = await self._db.fetch(statement, task.id, task.claim, *values, patient=True)
        if not found:
            raise Fenced
        return int(found[0][0])

    async def _submit_all(self, tasks: Sequence[NewTask]) -> Sequence[Submitted | Exception]:
        async with self._hot.connection() as db:
            submitted = await batch.submit_all(db, tasks)
        self._news.tell()
        return submitted

    async def _read_keys(self, digests: Sequence[bytes]) -> Sequence[ApiKey | None]:
        """Those that the batch before has not read: many ask for one key when it was forgotten."""
        known = {digest: self._keys.get(digest) for digest in digests}
        if unknown := [digest for digest, key in known.items() if key is None]:
            await self._revocations.listen()
            mark = self._revocations.mark()
            statement = f"SELECT digest, {rows.KEY} {rows.OF_KEYS} WHERE digest = ANY($1)"
            for row in await self._hot.fetch(statement, unknown):
                known[row[0]] = key = rows.key(row[1:])
                self._keys.put(row[0], key, mark=mark)
        return [known[digest] for digest in digests]

    async def _read_tasks(self, ids: Sequence[int]) -> Sequence[Task | None]:
        found = await self._hot.fetch(f"SELECT {rows.TASK} FROM tasks WHERE id = ANY($1)", ids)
        by_id = {row[0]: rows.task(row) for row in found}
        return [by_id.get(task_id) for task_id in ids]

    async def _read_since(self, asked: Sequence[tuple[int, int]]) -> Sequence[Sight | None]:
        ids, marks = zip(*asked, strict=True)
        changed = {row[0]: _sight(row) for row in await self._hot.fetch(_SINCE, ids, marks)}
        return [changed.get(place) for place in range(1, len(asked) + 1)]

    async def _read_standings(self, ids: Sequence[int]) -> Sequence[Standing | None]:
        statement = f"SELECT id, {rows.STANDING} FROM tasks WHERE id = ANY($1)"
        by_id = {row[0]: rows.standing(row[1:]) for row in await self._hot.fetch(statement, ids)}
        return [by_id.get(task_id) for task_id in ids]

    async def _deafen(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        await listener.close()
