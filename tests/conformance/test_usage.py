"""What was used is counted by day as tasks end, and the ledger shows what was left after each."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.domain.errors import failure
from calotype.domain.ids import IdSource
from calotype.domain.money import EntryKind
from calotype.domain.task import Asset, AttemptState, Event, State
from calotype.store.port import Store
from calotype.store.postgres import PostgresStore
from calotype.store.sqlite import SqliteStore
from calotype.store.usage import LedgerLine, Tally, UsageRow, ledger_lines
from conformance.tasks import NOW, PRICE, funded, new_task, submitted, taken

DAY_MS = 86_400_000
DAY = NOW // DAY_MS
WHY = failure("upstream_failed", "It broke.")
_ids = IdSource(lambda: NOW)


async def ended(
    store: Store,
    account_id: int,
    *,
    state: State = State.SUCCESS,
    images: int = 1,
    model: str = "gpt-image-2",
    key_id: int = 1,
    at: int = NOW,
    cost: int | None = None,
) -> int:
    """A task that ended at a time."""
    new = msgspec.structs.replace(new_task(account_id, model=model), key_id=key_id)
    await store.submit(new)
    task = await taken(store, new.id)
    number = await store.begin_attempt(task, channel_id=7, event=Event.RUN, now=at)
    if state is State.SUCCESS:
        made = [
            Asset(_ids.next(), account_id, "results/x.png", "image/png", 10, 4, 3, at)
            for _ in range(images)
        ]
        await store.complete(task, number, images=made, actual=PRICE - 1, cost=cost, now=at)
    else:
        why = (number, AttemptState.FAILED)
        await store.fail(task, WHY, attempt=why, now=at, cost=cost)
    return new.id


async def everything_of(store: Store, account_id: int | None) -> list[UsageRow]:
    rows = await store.usage.days(account_id=account_id, first_day=0, last_day=DAY + 99)
    return list(rows)


def row(account_id: int, **changes: int | str) -> UsageRow:
    base = UsageRow(account_id=account_id, day=DAY, key_id=1, model="gpt-image-2", channel_id=7)
    return msgspec.structs.replace(base, **changes)


async def test_tasks_are_counted_on_the_utc_day_of_their_end(store: Store) -> None:
    ada, bob = await funded(store), await funded(store, name="bob")
    midnight = (DAY + 1) * DAY_MS
    await ended(store, ada, images=2, cost=11_000)
    await ended(store, ada, images=3, at=midnight - 1, cost=9_000)
    await ended(store, ada, state=State.FAIL, at=midnight, cost=500)
    await ended(store, ada, model="flux-2", key_id=2)
    await ended(store, bob)
    await submitted(store, bob)  # has not ended
    spent = PRICE - 1
    flux = row(ada, key_id=2, model="flux-2", succeeded=1, images=1, spent=spent)
    today = row(ada, succeeded=2, images=5, spent=2 * spent, cost=20_000)
    tomorrow = row(ada, day=DAY + 1, failed=1, cost=500)
    bobs = row(bob, succeeded=1, images=1, spent=spent)
    assert await everything_of(store, ada) == [today, flux, tomorrow]
    assert await everything_of(store, bob) == [bobs]
    assert await everything_of(store, None) == [today, flux, bobs, tomorrow]
    usage = store.usage
    assert await usage.days(account_id=ada, first_day=DAY + 1, last_day=DAY + 1) == [tomorrow]
    assert await usage.days(account_id=None, first_day=DAY + 2, last_day=DAY + 9) == []
    assert await store.prove() == []


async def test_totals_sum_up_by_what_is_asked_for(store: Store) -> None:
    ada, bob = await funded(store), await funded(store, name="bob")
    await ended(store, ada, images=2)
    await ended(store, ada, model="flux-2", key_id=2, at=NOW + DAY_MS)
    await ended(store, bob, state=State.FAIL, key_id=3)
    spent = PRICE - 1
    two, one, none = Tally(1, 0, 2, spent), Tally(1, 0, 1, spent), Tally(0, 1)
    everyone: list[tuple[int | str, Tally]] = [(DAY, Tally(1, 1, 2, spent)), (DAY + 1, one)]
    totals, days = store.usage.totals, {"first_day": DAY, "last_day": DAY + 1}
    assert await totals("day", account_id=None, **days) == everyone
    assert await totals("day", account_id=ada, **days) == [(DAY, two), (DAY + 1, one)]
    by_model = await totals("model", account_id=ada, **days)
    assert by_model == [("flux-2", one), ("gpt-image-2", two)]
    assert await totals("key_id", account_id=None, **days) == [(1, two), (2, one), (3, none)]
    by_account = await totals("account_id", account_id=None, first_day=DAY, last_day=DAY)
    assert by_account == [(ada, two), (bob, none)]
    assert await totals("channel_id", account_id=bob, **days) == [(7, none)]
    of_ada = await store.usage.models_by_day(account_id=ada, **days)
    assert of_ada == [(DAY, "gpt-image-2", two), (DAY + 1, "flux-2", one)]
    of_all = await store.usage.models_by_day(account_id=None, first_day=DAY, last_day=DAY)
    assert of_all == [(DAY, "gpt-image-2", Tally(1, 1, 2, spent))]


async def test_the_ledger_shows_what_was_available_after_each_entry(store: Store) -> None:
    account = await funded(store, credit=10 * PRICE)
    await funded(store, credit=PRICE, name="bob")
    done = await ended(store, account)
    failed = await ended(store, account, state=State.FAIL)
    await store.book(account, EntryKind.ADJUST, -5, note="a correction", now=NOW + 9)
    await submitted(store, account)
    lines = await store.usage.entries(account, limit=99)
    left = 10 * PRICE - (PRICE - 1)
    assert [(line.kind, line.change, line.available) for line in lines] == [
        (EntryKind.RESERVE, -PRICE, left - 5 - PRICE),
        (EntryKind.ADJUST, -5, left - 5),
        (EntryKind.RELEASE, PRICE, left),
        (EntryKind.RESERVE, -PRICE, left - PRICE),
        (EntryKind.RELEASE, 1, left),
        (EntryKind.COMMIT, 0, left - 1),
        (EntryKind.RESERVE, -PRICE, 9 * PRICE),
        (EntryKind.CREDIT, 10 * PRICE, 10 * PRICE),
    ]
    assert [line.task_id for line in lines[2:]] == [*[failed] * 2, *[done] * 3, None]
    assert (lines[1].note, lines[1].created_at) == ("a correction", NOW + 9)
    assert lines[0].available == (await store.balance(account)).available
    paged: list[LedgerLine] = []
    while page := await store.usage.entries(
        account, before=paged[-1].cursor if paged else None, limit=3
    ):
        paged += page
    assert paged == lines
    assert lines[-1].cursor.available == 0


@given(
    st.lists(
        st.tuples(st.sampled_from([EntryKind.CREDIT, EntryKind.ADJUST]), st.integers(1, 99)),
        max_size=9,
    )
)
def test_before_the_first_entry_nothing_was_available(
    entries: list[tuple[EntryKind, int]],
) -> None:
    rows = [
        (10 - place, kind, amount, None, "", NOW) for place, (kind, amount) in enumerate(entries)
    ]
    lines = ledger_lines(rows, sum(amount for _, amount in entries))
    assert sum(line.change for line in lines) == sum(amount for _, amount in entries)
    assert not lines or lines[-1].cursor.available == 0


@pytest.mark.parametrize("column", ["succeeded", "failed", "images", "spent"])
async def test_the_proof_finds_a_day_that_says_something_else(store: Store, column: str) -> None:
    account = await funded(store)
    await ended(store, account)
    change = f"UPDATE usage_days SET {column} = {column} + 1"  # noqa: S608 -- the columns above
    if isinstance(store, SqliteStore):
        await store._write(lambda db: db.execute(change))
    else:
        assert isinstance(store, PostgresStore)
        await store._db.execute(change)
    (fault,) = await store.prove()
    assert "The usage of 'ada' by day sums to" in fault
