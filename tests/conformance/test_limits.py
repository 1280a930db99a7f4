"""What every store promises of limits: none is passed, however many ask at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import msgspec
import pytest

from calotype.domain.errors import (
    InsufficientBalance,
    QueueFull,
    RateLimitReached,
    SpendLimitReached,
    failure,
)
from calotype.domain.keys import ApiKey
from calotype.domain.limits import DAY_MS, Meter
from calotype.domain.task import Event, NewTask
from calotype.store.port import IdTaken, Store, Submitted
from calotype.store.postgres import PostgresStore
from calotype.store.sqlite import SqliteStore
from conformance.tasks import NOW, PRICE, funded, image, kinds, limited, new_task, taken
from postgres import PostgresServer, fresh_database

MANY = 50
RICH = 1000 * PRICE
WHY = failure("upstream_failed", "It broke.")


def order(
    key: ApiKey,
    *,
    price: int = PRICE,
    created_at: int = NOW,
    idempotency_key: str | None = None,
    fingerprint: bytes = b"",
    task_id: int | None = None,
) -> NewTask:
    """A task that a key with limits submits."""
    new = new_task(
        key.account_id,
        price=price,
        created_at=created_at,
        idempotency_key=idempotency_key,
        fingerprint=fingerprint,
        task_id=task_id,
    )
    return msgspec.structs.replace(new, key_id=key.id, metered=True)


async def meter(store: Store, key_id: int) -> Meter:
    """What was used of a key's limits."""
    found = await store.meter(key_id)
    assert found is not None
    return found


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "idempotent"])
async def test_of_many_at_once_exactly_as_many_are_taken_as_a_day_has_room_for(
    store: Store, *, keyed: bool
) -> None:
    account = await funded(store, credit=RICH)
    key = await limited(store, account, per_day=7 * PRICE + 1)
    free = await limited(store, account, per_day=RICH)
    names = [f"order-{number}" if keyed else None for number in range(MANY)]
    news = [order(key, idempotency_key=name) for name in names]
    others = [order(free), new_task(account), new_task(account)]
    told = await asyncio.gather(*map(store.submit, [*news, *others]), return_exceptions=True)
    assert sorted(kinds(told[:MANY])) == ["new"] * 7 + ["spend_limit_reached"] * (MANY - 7)
    assert kinds(told[MANY:]) == ["new"] * 3
    assert (await meter(store, key.id)).day_spent == 7 * PRICE
    assert (await store.balance(account)).reserved == 10 * PRICE
    assert await store.prove() == []


async def test_of_many_at_once_exactly_as_many_are_taken_as_the_bucket_of_the_rate_holds(
    store: Store,
) -> None:
    account = await funded(store, credit=RICH)
    key = await limited(store, account, per_minute=9)
    news = [order(key) for _ in range(MANY)]
    told = await asyncio.gather(*map(store.submit, news), return_exceptions=True)
    assert sorted(kinds(told)) == ["new"] * 9 + ["rate_limit_reached"] * (MANY - 9)
    assert await store.prove() == []


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "idempotent"])
async def test_of_many_at_once_exactly_as_many_are_taken_as_a_key_may_have_unfinished(
    store: Store, *, keyed: bool
) -> None:
    account = await funded(store, credit=RICH)
    key, other = [await limited(store, account, tasks=7) for _ in range(2)]
    names = [f"order-{number}" if keyed else None for number in range(MANY)]
    news = [order(key, idempotency_key=name) for name in names]
    others = [order(other), order(other), new_task(account)]
    told = await asyncio.gather(*map(store.submit, [*news, *others]), return_exceptions=True)
    assert sorted(kinds(told[:MANY])) == ["new"] * 7 + ["queue_full"] * (MANY - 7)
    assert kinds(told[MANY:]) == ["new"] * 3
    assert [(await meter(store, each.id)).unfinished for each in (key, other)] == [7, 2]
    assert await store.prove() == []


