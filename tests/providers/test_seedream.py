"""What only Seedream has: references in the document, failures image by image, lasting URLs."""

import base64
from typing import Any

import msgspec
import pytest

from calotype.domain.outcomes import Accepted, Done
from providers.bed import Bed, content, public_url, reference
from providers.cases.seedream import PROTOCOL
from providers.fakes.base import image
from providers.fakes.images_api import changed
from providers.protocol import Example, Protocol


@pytest.fixture
def protocol() -> Protocol:
    return PROTOCOL


def example(references: int, *, public: bool = False) -> Example:
    return Example(
        model="seedream-4.5", references=references, public=public, reads_model="", reads={}
    )


async def written(bed: Bed, chosen: Example) -> Any:
    """How the references of a request are written."""
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, chosen)).submit(bed.job(chosen))
    (order,) = fake.bought
    return order.call.document.get("image")


def data_url(index: int) -> str:
    return f"data:image/png;base64,{base64.b64encode(reference(index)).decode()}"


async def test_one_reference_is_a_string_and_several_are_a_list(bed: Bed) -> None:
    assert await written(bed, example(0)) is None
    assert await written(bed, example(1)) == data_url(0)
    assert await written(bed, example(3)) == [data_url(0), data_url(1), data_url(2)]


async def test_a_reference_that_the_world_can_reach_is_passed_on_by_its_url(bed: Bed) -> None:
    assert await written(bed, example(1, public=True)) == public_url(0)
    assert await written(bed, example(2, public=True)) == [public_url(0), public_url(1)]


async def test_images_beside_a_failed_one_are_kept(bed: Bed) -> None:
    job = bed.job()
    job = msgspec.structs.replace(job, request=msgspec.structs.replace(job.request, n=2))
    failed = {"error": {"code": "OutputImageSensitiveContentDetected", "message": "No."}}
    async with bed.fake() as fake:
        fake.tamper = changed(lambda document: document | {"data": [failed, *document["data"]]})
        accepted = await bed.provider(bed.channel(fake)).submit(job)
        assert isinstance(accepted, Accepted)
        done = await bed.provider(bed.channel(fake)).poll(job, accepted.upstream_id)
        assert isinstance(done, Done)
        assert [await content(source) for source in done.images] == [image(0)]


async def test_the_url_outlives_the_process_that_was_told_it(bed: Bed) -> None:
    async with bed.fake() as fake:
        accepted = await bed.provider(bed.channel(fake)).submit(bed.job())
        assert isinstance(accepted, Accepted)
        assert accepted.poll_after == 0
        done = await bed.provider(bed.channel(fake)).poll(bed.job(), accepted.upstream_id)
        assert isinstance(done, Done)
        assert [await content(source) for source in done.images] == [image(0)]
    fake.assert_sound()
    assert fake.purchases == 1


async def test_urls_too_long_to_be_stored_are_read_at_once(bed: Bed) -> None:
    job = bed.job()
    job = msgspec.structs.replace(job, request=msgspec.structs.replace(job.request, n=2))

    def longer(document: Any) -> Any:
        (item,) = document["data"]
        return {"data": [{"url": f"{item['url']}?{'x' * 2500}"}] * 2}

    async with bed.fake() as fake:
        fake.tamper = changed(longer)
        done = await bed.provider(bed.channel(fake)).submit(job)
        assert isinstance(done, Done)
        assert [await content(source) for source in done.images] == [image(0)] * 2
