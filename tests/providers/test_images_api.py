"""The Images API family against answers that nobody documented: an outcome, never an exception."""

import json
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.outcomes import (
    Done,
    Failed,
    Refused,
    SourceError,
    TryLater,
    Unknown,
)
from providers.answers import come_to, documents
from providers.bed import Bed, content, opened_bed, protocols
from providers.fakes.exchange import Reply
from providers.protocol import Protocol

FAMILY: Final = ("openai", "azure-openai", "openai-compatible", "seedream", "recraft")
WORDS: Final = (
    *("data", "b64_json", "url", "error", "code", "type", "message", "usage", "credits"),
    *("input_tokens_details", "output_tokens", "text_tokens", "inner_error", "detail"),
)
TEXTS: Final = (
    *("", "AAAA", "A", "data:image/png;base64,AAAA", "/x.png", "http://[", "moderation_blocked"),
    "\0",
)
DOCUMENTS: Final = documents(WORDS, TEXTS)
STATUSES: Final = st.sampled_from([200, 201, 204, 299, 301, 400, 401, 403, 404, 418, 429, 500, 599])


@pytest.fixture(params=FAMILY)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return protocols()[request.param]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(status=STATUSES, document=DOCUMENTS)
async def test_any_answer_comes_to_an_outcome(
    protocol: Protocol, bed: Bed, status: int, document: Any
) -> None:
    assert bed.protocol is protocol
    outcome = await come_to(bed, Reply(status, body=json.dumps(document).encode()))
    assert isinstance(outcome, Done | Refused | TryLater | Failed | Unknown)
    if 200 <= status < 300:
        assert not isinstance(outcome, Refused | TryLater), "it may have been bought"
    if isinstance(outcome, Done | Failed) and outcome.cost_micro_usdc is not None:
        assert outcome.cost_micro_usdc >= 0


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(DOCUMENTS, max_size=4))
async def test_any_stream_comes_to_an_outcome(
    protocol: Protocol, tmp_path_factory: pytest.TempPathFactory, events: list[Any]
) -> None:
    if "openai" in protocol.provider and protocol.provider != "openai-compatible":
        protocol = msgspec.structs.replace(protocol, options={"partial_images": "2"})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
    async with opened_bed(protocol, tmp_path_factory.getbasetemp()) as bed:
        outcome = await come_to(bed, Reply(body=body, content_type="text/event-stream"))
    assert isinstance(outcome, Done | Failed | Unknown)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(upstream_id=st.text() | DOCUMENTS.map(json.dumps))
async def test_any_id_comes_to_an_outcome(bed: Bed, upstream_id: str) -> None:
    async with bed.fake() as fake:
        outcome = await bed.provider(bed.channel(fake)).poll(bed.job(), upstream_id)
    assert isinstance(outcome, Done | Unknown)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"data":' * 50_000,
        b'{"data": [{"b64_json": 1}]}',
        b'{"data": [{"b64_json": ["AAAA"]}]}',
        b'{"data": [[]]}',
        b'{"data": {"b64_json": "AAAA"}}',
        b'{"url": "https://example.com/docs"}',
        b'{"data": null, "error": null}',
        b'{"created": 1}',
        b'"b64_json"',
        b"\xff\xfe\x00",
        b"",
    ],
)
async def test_an_answer_that_makes_no_sense_may_have_been_paid(bed: Bed, body: bytes) -> None:
    outcome = await come_to(bed, Reply(body=body))
    assert isinstance(outcome, Unknown | Failed | Done)
    if isinstance(outcome, Done):
        assert outcome.images == ()


@pytest.mark.parametrize("text", ["A", "AAA%", "ÄÄÄÄ", "AA=A"])
async def test_an_image_that_is_no_base64_is_malformed(bed: Bed, text: str) -> None:
    body = json.dumps({"data": [{"b64_json": text}]}).encode()
    async with bed.fake() as fake:
        fake.tamper = lambda _reply: Reply(200, body=body)
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
        if isinstance(outcome, Done):
            with pytest.raises(SourceError) as caught:
                await content(outcome.images[0])
            assert not caught.value.retryable
        else:
            assert isinstance(outcome, Failed)
            assert outcome.code == "upstream_malformed_response"
