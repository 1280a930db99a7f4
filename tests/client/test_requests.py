"""What the client makes of its arguments and of a stream's bytes, before and without a server."""

import json
import re
from io import BytesIO, RawIOBase, StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import calotype.client
from calotype.client import Calotype, GenerationRequest, WebhookSecret, WebhookSettings
from calotype.client.requests import UNSEEKABLE_BYTES
from calotype.client.sse import EventReader
from client.speaking import KINDS, Kind, answer, do, opened, rogue

ROOT = Path(__file__).parents[2]


# The server and the key


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base_url", ["HOST", "HOST/", "HOST/v1", " HOST/v1/ "])
async def test_the_servers_address_is_taken_with_and_without_v1(kind: Kind, base_url: str) -> None:
    async with (
        rogue(answer(200, {"balance_micro_usdc": 1})) as served,
        opened(kind, "ck_x", base_url.replace("HOST", served.url)) as client,
    ):
        await do(client.balance)
    assert served.lines == ["GET /v1/credits/balance"]


async def test_server_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALOTYPE_BASE_URL", raising=False)
    monkeypatch.setenv("CALOTYPE_API_KEY", "ck_environment\n")
    with Calotype() as client:
        assert repr(client) == "Calotype(base_url='http://127.0.0.1:8080')"
    async with rogue(answer(200, {"balance_micro_usdc": 1})) as served:
        monkeypatch.setenv("CALOTYPE_BASE_URL", served.url)
        client = Calotype()
        await do(client.balance)
        client.close()
    assert served.heads[0]["authorization"] == "Bearer ck_environment"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_on_this_machine_is_not_looked_for_behind_a_proxy(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rogue() as proxy, rogue(answer(200, {"balance_micro_usdc": 1})) as served:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with opened(kind, "ck_x", served.url) as client:
            assert (await do(client.balance)).balance_micro_usdc == 1
    assert proxy.heads == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_or_broken_key_is_told_at_once(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CALOTYPE_API_KEY", raising=False)
    for missing in (None, "", " \n"):
        with pytest.raises(ValueError, match="calotype keys create"):
            kind(missing)
    for broken in ("ck_s3cret\nX-Evil: 1", "ck_s3cret ck_s3cret", "ck_s3crét"):
        with pytest.raises(ValueError, match="copied whole") as caught:
            kind(broken)
        assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base_url", ["localhost:8080", "ftp://x", "https://", "http://x/?a=b"])
def test_an_address_that_is_none_is_told_at_once(kind: Kind, base_url: str) -> None:
    with pytest.raises(ValueError, match="write http:// or https:// and the host"):
        kind("ck_x", base_url)


@pytest.mark.parametrize("kind", KINDS)
def test_a_password_in_the_address_is_neither_sent_nor_told(kind: Kind) -> None:
    with pytest.raises(ValueError, match="user name") as caught:
        kind("ck_x", "https://me:s3cret@example.com")
    assert "s3cret" not in str(caught.value)


def test_no_secret_is_shown() -> None:
    with Calotype("ck_s3cret", "http://x") as client:
        assert "s3cret" not in repr(client) + repr(vars(client))
    settings = WebhookSettings(url="https://x", secrets=[WebhookSecret(secret="whsec_s3cret")])
    assert "s3cret" not in f"{settings} {settings!r} {settings.secrets}"
    assert settings.secrets[0].secret == "whsec_s3cret"


# Requests


def test_a_request_leaves_out_what_was_not_given() -> None:
    assert GenerationRequest("x", model="m", seed=None).document() == {"model": "m", "prompt": "x"}
    whole: dict[str, Any] = {
        "n": 2,
        "channel_id": 3,
        "callback_url": "https://example.com/hook",
        "metadata": {"a": "b"},
        "deadline_seconds": 60,
        "aspect_ratio": "16:9",
        "careful": False,
    }
    url = "https://example.com/a.png"
    request = GenerationRequest("x", model="m", references=[url], idempotency_key="k", **whole)
    assert request.document() == {"model": "m", "prompt": "x", **whole, "image_input": [url]}
    assert request.idempotency_key == "k"


@pytest.mark.parametrize(
    ("references", "told"),
    [
        (["a.png"], "'a.png' is no http.* pathlib.Path"),
        (["data:image/png;base64,AAAA"], "no http"),
        ([StringIO("text")], "not StringIO"),
        ([7], "not int"),
        ("https://example.com/a.png", "is a list"),
        (Path("a.png"), "is a list"),
        (b"bytes", "is a list"),
        (bytearray(b"bytes"), "is a list"),
        (memoryview(b"bytes"), "is a list"),
        (BytesIO(b"bytes"), "is a list"),
    ],
)
def test_a_reference_that_is_none_is_told_before_anything_is_sent(
    references: Any, told: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        GenerationRequest("x", model="m", references=references)


@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_of_every_kind_are_references(kind: Kind) -> None:
    accepted = {"task_id": "task_0", "state": "waiting"}
    references = [bytearray(b"a picture"), memoryview(b"its copy")]
    async with rogue(answer(202, accepted)) as served, opened(kind, "ck_x", served.url) as client:
        await do(client.generate, "x", model="m", references=references)
    assert served.bodies[0].index(b"a picture") < served.bodies[0].index(b"its copy")


def test_references_have_one_name() -> None:
    with pytest.raises(ValueError, match=r"image_input: .* references="):
        GenerationRequest("x", model="m", image_input="https://example.com/a.png")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_file_that_is_not_there_is_told_before_anything_is_sent(
    kind: Kind, tmp_path: Path
) -> None:
    async with rogue() as served, opened(kind, "ck_x", served.url) as client:
        with pytest.raises(FileNotFoundError):
            await do(client.generate, "x", model="m", references=[tmp_path / "none.png"])
        batch = [GenerationRequest("x", model="m", references=[b"bytes"])]
        with pytest.raises(ValueError, match="by URL only"):
            await do(client.generate_batch, batch)
    assert served.heads == []


class Endless(RawIOBase):
    """Zeros that come once."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return len(buffer)


def test_what_cannot_be_read_twice_and_is_large_is_refused() -> None:
    endless: Any = Endless()
    request = GenerationRequest("x", model="m", references=[endless])
    with pytest.raises(ValueError, match=f"more than {UNSEEKABLE_BYTES} bytes"):
        request.buffer()


# Streams

DATA = [{"text": "two\u2028lines\r\x85", "number": number} for number in range(3)]
STREAM = b": beat\n\n" + b"".join(
    f"id: {one['number']}\nevent: x\ndata: {json.dumps(one, ensure_ascii=False)}\n\n".encode()
    for one in DATA
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12).map(sorted), st.booleans())
def test_events_are_the_same_however_the_stream_is_cut(cuts: list[int], returns: bool) -> None:  # noqa: FBT001 -- drawn
    places = [0, *cuts, len(STREAM)]
    chunks = [STREAM[start:end] for start, end in pairwise(places)]
    reader = EventReader()
    found = [
        event
        for chunk in chunks
        for event in reader.feed(chunk.replace(b"\n", b"\r\n") if returns else chunk)
    ]
    assert [(event.id, event.data) for event in found] == [
        (str(place), data) for place, data in enumerate(DATA)
    ]


# The package


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs/reference/client.md").read_text(encoding="utf-8")
    assert calotype.client.__all__ == sorted(calotype.client.__all__)
    methods = [name for name in dir(Calotype) if not name.startswith("_")]
    for name in [*calotype.client.__all__, *methods]:
        assert re.search(rf"\b{name}\b", page), name


def test_both_clients_have_the_same_methods() -> None:
    one, other = ({name for name in dir(kind) if not name.startswith("_")} for kind in KINDS)
    assert one == other
