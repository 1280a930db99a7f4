"""What only the Gemini API has: its SDK as the oracle, thoughts, reasons, and a bill by tokens."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest
from google import genai
from google.genai import types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.channel import Served
from calotype.domain.outcomes import (
    Done,
    Failed,
    Fault,
    Refused,
    SourceError,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.providers.port import ReferenceImage
from providers.answers import documents
from providers.bed import PROMPT, Bed, content, reference, upstream
from providers.cases.gemini import EXAMPLES, PROTOCOL
from providers.fakes.base import KEY, Fake, image
from providers.fakes.exchange import Call, Reply
from providers.fakes.gemini import (
    DRAFTS,
    LIMITED,
    NO_IMAGE_MADE,
    OVERLOADED,
    USAGE,
    Gemini,
    detail,
    problem,
    quota,
)
from providers.fakes.images_api import changed
from providers.protocol import Example, Protocol
from providers.scripts import Script

PLAIN, TWO_REFERENCES = EXAMPLES[:2]
COST: Final = 533 * 2 + (1130 - 1120 + 217) * 12 + 1120 * 120
"""Of the fake's usage, in micro-USD."""


@pytest.fixture
def protocol() -> Protocol:
    return PROTOCOL


async def answered(
    bed: Bed, status: int, document: object, *, headers: Mapping[str, str] | None = None
) -> SubmitOutcome:
    """What a send comes to that is answered so."""
    async with bed.fake() as fake:
        fake.tamper = lambda _reply: Reply(status, document, headers=headers or {})
        return await bed.provider(bed.channel(fake)).submit(bed.job())


def message_of(outcome: object) -> str:
    return str(getattr(outcome, "message", ""))


# The SDK


def by_the_sdk(
    fake: Fake, example: Example, shape: types.ImageConfig
) -> types.GenerateContentResponse:
    """Google's own client sends it; in 3.x it would speak ``v1`` if it were let."""
    options = types.HttpOptions(
        base_url=fake.base_url, api_version="v1beta", client_args={"trust_env": False}
    )
    images = [
        types.Part.from_bytes(data=reference(index), mime_type="image/png")
        for index in range(example.references)
    ]
    parts = [types.Part.from_text(text=PROMPT), *images]
    with genai.Client(api_key=KEY, vertexai=False, http_options=options) as client:
        return client.models.generate_content(
            model=example.reads_model,
            contents=[types.Content(role="user", parts=parts)],
            config=types.GenerateContentConfig(response_modalities=["IMAGE"], image_config=shape),
        )


def said(call: Call) -> tuple[object, ...]:
    """What of a call must be the same, whoever makes it."""
    kind = call.headers["content-type"].partition(";")[0]
    key = (call.headers.get("x-goog-api-key"), call.headers.get("authorization"))
    return call.method, call.path, call.query, kind, key, in_one_spelling(call.document)


@pytest.mark.parametrize(
    ("example", "shape"),
    [
        (PLAIN, types.ImageConfig(aspect_ratio="16:9", image_size="2K")),
        (TWO_REFERENCES, types.ImageConfig(image_size="4K")),
    ],
    ids=["words alone", "two references"],
)
async def test_the_sdk_sends_the_same(bed: Bed, example: Example, shape: types.ImageConfig) -> None:
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, example)).submit(bed.job(example))
        answer = await asyncio.to_thread(by_the_sdk, fake, example, shape)
    fake.assert_sound()
    ours, theirs = (order.call for order in fake.bought)
    assert said(ours) == said(theirs)
    assert answer.usage_metadata is not None


def in_one_spelling(value: Any) -> Any:
    """Google reads names and base64 in two spellings each; its SDK has chosen the other ones."""
    if isinstance(value, list):
        return [in_one_spelling(each) for each in value]
    if not isinstance(value, dict):
        return value
    plain = {
        "mimeType" if name == "mime_type" else name: in_one_spelling(each)
        for name, each in value.items()
    }
    if "data" in plain:
        plain["data"] = plain["data"].replace("-", "+").replace("_", "/")
    return plain


# Images