async def test_nodes_on_one_database_keep_to_what_a_key_may_have_unfinished(
    postgres: PostgresServer,
) -> None:
    async with fresh_database(postgres) as url:
        stores = [PostgresStore(url) for _ in range(3)]
        account = await funded(stores[0], credit=RICH)
        key = await limited(stores[0], account, tasks=9)
        told = await asyncio.gather(
            *(store.submit(order(key)) for _ in range(MANY) for store in stores),
            return_exceptions=True,
        )
        assert sorted(kinds(told)) == ["new"] * 9 + ["queue_full"] * (3 * MANY - 9)
        assert await stores[0].prove() == []
        for store in stores:
            await store.close()


async def test_however_a_task_of_a_key_ends_there_is_room_for_another(store: Store) -> None:
    account = await funded(store, credit=RICH)
    key = await limited(store, account, tasks=3)
    failing, done_well, cancelled = [order(key) for _ in range(3)]
    for new in (failing, done_well, cancelled):
        await store.submit(new)
    with pytest.raises(QueueFull, match="API key may have 3 unfinished tasks and has 3") as full:
        await store.submit(order(key))
    assert full.value.retry_after
    await store.fail(await taken(store, failing.id), WHY, now=NOW)
    await done(store, done_well.id, account, actual=PRICE)
    await store.cancel(cancelled.id, account_id=account, now=NOW)
    assert (await meter(store, key.id)).unfinished == 0
    names = ["a", None, "a", None, None]
    news = [order(key, idempotency_key=name) for name in names]
    assert kinds(await store.submit_batch(news)) == ["new", "new", "replay", "new", "queue_full"]
    assert await store.prove() == []


HOLD_METER = "SELECT 1 FROM key_meters WHERE key_id = $1 FOR UPDATE"
HOLD_NAME = (
    "INSERT INTO idempotency_keys (account_id, key, fingerprint, task_id, created_at) "
    "VALUES ($1, 'held', '', 1, 1)"
)


async def test_what_breaks_one_submission_is_told_to_no_other_that_went_with_it(
    postgres: PostgresServer,
) -> None:
    async with fresh_database(postgres) as url, closing_store(f"{url}?lock_timeout=200ms") as store:
        account = await funded(store, credit=RICH)
        held, free = [await limited(store, account, per_day=RICH) for _ in range(2)]
        news = [
            new_task(account),
            order(held),
            order(free),
            new_task(account, idempotency_key="held"),
            new_task(account, idempotency_key="free"),
            new_task(account),
        ]
        other = await asyncpg.connect(url)
        async with other.transaction():
            await other.execute(HOLD_METER, held.id)
            await other.execute(HOLD_NAME, account)
            told = await asyncio.gather(*map(store.submit, news), return_exceptions=True)
            await other.execute("DELETE FROM idempotency_keys WHERE key = 'held'")
        await other.close()
        broken = [isinstance(one, asyncpg.LockNotAvailableError) for one in told]
        assert broken == [False, True, False, True, False, False]
        written = [await store.task(new.id) is not None for new in news]
        assert written == [isinstance(one, Submitted) for one in told]
        assert written == [not each for each in broken]
        assert await store.prove() == []


@asynccontextmanager
async def closing_store(url: str) -> AsyncIterator[PostgresStore]:
    """The store at a URL."""
    store = PostgresStore(url)
    yield store
    await store.close()


async def test_a_batch_is_judged_one_by_one_in_its_order(store: Store) -> None:
    account = await funded(store, credit=RICH)
    key = await limited(store, account, per_day=10, per_minute=4)
    asked: list[tuple[int, str | None]] = [(4, "a"), (7, None), (4, "a"), (6, None), (1, None)]
    news = [
        order(key, price=price, idempotency_key=name, fingerprint=b"x") for price, name in asked
    ]
    no = "spend_limit_reached"
    assert kinds(await store.submit_batch(news)) == ["new", no, "replay", "new", no]
    free = [order(key, price=0) for _ in range(3)]
    assert kinds(await store.submit_batch(free)) == ["new", "new", "rate_limit_reached"]
    assert await store.prove() == []


