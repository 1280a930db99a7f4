"""What only OpenAI has: its SDK as the oracle, streams with drafts, and a bill by tokens."""

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec
import openai
import pytest

from calotype.domain.outcomes import Done, Failed, Fault, Unknown
from providers.bed import PROMPT, Bed, content, reference, upstream
from providers.cases.openai import EXAMPLES, PROTOCOL
from providers.fakes.base import KEY, Fake, image
from providers.fakes.exchange import Call, Reply
from providers.fakes.images_api import changed, draft, final, stream
from providers.fakes.openai import (
    BAD_GATEWAY,
    COST,
    STREAM_ENDS,
    STREAM_ERROR,
    STREAM_MODERATED,
    USAGE,
)
from providers.protocol import Example, Protocol
from providers.scripts import Script

PLAIN, ONE_REFERENCE, EIGHT_REFERENCES = EXAMPLES[:3]
DRAFTS: Final = msgspec.structs.replace(PROTOCOL, options={"partial_images": "3"})


@pytest.fixture
def protocol() -> Protocol:
    return PROTOCOL


@pytest.fixture
def drafts(bed: Bed) -> Bed:
    """The same bed, its channels set to show drafts."""
    bed.protocol = DRAFTS
    return bed


def sdk(fake: Fake) -> openai.AsyncOpenAI:
    """OpenAI's own client, which would send a failed request three times if it were let."""
    client = openai.DefaultAsyncHttpxClient(trust_env=False)
    return openai.AsyncOpenAI(
        api_key=KEY, base_url=fake.base_url, max_retries=0, http_client=client
    )


def files(count: int) -> list[tuple[str, bytes, str]]:
    """References as the SDK takes them, named as we name them."""
    return [(f"reference-{n + 1}.png", reference(n), "image/png") for n in range(count)]


def said(call: Call) -> dict[str, Any]:
    """A call with all that may differ taken out: the order of fields, the boundary of a form."""
    parts = [(part.name, part.filename, part.content_type, part.data) for part in call.parts]
    kind = call.headers["content-type"].partition(";")[0]
    texts = sorted(part for part in parts if part[1] is None)
    return {
        "call": (call.method, call.path, call.query, kind, call.headers.get("authorization")),
        "document": call.document,
        "texts": [(name, data) for name, _, _, data in texts],
        "files": [part for part in parts if part[1] is not None],
    }


async def both(bed: Bed, fake: Fake, example: Example, **theirs: Any) -> tuple[Call, Call]:
    """Our request and the SDK's, as they arrived."""
    await bed.provider(bed.channel(fake, example)).submit(bed.job(example))
    async with sdk(fake) as client:
        if example.references:
            answer = await client.images.edit(prompt=PROMPT, **theirs)
        else:
            answer = await client.images.generate(prompt=PROMPT, **theirs)
        if isinstance(answer, openai.AsyncStream):
            assert [event.type async for event in answer]
    fake.assert_sound()
    ours, others = (order.call for order in fake.bought)
    return ours, others


async def test_the_sdk_sends_the_same_generation(bed: Bed) -> None:
    theirs = {"model": "gpt-image-2", "size": "3840x2160", "quality": "medium"}
    async with bed.fake() as fake:
        ours, others = await both(bed, fake, PLAIN, **theirs)
    assert said(ours) == said(others)
    assert ours.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("example", "size"), [(ONE_REFERENCE, "auto"), (EIGHT_REFERENCES, "2048x2048")]
)
async def test_the_sdk_sends_the_same_edit(bed: Bed, example: Example, size: str) -> None:
    images = files(example.references)
    theirs = {"model": "gpt-image-2", "size": size, "quality": "medium"}
    async with bed.fake() as fake:
        one_or_all = images if len(images) > 1 else images[0]
        ours, others = await both(bed, fake, example, image=one_or_all, **theirs)
    assert said(ours) == said(others)
    assert len(said(ours)["files"]) == example.references


@pytest.mark.parametrize("example", [PLAIN, EIGHT_REFERENCES])
async def test_the_sdk_sends_the_same_stream(drafts: Bed, example: Example) -> None:
    theirs = {"model": "gpt-image-2", "quality": "medium", "size": example.reads["size"]}
    theirs |= {"stream": True, "partial_images": 3}
    if example.references:
        theirs["image"] = files(example.references)
    async with drafts.fake() as fake:
        ours, others = await both(drafts, fake, example, **theirs)
    assert said(ours) == said(others)


@pytest.mark.parametrize("example", [PLAIN, EIGHT_REFERENCES])
async def test_drafts_tell_how_far_it_is_and_the_last_event_is_the_image(
    drafts: Bed, example: Example
) -> None:
    told: list[int] = []
    async with drafts.fake() as fake:
        provider = drafts.provider(drafts.channel(fake, example))
        done = await provider.submit(drafts.job(example, report=told.append))
        assert isinstance(done, Done), done
        assert [await content(source) for source in done.images] == [image(0)]
    assert told == [25, 50, 75]
    assert done.cost_micro_usdc == COST


@pytest.mark.parametrize(
    ("script", "code", "fault"),
    [
        (STREAM_ERROR, "upstream_failed", Fault.UPSTREAM),
        (STREAM_MODERATED, "content_policy_violation", Fault.POLICY),
    ],
)
async def test_an_error_within_a_stream_came_after_acceptance(
    drafts: Bed, script: str, code: str, fault: Fault
) -> None:
    async with drafts.fake(script) as fake:
        failed = await drafts.provider(drafts.channel(fake)).submit(drafts.job())
    assert isinstance(failed, Failed)
    assert (failed.code, failed.fault) == (code, fault)


