"""What only Stability has: engines, forms with a dummy file, reasons for an end."""

from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.channel import Served
from calotype.domain.outcomes import Done, Fault, Refused, Unknown
from calotype.domain.task import Request
from calotype.domain.wire import Asked
from providers.answers import JSON, assert_outcomes, submitted
from providers.bed import PROMPT, Bed, content, upstream
from providers.cases.stability import PROTOCOL
from providers.fakes.base import image
from providers.fakes.exchange import Reply
from providers.fakes.stability import RATIOS, problem
from providers.protocol import Example, Protocol

ENGINES: Final = upstream("stability").protocol["engines"]


@pytest.fixture
def protocol() -> Protocol:
    return PROTOCOL


def asked(**parameters: Any) -> Asked:
    return Request("recraft-v4.1", PROMPT, 1, parameters)


# What goes out


async def test_the_form_has_a_dummy_file_and_asks_for_json(bed: Bed) -> None:
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake)).submit(bed.job())
    (order,) = fake.bought
    assert order.call.path == "/v2beta/stable-image/generate/core"
    assert order.call.headers["accept"] == "application/json"
    assert [(part.name, part.filename, part.data) for part in order.call.parts] == [
        ("none", "none", b""),
        ("prompt", None, PROMPT.encode()),
        ("output_format", None, b"png"),
        ("aspect_ratio", None, b"3:2"),
    ]


@pytest.mark.parametrize("engine", ENGINES)
async def test_every_engine_has_its_path(bed: Bed, engine: str) -> None:
    own = Example(model="recraft-v4.1", served=Served(id=engine), reads_model=engine, reads={})
    async with bed.fake() as fake:
        outcome = await bed.provider(bed.channel(fake, own)).submit(bed.job(own))
    assert isinstance(outcome, Done)
    fake.assert_sound()
    (order,) = fake.bought
    assert fake.understand(order.call).model == engine


async def test_an_engine_that_there_is_not_is_never_asked(bed: Bed) -> None:
    async with bed.fake() as fake:
        job = bed.job(upstream_model="../../user/balance")
        outcome = await bed.provider(bed.channel(fake)).submit(job)
    assert isinstance(outcome, Refused)
    assert outcome.fault is Fault.MODEL
    assert "ultra" in outcome.detail
    assert fake.calls == []


def test_what_it_cannot_be_asked_for_goes_elsewhere() -> None:
    wire = upstream("stability").wire("recraft-v4.1")
    assert wire is not None
    said = set(wire.parameters["aspect_ratio"].enum)
    assert said <= set(RATIOS)
    for ratio in said:
        assert wire.unable(asked(aspect_ratio=ratio), references=0) is None
    assert wire.unable(asked(aspect_ratio="14:10"), references=0)
    assert wire.unable(asked(resolution="2K"), references=0)
    assert wire.unable(asked(rendering_speed="turbo"), references=0)
    assert wire.unable(asked(), references=1)


# What comes back


@pytest.mark.parametrize(
    ("status", "name", "fault"),
    [
        (400, "bad_request", Fault.REQUEST),
        (400, "content_moderation", Fault.POLICY),
        (401, "unauthorized", Fault.KEY),
        (402, "payment_required", Fault.ACCOUNT),
        (403, "content_moderation", Fault.POLICY),
        (403, "forbidden", Fault.KEY),
        (404, "not_found", Fault.MODEL),
        (413, "payload_too_large", Fault.REQUEST),
        (422, "unprocessable", Fault.REQUEST),
        (422, "content_moderation", Fault.POLICY),
    ],
)
async def test_a_refusal_is_judged_by_status_and_name(
    bed: Bed, status: int, name: str, fault: Fault
) -> None:
    outcome = await submitted(bed, problem(status, name))
    assert isinstance(outcome, Refused), outcome
    assert outcome.fault == fault


async def test_all_that_is_wrong_is_told(bed: Bed) -> None:
    outcome = await submitted(bed, problem(400, "bad_request", "seed: no", "prompt: too long"))
    assert "seed: no; prompt: too long" in outcome.message


@pytest.mark.parametrize("status", [408, 500, 502, 503])
async def test_what_may_have_been_taken_is_unknown(bed: Bed, status: int) -> None:
    assert isinstance(await submitted(bed, problem(status, "internal_error")), Unknown)


async def test_bytes_of_an_image_are_no_answer_to_be_read(bed: Bed) -> None:
    reply = Reply(200, body=image(0), content_type="image/png")
    assert isinstance(await submitted(bed, reply), Unknown)


async def test_the_image_comes_out_as_it_went_in(bed: Bed) -> None:
    async with bed.fake() as fake:
        done = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(done, Done)
    assert [await content(source) for source in done.images] == [image(0)]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=JSON, value=JSON, status=st.sampled_from([200, 400, 403, 429, 500]))
async def test_whatever_is_answered_is_an_outcome(
    tmp_path: Path, document: object, value: object, status: int
) -> None:
    answers = (
        document,
        {"image": document, "finish_reason": value},
        {"image": value},
        {"finish_reason": document, "seed": value},
        {"name": document, "errors": value, "id": document},
        {"name": value, "errors": [document]},
    )
    await assert_outcomes(PROTOCOL, tmp_path, answers, status=status)


@pytest.mark.parametrize("body", [b"", b"[" * 100_000, b'{"image": ' * 50_000, b"\xff\xfe"])
async def test_monstrous_answers_are_unknown(bed: Bed, body: bytes) -> None:
    assert isinstance(await submitted(bed, Reply(body=body)), Unknown)
