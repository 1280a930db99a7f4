"""What only Ideogram has: its header, its forms, a list of sizes, images that are withheld."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.channel import Served
from calotype.domain.outcomes import Accepted, Done, Fault, Refused, Unknown
from providers.answers import JSON, assert_outcomes, submitted
from providers.bed import PROMPT, Bed, catalog, content
from providers.cases.ideogram import PROTOCOL
from providers.fakes.base import KEY, image
from providers.fakes.exchange import Reply
from providers.fakes.ideogram import SIZES, problem
from providers.protocol import Example, Protocol


@pytest.fixture
def protocol() -> Protocol:
    return PROTOCOL


def data(*items: Any) -> Reply:
    return Reply(200, {"created": "now", "data": list(items)})


# What goes out


def test_every_ratio_of_the_catalog_has_a_size_of_the_upstreams_list() -> None:
    sizes = catalog().get("ideogram-v4").sizes.values()
    assert {f"{width}x{height}" for row in sizes for width, height in row.values()} == SIZES


async def test_the_form_goes_out_with_the_key_in_its_own_header(bed: Bed) -> None:
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake)).submit(bed.job())
    (order,) = fake.bought
    assert order.call.headers["api-key"] == KEY
    assert [(part.name, part.text) for part in order.call.parts] == [
        ("text_prompt", PROMPT),
        ("rendering_speed", "QUALITY"),
        ("resolution", "2560x1600"),
    ]


async def test_another_model_is_another_path_with_a_plain_prompt(bed: Bed) -> None:
    """As an operator may have it in a catalog of their own."""
    own = Example(
        model="ideogram-v4", served=Served(id="ideogram-v3"), reads_model="ideogram-v3", reads={}
    )
    job = bed.job(own, fields={"aspect_ratio": "3x2", "seed": 7})
    job = msgspec.structs.replace(job, request=msgspec.structs.replace(job.request, n=2))
    async with bed.fake() as fake:
        accepted = await bed.provider(bed.channel(fake, own)).submit(job)
        assert isinstance(accepted, Accepted)
        done = await bed.provider(bed.channel(fake, own)).poll(job, accepted.upstream_id)
        assert isinstance(done, Done)
        assert [await content(each) for each in done.images] == [image(0), image(1)]
    fake.assert_sound()
    (order,) = fake.bought
    read = fake.understand(order.call)
    assert (read.model, read.prompt) == ("ideogram-v3", PROMPT)
    assert read.fields == {"aspect_ratio": "3x2", "seed": "7", "num_images": "2"}


async def test_a_models_id_cannot_lead_elsewhere(bed: Bed) -> None:
    job = bed.job(upstream_model="../account?x=/")
    async with bed.fake() as fake:
        assert isinstance(await bed.provider(bed.channel(fake)).submit(job), Refused)
    assert fake.purchases == 0
    (call,) = fake.calls
    assert call.query == ()


# What comes back


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Prompt or provided image failed the safety checks.", "content_policy_violation"),
        ("The prompt is UNSAFE.", "content_policy_violation"),
        ("resolution: not one of the allowed values", "upstream_rejected"),
        ("", "upstream_rejected"),
    ],
)
@pytest.mark.parametrize("name", ["error", "detail", "message"])
async def test_an_unsafe_prompt_is_known_by_its_text_alone(
    bed: Bed, name: str, text: str, code: str
) -> None:
    outcome = await submitted(bed, Reply(422, {name: text}))
    assert isinstance(outcome, Refused)
    assert outcome.code == code


async def test_the_text_counts_under_no_other_status(bed: Bed) -> None:
    outcome = await submitted(bed, problem(400, "The safety field is not known."))
    assert isinstance(outcome, Refused)
    assert outcome.fault is Fault.REQUEST


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
async def test_what_may_have_been_taken_is_unknown(bed: Bed, status: int) -> None:
    assert isinstance(await submitted(bed, problem(status, "Busy.")), Unknown)


async def test_an_image_beside_a_withheld_one_is_kept(bed: Bed) -> None:
    unsafe = {"url": "", "is_image_safe": False}
    good = {"url": "https://x.example/1.png", "is_image_safe": True}
    outcome = await submitted(bed, data(unsafe, good))
    assert isinstance(outcome, Accepted)
    assert "https://x.example/1.png" in outcome.upstream_id


async def test_nothing_at_all_is_not_moderation(bed: Bed) -> None:
    assert await submitted(bed, data()) == Done(())
    assert await submitted(bed, data({"url": "", "is_image_safe": True})) == Done(())


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=JSON, value=JSON, status=st.sampled_from([200, 400, 422, 429, 500]))
async def test_whatever_is_answered_is_an_outcome(
    tmp_path: Path, document: object, value: object, status: int
) -> None:
    answers = (
        document,
        {"data": document, "error": value},
        {"data": [{"url": document, "is_image_safe": value}], "detail": document},
        {"data": [document, {"url": "", "is_image_safe": False}]},
    )
    await assert_outcomes(PROTOCOL, tmp_path, answers, status=status)


@pytest.mark.parametrize("body", [b"", b"[" * 100_000, b'{"data": ' * 50_000, b"\xff\xfe"])
async def test_monstrous_answers_are_unknown(bed: Bed, body: bytes) -> None:
    assert isinstance(await submitted(bed, Reply(body=body)), Unknown)
