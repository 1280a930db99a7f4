"""POST /v1/images/generations as a form: the same meaning as JSON, in text fields."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from harness import BOUNDARY, FORM, GENERATIONS, Part, Reply, Server, form, picture, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL: Part = ("model", "gpt-image-2")
PROMPT: Part = ("prompt", "a lighthouse")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running_server(tmp_path_factory.mktemp("data"), with_worker=False) as running:
        yield running


async def post(server: Server, body: bytes, content_type: str = FORM["Content-Type"]) -> Reply:
    """The answer to a form, byte for byte, on a socket of its own."""
    head = f"POST {GENERATIONS}\nContent-Length: {len(body)}\nContent-Type: {content_type}"
    return await server.exchange(head, body)


def raw_part(headers: bytes, content: bytes) -> bytes:
    return b"--%s\r\n%s\r\n\r\n%s\r\n" % (BOUNDARY.encode(), headers, content)


async def test_curls_typical_form_is_accepted(server: Server) -> None:
    reply = await server.submit_form(
        ("model", "nano-banana-pro"),
        ("prompt", "…"),
        ("response_format", "url"),
        ("image", picture(), "reference.png"),
    )
    assert reply.status == 202, reply.body
    assert reply.headers["Location"] == reply.json["poll_url"]
    assert reply.json["model"] == "nano-banana-pro"


async def test_a_form_means_what_the_same_json_means(server: Server) -> None:
    fields = {"aspect_ratio": "16:9", "resolution": "4K", "prompt": "söme «text» 🖼️"}
    sent = await server.submit_form(
        *fields.items(), ("n", "1"), ("async", "true"), ("channel_id", "1")
    )
    from_form = await server.task(sent.json["task_id"])
    from_json = await server.accepted(**fields, n=1, channel_id=1)
    assert from_form["request"] == from_json["request"]
    assert from_form["billing"] == from_json["billing"]


async def test_parts_may_come_in_any_order(server: Server) -> None:
    parts: list[Part] = [
        ("image[]", picture(), "a.png"),
        ("n", "1"),
        ("response_format", "url"),
        ("image_input[]", "https://example.com/b.png"),
        MODEL,
        PROMPT,
    ]
    for turn in range(len(parts)):
        reply = await server.submit_form(*parts[turn:], *parts[:turn])
        assert reply.status == 202, reply.body


@pytest.mark.parametrize("value", ["1", "+1", "01", " 1 "])
async def test_numbers_are_read_from_text(server: Server, value: str) -> None:
    reply = await server.submit_form(("n", value), ("channel_id", value))
    request = (await server.task(reply.json["task_id"]))["request"]
    assert (request["n"], request["channel_id"]) == (1, 1)


@pytest.mark.parametrize("value", ["true", "false", "True", "FALSE", "1", "0", "yes", "off"])
async def test_async_is_accepted_in_any_spelling(server: Server, value: str) -> None:
    assert (await server.submit_form(("async", value))).status == 202


@pytest.mark.parametrize(
    ("parts", "status", "code", "param"),
    [
        ([("n", "2")], 400, "invalid_parameter", "n"),
        ([("n", "one")], 400, "invalid_parameter", "n"),
        ([("n", "")], 400, "invalid_parameter", "n"),
        ([("n", "1.0")], 400, "invalid_parameter", "n"),
        ([("n", "٣")], 400, "invalid_parameter", "n"),
        ([("n", "9" * 5000)], 400, "invalid_parameter", "n"),
        ([("channel_id", "99")], 400, "unknown_channel", "channel_id"),
        ([("channel_id", "sandbox")], 400, "invalid_parameter", "channel_id"),
        ([("async", "maybe")], 400, "invalid_parameter", "async"),
        ([("response_format", "b64_json")], 400, "unsupported_response_format", "response_format"),
        ([("aspect_ratio", "16:10")], 400, "invalid_parameter", "aspect_ratio"),
        ([("resolution", "2K")], 400, "invalid_parameter", "resolution"),
        ([("quality", "high")], 400, "unsupported_parameter", "quality"),
        ([("größe", "high")], 400, "unsupported_parameter", "größe"),
        ([("model", "midjourney")], 400, "unknown_model", "model"),
        ([("model", "")], 400, "missing_field", "model"),
        ([("prompt", " \r\n ")], 400, "missing_field", "prompt"),
        ([("prompt", "a\0b")], 400, "invalid_parameter", "prompt"),
        ([("prompt", "x" * 20_001)], 400, "invalid_parameter", "prompt"),
        ([("prompt", "x" * 300_000)], 413, "body_too_large", "prompt"),
        ([PROMPT, PROMPT], 400, "invalid_parameter", "prompt"),
        ([MODEL, ("model", "nano-banana-pro")], 400, "invalid_parameter", "model"),
        ([("prompt", b"a text file", "prompt.txt")], 400, "invalid_parameter", "prompt"),
        ([("image_input", picture(), "a.png")], 400, "invalid_parameter", "image_input"),
        ([("mask", picture(), "a.png")], 400, "invalid_parameter", "mask"),
        ([("image", "https://example.com/a.png")], 400, "invalid_parameter", "image"),
        ([("image[]", "data:image/png;base64,AAAA")], 400, "invalid_parameter", "image"),
        ([("image_input", "")], 400, "invalid_parameter", "image_input"),
        ([("image_input[]", "file:///etc/passwd")], 400, "invalid_parameter", "image_input"),
        ([("", "nameless")], 400, "malformed_body", None),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_a_form_that_is_wrong_is_refused_for_what_is_wrong(
    server: Server, parts: list[Part], status: int, code: str, param: str | None
) -> None:
    (await server.submit_form(*parts)).assert_refused(status, code, param)


@pytest.mark.parametrize("missing", ["model", "prompt"])
async def test_model_and_prompt_are_required(server: Server, missing: str) -> None:
    reply = await post(server, form(*[part for part in (MODEL, PROMPT) if part[0] != missing]))
    reply.assert_refused(400, "missing_field", missing)


async def test_a_form_without_any_part_lacks_its_model(server: Server) -> None:
    (await post(server, form())).assert_refused(400, "missing_field", "model")


async def test_sixty_four_parts_are_read_and_no_more(server: Server) -> None:
    parts: list[Part] = [(f"field-{number}", "x") for number in range(62)]
    full = await server.submit_form(*parts)
    full.assert_refused(400, "unsupported_parameter", "field-0")
    (await server.submit_form(*parts, ("one", "more"))).assert_refused(413, "body_too_large")


SOUND = form(MODEL, PROMPT)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (SOUND, "multipart/form-data"),
        (SOUND, "multipart/form-data; boundary="),
        (SOUND, 'multipart/form-data; boundary=""'),
        (SOUND, "multipart/form-data; boundary=another"),
        (SOUND, "multipart/form-data; boundary=\xfc"),
        (SOUND, "multipart/form-data; charset=utf-8"),
        (b"", FORM["Content-Type"]),
        (b'{"model": "gpt-image-2", "prompt": "x"}', FORM["Content-Type"]),
        (SOUND.replace(b"\r\n", b"\n"), FORM["Content-Type"]),
        (form(MODEL, PROMPT, end=False), FORM["Content-Type"]),
        (SOUND[: len(SOUND) // 2], FORM["Content-Type"]),
        (raw_part(b'Content-Disposition: attachment; name="x"', b"x"), FORM["Content-Type"]),
        (raw_part(b"Content-Type: text/plain", b"x"), FORM["Content-Type"]),
        (raw_part(b"no header at all", b"x"), FORM["Content-Type"]),
        (raw_part(b"Content-Disposition: form-data", b"x") + SOUND, FORM["Content-Type"]),
        (SOUND[:-10], FORM["Content-Type"]),
    ],
    ids=[
        "no boundary",
        "bare boundary",
        "empty boundary",
        "wrong boundary",
        "boundary of other letters",
        "charset only",
        "empty body",
        "json inside",
        "bare line feeds",
        "no end",
        "cut in the middle",
        "attachment",
        "no disposition",
        "no header",
        "no name",
        "cut at the end",
    ],
)
async def test_a_broken_form_is_malformed(server: Server, body: bytes, content_type: str) -> None:
    (await post(server, body, content_type)).assert_refused(400, "malformed_body")


async def test_a_text_field_that_is_no_utf_8_is_malformed(server: Server) -> None:
    bad = raw_part(b'Content-Disposition: form-data; name="prompt"', b"\xff\xfe")
    (await post(server, bad + form(MODEL))).assert_refused(400, "malformed_body", "prompt")


async def test_what_stands_before_and_behind_the_form_is_ignored(server: Server) -> None:
    reply = await post(server, b"a preamble\r\n" + SOUND + b"an epilogue\r\n")
    assert reply.status == 202, reply.body


async def test_the_spellings_of_dotnet_are_understood(server: Server) -> None:
    text = b"Content-Type: text/plain; charset=utf-8\r\n"
    disposition = b"Content-Disposition: form-data; name="
    body = (
        raw_part(text + disposition + b"model", b"gpt-image-2")
        + raw_part(text + disposition + b"prompt", b"x")
        + raw_part(disposition + b"image; filename=a.png; filename*=utf-8''a.png", picture())
        + form()
    )
    reply = await post(server, body, f'multipart/form-data; boundary="{BOUNDARY}"')
    assert reply.status == 202, reply.body


async def test_an_image_without_a_file_name_is_known_by_its_type(server: Server) -> None:
    disposition = b'\r\nContent-Disposition: form-data; name="image"'
    picture_part = raw_part(b"Content-Type: image/png" + disposition, picture())
    reply = await post(server, picture_part + form(MODEL, PROMPT))
    task = await server.task(reply.json["task_id"])
    assert len(task["request"]["image_input"]) == 1
    text_part = raw_part(b"Content-Type: text/plain" + disposition, picture())
    reply = await post(server, text_part + form(MODEL, PROMPT))
    reply.assert_refused(400, "invalid_parameter", "image")


async def test_a_form_of_many_small_pieces_is_read_as_one(server: Server) -> None:
    body = form(("image", picture(), "a.png"), MODEL, PROMPT)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    reply = await server.call("POST", GENERATIONS, data=pieces(), headers=FORM)
    assert reply.status == 202, reply.body
