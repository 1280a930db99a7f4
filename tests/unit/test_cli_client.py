"""The client of ``calotype generate`` against a server that misbehaves."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from calotype.cli.client import Client, Passing, Unreached, connect
from calotype.cli.faults import CommandFault
from calotype.cli.order import Order

DROP = b""
ACCEPTED = {"task_id": "task_0", "state": "waiting"}


class Rogue:
    """Answers each connection with the next of its answers, byte for byte, and hangs up."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.answers = list(answers)
        self.heads: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        head = {"": lines[0]}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            head[name.lower()] = value.strip()
        self.heads.append(head)
        self.bodies.append(await reader.readexactly(int(head.get("content-length", "0"))))
        writer.write(self.answers.pop(0))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def answer(status: int, body: Any, *, headers: str = "") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Some\r\nContent-Length: {len(content)}\r\n{headers}Connection: close"
    return head.encode() + b"\r\n\r\n" + content


@contextlib.asynccontextmanager
async def rogue(*answers: bytes) -> AsyncIterator[tuple[Rogue, Client, list[str]]]:
    served, notes = Rogue(answers), list[str]()
    server = await asyncio.start_server(served.handle, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with (
        server,
        connect(served.url, api_key="ck_x", note=notes.append, pauses=(0, 0, 0)) as client,
    ):
        yield served, client, notes


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def order(*references: str | Path) -> Order:
    return Order(fields={"model": "m"}, references=references, idempotency_key="once")


async def test_a_request_whose_answer_was_lost_is_sent_again_under_the_same_key() -> None:
    async with rogue(DROP, DROP, DROP, answer(202, ACCEPTED)) as (served, client, notes):
        assert await client.submit(order()) == ACCEPTED
        assert [head["idempotency-key"] for head in served.heads] == ["once"] * 4
        assert len(set(served.bodies)) == 1
        assert [note[-8:] for note in notes] == ["(1 of 3)", "(2 of 3)", "(3 of 3)"]


async def test_files_are_read_anew_for_each_try(tmp_path: Path) -> None:
    file = tmp_path / "reference.png"
    file.write_bytes(b"all of the picture")
    async with rogue(DROP, answer(202, ACCEPTED)) as (served, client, _):
        await client.submit(order("https://example.com/a.png", file))
        for head, body in zip(served.heads, served.bodies, strict=True):
            assert head["content-type"].startswith("multipart/form-data")
            assert b"all of the picture" in body
            assert body.index(b"https://example.com/a.png") < body.index(b"all of the picture")


async def test_a_connection_that_always_breaks_leaves_the_outcome_open() -> None:
    async with rogue(*[DROP] * 4) as (served, client, _):
        with pytest.raises(Unreached, match="again and again"):
            await client.submit(order())
        assert len(served.heads) == 4


async def test_a_refusal_is_told_with_its_code_and_not_sent_again() -> None:
    refusal = {"message": "No money.", "code": "insufficient_balance"}
    async with rogue(answer(402, refusal)) as (served, client, _):
        with pytest.raises(CommandFault) as caught:
            await client.submit(order())
        assert caught.value.message == "No money. (insufficient_balance)"
        assert len(served.heads) == 1


async def test_an_answer_from_something_else_names_the_address_to_check() -> None:
    async with rogue(answer(404, b"<html>")) as (_, client, _):
        with pytest.raises(CommandFault, match="check --base-url"):
            await client.submit(order())


async def test_a_server_that_is_busy_says_when_to_ask_again() -> None:
    busy = {"message": "Busy.", "code": "service_unavailable"}
    async with rogue(answer(503, busy, headers="Retry-After: 7\r\n")) as (_, client, _):
        with pytest.raises(Passing) as caught:
            await client.task("task_0")
        assert caught.value.wait == 7


async def test_an_image_that_was_cut_short_is_fetched_again_and_appears_whole(
    tmp_path: Path,
) -> None:
    target, whole = tmp_path / "out.png", answer(200, b"the whole image")
    async with rogue(whole[:-5], whole) as (served, client, _):
        assert await client.download("/v1/assets/a.png?signature=s", target) == 15
        assert target.read_bytes() == b"the whole image"
        assert names_in(tmp_path) == ["out.png"]
        assert all("authorization" not in head for head in served.heads)


async def test_an_image_that_cannot_be_fetched_leaves_nothing_behind(tmp_path: Path) -> None:
    gone = {"message": "Expired.", "code": "url_expired"}
    async with rogue(answer(403, gone)) as (_, client, _):
        with pytest.raises(CommandFault, match="url_expired"):
            await client.download("/v1/assets/a.png", tmp_path / "out.png")
    assert names_in(tmp_path) == []


async def test_a_server_that_is_not_there_is_told_with_how_to_start_it() -> None:
    async with rogue() as (served, _, _):
        pass
    async with connect(served.url, api_key="ck_x", note=lambda _: None, pauses=()) as client:
        with pytest.raises(CommandFault, match="calotype serve"):
            await client.submit(order())
