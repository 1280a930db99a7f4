import asyncio
import base64
import binascii
import gc
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.outcomes import SourceError
from calotype.net.jsonstream import LONG, MAX_DOCUMENT, JsonScanner, Malformed, TooLarge
from calotype.net.spool import Spool
from net.calls import bytes_of, names_in, open_files

FEW = 24
"""A threshold for the properties, so that documents can be small."""
STRICT = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")

any_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


async def scan(
    chunks: list[bytes], folder: Path, *, long: int = LONG
) -> tuple[Any, dict[str, bytes | None]]:
    """The reduced document, and what each token stands for; None is no valid base64."""
    scanner = JsonScanner(lambda: Spool(folder), long=long)
    for chunk in chunks:
        scanner.feed(chunk)
        if scanner.full:
            await scanner.write()
    document = scanner.close()
    await scanner.write()
    images: dict[str, bytes | None] = {}
    for token, spool in scanner.spools.items():
        try:
            images[token] = await bytes_of(spool)
        except SourceError:
            images[token] = None
    return document, images


def same(got: Any, wanted: Any, images: Mapping[str, bytes | None]) -> bool:
    """Whether a reduced document says what the whole one says."""
    match wanted:
        case dict():
            return len(got) == len(wanted) and all(
                same(a, b, images) and same(got[a], wanted[b], images)
                for a, b in zip(got, wanted, strict=True)
            )
        case list():
            return len(got) == len(wanted) and all(
                same(a, b, images) for a, b in zip(got, wanted, strict=True)
            )
        case str() if got in images:
            return images[got] == decoded(wanted)
        case _:
            return bool(got == wanted) and type(got) is type(wanted)


def decoded(text: str) -> bytes | None:
    if (found := re.match(r"data:[^,]*;base64,", text, re.IGNORECASE)) is not None:
        text = text[found.end() :]
    if not STRICT.fullmatch(text):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


pictures = st.binary(max_size=200).map(lambda image: base64.b64encode(image).decode())
strings = st.one_of(
    pictures,
    pictures.map(lambda letters: f"data:image/png;base64,{letters}"),
    st.text(max_size=60),
    st.text(alphabet='ab+/="\\\n', max_size=80),
    st.tuples(pictures, st.sampled_from(["=", "!", "é", '"', "\\", "\n", "A", "AA==", " "])).map(
        "".join
    ),
    st.tuples(pictures, st.sampled_from(["=", "!", "é", '"', "\\", "\n"]), pictures).map("".join),
)
documents = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), strings),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(strings, inner, max_size=4)
    ),
    max_leaves=10,
)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """A document as some server writes it."""
    text = json.dumps(
        draw(documents), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))
    )
    if draw(st.booleans()):
        text = text.replace("/", "\\/")
    if draw(st.booleans()):
        text = text.replace("+", "\\u002B")
    if draw(st.booleans()):
        text = re.sub(r"(?<!\\)(\\\\)*A", lambda found: found[0][:-1] + "\\u0041", text)
    return text.encode(errors="surrogatepass" if draw(st.booleans()) else "replace")


def plainly(data: bytes) -> Any:
    try:
        return json.loads(data.decode())
    except ValueError:
        return Malformed


