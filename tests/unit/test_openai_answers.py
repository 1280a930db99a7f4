"""Finished images as OpenAI's clients take them, however many and however long they are."""

import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from calotype.api.openai.answers import Picture, events, inline, linked
from calotype.assets.disk import DiskAssets
from calotype.domain.task import BillingStatus, Request, ResultImage, State, Task

TASK = Task(
    id=1,
    account_id=1,
    request_id="r",
    state=State.SUCCESS,
    progress=100,
    request=Request("m", "x", 2, {"background": "transparent", "quality": "high"}),
    references=(),
    channel_id=1,
    claim=1,
    seq=3,
    billing=BillingStatus.COMMITTED,
    reserved=2,
    actual=2,
    released=0,
    result=(),
    error=None,
    deadline_at=0,
    abandon_at=0,
    created_at=0,
    updated_at=0,
    completed_at=1_760_000_100_000,
)


@pytest.fixture
def store(tmp_path: Path) -> DiskAssets:
    return DiskAssets(tmp_path)


def stored(store: DiskAssets, *contents: bytes) -> tuple[Task, list[Picture]]:
    """A finished task with these images."""
    pictures = []
    for place, content in enumerate(contents):
        store.path(f"{place}").write_bytes(content)
        image = ResultImage(place, "image/webp", 30, 20, len(content))
        pictures.append((image, f"{place}"))
    return msgspec.structs.replace(TASK, result=tuple(image for image, _ in pictures)), pictures


async def joined(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


@pytest.mark.parametrize("size", [1, 2, 3, 262_143, 262_144, 262_145, 1_000_000])
async def test_an_image_of_any_length_is_whole(store: DiskAssets, size: int) -> None:
    content = os.urandom(size)
    task, pictures = stored(store, content)
    answer = json.loads(await joined(inline(task, pictures, store)))
    assert base64.b64decode(answer["data"][0]["b64_json"], validate=True) == content


async def test_several_images_stand_in_their_order(store: DiskAssets) -> None:
    contents = [b"one", b"two!", b"three"]
    task, pictures = stored(store, *contents)
    answer = json.loads(await joined(inline(task, pictures, store)))
    assert [base64.b64decode(item["b64_json"]) for item in answer.pop("data")] == contents
    assert answer == {
        "created": 1_760_000_100,
        "size": "30x20",
        "output_format": "webp",
        "background": "transparent",
        "quality": "high",
    }
    links = json.loads(linked(task, ["a", "b", "c"]))
    assert links == {**answer, "data": [{"url": "a"}, {"url": "b"}, {"url": "c"}]}


async def test_several_images_are_an_event_each(store: DiskAssets) -> None:
    task, pictures = stored(store, b"one", b"two!")
    told = (await joined(events("image_edit", task, pictures, store))).decode()
    first, second, rest = told.split("\n\n")
    assert rest == ""
    for event, content in ((first, b"one"), (second, b"two!")):
        name, data = event.split("\n")
        assert name == "event: image_edit.completed"
        document = json.loads(data.removeprefix("data: "))
        assert base64.b64decode(document.pop("b64_json")) == content
        assert document["type"] == "image_edit.completed"
        assert (document["background"], document["quality"]) == ("transparent", "high")
        assert document["created_at"] == 1_760_000_100
