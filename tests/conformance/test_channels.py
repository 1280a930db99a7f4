"""What stores remember of channels: the times at which they may be sent to, and their health."""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.domain.health import Health
from calotype.store.port import ChannelEvent, Store
from calotype.store.postgres import PostgresStore
from calotype.store.sqlite import SqliteStore
from postgres import fresh_database

NOW = 1_760_000_000_000
MINUTE = 60_000
MODEL = "gpt-image-2"


@pytest.fixture(params=["sqlite", "postgres"])
async def processes(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Sequence[Store]]:
    """Two stores on one database, as two processes have them."""
    stores: list[Store]
    if request.param == "sqlite":
        stores = [SqliteStore(tmp_path / "calotype.db") for _ in range(2)]
        await stores[0].migrate()
        yield stores
        for store in stores:
            await store.close()
    else:
        async with fresh_database(request.getfixturevalue("postgres")) as url:
            stores = [PostgresStore(url) for _ in range(2)]
            yield stores
            for store in stores:
                await store.close()


@pytest.fixture(params=["sqlite", "postgres"])
def driven(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[asyncio.Runner, Store]]:
    """A store, and the loop in which a test that is no coroutine drives it."""
    with asyncio.Runner() as runner:
        if request.param == "sqlite":
            sqlite = SqliteStore(tmp_path / "calotype.db")
            runner.run(sqlite.migrate())
            yield runner, sqlite
            runner.run(sqlite.close())
        else:
            database = fresh_database(request.getfixturevalue("postgres"))
            store = PostgresStore(runner.run(database.__aenter__()))
            yield runner, store
            runner.run(store.close())
            runner.run(database.__aexit__(None, None, None))


# Slots


def fullest_minute_around(slot: int, slots: Sequence[int]) -> int:
    """How many of the (ascending) times lie in the fullest 60 seconds that hold this one."""
    starts = [slot, *(at for at in slots if slot - MINUTE < at < slot)]
    return max(bisect_left(slots, start + MINUTE) - bisect_left(slots, start) for start in starts)


clocks = st.integers(0, 4 * MINUTE)
rates = st.integers(1, 6)
_channels = count(1)


def test_no_minute_holds_more_slots_than_the_rate_whatever_the_clocks_say(
    driven: tuple[asyncio.Runner, Store],
) -> None:
    runner, store = driven

    @settings(max_examples=60, deadline=None)
    @given(rate=rates, times=st.lists(clocks, min_size=1, max_size=25))
    def slots_of(rate: int, times: list[int]) -> None:
        channel, reserved = next(_channels), list[int]()
        for now in times:
            slot = runner.run(store.next_slot(channel, per_minute=rate, now=NOW + now))
            full = len(reserved) >= rate
            assert slot == max(NOW + now, reserved[-rate] + MINUTE if full else 0)
            reserved = sorted([*reserved, slot])
            assert fullest_minute_around(slot, reserved) <= rate

    slots_of()


def test_a_rate_that_changes_holds_from_the_next_slot_on(
    driven: tuple[asyncio.Runner, Store],
) -> None:
    runner, store = driven

    @settings(max_examples=80, deadline=None)
    @given(asked=st.lists(st.tuples(rates, clocks, st.integers(0, MINUTE)), max_size=25))
    def slots_of(asked: list[tuple[int, int, int]]) -> None:
        channel, reserved = next(_channels), list[int]()
        for rate, now, patience in asked:
            slot = runner.run(
                store.next_slot(
                    channel, per_minute=rate, now=NOW + now, before=NOW + now + patience
                )
            )
            assert slot >= NOW + now
            if slot <= NOW + now + patience:
                reserved = sorted([*reserved, slot])
                assert fullest_minute_around(slot, reserved) <= rate

    slots_of()


async def test_a_slot_that_is_too_late_is_told_and_left_to_others(store: Store) -> None:
    assert await store.next_slot(7, per_minute=1, now=NOW) == NOW
    for _ in range(3):
        slot = await store.next_slot(7, per_minute=1, now=NOW, before=NOW + MINUTE - 1)
        assert slot == NOW + MINUTE
    assert await store.next_slot(7, per_minute=1, now=NOW, before=NOW + MINUTE) == NOW + MINUTE
    assert await store.next_slot(7, per_minute=1, now=NOW) == NOW + 2 * MINUTE
    assert await store.next_slot(8, per_minute=1, now=NOW, before=NOW - 1) == NOW
    assert await store.next_slot(8, per_minute=1, now=NOW) == NOW


async def test_a_machine_whose_clock_is_ahead_holds_nobody_up_while_there_is_room(
    store: Store,
) -> None:
    ahead = NOW + 10 * MINUTE
    assert await store.next_slot(7, per_minute=3, now=ahead) == ahead
    assert await store.next_slot(7, per_minute=3, now=NOW) == NOW
    assert await store.next_slot(7, per_minute=3, now=NOW) == NOW
    assert await store.next_slot(7, per_minute=3, now=NOW) == NOW + MINUTE


