"""The contract's own requests, from submission to the picture."""

from io import BytesIO

import aiohttp
from PIL import Image

from harness import Server, picture


async def test_a_typical_request_becomes_a_picture_that_can_be_downloaded(server: Server) -> None:
    accepted = await server.submit(response_format="url")
    assert accepted.status == 202
    task_id = accepted.json["task_id"]
    assert accepted.headers["Location"] == f"/v1/tasks/{task_id}"
    done = await server.finished(task_id)
    assert done["state"] == "success"
    (item,) = done["result"]["data"]
    image = await server.call("GET", item["url"])
    assert image.status == 200
    assert image.headers["Content-Type"] == "image/png"
    with Image.open(BytesIO(image.body)) as opened:
        assert opened.size == (1024, 1024) == (item["width"], item["height"])


async def test_an_upload_and_a_url_are_both_references_in_the_order_they_came(
    idle_server: Server,
) -> None:
    form = aiohttp.FormData()
    form.add_field("image_input[]", "https://example.com/first.png")
    form.add_field("prompt", "both")
    form.add_field("image[]", picture("JPEG"), filename="second.png", content_type="image/png")
    form.add_field("model", "nano-banana-pro")
    form.add_field("n", "1")
    accepted = await idle_server.call("POST", "/v1/images/generations", data=form)
    assert accepted.status == 202, accepted.body
    task = await idle_server.task(accepted.json["task_id"])
    first, second = task["request"]["image_input"]
    assert first == "https://example.com/first.png"
    stored = await idle_server.call("GET", second)
    assert stored.body == picture("JPEG")
    assert stored.headers["Content-Type"] == "image/jpeg"


async def test_a_refused_form_leaves_nothing_behind(idle_server: Server) -> None:
    form = aiohttp.FormData()
    form.add_field("image", picture(), filename="a.png")
    form.add_field("image", b"GIF89a not one of ours, at all", filename="b.png")
    form.add_field("model", "gpt-image-2")
    form.add_field("prompt", "x")
    refused = await idle_server.call("POST", "/v1/images/generations", data=form)
    assert refused.refusal == (400, "unsupported_reference_type", "image")
    assert idle_server.stored_files() == []
