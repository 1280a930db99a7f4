import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import multipart
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.net.bodies import (
    Body,
    FilePart,
    Inline,
    Open,
    WrongSize,
    form_body,
    json_body,
    raw_body,
)


def opening(data: bytes, *, piece: int = 1000) -> Open:
    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            for at in range(0, len(data), piece):
                yield data[at : at + piece]

        yield chunks()

    return opened


async def written(body: Body) -> bytes:
    data = b"".join([chunk async for chunk in body.chunks()])
    assert len(data) == body.length
    return data


async def poured(body: Body, into: bytearray) -> None:
    """Keep what came even if the end is an error."""
    async for chunk in body.chunks():
        into += chunk


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=8,
)


@given(
    around=json_values,
    images=st.lists(st.tuples(st.binary(max_size=50), st.text(max_size=5)), max_size=4),
    piece=st.integers(1, 20),
)
async def test_a_document_is_what_it_would_be_with_the_files_in_it(
    around: Any, images: list[tuple[bytes, str]], piece: int
) -> None:
    files = [Inline(opening(image, piece=piece), len(image), prefix) for image, prefix in images]
    texts = [prefix + base64.b64encode(image).decode() for image, prefix in images]
    body = json_body({"a": around, "files": files, "b": [{"c": around}]})
    assert body.content_type == "application/json"
    assert json.loads(await written(body)) == {"a": around, "files": texts, "b": [{"c": around}]}


async def test_a_body_may_be_written_again() -> None:
    file = Inline(opening(b"12345"), 5, "data:,")
    body = json_body([file, file])
    assert await written(body) == await written(body) == b'["data:,MTIzNDU=","data:,MTIzNDU="]'


async def test_no_more_than_a_piece_of_a_file_is_in_memory() -> None:
    size = 1_000_000
    for body in (
        json_body([Inline(opening(bytes(size), piece=size), size)]),
        raw_body("image/png", size, opening(bytes(size), piece=size)),
    ):
        assert max([len(chunk) async for chunk in body.chunks()]) <= 65_536


async def test_a_form_has_its_fields_in_order() -> None:
    body = form_body(
        [
            ("model", "m"),
            ("image[]", FilePart('a"\r\nb.png', "image/png", 3, opening(b"\x00\r\n"))),
            ("prompt", "grün\r\n--"),
            ("image[]", FilePart("é.jpg", "image/jpeg", 0, opening(b""))),
        ]
    )
    kind, options = multipart.parse_options_header(body.content_type)
    assert kind == "multipart/form-data"
    parser = multipart.PushMultipartParser(options["boundary"].encode(), strict=True)
    parts: list[tuple[str | None, str | None, str | None, bytes]] = []
    for part in parser.parse(await written(body)):
        if isinstance(part, multipart.MultipartSegment):
            parts.append((part.name, part.filename, part.header("Content-Type"), b""))
        elif part:
            parts[-1] = (*parts[-1][:3], parts[-1][3] + bytes(part))
    parser.close()
    assert parts == [
        ("model", None, None, b"m"),
        ("image[]", 'a"\r\nb.png', "image/png", b"\x00\r\n"),
        ("prompt", None, None, "grün\r\n--".encode()),
        ("image[]", "é.jpg", "image/jpeg", b""),
    ]


async def test_a_file_goes_out_as_it_is() -> None:
    body = raw_body("image/webp", 2500, opening(b"abcde" * 500))
    assert (body.content_type, body.length) == ("image/webp", 2500)
    assert await written(body) == b"abcde" * 500


@pytest.mark.parametrize("size", [4, 6])
async def test_a_file_of_another_size_is_an_error(size: int) -> None:
    for body in (
        raw_body("image/png", size, opening(b"12345")),
        json_body([Inline(opening(b"12345"), size)]),
        form_body([("a", FilePart("a", "image/png", size, opening(b"12345")))]),
    ):
        taken = bytearray()
        with pytest.raises(WrongSize):
            await poured(body, taken)
        assert len(taken) < body.length


async def test_leaving_a_body_early_closes_its_file() -> None:
    closed = False

    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncIterator[bytes]]:
        nonlocal closed
        try:
            async with opening(bytes(300_000))() as stream:
                yield stream
        finally:
            closed = True

    chunks = json_body([Inline(opened, 300_000)]).chunks()
    await anext(chunks)
    await anext(chunks)
    await chunks.aclose()
    assert closed


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(NotImplementedError):
        json_body([object()])
