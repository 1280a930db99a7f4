"""Files by the client, against a real server: uploaded once, named by many requests."""

import os
import threading
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from calotype.client import AsyncCalotype, Calotype, File, GenerationRequest, NotFoundError
from client.speaking import Kind, answer, do, first, opened, rogue
from client.test_lost_answer import cutting
from harness import Server, picture, running_server

MODEL = "gpt-image-2"
LOST: dict[str, Any] = {"code": "file_not_found", "message": "None.", "type": "not_found_error"}


@pytest.fixture
async def idle_server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running_server(tmp_path / "data", with_worker=False) as running:
        yield running


async def test_a_file_is_uploaded_named_listed_and_deleted(server: Server, kind: Kind) -> None:
    async with opened(kind, server.key, server.url) as client:
        file: File = await do(client.upload_file, picture(size=(40, 30)))
        assert (file.width, file.height, file.content_type) == (40, 30, "image/png")
        assert file.reference == f"asset://{file.id}"
        assert file.created_at
        assert file.expires_at
        task = await do(client.generate, "A lighthouse", model=MODEL, references=[file])
        done = await do(task.wait)
        assert done.request["image_input"] == [file.reference]
        used = await do(client.file, file.id)
        assert used.expires_at > file.expires_at
        assert await do(client.download, used.url)
        assert [one.id for one in await do(client.files)] == [file.id]
        await do(client.delete_file, file.id)
        with pytest.raises(NotFoundError, match="file_not_found"):
            await do(client.file, file.id)
        with pytest.raises(NotFoundError, match="file_not_found"):
            await do(client.delete_file, file.id)


async def test_a_path_bytes_and_an_open_file_are_the_same_file(
    idle_server: Server, kind: Kind, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    reading, writing = os.pipe()
    pouring = threading.Thread(target=_pour, args=(writing, picture()))
    pouring.start()
    async with opened(kind, idle_server.key, idle_server.url) as client:
        with path.open("rb") as seekable, os.fdopen(reading, "rb") as pipe:
            sources = (path, picture(), bytearray(picture()), seekable, BytesIO(picture()), pipe)
            files = [await do(client.upload_file, source) for source in sources]
    pouring.join()
    assert len({file.id for file in files}) == 1


def _pour(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as pipe:
        pipe.write(content)


async def test_files_come_page_by_page_as_they_are_taken(idle_server: Server, kind: Kind) -> None:
    async with opened(kind, idle_server.key, idle_server.url) as client:
        made = [(await do(client.upload_file, picture(size=(9, each)))).id for each in range(1, 4)]
        assert [one.id for one in await first(2, client.files)] == made[:0:-1]
        assert [one.id for one in await do(client.files, limit=1)] == made[-1:]


async def test_a_batch_may_name_files(idle_server: Server, kind: Kind) -> None:
    async with opened(kind, idle_server.key, idle_server.url) as client:
        file = await do(client.upload_file, picture())
        references = ([file], [file.reference], ["asset://asset_0000000000000"])
        requests = [GenerationRequest("x", model=MODEL, references=each) for each in references]
        *made, refused = await do(client.generate_batch, requests)
    assert [task.state for task in made] == ["waiting"] * 2
    assert refused.code == "invalid_parameter"


async def test_an_upload_whose_answer_was_lost_is_sent_again_and_is_one_file(
    idle_server: Server, kind: Kind
) -> None:
    async with (
        cutting(idle_server) as cutter,
        opened(kind, idle_server.key, cutter.url) as client,
    ):
        await do(client.upload_file, picture())
        assert len(await do(client.files)) == 1


async def test_a_deletion_whose_answer_was_lost_has_happened(kind: Kind) -> None:
    async with (
        rogue(b"", answer(404, LOST)) as served,
        opened(kind, "ck_x", served.url) as client,
    ):
        await do(client.delete_file, "asset_7")
    assert served.lines == ["DELETE /v1/files/asset_7"] * 2


@pytest.mark.parametrize("given", ["a.png", "https://example.com/a.png", 5, None])
async def test_what_is_no_file_is_refused_before_it_is_sent(kind: Kind, given: Any) -> None:
    async with rogue() as served, opened(kind, "ck_x", served.url) as client:
        with pytest.raises(TypeError, match="image: give"):
            await do(client.upload_file, given)
    assert served.lines == []


def test_both_clients_have_the_same_verbs_for_files() -> None:
    for name in ("upload_file", "files", "file", "delete_file"):
        assert getattr(Calotype, name).__doc__ == getattr(AsyncCalotype, name).__doc__