async def test_what_is_refused_or_replayed_counts_nothing(store: Store) -> None:
    account = await funded(store, credit=3 * PRICE)
    key = await limited(store, account, per_day=RICH, per_minute=9)
    first = order(key, idempotency_key="order", fingerprint=b"x")
    await store.submit(first)
    before = await meter(store, key.id)
    again = order(key, idempotency_key="order", fingerprint=b"x")
    assert (await store.submit(again)).replayed
    with pytest.raises(InsufficientBalance):
        await store.submit(order(key, price=3 * PRICE))
    assert kinds(await store.submit_batch([order(key, price=3 * PRICE)])) == [
        "insufficient_balance"
    ]
    with pytest.raises(IdTaken):
        await store.submit(order(key, task_id=first.id))
    assert await meter(store, key.id) == before
    assert await store.prove() == []


async def test_a_limit_that_no_wait_can_lift_promises_nothing(store: Store) -> None:
    account = await funded(store, credit=RICH)
    key = await limited(store, account, per_day=PRICE, per_month=RICH)
    with pytest.raises(SpendLimitReached, match=r"0\.060000|0\.06 USDC") as refusal:
        await store.submit(order(key, price=2 * PRICE))
    assert refusal.value.retry_after is None


async def test_each_key_of_an_account_has_limits_of_its_own(store: Store) -> None:
    account = await funded(store, credit=RICH)
    one = await limited(store, account, per_day=PRICE)
    two = await limited(store, account, per_day=PRICE)
    await store.submit(order(one))
    with pytest.raises(SpendLimitReached):
        await store.submit(order(one))
    await store.submit(order(two))
    assert await store.prove() == []


async def test_a_task_that_fails_or_costs_less_gives_back_what_it_did_not_use(
    store: Store,
) -> None:
    account = await funded(store, credit=RICH)
    key = await limited(store, account, per_day=3 * PRICE, per_month=3 * PRICE)
    failing, cheaper, cancelled = [order(key) for _ in range(3)]
    for new in (failing, cheaper, cancelled):
        await store.submit(new)
    with pytest.raises(SpendLimitReached):
        await store.submit(order(key, price=1))

    await store.fail(await taken(store, failing.id), WHY, now=NOW)
    assert (await meter(store, key.id)).day_spent == 2 * PRICE
    await done(store, cheaper.id, account, actual=PRICE - 5)
    await store.cancel(cancelled.id, account_id=account, now=NOW)
    used = await meter(store, key.id)
    assert (used.day_spent, used.month_spent) == (PRICE - 5, PRICE - 5)
    assert await store.prove() == []


async def test_what_the_version_before_submitted_gives_nothing_back_to_a_key(
    store: Store,
) -> None:
    account = await funded(store, credit=RICH)
    key = await limited(store, account, per_day=2 * PRICE, per_month=2 * PRICE)
    await store.submit(order(key))
    uncounted = msgspec.structs.replace(order(key), metered=False)
    await store.submit(uncounted)
    assert await store.prove() == []
    await store.fail(await taken(store, uncounted.id), WHY, now=NOW)
    used = await meter(store, key.id)
    assert (used.day_spent, used.month_spent) == (PRICE, PRICE)
    assert await store.prove() == []


async def done(store: Store, task_id: int, account: int, *, actual: int) -> None:
    """The task succeeds and costs ``actual``."""
    task = await taken(store, task_id)
    number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=NOW)
    await store.complete(task, number, images=[image(account)], actual=actual, cost=None, now=NOW)