@any_folder
@given(data=written(), cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_every_document_says_the_same_however_it_is_cut(
    data: bytes, cuts: list[int], tmp_path: Path, runner: asyncio.Runner
) -> None:
    wanted = plainly(data)
    if wanted is Malformed:
        with pytest.raises(Malformed):
            runner.run(scan(cut(data, cuts), tmp_path, long=FEW))
        return
    document, images = runner.run(scan(cut(data, cuts), tmp_path, long=FEW))
    assert same(document, wanted, images)


@any_folder
@given(data=written())
def test_a_document_may_come_byte_by_byte(
    data: bytes, tmp_path: Path, runner: asyncio.Runner
) -> None:
    wanted = plainly(data)
    if wanted is not Malformed:
        document, images = runner.run(scan([bytes([byte]) for byte in data], tmp_path, long=FEW))
        assert same(document, wanted, images)


@any_folder
@given(
    data=written(),
    at=st.integers(0, 10_000),
    junk=st.one_of(st.binary(max_size=3), st.sampled_from([b'"', b"\\", b"\x00", b"\xff"])),
    drop=st.integers(0, 3),
    cuts=st.lists(st.integers(0, 10_000), max_size=4),
)
def test_a_damaged_document_is_told_from_a_good_one(
    data: bytes,
    at: int,
    junk: bytes,
    drop: int,
    *,
    cuts: list[int],
    tmp_path: Path,
    runner: asyncio.Runner,
) -> None:
    place = at % (len(data) + 1)
    damaged = data[:place] + junk + data[place + drop :]
    wanted = plainly(damaged)
    try:
        document, images = runner.run(scan(cut(damaged, cuts), tmp_path, long=FEW))
    except Malformed:
        assert wanted is Malformed
    else:
        assert wanted is not Malformed
        assert same(document, wanted, images)


@any_folder
@given(image=st.binary(min_size=FEW, max_size=300), cuts=st.lists(st.integers(0, 999)))
def test_a_cut_within_an_image_is_a_cut_document(
    image: bytes, cuts: list[int], tmp_path: Path, runner: asyncio.Runner
) -> None:
    data = b'{"image": "' + base64.b64encode(image)
    with pytest.raises(Malformed):
        runner.run(scan(cut(data, cuts), tmp_path, long=FEW))


@pytest.mark.parametrize("size", [LONG, LONG + 1, LONG + 2, 40 * LONG])
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "data:;base64,"])
@pytest.mark.parametrize("chunk", [999, 65_536, 10_000_000])
async def test_every_long_image_goes_to_a_file(
    size: int, prefix: str, chunk: int, tmp_path: Path
) -> None:
    image = os.urandom(size)
    data = json.dumps({"a": prefix + base64.b64encode(image).decode()}).encode()
    chunks = [data[at : at + chunk] for at in range(0, len(data), chunk)]
    document, images = await scan(chunks, tmp_path)
    assert images == {document["a"]: image}


@pytest.mark.parametrize("size", [LONG - 1, LONG, LONG + 1])
async def test_what_is_not_base64_stays_as_text(size: int, tmp_path: Path) -> None:
    text = "-" + "a" * (size - 1)
    assert await scan([json.dumps([text]).encode()], tmp_path) == ([text], {})


async def test_more_text_than_is_read_is_too_much(tmp_path: Path) -> None:
    fits = b'"-%b"' % (b"a" * (MAX_DOCUMENT - 3))
    assert (await scan([fits], tmp_path))[0] == fits[1:-1].decode()
    with pytest.raises(TooLarge):
        await scan([fits + b" "], tmp_path)


async def test_more_images_than_are_kept_are_too_many(tmp_path: Path) -> None:
    image = "A" * LONG
    assert len((await scan([json.dumps([image] * 64).encode()], tmp_path))[1]) == 64
    with pytest.raises(TooLarge):
        await scan([json.dumps([image] * 65).encode()], tmp_path)


async def test_no_text_can_pass_for_a_token(tmp_path: Path) -> None:
    image = base64.b64encode(bytes(LONG)).decode()
    first, _ = await scan([json.dumps([image]).encode()], tmp_path)
    second, images = await scan([json.dumps([*first, image]).encode()], tmp_path)
    assert second[0] == first[0]
    assert second[0] not in images


async def test_what_servers_in_python_write_is_read(tmp_path: Path) -> None:
    document, _ = await scan([b'\xef\xbb\xbf{"a": Infinity, "b": "\\ud800"}'], tmp_path)
    assert document == {"a": float("inf"), "b": "\ud800"}


async def test_files_have_no_name_and_go_with_their_image(tmp_path: Path) -> None:
    data = json.dumps([base64.b64encode(bytes(LONG)).decode()] * 2).encode()
    before = open_files()
    scanner = JsonScanner(lambda: Spool(tmp_path))
    scanner.feed(data)
    await scanner.write()
    assert not names_in(tmp_path)
    assert len(open_files() - before) == 2
    kept = scanner.spools.popitem()[1]
    del scanner
    gc.collect()
    while len(open_files() - before) > 1:
        await asyncio.sleep(0)
    kept.complete()
    assert await bytes_of(kept) == bytes(LONG)
    assert await bytes_of(kept) == bytes(LONG)