async def test_the_last_image_that_is_no_thought_is_the_result(bed: Bed) -> None:
    async with bed.fake(DRAFTS) as fake:
        done = await bed.provider(bed.channel(fake)).submit(bed.job())
        assert isinstance(done, Done), done
        assert [await content(source) for source in done.images] == [image(0)]


@pytest.mark.parametrize("data", ["A", "AAA%", "ÄÄÄÄ", "AA=A"])
async def test_an_image_that_is_no_base64_is_malformed_and_paid(bed: Bed, data: str) -> None:
    parts = [{"inlineData": {"mimeType": "image/png", "data": data}}]
    document = {"candidates": [{"content": {"parts": parts}}], "usageMetadata": USAGE}
    outcome = await answered(bed, 200, document)
    if isinstance(outcome, Done):
        with pytest.raises(SourceError) as caught:
            await content(outcome.images[0])
        assert not caught.value.retryable
    else:
        assert isinstance(outcome, Failed)
        assert outcome.code == "upstream_malformed_response"
        assert outcome.cost_micro_usdc == COST


# Reasons


@pytest.mark.parametrize(
    "reason",
    ["SAFETY", "IMAGE_SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "OTHER", "A_NEW_ONE"],
)
async def test_a_blocked_prompt_is_moderated(bed: Bed, reason: str) -> None:
    usage = {"promptTokenCount": 10}
    document = {"promptFeedback": {"blockReason": reason}, "usageMetadata": usage}
    outcome = await answered(bed, 200, document)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.fault) == ("content_policy_violation", Fault.POLICY)
    assert outcome.cost_micro_usdc == 20
    assert reason not in outcome.message


@pytest.mark.parametrize(
    ("reason", "code", "fault"),
    [
        *(
            (reason, "content_policy_violation", Fault.POLICY)
            for reason in (
                *("SAFETY", "IMAGE_SAFETY", "PROHIBITED_CONTENT", "IMAGE_PROHIBITED_CONTENT"),
                *("RECITATION", "IMAGE_RECITATION", "BLOCKLIST", "SPII", "ESCALATION"),
            )
        ),
        *(
            (reason, "upstream_failed", Fault.UPSTREAM)
            for reason in (
                *("NO_IMAGE", "IMAGE_OTHER", "OTHER", "MALFORMED_RESPONSE", "STOP"),
                *("MAX_TOKENS", "A_NEW_ONE", ""),
            )
        ),
        ("PUP_LIMITED_DISABLED", "upstream_unavailable", Fault.ACCOUNT),
    ],
)
async def test_a_run_that_ends_without_an_image_says_why(
    bed: Bed, reason: str, code: str, fault: Fault
) -> None:
    document = {"candidates": [{"finishReason": reason}], "usageMetadata": USAGE}
    outcome = await answered(bed, 200, document)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.fault) == (code, fault)
    assert outcome.cost_micro_usdc == COST
    assert (reason in outcome.message) == (code == "upstream_failed")


async def test_what_the_model_said_instead_is_passed_on(bed: Bed) -> None:
    async with bed.fake(Script.NO_IMAGE) as fake:
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert "STOP I cannot draw that." in message_of(outcome)


async def test_what_is_said_of_the_account_stays_with_the_operator(bed: Bed) -> None:
    async with bed.fake(LIMITED) as fake:
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert "PUP" not in message_of(outcome)


@pytest.mark.parametrize("document", [{}, [], "x", None, {"candidates": []}, {"candidates": [7]}])
async def test_an_answer_that_says_nothing_may_have_been_paid(bed: Bed, document: Any) -> None:
    assert isinstance(await answered(bed, 200, document), Unknown)


# Refusals


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("13s", 13.0),
        ("1.5s", 1.5),
        ("0s", 0.0),
        ("999999999s", 86_400.0),
        ("13", None),
        ("-1s", None),
        ("1e9s", None),
        ("13 s", None),
        (13, None),
        (None, None),
    ],
)
@pytest.mark.parametrize(("status", "word"), [(429, "RESOURCE_EXHAUSTED"), (503, "UNAVAILABLE")])
async def test_a_wait_may_be_told_in_the_body(
    bed: Bed, status: int, word: str, told: Any, seconds: float | None
) -> None:
    reply = problem(status, word, "Later.", detail("RetryInfo", retryDelay=told))
    outcome = await answered(bed, status, reply.document)
    assert isinstance(outcome, TryLater)
    assert (outcome.retry_after, outcome.fault) == (seconds, Fault.BUSY)


