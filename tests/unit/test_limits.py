"""The limits of a key: which day and month a time is in, and what the rate lets through."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.domain.errors import RateLimitReached
from calotype.domain.limits import DAY_MS, MAX_PER_MINUTE, Meter, day_of, month_of

NOW = 1_760_000_000_000
rates = st.integers(1, MAX_PER_MINUTE)


def meter(per_minute: int) -> Meter:
    """Of a key with a rate alone, never used."""
    return Meter(1, None, None, per_minute, None)


def taken(before: Meter, at: int) -> Meter | None:
    """The meter after a submission; None when it was too soon."""
    try:
        return before.charged(0, now=at)
    except RateLimitReached:
        return None


@given(st.datetimes(datetime(1970, 1, 1), datetime(2999, 1, 1)))  # noqa: DTZ001 -- made UTC below
def test_days_and_months_are_those_of_utc(moment: datetime) -> None:
    at = int(moment.replace(tzinfo=UTC).timestamp() * 1000)
    assert datetime.fromtimestamp(day_of(at) * DAY_MS / 1000, UTC).date() == moment.date()
    assert divmod(month_of(at), 12) == (moment.year, moment.month - 1)


@given(rates.filter(lambda rate: rate < 1000), st.lists(st.integers(0, 90_000), max_size=40))
def test_no_span_of_time_lets_through_more_than_a_burst_and_its_share(
    per_minute: int, pauses: list[int]
) -> None:
    state, at, accepted = meter(per_minute), NOW, list[int]()
    for pause in [*pauses, *[0] * (2 * per_minute)]:
        at += pause
        if (after := taken(state, at)) is not None:
            state = after
            accepted.append(at)
    for place, first in enumerate(accepted):
        for last_place in (place, len(accepted) - 1):
            number = last_place - place + 1
            assert number <= per_minute + (accepted[last_place] - first) * per_minute / 60_000


@given(rates)
def test_a_full_bucket_may_come_at_once_and_not_one_more(per_minute: int) -> None:
    share = -(-60_000_000 // per_minute)
    nearly = Meter(1, None, None, per_minute, None, free_at=NOW * 1000 + (per_minute - 1) * share)
    full = nearly.charged(0, now=NOW)
    assert full.allowance(now=NOW).remaining == 0
    assert taken(full, NOW) is None
    assert meter(per_minute).allowance(now=NOW).remaining == per_minute


@pytest.mark.parametrize("per_minute", [1, 7, 60, 600])
def test_a_minute_that_begins_with_a_full_bucket_takes_twice_as_many_less_one(
    per_minute: int,
) -> None:
    state, accepted = meter(per_minute), 0
    share = -(-60_000_000 // per_minute)
    for place in range(per_minute):  # whenever there is room for one more
        at = NOW + -(-place * share // 1000)
        assert at < NOW + 60_000
        while (after := taken(state, at)) is not None:
            state, accepted = after, accepted + 1
    assert accepted == 2 * per_minute - 1


@given(rates, st.integers(1, 365 * DAY_MS))
def test_a_clock_that_was_far_ahead_costs_a_key_its_bucket_and_no_more(
    per_minute: int, ahead: int
) -> None:
    share = -(-60_000_000 // per_minute)
    wrong = meter(per_minute).charged(0, now=NOW + 120_100 + ahead)
    assert wrong.allowance(now=NOW).remaining == 1
    right = taken(wrong, NOW)
    assert right is not None
    assert right.free_at == NOW * 1000 + per_minute * share
    assert taken(right, NOW) is None
    assert taken(right, NOW + -(-share // 1000)) is not None


@given(rates, st.integers(0, 60_000))
def test_who_waits_as_long_as_was_said_is_taken(per_minute: int, later: int) -> None:
    share = -(-60_000_000 // per_minute)
    full = Meter(1, None, None, per_minute, None, free_at=NOW * 1000 + per_minute * share)
    wait = 0
    try:
        full.charged(0, now=NOW + later)
    except RateLimitReached as refusal:
        wait = refusal.retry_after or 0
    assert taken(full, NOW + later + wait * 1000) is not None
    allowance = full.allowance(now=NOW + later)
    assert full.allowance(now=NOW + later + allowance.seconds * 1000).remaining == per_minute
