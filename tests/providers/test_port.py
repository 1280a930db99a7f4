"""Every protocol behind the port, without a runner: outcomes, credentials, second processes."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    Fault,
    Refused,
    Running,
    SourceError,
    TryLater,
    Unknown,
)
from calotype.domain.secret import Secret
from providers.bed import CALLBACK_URL, Bed, content, developed, followed, protocols
from providers.fakes.base import CALLBACK_SECRET, KEY, WAIT, image
from providers.fakes.exchange import Reply
from providers.protocol import Protocol
from providers.scripts import Script

SUBMITTED = Accepted | Done | Refused | TryLater | Failed | Unknown
POLLED = Running | Done | TryLater | Failed | Unknown
RECOVERED = Accepted | Done | TryLater | Unknown

ALL = list(protocols().values())
POLLING = [protocol for protocol in ALL if protocol.polls]
CANCELLING = [protocol for protocol in ALL if protocol.cancels]
CALLING_BACK = [protocol for protocol in ALL if Script.CALLBACK_TWICE in protocol.expected]
RECOVERING = [protocol for protocol in ALL if protocol.recovers]
SLOW = {Script.SILENT, Script.UNREACHABLE}
SCRIPTS = [
    pytest.param(protocol, script, id=f"{protocol.provider}-{script}")
    for protocol in ALL
    for script in protocol.expected
]


def able(script: str) -> list[Protocol]:
    """The protocols that can play a script."""
    return [protocol for protocol in ALL if script in protocol.expected]


def each(protocols: list[Protocol]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("protocol", protocols, ids=lambda each: each.provider)


# What the verbs return


@pytest.mark.parametrize(("protocol", "script"), SCRIPTS)
async def test_no_verb_raises_and_no_secret_is_told(
    protocol: Protocol, script: str, bed: Bed, caplog: pytest.LogCaptureFixture
) -> None:
    async with bed.fake(script) as fake:
        provider, job = bed.observed(fake), bed.job()
        submitted = await provider.submit(job)
        assert isinstance(submitted, SUBMITTED)
        seen: list[object] = [submitted, await provider.recover(job)]
        assert isinstance(seen[1], RECOVERED)
        if isinstance(submitted, Accepted):
            seen.append(await followed(provider, job, submitted.upstream_id))
            assert isinstance(seen[2], POLLED)
            stops = await provider.cancel(job, submitted.upstream_id)
            assert isinstance(stops, bool)
            assert protocol.cancels or not stops
    fake.assert_sound()
    for text in (repr(seen), caplog.text):
        assert KEY not in text
        assert CALLBACK_SECRET not in text


@each(able(Script.BUSY))
async def test_a_wait_that_the_upstream_asks_for_is_passed_on(bed: Bed) -> None:
    async with bed.fake(Script.BUSY) as fake:
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, TryLater)
    assert outcome.retry_after == WAIT


@each(able(Script.READ_BUSY))
async def test_a_wait_asked_for_at_a_question_is_passed_on(bed: Bed) -> None:
    async with bed.fake(Script.READ_BUSY) as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        outcome = await provider.poll(job, accepted.upstream_id)
    assert isinstance(outcome, TryLater)
    assert outcome.retry_after == WAIT


@each(able(Script.UNREACHABLE))
async def test_a_send_to_nobody_may_be_sent_again(bed: Bed) -> None:
    async with bed.fake(Script.UNREACHABLE) as fake:
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, TryLater)
    assert (fake.calls, outcome.code) == ([], "upstream_unavailable")


@each(ALL)
async def test_the_image_is_the_upstreams_byte_for_byte(bed: Bed) -> None:
    async with bed.fake() as fake:
        outcome = await developed(bed.provider(bed.channel(fake)), bed.job())
        assert isinstance(outcome, Done), outcome
        assert [await content(source) for source in outcome.images] == [image(0)]
    fake.assert_sound()


# Processes


@each(POLLING)
async def test_another_process_can_poll_by_the_id_alone(bed: Bed) -> None:
    async with bed.fake(Script.DELAY) as fake:
        job, channel = bed.job(), bed.channel(fake)
        accepted = await bed.provider(channel).submit(job)
        assert isinstance(accepted, Accepted)
        outcome = await followed(bed.provider(channel), job, accepted.upstream_id)
        assert isinstance(outcome, Done), outcome
        assert [await content(source) for source in outcome.images] == [image(0)]
    fake.assert_sound()


@each(RECOVERING)
@pytest.mark.parametrize("script", [Script.CUT_BEFORE, Script.CUT_WITHIN, Script.MALFORMED])
async def test_a_lost_answer_is_found_again_by_our_own_reference(bed: Bed, script: Script) -> None:
    async with bed.fake(script) as fake:
        job, channel = bed.job(), bed.channel(fake)
        assert isinstance(await bed.provider(channel).submit(job), Unknown)
        outcome = await bed.provider(channel).recover(job)
        if isinstance(outcome, Accepted):
            assert isinstance(await followed(bed.provider(channel), job, outcome.upstream_id), Done)
        else:
            assert isinstance(outcome, Done), outcome
    fake.assert_sound()
    assert fake.purchases == 1


@each(RECOVERING)
async def test_a_send_that_never_arrived_is_not_found(bed: Bed) -> None:
    async with bed.fake() as fake:
        outcome = await bed.provider(bed.channel(fake)).recover(bed.job())
    assert isinstance(outcome, TryLater), outcome


@each(CANCELLING)
async def test_a_cancelled_job_ends_as_cancelled(bed: Bed) -> None:
    async with bed.fake(Script.DELAY) as fake:
        job, provider = bed.job(), bed.provider(bed.channel(fake))
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        assert await provider.cancel(job, accepted.upstream_id) is True
        outcome = await followed(provider, job, accepted.upstream_id)
    assert isinstance(outcome, Failed), outcome
    assert outcome.code == "cancelled"
    fake.assert_sound()


# The credential


@each(able(Script.BAD_KEY))
async def test_another_key_is_refused(bed: Bed) -> None:
    async with bed.fake() as fake:
        channel = msgspec.structs.replace(bed.channel(fake), api_key=Secret("another"))
        outcome = await bed.provider(channel).submit(bed.job())
    assert isinstance(outcome, Refused), outcome
    assert (outcome.fault, fake.purchases) == (Fault.KEY, 0)


@each(able(Script.REDIRECTED))
async def test_no_redirect_is_followed(bed: Bed) -> None:
    async with bed.fake(Script.REDIRECTED, Script.READ_REDIRECTED) as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        assert isinstance(await provider.submit(job), Unknown)
        accepted = await provider.submit(job)
        if isinstance(accepted, Accepted):
            await followed(provider, job, accepted.upstream_id)
    fake.assert_sound()


# Callbacks


@each(CALLING_BACK)
async def test_a_callback_names_its_job_as_often_as_it_comes(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job(callback_url=CALLBACK_URL))
        assert isinstance(accepted, Accepted)
        (order,) = fake.bought
        asked = repr(order.call.query).encode() + order.call.body
        assert CALLBACK_URL.encode() in asked
        headers, body = fake.delivery(order, at=bed.clock.now)
        named = accepted.upstream_id.partition(" ")[0]
        assert [provider.callback(headers, body) for _ in range(2)] == [named, named]


@each(CALLING_BACK)
async def test_a_forged_or_stale_callback_is_not_believed(protocol: Protocol, bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        await provider.submit(bed.job(callback_url=CALLBACK_URL))
        (order,) = fake.bought
        headers, body = fake.delivery(order, at=bed.clock.now)
        assert provider.callback(headers, body) is not None
        signed = headers.keys() - {"content-type"}
        for name in signed:
            value = headers[name]
            last = "0" if value[-1:] != "0" else "1"
            for forged in ("", value[:-1] + last, "\x00é"):
                assert provider.callback(headers | {name: forged}, body) is None, (name, forged)
            rest = {key: value for key, value in headers.items() if key != name}
            assert provider.callback(rest, body) is None, name
        another = body.replace(order.id.encode(), b"another-job")
        assert provider.callback(headers, another) is None
        for noise in (b"", b"null", b"[]", b'{"id": 7}', b"\xff" * 9, b"[" * 10_000):
            assert provider.callback(headers, noise) is None
        if "timestamp" in " ".join(signed):
            for minutes in (-6, 6):
                late = fake.delivery(order, at=bed.clock.now + minutes * 60_000)
                assert provider.callback(*late) is None, minutes
        if protocol.shared_secret:
            for secret in (None, Secret("whsec_YW5vdGhlcg=="), Secret("é")):
                channel = msgspec.structs.replace(bed.channel(fake), callback_secret=secret)
                assert bed.provider(channel).callback(headers, body) is None


# Answers that nobody foresaw

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
JSON = st.recursive(
    SCALARS | st.sampled_from(["http://[", "http://127.0.0.1:1/x", "../x", "data:,", "AAAA"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)
STATUSES = [
    200,
    201,
    202,
    204,
    301,
    400,
    401,
    402,
    403,
    404,
    408,
    409,
    410,
    422,
    429,
    500,
    503,
    529,
]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@each(ALL)
async def test_no_verb_raises_whatever_the_upstream_answers(
    protocol: Protocol, bed: Bed, data: st.DataObject
) -> None:
    scripts = [script for script in protocol.expected if script not in SLOW]

    def tampered(reply: Reply) -> Reply:
        if reply.body is not None or reply.cut is not None or data.draw(st.booleans()):
            return reply
        status = data.draw(st.just(reply.status) | st.sampled_from(STATUSES))
        return replace(reply, status=status, document=_mutated(reply.document, data))

    async with bed.fake(data.draw(st.sampled_from(scripts))) as fake:
        fake.tamper = tampered
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        outcome: object = await provider.submit(job)
        assert isinstance(outcome, SUBMITTED)
        assert isinstance(await provider.recover(job), RECOVERED)
        if isinstance(outcome, Accepted):
            outcome = await followed(provider, job, outcome.upstream_id)
            assert isinstance(outcome, POLLED)
        if isinstance(outcome, Done):
            for source in outcome.images:
                with suppress(SourceError):
                    await content(source)
    fake.assert_discreet()


def _mutated(document: Any, data: st.DataObject) -> Any:
    """A document in which one value, anywhere, is another."""
    if isinstance(document, dict) and document and data.draw(st.integers(0, 3)):
        name = data.draw(st.sampled_from(sorted(document)))
        return {**document, name: _mutated(document[name], data)}
    if isinstance(document, list) and document and data.draw(st.integers(0, 3)):
        return [_mutated(document[0], data), *document[1:]]
    return data.draw(JSON)