async def test_the_header_goes_before_the_body(bed: Bed) -> None:
    reply = problem(429, "RESOURCE_EXHAUSTED", "Later.", detail("RetryInfo", retryDelay="9s"))
    outcome = await answered(bed, 429, reply.document, headers={"Retry-After": "3"})
    assert isinstance(outcome, TryLater)
    assert outcome.retry_after == 3.0


@pytest.mark.parametrize(
    ("name", "outcome", "fault"),
    [
        ("GenerateRequestsPerMinutePerProjectPerModel", TryLater, Fault.BUSY),
        ("GenerateRequestsPerDayPerProjectPerModel", Refused, Fault.ACCOUNT),
        ("GenerateContentInputTokensPerModelPerMinute-FreeTier", Refused, Fault.ACCOUNT),
        (7, TryLater, Fault.BUSY),
    ],
)
async def test_a_quota_that_waiting_does_not_refill_is_the_accounts(
    bed: Bed, name: Any, outcome: type, fault: Fault
) -> None:
    document = problem(429, "RESOURCE_EXHAUSTED", "Quota.", quota(name)).document
    refused = await answered(bed, 429, document)
    assert isinstance(refused, outcome)
    assert getattr(refused, "fault", None) is fault


@pytest.mark.parametrize("body", [b"<html>busy", b'{"error": "busy"}', b""])
async def test_only_googles_own_503_says_that_nothing_was_taken(bed: Bed, body: bytes) -> None:
    async with bed.fake(OVERLOADED) as fake:
        fake.tamper = lambda reply: replace(reply, body=body)
        assert isinstance(await bed.provider(bed.channel(fake)).submit(bed.job()), Unknown)


async def test_a_message_is_shown_to_the_client_only_for_its_own_request(bed: Bed) -> None:
    for script, shown in ((Script.REJECTED, True), (Script.NO_CREDIT, False)):
        async with bed.fake(script) as fake:
            refused = await bed.provider(bed.channel(fake)).submit(bed.job())
        assert isinstance(refused, Refused)
        told = json.loads(json.dumps(Gemini.refusals[script].document))["error"]["message"]
        assert (told in refused.message) is shown
        assert shown or told in refused.detail


# What goes out


def unread() -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
    raise AssertionError("nothing of it is read")


async def test_references_that_are_too_large_together_are_not_sent(bed: Bed) -> None:
    large = ReferenceImage(
        content_type="image/png", width=1, height=1, size=30_000_000, open=unread
    )
    async with bed.fake() as fake:
        refused = await bed.provider(bed.channel(fake)).submit(bed.job(references=(large,) * 3))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.fault) == ("upstream_rejected", Fault.UNFIT)
    assert "requests may have 100000000 bytes, not 12" in refused.detail
    assert fake.calls == []


async def test_a_channel_may_say_what_is_blocked(bed: Bed) -> None:
    bed.protocol = msgspec.structs.replace(PROTOCOL, options={"safety": "BLOCK_NONE"})
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake)).submit(bed.job())
    (order,) = fake.bought
    said_of = order.call.document["safetySettings"]
    assert {each["threshold"] for each in said_of} == {"BLOCK_NONE"}
    assert len({each["category"] for each in said_of}) == 4


async def test_a_threshold_that_there_is_not_is_refused_at_the_start(bed: Bed) -> None:
    bed.protocol = msgspec.structs.replace(PROTOCOL, options={"safety": "none"})
    async with bed.fake() as fake:
        with pytest.raises(ValueError, match=r"options\.safety: 'none' .* write one of OFF, "):
            bed.provider(bed.channel(fake))


async def test_a_models_name_cannot_lead_elsewhere(bed: Bed) -> None:
    example = msgspec.structs.replace(PLAIN, served=Served(id="../x?y#z/a"))
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, example)).submit(bed.job(example))
    (call,) = fake.calls
    assert (call.path, call.query) == ("/v1beta/models/../x?y#z/a:generateContent", ())