@pytest.mark.parametrize("error", [None, {}, ""])
async def test_a_draft_without_an_error_ends_no_stream(drafts: Bed, error: object) -> None:
    async with drafts.fake() as fake:
        fake.tamper = lambda _: stream({**draft(), "error": error}, final())
        done = await drafts.provider(drafts.channel(fake)).submit(drafts.job())
        assert isinstance(done, Done), done
        assert [await content(source) for source in done.images] == [image(0)]


async def test_a_draft_is_never_taken_for_the_image(drafts: Bed) -> None:
    async with drafts.fake() as fake:
        fake.tamper = lambda _: stream({**draft(), "error": {"message": "It broke."}}, final())
        failed = await drafts.provider(drafts.channel(fake)).submit(drafts.job())
    assert isinstance(failed, Failed)
    assert failed.code == "upstream_failed"


@pytest.mark.parametrize("script", [STREAM_ENDS, Script.CUT_WITHIN, Script.CUT_BEFORE])
async def test_a_stream_without_its_image_may_have_been_paid(drafts: Bed, script: str) -> None:
    async with drafts.fake(script) as fake:
        outcome = await drafts.provider(drafts.channel(fake)).submit(drafts.job())
    assert isinstance(outcome, Unknown)
    assert fake.purchases == 1


async def test_an_answer_that_is_no_stream_is_read_all_the_same(
    drafts: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy on the way may not pass streams on."""
    async with drafts.fake() as fake:
        plain = {"data": [{"b64_json": base64.b64encode(image(0)).decode()}]}
        monkeypatch.setattr(fake, "accepted", lambda _order: Reply(200, plain))
        done = await drafts.provider(drafts.channel(fake)).submit(drafts.job())
        assert isinstance(done, Done)
        assert [await content(source) for source in done.images] == [image(0)]


async def test_several_images_come_in_one_answer_and_are_not_streamed(drafts: Bed) -> None:
    job = drafts.job()
    job = msgspec.structs.replace(job, request=msgspec.structs.replace(job.request, n=3))
    async with drafts.fake() as fake:
        done = await drafts.provider(drafts.channel(fake)).submit(job)
        assert isinstance(done, Done)
        assert [await content(source) for source in done.images] == [image(n) for n in range(3)]
    (order,) = fake.bought
    assert order.call.document["n"] == 3
    assert "stream" not in order.call.document


async def test_the_bill_is_by_tokens(bed: Bed) -> None:
    async with bed.fake() as fake:
        done = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(done, Done)
    assert done.cost_micro_usdc == COST == 61_260


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {},
        {**USAGE, "input_tokens_details": None},
        {**USAGE, "input_tokens_details": {"text_tokens": 1}},
        {**USAGE, "output_tokens": "1767"},
        {**USAGE, "output_tokens": -1},
        {**USAGE, "output_tokens": True},
        {**USAGE, "output_tokens": 10**40},
        {**USAGE, "output_tokens": 10**15},
    ],
)
async def test_a_bill_that_makes_no_sense_is_none(bed: Bed, usage: Any) -> None:
    async with bed.fake() as fake:
        fake.tamper = changed(lambda document: document | {"usage": usage})
        done = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(done, Done)
    assert done.cost_micro_usdc is None


async def test_half_a_micro_dollar_is_rounded_up(bed: Bed) -> None:
    tokens = {"text_tokens": 0, "image_tokens": 0.5625}
    usage = {"input_tokens_details": tokens, "output_tokens": 0}
    async with bed.fake() as fake:
        fake.tamper = changed(lambda document: document | {"usage": usage})
        done = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(done, Done)
    assert done.cost_micro_usdc == 5


def test_every_model_that_is_served_has_prices() -> None:
    for provider in ("openai", "azure-openai"):
        data = upstream(provider)
        assert data.protocol["prices"].keys() == data.models.keys()


async def test_a_channel_may_ask_for_another_quality_and_name_who_pays(bed: Bed) -> None:
    options = {"quality": "high", "organization": "org-1", "project": "proj-1"}
    bed.protocol = msgspec.structs.replace(PROTOCOL, options=options)
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake)).submit(bed.job())
    (order,) = fake.bought
    assert order.call.document["quality"] == "high"
    assert order.call.headers["openai-organization"] == "org-1"
    assert order.call.headers["openai-project"] == "proj-1"


@pytest.mark.parametrize("options", [{"quality": "hd"}, {"partial_images": "4"}])
async def test_an_option_that_there_is_not_is_refused_at_the_start(
    bed: Bed, options: Mapping[str, str]
) -> None:
    bed.protocol = msgspec.structs.replace(PROTOCOL, options=options)
    async with bed.fake() as fake:
        with pytest.raises(ValueError, match=f"options.{next(iter(options))}: .* write one of"):
            bed.provider(bed.channel(fake))


async def test_what_moderation_says_stays_with_the_operator(bed: Bed) -> None:
    async with bed.fake(Script.MODERATED) as fake:
        refused = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert "safety_violations" not in json.dumps(getattr(refused, "message", ""))
    assert "safety_violations" in str(getattr(refused, "detail", ""))


@pytest.mark.parametrize("script", [Script.ERROR_500, BAD_GATEWAY])
async def test_a_call_that_may_have_been_paid_is_told_by_the_name_it_has_upstream(
    bed: Bed, script: str
) -> None:
    async with bed.fake(script) as fake:
        fake.tamper = lambda reply: replace(reply, headers={"x-request-id": "req_7"})
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, Unknown)
    assert "(req_7)" in outcome.message
