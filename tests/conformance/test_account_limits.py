"""What every store promises of an account's limits: none is passed, whoever submits for it."""

import asyncio

import msgspec
import pytest

from calotype.domain.errors import InsufficientBalance, QueueFull, RateLimitReached
from calotype.domain.limits import AccountLimits
from calotype.domain.task import NewTask
from calotype.store.port import Store, Submitted
from calotype.store.postgres import PostgresStore
from conformance.tasks import NOW, PRICE, funded, kinds, new_task
from postgres import PostgresServer, fresh_database

MANY = 50
RICH = 1000 * PRICE


def order(
    account: int, limits: AccountLimits, *, at: int = NOW, idempotency_key: str | None = None
) -> NewTask:
    """A task of an account that the settings limit so."""
    new = new_task(account, created_at=at, idempotency_key=idempotency_key)
    return msgspec.structs.replace(new, limits=limits)


def most(tasks: int) -> AccountLimits:
    """So many unfinished tasks."""
    return AccountLimits(tasks=tasks)


def rate(per_minute: int) -> AccountLimits:
    """So many tasks at once, and as many more with every minute."""
    return AccountLimits(per_minute=per_minute)


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "idempotent"])
@pytest.mark.parametrize(
    ("limits", "refusal"),
    [(most(7), "queue_full"), (rate(7), "rate_limit_reached")],
    ids=["tasks", "rate"],
)
async def test_of_many_at_once_exactly_as_many_are_taken_as_there_is_room_for(
    store: Store, limits: AccountLimits, refusal: str, *, keyed: bool
) -> None:
    account, other = await funded(store, credit=RICH), await funded(store, name="bob")
    names = [f"order-{number}" if keyed else None for number in range(MANY)]
    news = [order(account, limits, idempotency_key=name) for name in names]
    others = [order(other, limits) for _ in range(3)]
    told = await asyncio.gather(*map(store.submit, [*news, *others]), return_exceptions=True)
    assert sorted(kinds(told[:MANY])) == ["new"] * 7 + [refusal] * (MANY - 7)
    assert kinds(told[MANY:]) == ["new"] * 3
    assert (await store.balance(account)).reserved == 7 * PRICE
    assert await store.prove() == []


async def test_processes_on_one_database_keep_the_limits_together(
    postgres: PostgresServer,
) -> None:
    async with fresh_database(postgres) as url:
        stores = [PostgresStore(url) for _ in range(3)]
        account = await funded(stores[0], credit=RICH)
        told = await asyncio.gather(
            *(
                store.submit(order(account, AccountLimits(tasks=9, per_minute=40)))
                for _ in range(MANY)
                for store in stores
            ),
            return_exceptions=True,
        )
        assert sorted(kinds(told)) == ["new"] * 9 + ["queue_full"] * (3 * MANY - 9)
        assert await stores[0].prove() == []
        for store in stores:
            await store.close()


async def test_room_comes_back_when_a_task_ends(store: Store) -> None:
    account = await funded(store, credit=RICH)
    first = await store.submit(order(account, most(1)))
    with pytest.raises(QueueFull, match="1 unfinished tasks and has 1") as refusal:
        await store.submit(order(account, most(1)))
    assert refusal.value.retry_after
    await store.cancel(first.task_id, account_id=account, now=NOW)
    await store.submit(order(account, most(1)))
    assert await store.prove() == []


async def test_after_a_burst_each_task_waits_for_its_share_of_a_minute(store: Store) -> None:
    account = await funded(store, credit=RICH)

    async def at(moment: int) -> Submitted:
        return await store.submit(order(account, rate(4), at=NOW + moment))

    lefts = [(await at(0)).allowance for _ in range(4)]
    assert [(left.remaining, left.seconds) for left in lefts if left] == [
        (3, 15),
        (2, 30),
        (1, 45),
        (0, 60),
    ]
    with pytest.raises(RateLimitReached, match="This account may submit 4 tasks") as refusal:
        await at(100)
    assert refusal.value.retry_after == 15
    await at(15_000)
    with pytest.raises(RateLimitReached):
        await at(29_999)
    await at(30_000)


