"""What is an image and something else at once is served as an image and as nothing else."""

import struct
import zlib

import pytest

from console.tabs import Tab
from harness import Reply, Server, picture

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPT = b"<script>alert(document.domain)</script>"
PAGE = b"<!doctype html><html><body>" + SCRIPT
JAR = b"PK\x03\x04\x14\x00\x00\x00\x08\x00" + bytes(16) + b"\x04\x00\x00\x00Evil.class"
GIF = picture("GIF")
PDF = b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png[:33] + chunk + png[33:]


def with_comment(jpeg: bytes, text: bytes) -> bytes:
    """A JPEG with a comment behind its first marker."""
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + jpeg[2:]


def with_riff_chunk(webp: bytes, data: bytes) -> bytes:
    """A WebP with a chunk of another kind at its end."""
    chunk = b"EVIL" + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return webp[:4] + struct.pack("<I", len(webp) - 8 + len(chunk)) + webp[8:] + chunk


PNG, JPEG, WEBP = picture("PNG"), picture("JPEG"), picture("WEBP")
POLYGLOTS = {
    "a JAR behind a GIF": GIF + JAR,
    "a page in the text of a PNG": with_chunk(PNG, b"tEXt", b"Comment\0" + PAGE),
    "a page behind a PNG": PNG + PAGE,
    "a page in the comment of a JPEG": with_comment(JPEG, PAGE),
    "a script that a JPEG begins as": with_comment(JPEG, b"*/=alert(1);/*"),
    "a page behind a JPEG": JPEG + PAGE,
    "a page in a WebP": with_riff_chunk(WEBP, PAGE),
    "a JAR behind a PNG": PNG + JAR,
    "a JAR behind a JPEG": JPEG + JAR,
    "a PDF in the comment of a JPEG": with_comment(JPEG, PDF),
    "a PDF behind a PNG": PNG + PDF,
    "PHP in the text of a PNG": with_chunk(PNG, b"tEXt", b"Comment\0<?php system($_GET[0]); ?>"),
    "an SVG in the text of a PNG": with_chunk(PNG, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + SVG),
}
NO_IMAGES = {
    "a GIF that is a script": GIF[:6] + b"=1;alert(1)//" + GIF[6:],
    "an SVG": SVG,
    "an SVG with a declaration": b'<?xml version="1.0"?>' + SVG,
    "a PDF": PDF,
    "a page": PAGE,
    "a page that begins like a PNG": PNG[:8] + PAGE,
    "a page that begins like a JPEG": JPEG[:3] + PAGE,
    "a page that begins like a WebP": b"RIFF\x24\x00\x00\x00WEBPVP8 " + PAGE,
    "a PNG behind a page": PAGE + PNG,
    "a JAR": JAR,
    "a BMP": b"BM" + bytes(52) + PAGE,
    "MHTML": b"MIME-Version: 1.0\r\nContent-Type: multipart/related\r\n\r\n" + PAGE,
}
DECLARED = ("image/png", "text/html", "image/svg+xml", "application/octet-stream")


def is_nothing_but_an_image(reply: Reply) -> None:
    assert reply.status == 200
    assert reply.headers["Content-Type"] in {"image/png", "image/jpeg", "image/webp"}
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    policy = reply.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "frame-ancestors 'none'", "sandbox"} <= set(policy)


@pytest.mark.parametrize("what", POLYGLOTS)
async def test_an_upload_that_is_more_than_an_image_is_served_as_an_image(
    site: Server, what: str
) -> None:
    body = POLYGLOTS[what]
    sent = await site.submit_form(("image", body, 'evil.html"; x="y.svg'))
    if sent.status != 202:
        sent.assert_refused(400, "unsupported_reference_type", "image")
        return
    (url,) = (await site.task(sent.json["task_id"]))["request"]["image_input"]
    path = url.removeprefix(site.url)
    word = path.partition("?")[0].rpartition("/")[2].partition(".")[0]
    whole = await site.anonymous("GET", path, headers={"Accept": "text/html"})
    is_nothing_but_an_image(whole)
    named = whole.headers["Content-Disposition"]
    assert named.startswith(f'inline; filename="{word}.'), "never the name that the client gave"
    small = await site.anonymous("GET", f"{path}&width=320")
    is_nothing_but_an_image(small)
    assert b"script" not in small.body, "copies are drawn anew"
    async with Tab(site) as tab:
        await tab.sign_in()
        is_nothing_but_an_image(await tab.get(f"/console/images/{word}/whole"))
        is_nothing_but_an_image(await tab.get(f"/console/images/{word}/320.webp"))


@pytest.mark.parametrize("what", NO_IMAGES)
async def test_what_is_no_image_is_not_taken_whatever_it_is_called(site: Server, what: str) -> None:
    body, before = NO_IMAGES[what], site.stored_files()
    for kind in DECLARED:
        sent = await site.call("POST", "/v1/files", data=body, headers={"Content-Type": kind})
        assert sent.status in {400, 415}, sent.body
        assert b"script" not in sent.body
    for name in ("a.png", "a.html", "a.svg"):
        as_form = await site.submit_form(("image", body, name))
        as_form.assert_refused(400, "unsupported_reference_type", "image")
    assert site.stored_files() == before
