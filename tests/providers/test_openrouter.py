"""What only OpenRouter has: chats that draw, events with drafts, and its own bill."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

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
    TryLater,
    Unknown,
)
from providers.answers import come_to, documents
from providers.bed import Bed, content, public_url, request, upstream
from providers.cases.openrouter import EXAMPLES, PROTOCOL
from providers.fakes.base import image
from providers.fakes.exchange import Reply
from providers.fakes.images_api import changed, draft, final, stream
from providers.fakes.openrouter import (
    COST,
    FILTERED,
    FLAGGED,
    IN_CHOICE,
    REFUSING,
    STREAM_ENDS,
    STREAM_ERROR,
    UNSAFE_IMAGE,
    USAGE,
    problem,
)
from providers.protocol import MODERATED, Example, Expected, Protocol, fails
from providers.scripts import Script
from providers.way import assert_went, gone, opened_way
from services.bench import Bench

FAILED: Final = fails("upstream_failed", Fault.UPSTREAM)
CHAT: Final = next(each for each in EXAMPLES if "modalities" in each.reads)
BY_CHAT: Final = msgspec.structs.replace(
    PROTOCOL,
    examples=(CHAT,),
    expected={
        **PROTOCOL.expected,
        Script.NO_IMAGE: FAILED,
        IN_CHOICE: FAILED,
        FILTERED: MODERATED,
        UNSAFE_IMAGE: MODERATED,
        REFUSING: MODERATED,
    },
)
IN_EVENTS: Final = msgspec.structs.replace(PROTOCOL, options={"stream": "true"})


@pytest.fixture
def protocol() -> Protocol:
    return PROTOCOL


@pytest.fixture
def chat(bed: Bed) -> Bed:
    """The same bed, whose requests are for a model that draws in chats."""
    bed.protocol = BY_CHAT
    return bed


@pytest.fixture
def events(bed: Bed) -> Bed:
    """The same bed, its channels set to show drafts."""
    bed.protocol = IN_EVENTS
    return bed


# Chats


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened_way(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize(("script", "expected"), BY_CHAT.expected.items())
async def test_a_task_ends_as_well_by_chat(
    chat: Bed, bench: Bench, script: str, expected: Expected
) -> None:
    async with chat.fake(script) as fake:
        went = await gone(bench, chat, fake)
    await assert_went(bench, went, expected)
    assert fake.purchases == expected.purchases
    assert went.attempts[0].fault == expected.fault
    assert all(call.path.endswith("/chat/completions") for call in fake.calls)


async def test_a_chats_image_and_bill_are_read(chat: Bed) -> None:
    async with chat.fake() as fake:
        done = await chat.provider(chat.channel(fake)).submit(chat.job())
        assert isinstance(done, Done), done
        assert [await content(source) for source in done.images] == [image(0)]
    assert done.cost_micro_usdc == COST


async def test_of_several_images_in_a_chat_it_is_the_last(chat: Bed) -> None:
    urls = [f"data:image/png;base64,{base64.b64encode(image(n)).decode()}" for n in (2, 1, 0)]
    images = [{"image_url": {"url": url}} for url in urls]
    async with chat.fake() as fake:
        fake.tamper = lambda _reply: Reply(200, {"choices": [{"message": {"images": images}}]})
        done = await chat.provider(chat.channel(fake)).submit(chat.job())
        assert isinstance(done, Done), done
        assert [await content(source) for source in done.images] == [image(0)]


async def test_an_image_of_a_chat_may_have_a_url(chat: Bed) -> None:
    async with chat.fake() as fake:
        url = f"{fake.elsewhere}/results/job-1/0.png"
        images = [{"type": "image_url", "image_url": {"url": url}}]
        document = {"choices": [{"message": {"images": images}}], "usage": USAGE}
        fake.tamper = lambda _reply: Reply(200, document)
        provider, job = chat.provider(chat.channel(fake)), chat.job()
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        done = await provider.poll(job, accepted.upstream_id)
        assert isinstance(done, Done)
        assert [await content(source) for source in done.images] == [image(0)]
    assert done.cost_micro_usdc == COST
    fake.assert_sound()


async def test_what_a_chat_says_instead_of_an_image_is_passed_on_with_its_bill(chat: Bed) -> None:
    async with chat.fake(Script.NO_IMAGE) as fake:
        failed = await chat.provider(chat.channel(fake)).submit(chat.job())
    assert isinstance(failed, Failed)
    assert "I cannot draw that." in failed.message
    assert failed.cost_micro_usdc == COST


async def test_a_chat_is_never_streamed(events: Bed) -> None:
    async with events.fake() as fake:
        channel = events.channel(fake, CHAT)
        assert isinstance(await events.provider(channel).submit(events.job(CHAT)), Done)
    assert "stream" not in fake.bought[0].call.document


@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.public])
async def test_public_references_go_out_by_their_urls(bed: Bed, example: Example) -> None:
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, example)).submit(bed.job(example))
    (order,) = fake.bought
    for index in range(example.references):
        assert json.dumps(public_url(index)) in json.dumps(order.call.document)
    assert "base64" not in json.dumps(order.call.document)


# Events


async def test_drafts_tell_how_far_it_is_and_the_last_event_is_the_image(events: Bed) -> None:
    told: list[int] = []
    async with events.fake() as fake:
        provider = events.provider(events.channel(fake))
        done = await provider.submit(events.job(report=told.append))
        assert isinstance(done, Done), done
        assert [await content(source) for source in done.images] == [image(0)]
    assert told == [25, 50]
    assert done.cost_micro_usdc == COST


async def test_an_error_within_a_stream_came_after_acceptance(events: Bed) -> None:
    async with events.fake(STREAM_ERROR) as fake:
        failed = await events.provider(events.channel(fake)).submit(events.job())
    assert isinstance(failed, Failed)
    assert failed.code == "upstream_failed"


@pytest.mark.parametrize("code", ["moderation_blocked", "content_policy_violation"])
async def test_a_moderation_within_a_stream_is_one(events: Bed, code: str) -> None:
    event = {"type": "error", "error": {"message": "no", "code": code}}
    body = f"data: {json.dumps(event)}\n\n".encode()
    async with events.fake() as fake:
        fake.tamper = lambda _reply: Reply(body=body, content_type="text/event-stream")
        failed = await events.provider(events.channel(fake)).submit(events.job())
    assert isinstance(failed, Failed)
    assert failed.fault is Fault.POLICY


@pytest.mark.parametrize("error", [None, {}, ""])
async def test_a_draft_without_an_error_ends_no_stream(events: Bed, error: object) -> None:
    async with events.fake() as fake:
        fake.tamper = lambda _: stream({**draft(), "error": error}, final())
        done = await events.provider(events.channel(fake)).submit(events.job())
        assert isinstance(done, Done), done
        assert [await content(source) for source in done.images] == [image(0)]


async def test_a_draft_is_never_taken_for_the_image(events: Bed) -> None:
    async with events.fake() as fake:
        fake.tamper = lambda _: stream({**draft(), "error": {"message": "It broke."}}, final())
        failed = await events.provider(events.channel(fake)).submit(events.job())
    assert isinstance(failed, Failed)
    assert failed.code == "upstream_failed"


@pytest.mark.parametrize("script", [STREAM_ENDS, Script.CUT_WITHIN, Script.CUT_BEFORE])
async def test_a_stream_without_its_image_may_have_been_paid(events: Bed, script: str) -> None:
    async with events.fake(script) as fake:
        outcome = await events.provider(events.channel(fake)).submit(events.job())
    assert isinstance(outcome, Unknown)
    assert fake.purchases == 1


async def test_a_provider_that_has_no_stream_answers_whole(
    events: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with events.fake() as fake:
        plain = {"data": [{"b64_json": base64.b64encode(image(0)).decode()}], "usage": USAGE}
        monkeypatch.setattr(fake, "accepted", lambda _order: Reply(200, plain))
        done = await events.provider(events.channel(fake)).submit(events.job())
        assert isinstance(done, Done)
        assert [await content(source) for source in done.images] == [image(0)]


@pytest.mark.parametrize("value", ["yes", "1", ""])
async def test_an_option_that_there_is_not_is_refused_at_the_start(bed: Bed, value: str) -> None:
    bed.protocol = msgspec.structs.replace(PROTOCOL, options={"stream": value})
    async with bed.fake() as fake:
        with pytest.raises(ValueError, match=r"options\.stream: .* write 'true' or 'false'"):
            bed.provider(bed.channel(fake))


# Refusals


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        (FLAGGED, Fault.POLICY),
        ({"reasons": []}, Fault.POLICY),
        ({"flagged_input": "x"}, Fault.POLICY),
        ({"error_type": "content_policy_violation"}, Fault.POLICY),
        ({"error_type": "permission_denied"}, Fault.ACCOUNT),
        ({"provider_name": "OpenAI"}, Fault.ACCOUNT),
        ({}, Fault.ACCOUNT),
        (None, Fault.ACCOUNT),
    ],
)
async def test_only_a_403_that_says_what_was_flagged_is_a_moderation(
    bed: Bed, metadata: Mapping[str, Any] | None, fault: Fault
) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _reply: problem(403, "You may not.", metadata)
        refused = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(refused, Refused)
    assert refused.fault is fault
    assert "You may not." not in refused.message
    assert "You may not." in refused.detail


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_a_wait_is_passed_on(bed: Bed, status: int) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _reply: problem(status, "Later.", headers={"Retry-After": "11"})
        later = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(later, TryLater)
    assert (later.fault, later.retry_after) == (Fault.BUSY, 11.0)


@pytest.mark.parametrize("status", [408, 409, 500, 502, 504, 520, 524, 599])
async def test_a_fault_that_may_have_come_after_acceptance_is_not_repeated(
    bed: Bed, status: int
) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _reply: problem(status, "It broke.")
        assert isinstance(await bed.provider(bed.channel(fake)).submit(bed.job()), Unknown)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("flux-2-pro", {"resolution": "2K"}),
        ("flux-2-pro", {"aspect_ratio": "auto"}),
        ("nano-banana-2-lite", {"aspect_ratio": "1:8"}),
    ],
)
def test_it_is_no_candidate_for_what_it_cannot_say(model: str, parameters: dict[str, Any]) -> None:
    served = upstream("openrouter").wire(model)
    assert served is not None
    asked = request(Example(model=model, parameters=parameters, reads_model="", reads={}))
    assert served.unable(asked, references=0) is not None


# The bill


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"cost": 0.0000005}, 1),
        ({"cost": 0}, 0),
        ({"cost": 2}, 2_000_000),
        ({"cost": None}, None),
        ({"cost": "0.1"}, None),
        ({"cost": True}, None),
        ({"cost": -1}, None),
        ({"cost": 10**40}, None),
        ({"cost": 10**15}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
async def test_the_bill_is_in_whole_millionths_of_a_dollar(
    bed: Bed, usage: Any, cost: int | None
) -> None:
    async with bed.fake() as fake:
        fake.tamper = changed(lambda document: document | {"usage": usage})
        done = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(done, Done)
    assert done.cost_micro_usdc == cost


# Answers that nobody documented

WORDS: Final = (
    *("data", "b64_json", "url", "error", "code", "type", "message", "usage", "cost", "metadata"),
    *("choices", "images", "image_url", "content", "refusal", "finish_reason", "reasons"),
    *("native_finish_reason", "error_type", "flagged_input", "partial_image_index"),
)
STRANGE: Final = (
    *("", "AAAA", "A", "\0", "http://[", "/x.png", "SAFETY", "data:image/png;base64,AAAA"),
    *("data:,", "image_generation.partial_image"),
)
DOCUMENTS: Final = documents(WORDS, STRANGE)
STATUSES: Final = st.sampled_from([200, 201, 204, 301, 400, 401, 403, 404, 418, 429, 500, 503, 529])
FORMS: Final = {"images": PROTOCOL, "chat": BY_CHAT, "events": IN_EVENTS}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(status=STATUSES, value=DOCUMENTS)
async def test_any_answer_comes_to_an_outcome(bed: Bed, form: str, status: int, value: Any) -> None:
    bed.protocol = FORMS[form]
    message = {"images": value, "content": value, "refusal": value}
    for document in (
        value,
        {"choices": value},
        {"choices": [{"message": message, "finish_reason": value, "error": value}]},
        {"choices": [{"message": {"images": [{"image_url": {"url": value}}]}}], "usage": value},
        {"error": {"code": value, "message": value, "metadata": value}},
    ):
        outcome = await come_to(bed, Reply(status, body=json.dumps(document).encode()))
        assert isinstance(outcome, Done | Refused | TryLater | Failed | Unknown)
        if 200 <= status < 300:
            assert not isinstance(outcome, Refused | TryLater), "it may have been bought"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(DOCUMENTS, max_size=4))
async def test_any_stream_comes_to_an_outcome(events: Bed, values: list[Any]) -> None:
    lines = [f"data: {json.dumps(value)}\n\n" for value in values]
    body = "".join(lines).encode()
    outcome = await come_to(events, Reply(body=body, content_type="text/event-stream"))
    assert isinstance(outcome, Done | Failed | Unknown)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"choices":' * 50_000, b'"choices"', b"\xff\xfe\x00", b"", b"null"]
)
async def test_a_monstrous_answer_may_have_been_paid(bed: Bed, form: str, body: bytes) -> None:
    bed.protocol = FORMS[form]
    assert isinstance(await come_to(bed, Reply(200, body=body)), Unknown)
