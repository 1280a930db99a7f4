"""What only stable-diffusion.cpp's server has: it tells what it can, and has one model."""

import base64
from typing import Final

import msgspec
import pytest

from calotype.domain.channel import Served
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    Fault,
    Refused,
    Running,
    TryLater,
    Unknown,
)
from calotype.domain.secret import Secret
from providers.bed import PROMPT, Bed, developed, followed, protocols, reference
from providers.fakes.base import Fake
from providers.fakes.exchange import Reply
from providers.fakes.sdcpp import EXPIRED, LOADED, SdCpp
from providers.protocol import Example, Protocol
from providers.scripts import Script

PLAIN: Final = Example(model="flux-2-klein-4b", reads_model="", reads={})
EDITING: Final = msgspec.structs.replace(PLAIN, references=2)


@pytest.fixture
def protocol() -> Protocol:
    return protocols()["sdcpp"]


def tells(fake: Fake, **changes: object) -> None:
    """The server says something else of itself."""
    fake.tamper = lambda reply: (
        Reply(200, {**reply.document, **changes}) if "limits" in reply.document else reply
    )


async def test_a_whole_request(bed: Bed) -> None:
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, EDITING)).submit(bed.job(EDITING))
    (order,) = fake.bought
    assert (order.call.method, order.call.path) == ("POST", "/sdcpp/v1/img_gen")
    images = order.call.document.pop("ref_images")
    assert [base64.b64decode(each) for each in images] == [reference(0), reference(1)]
    assert order.call.document == {
        "prompt": PROMPT,
        "width": 1024,
        "height": 1024,
        "seed": -1,
        "batch_count": 1,
        "output_format": "jpeg",
    }


async def test_a_model_that_starts_from_an_image_gets_it_as_that(bed: Bed) -> None:
    one = msgspec.structs.replace(EDITING, references=1)
    async with bed.fake() as fake:
        options = {"references": "init_image"}
        channel = msgspec.structs.replace(bed.channel(fake, one), options=options)
        provider = bed.provider(channel)
        assert isinstance(await provider.submit(bed.job(one)), Accepted)
        refused = await provider.submit(bed.job(EDITING))
    (order,) = fake.bought
    assert base64.b64decode(order.call.document["init_image"]) == reference(0)
    assert "ref_images" not in order.call.document
    assert isinstance(refused, Refused)
    assert refused.fault is Fault.UNFIT


async def test_it_is_asked_once_what_it_can(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        for _ in range(3):
            await provider.submit(bed.job())
    assert len(fake.calls_to("GET", "/capabilities")) == 1
    assert fake.purchases == 3


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"limits": {"max_width": 1000}}, "width may be 1000 at most there, not 1024"),
        ({"limits": {"max_height": 64}}, "height"),
        ({"limits": {"max_batch_count": 0}}, "batch_count"),
        ({"output_formats": ["png"]}, "cannot write jpeg"),
    ],
)
async def test_what_is_over_its_limits_is_not_sent(
    bed: Bed, said: dict[str, object], reason: str
) -> None:
    async with bed.fake() as fake:
        tells(fake, **said)
        outcome = await bed.provider(bed.channel(fake, PLAIN)).submit(bed.job(PLAIN))
    assert isinstance(outcome, Refused)
    assert outcome.fault is Fault.UNFIT
    assert reason in outcome.detail
    assert reason not in outcome.message
    assert fake.sends == 0


@pytest.mark.parametrize(
    "said",
    [
        {"limits": None},
        {"limits": {"max_width": "1"}},
        {"output_formats": "png"},
        {"model": []},
        {"model": {"name": None, "stem": 7}},
    ],
    ids=str,
)
async def test_limits_that_make_no_sense_are_none(bed: Bed, said: dict[str, object]) -> None:
    async with bed.fake() as fake:
        tells(fake, **said)
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, Accepted), outcome


@pytest.mark.parametrize("name", [LOADED, LOADED.removesuffix(".gguf"), "", "flux-2-klein-4b"])
async def test_the_model_goes_by_its_name_or_by_none(bed: Bed, name: str) -> None:
    async with bed.fake() as fake:
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job(upstream_model=name))
    assert isinstance(outcome, Accepted), outcome


