"""What only Model Studio has: messages, refusals under HTTP 200, codes that go on after a dot."""

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.outcomes import Accepted, Done, Fault, Refused, TryLater, Unknown
from calotype.domain.task import Request
from providers.answers import JSON, assert_outcomes, submitted
from providers.bed import PROMPT, Bed, content, public_url, reference, upstream
from providers.cases.qwen import PROTOCOL
from providers.fakes.base import WAIT, image
from providers.fakes.exchange import Reply
from providers.fakes.qwen import NAME, problem
from providers.protocol import Example, Protocol


@pytest.fixture
def protocol() -> Protocol:
    return PROTOCOL


def choices(*contents: Any) -> dict[str, Any]:
    """An answer with these parts in its messages."""
    return {"output": {"choices": [{"message": {"content": each}} for each in contents]}}


# What goes out


async def test_the_request_is_one_message(bed: Bed) -> None:
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake)).submit(bed.job())
    (order,) = fake.bought
    assert order.call.document == {
        "model": "qwen-image-2.0",
        "input": {"messages": [{"role": "user", "content": [{"text": PROMPT}]}]},
        "parameters": {"size": "2560*1440", "n": 1, "watermark": False},
    }


@pytest.mark.parametrize("model", upstream("qwen").models)
def test_a_longer_prompt_than_it_takes_goes_elsewhere(model: str) -> None:
    wire = upstream("qwen").wire(model)
    assert wire is not None
    asked = Request(model, "x" * 800, 1, {})
    assert wire.unable(asked, references=0) is None
    longer = msgspec.structs.replace(asked, prompt="x" * 801)
    assert wire.unable(longer, references=0) == "it takes prompts of at most 800 characters"


@pytest.mark.parametrize("public", [True, False])
async def test_references_come_before_the_text_and_in_order(
    bed: Bed,
    public: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    chosen = Example(model="qwen-image-3.0", references=3, public=public, reads_model="", reads={})
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, chosen)).submit(bed.job(chosen))
    (order,) = fake.bought
    written = [
        public_url(index)
        if public
        else f"data:image/png;base64,{base64.b64encode(reference(index)).decode()}"
        for index in range(3)
    ]
    (message,) = order.call.document["input"]["messages"]
    assert message["content"] == [*({"image": url} for url in written), {"text": PROMPT}]


async def test_several_images_are_one_request(bed: Bed) -> None:
    job = bed.job()
    job = msgspec.structs.replace(job, request=msgspec.structs.replace(job.request, n=3))
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(job)
        assert isinstance(accepted, Accepted)
        done = await provider.poll(job, accepted.upstream_id)
        assert isinstance(done, Done)
        assert [await content(each) for each in done.images] == [image(0), image(1), image(2)]
    assert fake.purchases == 1


# What comes back


@pytest.mark.parametrize(
    ("status", "code", "fault"),
    [
        (200, "InvalidParameter", Fault.REQUEST),
        (400, "InvalidParameter.DataInspection", Fault.REQUEST),
        (400, "somethingNew", Fault.REQUEST),
        (200, "InvalidApiKey", Fault.KEY),
        (403, "InvalidApiKey", Fault.KEY),
        (403, "AccessDenied.Unpurchased", Fault.ACCOUNT),
        (200, "Arrearage", Fault.ACCOUNT),
        (400, "Arrearage", Fault.ACCOUNT),
        (400, "ModelNotFound", Fault.MODEL),
        (200, "DataInspectionFailed", Fault.POLICY),
        (400, "DataInspectionFailed", Fault.POLICY),
    ],
)
async def test_a_refusal_is_judged_by_its_code_under_any_status(
    bed: Bed, status: int, code: str, fault: Fault
) -> None:
    outcome = await submitted(bed, problem(status, code))
    assert isinstance(outcome, Refused), outcome
    assert outcome.fault == fault


@pytest.mark.parametrize("code", ["Throttling", "Throttling.RateQuota", "Throttling.User"])
@pytest.mark.parametrize("status", [200, 400, 429])
async def test_throttling_is_waited_for(bed: Bed, status: int, code: str) -> None:
    reply = problem(status, code, headers={"Retry-After": f"{WAIT:g}"})
    outcome = await submitted(bed, reply)
    assert isinstance(outcome, TryLater)
    assert outcome.retry_after == WAIT


@pytest.mark.parametrize(
    "reply",
    [
        problem(200, "InternalError"),
        problem(200, "somethingNew"),
        problem(400, "InternalError.Algo"),
        problem(500, "InternalError.Timeout"),
        problem(503, "ModelServingError"),
        problem(408, "RequestTimeOut"),
        Reply(200, {"request_id": NAME}),
        Reply(200, []),
        Reply(200, body=b"<html>"),
    ],
)
async def test_what_may_have_been_taken_is_unknown(bed: Bed, reply: Reply) -> None:
    assert isinstance(await submitted(bed, reply), Unknown)


async def test_the_upstreams_name_for_the_call_is_told(bed: Bed) -> None:
    outcome = await submitted(bed, problem(400, "InvalidParameter", "size is odd"))
    assert f"({NAME}) size is odd" in outcome.message


async def test_an_image_counts_more_than_a_code_beside_it(bed: Bed) -> None:
    document = {**choices([{"image": "https://x.example/1.png"}]), "code": "Throttling"}
    assert isinstance(await submitted(bed, Reply(200, document)), Accepted)


async def test_an_image_may_stand_anywhere_among_the_parts(bed: Bed) -> None:
    document = choices([{"text": "here:"}, 7, {"image": "https://x.example/1.png"}], None)
    outcome = await submitted(bed, Reply(200, document))
    assert isinstance(outcome, Accepted)
    assert "https://x.example/1.png" in outcome.upstream_id


@pytest.mark.parametrize(
    "document",
    [choices(), choices([{"text": "no"}]), choices([{"image": ["x"]}]), {"output": {}}],
)
async def test_an_output_without_an_image_is_malformed(bed: Bed, document: Any) -> None:
    outcome = await submitted(bed, Reply(200, document))
    assert outcome == Done(())


async def test_the_url_outlives_the_process_that_was_told_it(bed: Bed) -> None:
    async with bed.fake() as fake:
        accepted = await bed.provider(bed.channel(fake)).submit(bed.job())
        assert isinstance(accepted, Accepted)
        done = await bed.provider(bed.channel(fake)).poll(bed.job(), accepted.upstream_id)
        assert isinstance(done, Done)
        assert [await content(source) for source in done.images] == [image(0)]
    fake.assert_sound()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=JSON, value=JSON, status=st.sampled_from([200, 400, 429, 500]))
async def test_whatever_is_answered_is_an_outcome(
    tmp_path: Path, document: object, value: object, status: int
) -> None:
    answers = (
        document,
        {"output": document, "code": value, "message": document, "request_id": value},
        {"output": {"choices": document}, "code": ""},
        {"output": {"choices": [{"message": document}, {"message": {"content": value}}]}},
        choices([{"image": document}], [{"image": value}]),
    )
    await assert_outcomes(PROTOCOL, tmp_path, answers, status=status)


@pytest.mark.parametrize("body", [b"", b"[" * 100_000, b'{"output": ' * 50_000, b"\xff\xfe"])
async def test_monstrous_answers_are_unknown(bed: Bed, body: bytes) -> None:
    assert isinstance(await submitted(bed, Reply(body=body)), Unknown)