async def test_a_new_day_begins_at_nothing_and_gets_nothing_back_of_the_old_one(
    store: Store,
) -> None:
    account = await funded(store, credit=RICH)
    key = await limited(store, account, per_day=PRICE, per_month=2 * PRICE)
    evening = (NOW // DAY_MS + 1) * DAY_MS - 1500
    old = order(key, created_at=evening)
    await store.submit(old)
    with pytest.raises(SpendLimitReached, match="UTC day") as today:
        await store.submit(order(key, created_at=evening))
    assert today.value.retry_after == 2

    await store.submit(order(key, created_at=evening + 1500))
    await store.fail(await taken(store, old.id), WHY, now=evening + 2000)
    used = await meter(store, key.id)
    assert (used.day_spent, used.month_spent) == (PRICE, PRICE)
    assert await store.prove() == []


async def test_a_month_outlasts_its_days_and_ends_with_its_last(store: Store) -> None:
    account = await funded(store, credit=RICH)
    key = await limited(store, account, per_month=2 * PRICE)
    last = 1_767_225_600_000 - DAY_MS  # the last day of 2025
    for at in (last - DAY_MS, last):
        await store.submit(order(key, created_at=at))
    with pytest.raises(SpendLimitReached, match="UTC month") as refusal:
        await store.submit(order(key, created_at=last + 1))
    assert refusal.value.retry_after == DAY_MS // 1000
    await store.submit(order(key, created_at=last + DAY_MS))
    used = await meter(store, key.id)
    assert (used.day_spent, used.month_spent) == (PRICE, PRICE)
    assert await store.prove() == []


async def test_a_clock_that_is_late_at_midnight_cannot_bring_yesterday_back(store: Store) -> None:
    account = await funded(store, credit=RICH)
    key = await limited(store, account, per_day=2 * PRICE)
    midnight = (NOW // DAY_MS + 1) * DAY_MS
    await store.submit(order(key, created_at=midnight))
    late = await store.submit(order(key, created_at=midnight - 3))
    assert late.created_at == midnight
    with pytest.raises(SpendLimitReached):
        await store.submit(order(key, created_at=midnight - 3))
    with pytest.raises(SpendLimitReached):
        await store.submit(order(key, created_at=midnight))
    assert await store.prove() == []


async def test_after_a_burst_each_waits_for_its_share_of_a_minute(store: Store) -> None:
    account = await funded(store, credit=RICH)
    key = await limited(store, account, per_minute=4)

    async def at(moment: int) -> None:
        await store.submit(order(key, created_at=NOW + moment))

    for _ in range(4):
        await at(0)
    allowance = (await meter(store, key.id)).allowance(now=NOW)
    assert (allowance.remaining, allowance.seconds) == (0, 60)
    with pytest.raises(RateLimitReached) as refusal:
        await at(100)
    assert refusal.value.retry_after == 15
    await at(15_000)
    with pytest.raises(RateLimitReached):
        await at(29_999)
    for _ in range(2):
        await at(45_000)
    assert (await meter(store, key.id)).allowance(now=NOW + 75_000).remaining == 2


async def test_the_proof_tells_of_a_meter_that_its_tasks_do_not_make(store: Store) -> None:
    account = await funded(store, credit=RICH)
    key = await limited(store, account, per_day=RICH)
    await store.submit(order(key))
    statement = "UPDATE key_meters SET month_spent = month_spent + 1"
    if isinstance(store, SqliteStore):
        await store._write(lambda db: db.execute(statement).fetchall())
    else:
        assert isinstance(store, PostgresStore)
        await store._db.execute(statement)
    (told,) = await store.prove()
    sums = f"{PRICE} of its day and {PRICE + 1} of its month"
    assert told.endswith(f" has spent {sums}, its tasks come to {PRICE} and {PRICE}.")


async def test_what_was_used_of_all_keys_of_an_account_is_found_at_once(store: Store) -> None:
    ada, bob = await funded(store, credit=RICH), await funded(store, name="bob")
    first, second = [await limited(store, ada, per_day=RICH) for _ in range(2)]
    await limited(store, bob, per_day=RICH)
    await store.submit(order(second))
    found = {each.key_id: each for each in await store.usage.meters(ada)}
    assert found.keys() == {first.id, second.id}
    assert found[second.id] == await store.meter(second.id)
    assert found[second.id].day_spent == PRICE
