"""What the world sees of an image's own words: nothing of what came, and where it comes from."""

from pathlib import Path

from PIL import Image

from harness import running_server
from imaging.packets import IPTC, SOURCES, TASK, XMP, said
from imaging.samples import MARK, encoded, exif


async def test_a_sandbox_picture_says_its_task_and_that_an_algorithm_drew_it(
    tmp_path: Path,
) -> None:
    async with running_server(tmp_path / "data") as server:
        for form in ("png", "jpg", "webp"):
            task = await server.accepted(
                model="gpt-image-2.5-flare", prompt="a quiet harbour", output_format=form
            )
            done = await server.finished(task["task_id"])
            (image,) = done["result"]["data"]
            reply = await server.anonymous("GET", image["url"].removeprefix(server.url))
            assert len(reply.body) == image["bytes"]
            words = said(reply.body)
            assert words[TASK] == task["task_id"]
            assert words[f"{IPTC}DigitalSourceType"] == f"{SOURCES}algorithmicMedia"
            assert f"{IPTC}AISystemUsed" not in words
            assert words[f"{XMP}CreatorTool"].startswith("Calotype ")
            assert b"harbour" not in reply.body


async def test_settings_leave_out_where_a_result_comes_from(tmp_path: Path) -> None:
    async with running_server(tmp_path / "data", provenance=False) as server:
        done = await server.finished((await server.accepted())["task_id"])
        url = done["result"]["data"][0]["url"].removeprefix(server.url)
        assert said((await server.anonymous("GET", url)).body) == {}


async def test_an_upload_is_stored_without_its_place_and_upright(tmp_path: Path) -> None:
    photo = encoded("JPEG", size=(400, 300), exif=b"Exif\x00\x00" + exif(6))
    assert MARK in photo
    async with running_server(tmp_path / "data", with_worker=False) as server:
        accepted = await server.submit_form(("image", photo, "photo.jpg"))
        assert accepted.status == 202
        (stored,) = server.stored_files()
        assert MARK not in stored.read_bytes()
        with Image.open(stored) as image:
            assert image.size == (300, 400)
            assert not image.getexif()
