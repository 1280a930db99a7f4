"""What only Azure has: two forms of URL, and OpenAI's SDK as the oracle of both."""

from typing import Any, Final

import msgspec
import openai
import pytest

from calotype.domain.outcomes import Done, Refused
from providers.bed import PROMPT, Bed, reference
from providers.cases.azure_openai import PROTOCOL
from providers.fakes.azure_openai import INNER
from providers.fakes.base import KEY
from providers.fakes.exchange import Call
from providers.protocol import Protocol

VERSION: Final = "2025-04-01-preview"
CLASSIC: Final = msgspec.structs.replace(PROTOCOL, options={"api_version": VERSION})
PLAIN, THREE_REFERENCES = PROTOCOL.examples[:2]


@pytest.fixture
def protocol() -> Protocol:
    return PROTOCOL


def said(call: Call) -> dict[str, Any]:
    """A call with all that may differ taken out: the order of fields, the boundary of a form."""
    parts = [(part.name, part.filename, part.content_type, part.data) for part in call.parts]
    kind = call.headers["content-type"].partition(";")[0]
    return {
        "call": (call.method, call.path, call.query, kind, call.headers.get("api-key")),
        "document": call.document,
        "texts": sorted((name, data) for name, file, _, data in parts if file is None),
        "files": [part for part in parts if part[1] is not None],
    }


def files(count: int) -> list[tuple[str, bytes, str]]:
    return [(f"reference-{n + 1}.png", reference(n), "image/png") for n in range(count)]


async def test_the_sdk_sends_the_same_in_the_classic_form(bed: Bed) -> None:
    bed.protocol = CLASSIC
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, PLAIN)).submit(bed.job(PLAIN))
        async with openai.AsyncAzureOpenAI(
            api_key=KEY,
            azure_endpoint=fake.base_url,
            api_version=VERSION,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
        ) as client:
            await client.images.generate(
                prompt=PROMPT, model="our-images", size="1152x2048", quality="medium"
            )
    fake.assert_sound()
    ours, theirs = (order.call for order in fake.bought)
    assert said(ours) == said(theirs)
    assert ours.path == "/openai/deployments/our-images/images/generations"
    assert ours.query == (("api-version", VERSION),)


async def test_the_sdk_sends_the_same_classic_edit(bed: Bed) -> None:
    bed.protocol = CLASSIC
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, THREE_REFERENCES)).submit(bed.job(THREE_REFERENCES))
        async with openai.AsyncAzureOpenAI(
            api_key=KEY,
            azure_endpoint=fake.base_url,
            api_version=VERSION,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
        ) as client:
            await client.images.edit(
                image=files(3), prompt=PROMPT, model="gpt-image-2", size="auto", quality="medium"
            )
    fake.assert_sound()
    ours, theirs = (order.call for order in fake.bought)
    assert said(ours) == said(theirs)


async def test_the_sdk_sends_the_same_in_the_v1_form(bed: Bed) -> None:
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, THREE_REFERENCES)).submit(bed.job(THREE_REFERENCES))
        async with openai.AsyncOpenAI(
            api_key=KEY,
            base_url=f"{fake.base_url}/openai/v1/",
            default_headers={"api-key": KEY},
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
        ) as client:
            await client.images.edit(
                image=files(3),
                prompt=PROMPT,
                model="gpt-image-2",
                size="auto",
                quality="medium",
                extra_headers={"Authorization": openai.Omit()},
            )
    fake.assert_sound()
    ours, theirs = (order.call for order in fake.bought)
    assert said(ours) == said(theirs)
    assert ours.path == "/openai/v1/images/edits"


async def test_a_deployment_is_one_step_of_the_path_whatever_it_is_called(bed: Bed) -> None:
    bed.protocol = CLASSIC
    job = bed.job(PLAIN, upstream_model="../a b?c")
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, PLAIN)).submit(job)
    (call,) = fake.calls
    assert call.path == "/openai/deployments/../a b?c/images/generations"
    assert call.query == (("api-version", VERSION),)


async def test_a_filter_told_by_the_inner_error_is_a_policy(bed: Bed) -> None:
    async with bed.fake(INNER) as fake:
        refused = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(refused, Refused)
    assert refused.code == "content_policy_violation"


async def test_drafts_come_as_at_openai(bed: Bed) -> None:
    options = {"api_version": VERSION, "partial_images": "1"}
    bed.protocol = msgspec.structs.replace(PROTOCOL, options=options)
    told: list[int] = []
    async with bed.fake() as fake:
        done = await bed.provider(bed.channel(fake)).submit(bed.job(report=told.append))
    assert isinstance(done, Done)
    assert told == [50]


@pytest.mark.parametrize("path", ["/openai", "/openai/v1/"])
async def test_a_base_url_that_is_more_than_the_resource_is_refused_at_the_start(
    bed: Bed, path: str
) -> None:
    async with bed.fake() as fake:
        channel = msgspec.structs.replace(bed.channel(fake), base_url=f"{fake.base_url}{path}")
        with pytest.raises(ValueError, match=r"base_url: .* write it alone"):
            bed.provider(channel)