async def test_a_clock_that_was_ahead_stops_an_account_for_one_share_at_most(store: Store) -> None:
    account = await funded(store, credit=RICH)
    await store.submit(order(account, rate(4), at=NOW + 3_600_000))
    await store.submit(order(account, rate(4)))
    with pytest.raises(RateLimitReached) as refusal:
        await store.submit(order(account, rate(4)))
    assert refusal.value.retry_after == 15


@pytest.mark.parametrize("ahead", [0, 1000, 5000])
async def test_clocks_that_differ_let_through_no_more_than_the_share_of_their_difference(
    store: Store, ahead: int
) -> None:
    account, seconds, each = await funded(store, credit=RICH), 12, 2
    taken = []
    for at in range(NOW, NOW + seconds * 1000, 1000):
        for clock in (at, at + ahead) * each:
            news = [order(account, rate(60), at=clock) for _ in range(20)]
            taken += kinds(await asyncio.gather(*map(store.submit, news), return_exceptions=True))
    assert 60 + seconds - 1 <= taken.count("new") <= 60 + seconds - 1 + ahead // 1000


async def test_an_account_may_have_limits_of_its_own(store: Store) -> None:
    account = await funded(store, credit=RICH)
    strict = AccountLimits(tasks=1, per_minute=1)
    assert await store.set_limits(account, tasks=0, per_minute=3)
    told = [await store.submit(order(account, strict)) for _ in range(3)]
    assert [left.per_minute for each in told if (left := each.allowance)] == [3, 3, 3]
    with pytest.raises(RateLimitReached):
        await store.submit(order(account, strict))
    assert await store.set_limits(account, tasks=4, per_minute=0)
    await store.submit(order(account, strict))
    with pytest.raises(QueueFull):
        await store.submit(order(account, strict))
    found = await store.account(account)
    assert found is not None
    assert (found.max_tasks, found.per_minute) == (4, 0)
    assert await store.set_limits(account, tasks=None, per_minute=None)
    with pytest.raises(QueueFull, match="may have 1 unfinished"):
        await store.submit(order(account, strict))
    assert not await store.set_limits(account + 1000, tasks=1, per_minute=1)


async def test_what_is_refused_or_replayed_counts_nothing(store: Store) -> None:
    account = await funded(store, credit=2 * PRICE)
    first = order(account, rate(3), idempotency_key="a")
    await store.submit(first)
    again = order(account, rate(3), idempotency_key="a")
    assert (await store.submit(again)).replayed
    dear = msgspec.structs.replace(order(account, rate(3)), price=2 * PRICE)
    with pytest.raises(InsufficientBalance):
        await store.submit(dear)
    left = (await store.submit(order(account, rate(3)))).allowance
    assert left is not None
    assert left.remaining == 1
    full = order(account, most(2), idempotency_key="b")
    with pytest.raises(QueueFull):
        await store.submit(full)
    assert (await store.submit(order(account, most(2), idempotency_key="a"))).replayed


async def test_a_batch_is_judged_one_by_one_in_its_order(store: Store) -> None:
    account = await funded(store, credit=RICH)
    names = ["a", None, "a", None, None]
    news = [order(account, most(3), idempotency_key=name) for name in names]
    assert kinds(await store.submit_batch(news)) == ["new", "new", "replay", "new", "queue_full"]
    quick = [order(account, rate(2)) for _ in range(3)]
    assert kinds(await store.submit_batch(quick)) == ["new", "new", "rate_limit_reached"]
    assert await store.prove() == []


async def test_a_batch_whose_requests_came_over_a_moment_is_judged_by_its_last(
    store: Store,
) -> None:
    account = await funded(store, credit=RICH)
    news = [order(account, rate(60_000), at=NOW + number) for number in range(20)]
    assert kinds(await store.submit_batch(news)) == ["new"] * 20
