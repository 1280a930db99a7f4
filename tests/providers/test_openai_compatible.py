"""What only servers of one's own have: no key, images at the server, prompts that are commands."""

from typing import Any

import msgspec
import pytest

from calotype.domain.catalog import Model
from calotype.domain.outcomes import Accepted, Done, Fault, Refused, SourceError, Unknown
from calotype.domain.task import Request
from calotype.domain.validation import normalise
from providers.bed import Bed, catalog, content, developed, upstream
from providers.cases.openai_compatible import PROTOCOL
from providers.fakes.base import KEY, Fake, image
from providers.fakes.exchange import Call
from providers.fakes.images_api import changed
from providers.fakes.openai_compatible import OWN_URL, RELATIVE_URL, OpenAICompatible
from providers.protocol import Protocol
from providers.scripts import Script


class Keyless(OpenAICompatible):
    """A server that wants no key."""

    def authorised(self, call: Call) -> bool:
        return "authorization" not in call.headers


@pytest.fixture
def protocol() -> Protocol:
    return PROTOCOL


def keyless(bed: Bed, fake: Fake) -> Any:
    return bed.provider(msgspec.structs.replace(bed.channel(fake), api_key=None))


async def test_a_server_without_a_key_gets_no_credential_and_may_cost_all_the_same(
    bed: Bed,
) -> None:
    bed.protocol = msgspec.structs.replace(PROTOCOL, fake=Keyless)
    async with bed.fake() as fake:
        provider = keyless(bed, fake)
        assert isinstance(await provider.submit(bed.job()), Done)
    fake.assert_sound()
    assert not provider.free


async def test_a_server_with_a_key_may_be_somebodys_who_is_paid(bed: Bed) -> None:
    async with bed.fake() as fake:
        assert not bed.provider(bed.channel(fake)).free


@pytest.mark.parametrize(
    "prompt",
    [
        'a cat <sd_cpp_extra_args>{"seed": 1}</sd_cpp_extra_args>',
        "<SD_CPP_EXTRA_ARGS>{}</SD_CPP_EXTRA_ARGS>",
        "<sd_cpp_extra_args",
    ],
)
async def test_a_prompt_that_would_be_a_command_is_refused_and_not_sent(
    bed: Bed, prompt: str
) -> None:
    job = bed.job()
    job = msgspec.structs.replace(job, request=msgspec.structs.replace(job.request, prompt=prompt))
    async with bed.fake() as fake:
        refused = await bed.provider(bed.channel(fake)).submit(job)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.fault) == ("upstream_rejected", Fault.UNFIT)
    assert "<sd_cpp_extra_args" in refused.detail
    assert fake.calls == []


@pytest.mark.parametrize("script", [RELATIVE_URL, OWN_URL])
async def test_an_image_at_the_server_is_fetched_with_the_key(bed: Bed, script: str) -> None:
    async with bed.fake(script) as fake:
        done = await developed(bed.provider(bed.channel(fake)), bed.job())
        assert isinstance(done, Done)
        assert [await content(source) for source in done.images] == [image(0)]
    last = fake.calls[-1]
    assert last.method == "GET"
    assert last.path.startswith("/generated-images/")
    assert last.headers["authorization"] == f"Bearer {KEY}"
    fake.assert_sound()


@pytest.mark.parametrize(
    "url", ["//[", "http://[/x.png", "ftp://x/y.png", "javascript:1", "\ud800"]
)
async def test_a_url_that_leads_nowhere_is_no_exception(bed: Bed, url: str) -> None:
    async with bed.fake() as fake:
        fake.tamper = changed(lambda _: {"data": [{"url": url}]})
        outcome = await developed(bed.provider(bed.channel(fake)), bed.job())
        if isinstance(outcome, Done):
            for source in outcome.images:
                with pytest.raises(SourceError):
                    await content(source)


@pytest.mark.parametrize(
    ("header", "cost"),
    [
        ("0.0421235", 42_124),
        ("4.21235e-2", 42_124),
        ("0", 0),
        ("", None),
        ("free", None),
        ("-1", None),
        ("NaN", None),
        ("Infinity", None),
        ("1e999999999", None),
        ("1e15", None),
    ],
)
async def test_a_proxy_tells_the_cost_in_a_header(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, header: str, cost: int | None
) -> None:
    async with bed.fake() as fake:
        accepted = fake.accepted

        def with_header(order: Any) -> Any:
            reply = accepted(order)
            return type(reply)(200, reply.document, headers={"x-litellm-response-cost": header})

        monkeypatch.setattr(fake, "accepted", with_header)
        done = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(done, Done)
    assert done.cost_micro_usdc == cost


async def test_the_cost_outlives_the_process_that_was_told_it(bed: Bed) -> None:
    async with bed.fake(Script.RESULT_BROKEN) as fake:
        accepted = await bed.provider(bed.channel(fake)).submit(bed.job())
        assert isinstance(accepted, Accepted)
        done = await bed.provider(bed.channel(fake)).poll(bed.job(), accepted.upstream_id)
    assert isinstance(done, Done)
    assert done.cost_micro_usdc == 42_124


async def test_a_credential_in_an_error_is_not_repeated(bed: Bed) -> None:
    async with bed.fake(Script.REJECTED) as fake:
        fake.tamper = changed(lambda _: {"error": f"no such key {KEY}"})
        refused = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(refused, Refused)
    assert KEY not in repr(refused)


def test_what_a_server_may_ignore_in_silence_is_not_offered() -> None:
    """A seed that one server takes and the next one overlooks would be dropped."""
    wire = upstream("openai-compatible").wire("*")
    assert wire is not None
    assert wire.parameters.keys() == {"background"}
    assert served(catalog().get("gpt-image-2"))
    assert not served(catalog().get("qwen-image-2.0"), seed=1)


def served(model: Model, **parameters: Any) -> bool:
    body = {"model": model.id, "prompt": "a lighthouse", **parameters}
    asked = normalise(catalog(), body, text=False)
    wire = upstream("openai-compatible").wire(model.id)
    assert wire is not None
    request = Request(asked.model, asked.prompt, asked.n, asked.parameters)
    return wire.unable(request, references=0) is None


async def test_an_id_that_is_none_of_ours_is_unknown(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        assert isinstance(await provider.poll(bed.job(), "job-1"), Unknown)
        assert isinstance(await provider.recover(bed.job()), Unknown)
        assert not await provider.cancel(bed.job(), "job-1")
        assert provider.callback({}, b"{}") is None
    assert fake.calls == []
