"""Tasks as the tests of stores make them."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count

from calotype.domain.errors import CalotypeError
from calotype.domain.ids import IdSource
from calotype.domain.keys import ApiKey, hash_key
from calotype.domain.money import EntryKind
from calotype.domain.task import Asset, NewTask, Reference, Request, Task
from calotype.store.port import LoggedEvent, Store, Submitted
from calotype.store.postgres import PostgresStore

NOW = 1_760_000_000_000
PRICE = 30_000
_ids = IdSource(lambda: NOW)
_request_ids = count()


def new_task(
    account_id: int,
    *,
    price: int = PRICE,
    references: Sequence[Reference] = (),
    uploads: Sequence[Asset] = (),
    idempotency_key: str | None = None,
    fingerprint: bytes = b"",
    task_id: int | None = None,
    model: str = "gpt-image-2",
    metadata: Mapping[str, str] | None = None,
    created_at: int = NOW,
) -> NewTask:
    return NewTask(
        id=task_id or _ids.next(),
        account_id=account_id,
        key_id=1,
        request_id=f"req_{next(_request_ids)}",
        request=Request(model, 'a "cat" é', 1, {"aspect_ratio": "1:1"}),
        references=tuple(references),
        uploads=tuple(uploads),
        channel_id=7,
        price=price,
        deadline_at=NOW + 1000,
        abandon_at=NOW + 2000,
        created_at=created_at,
        idempotency_key=idempotency_key,
        fingerprint=fingerprint,
        metadata=dict(metadata or {}),
    )


def image(account_id: int) -> Asset:
    return Asset(_ids.next(), account_id, "results/x.png", "image/png", 10, 4, 3, NOW)


async def funded(store: Store, *, credit: int = 10 * PRICE, name: str = "ada") -> int:
    account = await store.open_account(name, now=NOW)
    await store.book(account.id, EntryKind.CREDIT, credit, note="", now=NOW)
    return account.id


async def limited(
    store: Store,
    account_id: int,
    *,
    per_day: int | None = None,
    per_month: int | None = None,
    per_minute: int | None = None,
    tasks: int | None = None,
) -> ApiKey:
    """A key of an account, with limits."""
    key = ApiKey(
        id=_ids.next(),
        account_id=account_id,
        account="ada",
        name="limited",
        prefix="ck_limited",
        created_at=NOW,
        expires_at=None,
        revoked_at=None,
        day_limit=per_day,
        month_limit=per_month,
        per_minute=per_minute,
        max_tasks=tasks,
    )
    await store.add_key(key, digest=hash_key(str(key.id)))
    return key


async def submitted(store: Store, account_id: int) -> int:
    return (await store.submit(new_task(account_id))).task_id


async def taken(store: Store, task_id: int) -> Task:
    found = await store.take(task_id, now=NOW + 1)
    assert found is not None
    return found.task


async def read(store: Store, task_id: int) -> Task:
    task = await store.task(task_id)
    assert task is not None
    return task


async def told(
    store: Store,
    *,
    after: str = "",
    limit: int = 999,
    account_id: int | None = None,
    task_id: int | None = None,
) -> Sequence[LoggedEvent]:
    """A page of the log, once no transaction of the server's own holds it back."""
    if isinstance(store, PostgresStore):
        ((newest,),) = await store._db.fetch("SELECT COALESCE(MAX(place), 0) FROM events")
        async with asyncio.timeout(60):
            while int(await store.events_end()) < newest:
                await asyncio.sleep(0.01)
    return await store.events(after=after, limit=limit, account_id=account_id, task_id=task_id)


def kinds(results: Sequence[Submitted | BaseException]) -> list[str]:
    """What became of each: a task, or the code of what refused it."""
    told = []
    for result in results:
        if isinstance(result, Submitted):
            told.append("replay" if result.replayed else "new")
        else:
            assert isinstance(result, CalotypeError), result
            told.append(result.code)
    return told
