"""Every protocol, every script, the whole way: what the tables say is what becomes of a task."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.money import EntryKind
from calotype.domain.task import AttemptState
from providers.bed import Bed, protocols
from providers.protocol import Expected, Protocol
from providers.scripts import Script
from providers.way import assert_went, gone
from services.bench import CREDIT, Bench

CASES = [
    pytest.param(protocol, script, id=f"{protocol.provider}-{script}")
    for protocol in protocols().values()
    for script in protocol.expected
]


@pytest.mark.parametrize(("protocol", "script"), CASES)
async def test_a_task_ends_as_the_table_says(
    protocol: Protocol, script: str, bed: Bed, bench: Bench
) -> None:
    expected = protocol.expected[script]
    async with bed.fake(script) as fake:
        went = await gone(bench, bed, fake)
    await assert_went(bench, went, expected)
    assert fake.purchases == expected.purchases
    assert len(went.seen.submitted) == (2 if expected.retried else 1)
    assert went.attempts[0].fault == expected.fault
    closed = [attempt.state for attempt in went.attempts]
    unsure = expected.code == "upstream_outcome_unknown" or expected.purchases > 1
    assert (AttemptState.UNKNOWN in closed) == unsure
    assert (AttemptState.DONE in closed) == expected.billed


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_no_sequence_of_faults_buys_twice_or_loses_money(
    protocol: Protocol, bed: Bed, bench: Bench, data: st.DataObject
) -> None:
    able = [script for script in protocol.expected if script != Script.SILENT]
    plan = data.draw(st.lists(st.sampled_from(able), min_size=1, max_size=4))
    # Nobody listens until the first send that arrives, so these can only come first.
    plan.sort(key=lambda script: script != Script.UNREACHABLE)
    await bench.store.book(bench.account_id, EntryKind.CREDIT, CREDIT, note="", now=bench.clock.now)
    async with bed.fake(*plan) as fake:
        went = await gone(bench, bed, fake)
    await assert_went(bench, went, outcome_of(protocol, plan))


def outcome_of(protocol: Protocol, plan: list[str]) -> Expected:
    """The first send that is not simply repeated decides."""
    for script in plan:
        expected = protocol.expected[script]
        if not expected.retried:
            return expected
    return protocol.expected[Script.ACCEPT]