async def test_a_rate_that_is_raised_gives_room_at_once(store: Store) -> None:
    for at in (0, 10):
        assert await store.next_slot(7, per_minute=2, now=NOW + at) == NOW + at
    assert await store.next_slot(7, per_minute=2, now=NOW + 20, before=NOW + 20) == NOW + MINUTE
    assert await store.next_slot(7, per_minute=3, now=NOW + 20) == NOW + 20


async def test_processes_that_ask_at_once_share_the_minute(processes: Sequence[Store]) -> None:
    slots = await asyncio.gather(
        *(
            store.next_slot(channel, per_minute=5, now=NOW)
            for _ in range(10)
            for store in processes
            for channel in (7, 8)
        )
    )
    expected = [NOW + minute * MINUTE for minute in range(4) for _ in range(5)]
    assert sorted(slots) == sorted(expected * 2)


# Health


def health(
    *,
    at: int,
    until: int,
    fault: str = "busy",
    model: str = "",
    strikes: int = 0,
    detail: str = "",
) -> Health:
    return Health(
        channel_id=7,
        model=model,
        fault=fault,
        until=NOW + until,
        strikes=strikes,
        opened_at=NOW,
        updated_at=NOW + at,
        detail=detail,
    )


async def happened(store: Store) -> list[tuple[str, str, int]]:
    events = await store.channel_events(since=0, limit=100)
    return [(event.event, event.fault, event.at - NOW) for event in reversed(events)]


async def test_every_process_knows_which_breakers_are_open(processes: Sequence[Store]) -> None:
    one, other = processes
    whole = health(at=0, until=10, fault="key", detail="401 invalid_api_key")
    model = health(at=1, until=20, model=MODEL, strikes=2)
    await one.note_health(model)
    await one.note_health(whole)
    assert await other.health() == [whole, model]
    await other.clear_health(7, "", now=NOW + 11)
    assert await one.health() == [model]


async def test_a_breaker_opens_once_however_many_processes_say_so(
    processes: Sequence[Store],
) -> None:
    await asyncio.gather(
        *(
            store.note_health(health(at=at, until=1_000 + at))
            for at in range(10)
            for store in processes
        )
    )
    assert len(await happened(processes[0])) == 1
    assert await processes[1].health() == [health(at=9, until=1_009)]


async def test_later_news_stay_whoever_writes_last(store: Store) -> None:
    await store.note_health(health(at=5, until=50, strikes=3))
    await store.note_health(health(at=4, until=400, strikes=1))
    assert await store.health() == [health(at=5, until=50, strikes=3)]
    await store.clear_health(7, "", now=NOW + 4)
    assert await store.health() == [health(at=5, until=50, strikes=3)]
    await store.clear_health(7, "", now=NOW + 6)
    await store.note_health(health(at=5, until=500))
    assert await store.health() == []
    assert await happened(store) == [("opened", "busy", 5), ("closed", "busy", 6)]
    await store.note_health(health(at=7, until=70))
    assert await store.health() == [health(at=7, until=70)]


async def test_what_was_well_all_the_time_is_no_event(store: Store) -> None:
    await store.clear_health(7, MODEL, now=NOW)
    await store.clear_health(7, MODEL, now=NOW + 1)
    assert await store.health() == []
    assert await happened(store) == []


async def test_a_breaker_that_opens_again_or_for_another_fault_is_an_event(store: Store) -> None:
    await store.note_health(health(at=0, until=10))
    await store.note_health(health(at=5, until=15))
    await store.note_health(health(at=6, until=15, fault="key"))
    await store.note_health(health(at=15, until=40, fault="key", strikes=1))
    await store.note_health(health(at=41, until=41, fault="key", strikes=1))
    await store.note_health(health(at=42, until=42, fault="key", strikes=1))
    await store.note_health(health(at=43, until=90, fault="key", strikes=2))
    await store.clear_health(7, "", now=NOW + 95)
    assert await happened(store) == [
        ("opened", "busy", 0),
        ("opened", "key", 6),
        ("opened", "key", 15),
        ("half-open", "key", 41),
        ("opened", "key", 43),
        ("closed", "key", 95),
    ]


async def test_events_are_read_newest_first_and_forgotten_oldest_first(store: Store) -> None:
    for at in range(4):
        await store.note_health(health(at=at, until=at + 1, model=MODEL, detail=f"no. {at}"))
    newest = ChannelEvent(7, MODEL, "opened", "busy", "no. 3", NOW + 3)
    assert (await store.channel_events(since=0, limit=1)) == [newest]
    assert [each.at for each in await store.channel_events(since=NOW + 2, limit=9)] == [
        NOW + 3,
        NOW + 2,
    ]
    assert await store.forget_channel_events(before=NOW + 3) == 3
    assert await store.forget_channel_events(before=NOW + 3) == 0
    assert (await store.channel_events(since=0, limit=9)) == [newest]
