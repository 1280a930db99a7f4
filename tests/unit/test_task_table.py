"""The transition table: states only go forward, and money ends exactly where a task ends."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.domain.money import EntryKind
from calotype.domain.task import FINAL, OPEN_ATTEMPT, TRANSITIONS, AttemptState, Event, State

RANK = {
    State.WAITING: 0,
    State.QUEUING: 1,
    State.GENERATING: 2,
    State.SUCCESS: 3,
    State.FAIL: 3,
}
STEPS = [
    (event, left, entered)
    for event, transition in TRANSITIONS.items()
    for left, entered in transition.enters.items()
]


def entered(state: State, event: Event) -> State | None:
    """The life of a task told once more, in words of its own: None where nothing may happen."""
    if state in FINAL:
        return None
    if event is Event.FAIL:
        return State.FAIL
    if state is State.WAITING:
        return State.QUEUING if event is Event.TAKE else None
    if event is Event.COMPLETE:
        return State.SUCCESS
    return State.GENERATING if event is Event.RUN else state


def test_the_table_says_what_the_diagram_says() -> None:
    assert {
        (event, state): TRANSITIONS[event].enters.get(state) for event in Event for state in State
    } == {(event, state): entered(state, event) for event in Event for state in State}


def test_every_event_has_its_row_and_every_state_its_rank() -> None:
    assert set(TRANSITIONS) == set(Event)
    assert set(RANK) == set(State)


@pytest.mark.parametrize(("event", "left", "then"), STEPS)
def test_no_event_leads_back(event: Event, left: State, then: State) -> None:
    assert RANK[then] >= RANK[left], event


@pytest.mark.parametrize("final", sorted(FINAL))
def test_a_final_state_has_no_exit(final: State) -> None:
    assert [event for event in Event if final in TRANSITIONS[event].leaves] == []


@pytest.mark.parametrize("state", [state for state in State if state not in FINAL])
def test_from_every_other_state_a_task_can_be_taken_up_and_can_fail(state: State) -> None:
    assert state in TRANSITIONS[Event.TAKE].leaves
    assert state in TRANSITIONS[Event.FAIL].leaves


def test_what_nobody_took_up_cannot_succeed_or_advance() -> None:
    assert {event for event in Event if State.WAITING in TRANSITIONS[event].leaves} == {
        Event.TAKE,
        Event.FAIL,
    }


@pytest.mark.parametrize("event", Event)
def test_an_event_settles_exactly_when_it_is_the_last(event: Event) -> None:
    transition = TRANSITIONS[event]
    ends = {state in FINAL for state in transition.enters.values()}
    assert len(ends) == 1, "an event either always ends a task or never does"
    assert (transition.settles is not None) == ends.pop()


def test_success_commits_and_failure_releases() -> None:
    settled = {
        transition.settles: set(transition.enters.values())
        for transition in TRANSITIONS.values()
        if transition.settles is not None
    }
    assert settled == {EntryKind.COMMIT: {State.SUCCESS}, EntryKind.RELEASE: {State.FAIL}}


def test_every_state_but_the_first_can_be_entered() -> None:
    assert {then for _, left, then in STEPS if then is not left} == set(State) - {State.WAITING}


def test_an_attempt_is_open_while_it_may_still_bring_an_image() -> None:
    assert frozenset({AttemptState.SENDING, AttemptState.ACCEPTED}) == OPEN_ATTEMPT
    assert set(AttemptState) - OPEN_ATTEMPT == {
        AttemptState.DONE,
        AttemptState.REFUSED,
        AttemptState.FAILED,
        AttemptState.UNKNOWN,
    }


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_whatever_happens_a_task_goes_forward_ends_once_and_settles_once(
    events: list[Event],
) -> None:
    state, history, settled = State.WAITING, [State.WAITING], list[EntryKind]()
    for event in events:
        transition = TRANSITIONS[event]
        assert transition.enters.get(state) == entered(state, event)
        if state not in transition.leaves:
            continue
        state = transition.enters[state]
        history.append(state)
        if transition.settles is not None:
            settled.append(transition.settles)
    assert all(RANK[before] <= RANK[after] for before, after in pairwise(history))
    assert sum(each in FINAL for each in history) <= 1
    assert len(settled) == (state in FINAL)
