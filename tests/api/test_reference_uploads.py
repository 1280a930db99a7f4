"""Reference images by upload: what is taken, what is refused, and that a refusal leaves nothing."""

import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness import (
    BOUNDARY,
    FORM,
    GENERATIONS,
    Part,
    Reply,
    Server,
    form,
    noise,
    picture,
    running_server,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
LIMIT = 30 * MIB
FIELDS: list[Part] = [("model", "gpt-image-2"), ("prompt", "a lighthouse")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data"), with_worker=False) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def server(module_server: Server) -> Server:
    """The module's server, its asset store emptied."""
    for path in module_server.stored_files():
        path.unlink()
    return module_server


def png_of(width: int, height: int) -> bytes:
    """A PNG file that says it has these sides."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + picture()[33:]


def webp_of(width: int, height: int) -> bytes:
    """A WebP file that says that its canvas has these sides."""
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + picture("WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


async def references(server: Server, accepted: Reply) -> list[str]:
    """The references that an accepted task shows."""
    assert accepted.status == 202, accepted.body
    task = await server.task(accepted.json["task_id"])
    shown: list[str] = task["request"].get("image_input", [])
    return shown


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_an_upload_is_kept_byte_for_byte_as_what_it_is(server: Server, kind: str) -> None:
    content = picture(kind)
    accepted = await server.submit_form(("image", content, "reference"))
    (url,) = await references(server, accepted)
    served = await server.anonymous("GET", url.removeprefix(server.url))
    assert (served.status, served.body) == (200, content)
    assert served.headers["Content-Type"] == f"image/{kind.lower()}"


@pytest.mark.parametrize(
    "name",
    [
        "photo.png",
        "photo.gif",
        "page.html",
        "../../../etc/passwd",
        "..\\..\\boot.ini",
        "C:\\Users\\me\\photo.png",
        ".",
        "ünïcödé 🖼️.png",
        "%22%0D%0A.png",
        "x" * 3000 + ".png",
    ],
    ids=lambda name: name[:24],
)
async def test_a_file_name_carries_no_meaning(server: Server, name: str) -> None:
    accepted = await server.submit_form(("image", picture("JPEG"), name))
    (url,) = await references(server, accepted)
    assert ".jpg?" in url
    (stored,) = server.stored_files()
    assert stored.is_relative_to(server.data / "assets" / "references")


@pytest.mark.parametrize(
    "disposition",
    [
        b'form-data; name="image"; filename="\xb2\xce\xbf\xbc.png"',
        b"form-data; name=\"image\"; filename*=utf-8''%E5%8F%82.png",
        b'form-data; name="image[]"; filename="a.png"; filename*=utf-8\'\'%E5%8F%82.png',
        b"form-data; name=image; filename=a.png",
        b'FORM-DATA; Name="image"; FileName="a.png"',
    ],
    ids=["GBK bytes", "RFC 5987 only", "RFC 5987 too", "unquoted", "capitals"],
)
async def test_a_file_is_recognised_in_every_spelling(server: Server, disposition: bytes) -> None:
    part = b"--%s\r\nContent-Disposition: %s\r\n\r\n" % (BOUNDARY.encode(), disposition)
    body = part + picture() + b"\r\n" + form(*FIELDS)
    accepted = await server.call("POST", GENERATIONS, data=body, headers=FORM)
    assert len(await references(server, accepted)) == 1


@pytest.mark.parametrize("declared", ["text/html", "image/gif", "application/json", "", "///"])
async def test_a_declared_type_that_lies_changes_nothing(server: Server, declared: str) -> None:
    disposition = 'Content-Disposition: form-data; name="image"; filename="a.html"'
    part = f"--{BOUNDARY}\r\nContent-Type: {declared}\r\n{disposition}\r\n\r\n".encode()
    body = part + picture("WEBP") + b"\r\n" + form(*FIELDS)
    accepted = await server.call("POST", GENERATIONS, data=body, headers=FORM)
    (url,) = await references(server, accepted)
    assert ".webp?" in url


@pytest.mark.parametrize(
    "content",
    [
        picture("ICO"),
        picture("BMP"),
        picture("TIFF"),
        b"<!doctype html><script>alert(1)</script>" + b" " * 100,
        b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>',
        b"%PDF-1.7\n" + b"x" * 100,
        b"just some text that is long enough",
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\x89",
        b"\xff\xd8\xff",
        b"RIFF\x10\x00\x00\x00WEBPVP8 ",
        picture()[:-12],
        picture()[:40],
        picture("JPEG")[:-2],
        picture("JPEG")[:100],
        picture("WEBP")[:-10],
        b"\x00" + picture(),
        b"GIF89a" + picture(),
        png_of(0, 10),
        picture()[:20] + b"\xff" + picture()[21:],
        bytes(100_000),
    ],
    ids=[
        "ICO",
        "BMP",
        "TIFF",
        "HTML",
        "SVG",
        "PDF",
        "text",
        "empty",
        "PNG signature",
        "one byte",
        "JPEG signature",
        "WebP signature",
        "PNG without its end",
        "PNG header",
        "JPEG without its end",
        "JPEG header",
        "cut WebP",
        "shifted PNG",
        "PNG behind GIF",
        "no width",
        "damaged header",
        "zeros",
    ],
)
async def test_what_is_no_whole_image_is_refused_and_leaves_nothing(
    server: Server, content: bytes
) -> None:
    refused = await server.submit_form(("image", content, "photo.png"))
    refused.assert_refused(400, "unsupported_reference_type", "image")
    assert server.stored_files() == []


@pytest.mark.parametrize(
    "content",
    [png_of(50_000, 50_000), png_of(10_001, 10_000), png_of(30_001, 1), webp_of(16_384, 16_384)],
    ids=["huge PNG", "just over", "one long side", "huge WebP"],
)
async def test_a_pixel_bomb_is_refused_unread(server: Server, content: bytes) -> None:
    refused = await server.submit_form(("image", content, "bomb.png"))
    refused.assert_refused(413, "reference_too_large", "image")
    assert server.stored_files() == []


def large_form(size: int) -> tuple[bytes, bytes, bytes]:
    """Head, picture with padding behind its end, and tail of a form with a file of ``size``."""
    head, content, tail = form(("image", picture(), "large.png"), *FIELDS).partition(picture())
    return head, content.ljust(size, b"\0"), tail


async def slices(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        for start in range(0, len(part), MIB):
            yield part[start : start + MIB]


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
async def test_thirty_mebibytes_are_taken_and_no_byte_more(
    server: Server, *, announced: bool
) -> None:
    async def send(size: int) -> Reply:
        parts = large_form(size)
        length = {"Content-Length": str(sum(map(len, parts)))} if announced else {}
        headers = {**FORM, **length}
        return await server.call("POST", GENERATIONS, data=slices(*parts), headers=headers)

    assert len(await references(server, await send(LIMIT))) == 1
    (stored,) = server.stored_files()
    assert stored.read_bytes() == picture()
    stored.unlink()
    refused = await send(LIMIT + 1)
    assert "31457280" in refused.assert_refused(413, "reference_too_large", "image")
    assert server.stored_files() == []


async def test_a_model_with_a_lower_limit_holds_it(server: Server) -> None:
    content = noise(1850)
    assert len(content) > 10_000_000
    refused = await server.submit_form(("image", content, "a.png"), ("model", "flux-2-pro"))
    refused.assert_refused(413, "reference_too_large", "image")
    assert server.stored_files() == []


async def test_a_form_that_announces_more_than_any_form_may_have_is_refused_unread(
    server: Server,
) -> None:
    length = 16 * LIMIT + 5 * MIB
    content_type = FORM["Content-Type"]
    head = f"POST {GENERATIONS}\nContent-Type: {content_type}\nContent-Length: {length}"
    (await server.exchange(head)).assert_refused(413, "body_too_large")


async def test_all_four_fields_mix_and_keep_their_order(server: Server) -> None:
    accepted = await server.submit_form(
        ("image[]", picture("PNG"), "1.png"),
        ("image_input", "https://example.com/2.png"),
        ("prompt", "in between"),
        ("image", picture("JPEG"), "3.jpg"),
        ("image_input[]", "https://example.com/4.png"),
        ("image", picture("WEBP"), "5.webp"),
        ("image_input[]", "https://example.com/2.png"),
    )
    urls = await references(server, accepted)
    shown = [
        url.rpartition(".")[2].partition("?")[0] if url.startswith(server.url) else url
        for url in urls
    ]
    assert shown == [
        "png",
        "https://example.com/2.png",
        "jpg",
        "https://example.com/4.png",
        "webp",
        "https://example.com/2.png",
    ]


@pytest.mark.parametrize(("model", "limit"), [("nano-banana-pro", 8), ("gpt-image-2", 16)])
async def test_uploads_and_urls_count_together_against_the_limit(
    server: Server, model: str, limit: int
) -> None:
    upload: Part = ("image[]", picture(), "a.png")
    url: Part = ("image_input[]", "https://example.com/a.png")
    half = limit // 2
    for full in ([upload] * limit, [url] * limit, [upload, url] * half):
        accepted = await server.submit_form(("model", model), *full)
        assert len(await references(server, accepted)) == limit
    before = sorted(server.stored_files())
    for over in ([upload] * (limit + 1), [url] * (limit + 1), [upload, url] * half + [upload]):
        refused = await server.submit_form(("model", model), *over)
        message = refused.assert_refused(400, "too_many_references", "image_input")
        assert str(limit) in message
    assert sorted(server.stored_files()) == before


async def test_too_many_urls_in_json_are_refused(server: Server) -> None:
    urls = [f"https://example.com/{number}.png" for number in range(9)]
    accepted = await server.submit(model="nano-banana-pro", image_input=urls[:8])
    assert await references(server, accepted) == urls[:8]
    for many in (urls, urls * 2, urls * 3000, ["no url at all"] * 20_000):
        refused = await server.submit(model="nano-banana-pro", image_input=many)
        refused.assert_refused(400, "too_many_references", "image_input")


@pytest.mark.parametrize(
    "reference", [("image", picture(), "a.png"), ("image_input", "https://example.com/a.png")]
)
async def test_a_model_without_references_refuses_them(server: Server, reference: Part) -> None:
    refused = await server.submit_form(("model", "recraft-v4.1"), reference)
    refused.assert_refused(400, "unsupported_parameter", "image_input")
    assert server.stored_files() == []


async def test_a_file_input_that_was_left_empty_is_no_reference(server: Server) -> None:
    accepted = await server.submit_form(("image", b"", ""), ("image[]", b"", ""))
    assert await references(server, accepted) == []


async def test_a_file_without_name_that_has_content_is_a_reference(server: Server) -> None:
    accepted = await server.submit_form(("image", picture(), ""))
    assert len(await references(server, accepted)) == 1


@pytest.mark.parametrize(
    "rest",
    [
        [("image", picture("BMP"), "b.bmp")],
        [("image_input", "http://127.0.0.1/")],
        [("model", "midjourney")],
        [("n", "7")],
        [("channel_id", "99")],
        [("quality", "high")],
        [("prompt", "once"), ("prompt", "twice")],
        [("mask", picture(), "c.png")],
        [("image", b"", "named but empty.png")],
    ],
    ids=lambda rest: str(rest)[:40],
)
async def test_a_form_refused_for_a_later_part_leaves_nothing(
    server: Server, rest: list[Part]
) -> None:
    refused = await server.submit_form(("image", picture(), "a.png"), *rest)
    assert refused.status == 400
    assert server.stored_files() == []


async def test_a_form_with_a_conflicting_key_leaves_nothing(server: Server) -> None:
    refused = await server.submit_form(
        ("image", picture(), "a.png"), headers={"Idempotency-Key": "x" * 256}
    )
    refused.assert_refused(400, "invalid_parameter", "Idempotency-Key")
    assert server.stored_files() == []


@pytest.mark.parametrize("size", [60, 3 * MIB], ids=["small", "large"])
async def test_a_form_cut_off_within_a_file_leaves_nothing(server: Server, size: int) -> None:
    head, content, _ = large_form(size)
    body = head + content[:-10]
    lines = f"POST {GENERATIONS}\nContent-Type: {FORM['Content-Type']}"
    reply = await server.exchange(f"{lines}\nContent-Length: {len(body)}", body)
    reply.assert_refused(400, "malformed_body")
    assert server.stored_files() == []


def staged(server: Server) -> list[Path]:
    return [path for path in server.stored_files() if "incoming" in path.parts]


async def test_a_client_that_hangs_up_within_a_file_leaves_nothing(server: Server) -> None:
    content = noise(1600)
    head, _, tail = form(("image", content, "large.png"), *FIELDS).partition(content)
    whole = len(head) + len(content) + len(tail)
    lines: dict[str, Any] = {**server.auth, **FORM, "Content-Length": whole, "Host": "test"}
    request = f"POST {GENERATIONS} HTTP/1.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in lines.items()
    )
    first = form(("image", picture("JPEG"), "kept.jpg"), end=False)
    async with server.connection() as (_, writer):
        writer.write(request.encode() + b"\r\n" + first + head + content[: 4 * MIB])
        await writer.drain()
        await until(lambda: len(staged(server)) == 1 and len(server.stored_files()) == 2)
    await until(lambda: server.stored_files() == [])
    assert (await server.submit()).status == 202


@pytest.mark.parametrize("kind", ["GIF", "AVIF"])
async def test_an_upload_of_another_type_is_converted_and_shown_as_what_it_became(
    server: Server, kind: str
) -> None:
    accepted = await server.submit_form(("image", picture(kind), "reference.png"))
    (url,) = await references(server, accepted)
    served = await server.anonymous("GET", url.removeprefix(server.url))
    assert (served.status, served.headers["Content-Type"]) == (200, "image/jpeg")
    assert served.body.startswith(b"\xff\xd8\xff")
    assert len(server.stored_files()) == 1
