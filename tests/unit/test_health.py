"""Circuit breakers open on rates, hold, and are tried by real traffic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.domain.health import (
    LONGEST_BUSY_MS,
    RULES,
    TRIALS,
    WHOLE,
    WINDOW_MS,
    Breakers,
    Happening,
)
from calotype.domain.outcomes import Fault

NOW = 1_760_000_000_000
CHANNEL, MODEL = 10, "gpt-image-2"

opening = pytest.mark.parametrize("fault", list(RULES))


def opened(fault: Fault) -> Breakers:
    breakers = Breakers()
    for _ in range(RULES[fault].least):
        breakers.note(CHANNEL, MODEL, fault, now=NOW)
    return breakers


@opening
def test_one_fault_opens_nothing(fault: Fault) -> None:
    breakers = Breakers()
    assert breakers.note(CHANNEL, MODEL, fault, now=NOW) == []
    assert breakers.opens_at(CHANNEL, MODEL, now=NOW) == NOW


@opening
def test_enough_faults_of_a_minute_open_it_for_its_hold(fault: Fault) -> None:
    rule = RULES[fault]
    breakers = opened(fault)
    assert breakers.opens_at(CHANNEL, MODEL, now=NOW) == NOW + rule.hold_ms
    (health,) = breakers.open()
    assert (health.fault, health.until, health.strikes) == (fault, NOW + rule.hold_ms, 0)
    assert health.model == (WHOLE if rule.whole else MODEL)


@opening
def test_only_a_fault_of_the_channel_closes_its_other_models(fault: Fault) -> None:
    breakers = opened(fault)
    shut = breakers.opens_at(CHANNEL, "flux-2-pro", now=NOW) > NOW
    assert shut == RULES[fault].whole
    assert breakers.opens_at(11, MODEL, now=NOW) == NOW


@opening
def test_faults_that_lie_apart_open_nothing(fault: Fault) -> None:
    breakers = Breakers()
    for place in range(5 * RULES[fault].least):
        at = NOW + place * WINDOW_MS
        assert breakers.note(CHANNEL, MODEL, fault, now=at) == []


@opening
def test_a_few_faults_among_many_successes_open_nothing(fault: Fault) -> None:
    breakers = Breakers()
    for place in range(200):
        bad = place % 3 == 0
        assert breakers.note(CHANNEL, MODEL, fault if bad else None, now=NOW) == []


@pytest.mark.parametrize("fault", [Fault.REQUEST, Fault.POLICY])
def test_a_refused_request_says_that_the_channel_is_alive(fault: Fault) -> None:
    breakers = Breakers()
    for _ in range(100):
        assert breakers.note(CHANNEL, MODEL, fault, now=NOW) == []
    assert breakers.share(CHANNEL, MODEL, now=NOW) == 1


@opening
def test_after_the_hold_a_few_sends_try_it(fault: Fault) -> None:
    breakers = opened(fault)
    later = NOW + RULES[fault].hold_ms
    for _ in range(TRIALS):
        assert breakers.opens_at(CHANNEL, MODEL, now=later) == later
        breakers.begin(CHANNEL, MODEL, now=later)
    assert breakers.opens_at(CHANNEL, MODEL, now=later) > later


@opening
def test_trials_that_told_nothing_are_followed_by_others_after_one_more_hold(fault: Fault) -> None:
    breakers = opened(fault)
    later = NOW + RULES[fault].hold_ms
    for _ in range(TRIALS):
        breakers.begin(CHANNEL, MODEL, now=later)
    much_later = breakers.opens_at(CHANNEL, MODEL, now=later)
    assert much_later == later + RULES[fault].hold_ms
    breakers.begin(CHANNEL, MODEL, now=much_later)
    assert breakers.opens_at(CHANNEL, MODEL, now=much_later) == much_later


@opening
def test_a_good_trial_closes_it(fault: Fault) -> None:
    breakers = opened(fault)
    later = NOW + RULES[fault].hold_ms
    (change,) = breakers.note(CHANNEL, MODEL, None, now=later)
    assert change.happening is Happening.CLOSED
    assert breakers.open() == []
    assert breakers.share(CHANNEL, MODEL, now=later) == 1


@opening
def test_a_bad_trial_opens_it_for_twice_as_long_up_to_a_limit(fault: Fault) -> None:
    rule = RULES[fault]
    breakers = opened(fault)
    now = NOW + rule.hold_ms
    for strikes in range(1, 12):
        (change,) = breakers.note(CHANNEL, MODEL, fault, now=now)
        assert change.health.strikes == strikes
        assert change.health.until - now == min(rule.longest_ms, rule.hold_ms * 2**strikes)
        assert change.health.opened_at == NOW
        now = change.health.until


@opening
def test_what_was_sent_before_it_opened_changes_nothing(fault: Fault) -> None:
    breakers = opened(fault)
    assert breakers.note(CHANNEL, MODEL, None, now=NOW + 1) == []
    assert breakers.note(CHANNEL, MODEL, fault, now=NOW + 1) == []
    assert breakers.opens_at(CHANNEL, MODEL, now=NOW + 1) == NOW + RULES[fault].hold_ms


def test_acceptance_does_not_excuse_an_upstream_that_fails_at_the_work() -> None:
    breakers = opened(Fault.UPSTREAM)
    later = NOW + RULES[Fault.UPSTREAM].hold_ms
    assert breakers.note_accepted(CHANNEL, MODEL, begun=later, now=later) == []
    assert len(breakers.open()) == 1


@pytest.mark.parametrize("fault", [Fault.BUSY, Fault.MODEL, Fault.KEY, Fault.UNREACHABLE])
def test_acceptance_closes_what_was_refused_before(fault: Fault) -> None:
    breakers = opened(fault)
    later = NOW + RULES[fault].hold_ms
    assert len(breakers.note_accepted(CHANNEL, MODEL, begun=later, now=later)) == 1
    assert breakers.open() == []


def test_sends_from_before_it_opened_are_no_trials() -> None:
    breakers = opened(Fault.UPSTREAM)
    later = NOW + RULES[Fault.UPSTREAM].hold_ms
    for _ in range(5):
        assert breakers.note(CHANNEL, MODEL, Fault.UPSTREAM, begun=NOW - 1, now=later) == []
    (health,) = breakers.open()
    assert (health.strikes, health.until) == (0, later)


def test_the_end_of_an_old_job_says_nothing_of_a_key_that_is_bad_by_now() -> None:
    breakers = opened(Fault.KEY)
    later = NOW + RULES[Fault.KEY].hold_ms
    assert breakers.note_ended(CHANNEL, MODEL, None, begun=NOW - 1, now=later) == []
    assert len(breakers.open()) == 1


def test_accepted_and_done_count_once_for_the_channel() -> None:
    breakers = Breakers()
    for _ in range(3):
        breakers.note_accepted(CHANNEL, MODEL, begun=NOW, now=NOW)
        breakers.note_ended(CHANNEL, MODEL, None, begun=NOW, now=NOW)
    for _ in range(3):
        breakers.note(CHANNEL, MODEL, Fault.KEY, now=NOW)
    assert len(breakers.open()) == 1


def test_what_lies_in_ourselves_says_nothing() -> None:
    breakers = Breakers()
    for _ in range(100):
        assert breakers.note(CHANNEL, MODEL, Fault.OURS, now=NOW) == []
    assert breakers.share(CHANNEL, MODEL, now=NOW) == 1


def test_a_channel_that_is_another_one_now_begins_anew() -> None:
    breakers = opened(Fault.KEY)
    breakers.hold(CHANNEL, MODEL, until=NOW + 9_000, now=NOW)
    breakers.forget(CHANNEL)
    assert breakers.opens_at(CHANNEL, MODEL, now=NOW) == NOW


def test_the_upstreams_wish_for_patience_is_heeded_within_reason() -> None:
    breakers = Breakers()
    breakers.hold(CHANNEL, MODEL, until=NOW + 7_000, now=NOW)
    assert breakers.opens_at(CHANNEL, MODEL, now=NOW) == NOW + 7_000
    assert breakers.opens_at(CHANNEL, "flux-2-pro", now=NOW) == NOW
    breakers.hold(CHANNEL, MODEL, until=NOW + 86_400_000, now=NOW)
    assert breakers.opens_at(CHANNEL, MODEL, now=NOW) == NOW + LONGEST_BUSY_MS


def test_the_share_falls_with_faults_and_never_to_nothing() -> None:
    breakers = Breakers()
    shares = []
    for _ in range(RULES[Fault.BUSY].least - 1):
        breakers.note(CHANNEL, MODEL, Fault.BUSY, now=NOW)
        shares.append(breakers.share(CHANNEL, MODEL, now=NOW))
    assert shares == sorted(shares, reverse=True)
    assert 0 < shares[-1] < 0.2


def test_what_other_processes_know_is_taken_over() -> None:
    here, there = Breakers(), opened(Fault.KEY)
    here.adopt(there.open(), now=NOW)
    assert here.opens_at(CHANNEL, MODEL, now=NOW) == NOW + RULES[Fault.KEY].hold_ms
    here.adopt([], now=NOW + 60_000)
    assert here.open() == []


def test_what_this_process_has_just_opened_is_not_forgotten_for_others_ignorance() -> None:
    breakers = opened(Fault.KEY)
    breakers.adopt([], now=NOW + 1_000)
    assert len(breakers.open()) == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, *Fault]), st.sampled_from(["a", "b"]), st.integers(0, 30_000)
        ),
        max_size=120,
    )
)
def test_whatever_happens_a_breaker_opens_again_in_the_end(
    story: list[tuple[Fault | None, str, int]],
) -> None:
    breakers, now = Breakers(), NOW
    longest = max(rule.longest_ms for rule in RULES.values())
    for fault, model, pause in story:
        now += pause
        if breakers.opens_at(CHANNEL, model, now=now) <= now:
            breakers.begin(CHANNEL, model, now=now)
            breakers.note(CHANNEL, model, fault, now=now)
        for each in ("a", "b"):
            assert now <= breakers.opens_at(CHANNEL, each, now=now) <= now + 2 * longest
            assert 0 < breakers.share(CHANNEL, each, now=now) <= 1