async def test_another_model_than_the_loaded_one_is_not_drawn_with(bed: Bed) -> None:
    another = msgspec.structs.replace(PLAIN, served=Served(id="qwen-image.gguf"))
    async with bed.fake() as fake:
        assert isinstance(fake, SdCpp)
        provider = bed.provider(bed.channel(fake, another))
        outcome = await provider.submit(bed.job(another))
        assert isinstance(outcome, Refused)
        assert outcome.fault is Fault.MODEL
        assert LOADED in outcome.detail
        assert fake.sends == 0
        fake.model = "qwen-image.gguf"  # the operator started it anew
        assert isinstance(await provider.submit(bed.job(another)), Accepted)


@pytest.mark.parametrize("script", [Script.CUT_BEFORE, Script.LOST])
async def test_after_a_restart_it_is_asked_anew_what_it_can(bed: Bed, script: Script) -> None:
    async with bed.fake(script) as fake:
        provider = bed.provider(bed.channel(fake))
        assert isinstance(await developed(provider, bed.job()), Unknown)
        assert isinstance(await provider.submit(bed.job()), Accepted)
    assert len(fake.calls_to("GET", "/capabilities")) == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Reply(404, {"error": "Not Found"}), Refused),
        (Reply(401, {"error": "Unauthorized"}), Refused),
        (Reply(500, {"error": "server_error"}), TryLater),
        (Reply(200, ["flux"]), TryLater),
        (Reply(429, {"error": "busy"}), TryLater),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
async def test_a_server_that_does_not_tell_what_it_can_gets_no_job(
    bed: Bed, answer: Reply, kind: type
) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _: answer
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, kind)
    assert fake.sends == 0


async def test_a_job_that_has_begun_cannot_be_cancelled(bed: Bed) -> None:
    async with bed.fake(Script.DELAY) as fake:
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        for queued in (True, True, False):
            seen = await provider.poll(bed.job(), accepted.upstream_id)
            assert isinstance(seen, Running)
            assert seen.queued is queued
        assert await provider.cancel(bed.job(), accepted.upstream_id) is False
        assert await provider.cancel(bed.job(), "another job") is False
        assert isinstance(await followed(provider, bed.job(), accepted.upstream_id), Done)


async def test_what_the_server_says_of_a_failure_is_told(bed: Bed) -> None:
    async with bed.fake(Script.FAILED) as fake:
        outcome = await developed(bed.provider(bed.channel(fake)), bed.job())
    assert isinstance(outcome, Failed)
    assert "no results" in outcome.message


@pytest.mark.parametrize("script", [EXPIRED, Script.LOST])
async def test_nobody_knows_what_became_of_a_job_that_is_gone(bed: Bed, script: str) -> None:
    async with bed.fake(script) as fake:
        outcome = await developed(bed.provider(bed.channel(fake)), bed.job())
    assert isinstance(outcome, Unknown)


async def test_a_prompt_arrives_as_it_is_for_nothing_in_it_is_an_order_here(bed: Bed) -> None:
    prompt = '<sd_cpp_extra_args>{"seed": 1}</sd_cpp_extra_args> <lora:x:1>'
    job = bed.job()
    job = msgspec.structs.replace(job, request=msgspec.structs.replace(job.request, prompt=prompt))
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake)).submit(job)
    assert fake.bought[0].call.document["prompt"] == prompt


@pytest.mark.parametrize(
    ("key", "header"),
    [
        (None, None),
        (Secret("a-token"), "Bearer a-token"),
        (Secret("ada:lovelace"), "Basic YWRhOmxvdmVsYWNl"),
    ],
    ids=["none", "token", "user and password"],
)
async def test_a_server_wants_no_key_and_a_proxy_may(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, key: Secret | None, header: str | None
) -> None:
    monkeypatch.setattr(SdCpp, "authorised", lambda *_: True)
    async with bed.fake() as fake:
        channel = msgspec.structs.replace(bed.channel(fake), api_key=key)
        await bed.provider(channel).submit(bed.job())
    assert {call.headers.get("authorization") for call in fake.calls} == {header}