# The bill


async def test_the_bill_is_by_tokens(bed: Bed) -> None:
    async with bed.fake() as fake:
        done = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(done, Done)
    assert done.cost_micro_usdc == COST == 138_190


async def test_a_failure_has_its_bill_too(bed: Bed) -> None:
    async with bed.fake(NO_IMAGE_MADE) as fake:
        failed = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(failed, Failed)
    assert failed.cost_micro_usdc == COST


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {},
        {**USAGE, "promptTokenCount": None},
        {**USAGE, "promptTokenCount": "533"},
        {**USAGE, "candidatesTokenCount": -1},
        {**USAGE, "candidatesTokensDetails": None},
        {**USAGE, "thoughtsTokenCount": True},
        {**USAGE, "thoughtsTokenCount": 10**40},
        {**USAGE, "thoughtsTokenCount": 10**15},
    ],
)
async def test_a_bill_that_makes_no_sense_is_none(bed: Bed, usage: Any) -> None:
    async with bed.fake() as fake:
        fake.tamper = changed(lambda document: document | {"usageMetadata": usage})
        done = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(done, Done)
    assert done.cost_micro_usdc is None


def test_every_model_that_is_served_has_prices() -> None:
    data = upstream("gemini")
    assert data.protocol["prices"].keys() == data.models.keys()


# Answers that nobody documented

WORDS: Final = (
    *("candidates", "content", "parts", "inlineData", "data", "thought", "text", "finishReason"),
    *("promptFeedback", "blockReason", "usageMetadata", "promptTokenCount", "tokenCount"),
    *("candidatesTokenCount", "candidatesTokensDetails", "error", "status", "details", "message"),
    *("violations", "quotaId", "retryDelay", "reason", "finishMessage"),
)
STRANGE: Final = ("", "AAAA", "A", "\0", "13s", "PerDay", "UNAVAILABLE")
DOCUMENTS: Final = documents(WORDS, STRANGE)
STATUSES: Final = st.sampled_from([200, 204, 301, 400, 401, 403, 404, 418, 429, 500, 503, 504])


def placed(value: Any) -> tuple[Any, ...]:
    """A value where an answer has its image, its reason, its bill and its errors."""
    return (
        value,
        {"candidates": value},
        {"candidates": [{"content": {"parts": value}, "finishReason": value}]},
        {"candidates": [{"content": {"parts": [{"inlineData": {"data": value}}]}}]},
        {"promptFeedback": {"blockReason": value}, "usageMetadata": value},
        {"error": {"status": value, "message": value, "details": value}},
        {"error": {"details": [{"reason": value, "retryDelay": value, "violations": value}]}},
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(status=STATUSES, value=DOCUMENTS)
async def test_any_answer_comes_to_an_outcome(bed: Bed, status: int, value: Any) -> None:
    async with bed.fake() as fake:
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        for document in placed(value):
            body = json.dumps(document).encode()
            fake.tamper = lambda _reply, body=body: Reply(status, body=body)  # type: ignore[misc]  # no type for a default
            outcome = await provider.submit(job)
            assert isinstance(outcome, Done | Refused | TryLater | Failed | Unknown)
            if 200 <= status < 300:
                assert not isinstance(outcome, Refused | TryLater), "it may have been bought"
            if isinstance(outcome, Done | Failed) and outcome.cost_micro_usdc is not None:
                assert outcome.cost_micro_usdc >= 0
            if isinstance(outcome, Done):
                for source in outcome.images:
                    try:
                        await content(source)
                    except SourceError:
                        continue
            assert isinstance(await provider.poll(job, body.decode()), Unknown)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"candidates":' * 50_000,
        b'{"candidates": [{"content": {"parts": [{"inlineData": {"data": ["AAAA"]}}]}}',
        b'"candidates"',
        b"\xff\xfe\x00",
        b"",
    ],
)
async def test_a_monstrous_answer_may_have_been_paid(bed: Bed, body: bytes) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _reply: Reply(200, body=body)
        assert isinstance(await bed.provider(bed.channel(fake)).submit(bed.job()), Unknown)
