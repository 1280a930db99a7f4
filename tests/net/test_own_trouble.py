"""What goes wrong here, on our own disk: it loses no image, and nobody else is blamed for it."""

import asyncio
import base64
import contextlib
import os
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from calotype.domain.channel import Channel
from calotype.domain.errors import Unavailable
from calotype.domain.outcomes import Fault, ImageSource, TryLater, Unknown
from calotype.domain.wire import Upstream
from calotype.net import intake, spool
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
from calotype.net.client import Answer, BodyBroken, BrokenOff, NotKept, UpstreamClient
from calotype.net.spool import CannotKeep, Spool
from calotype.providers.line import Line
from net.calls import IMAGE, LETTERS, bytes_of, create, names_in, open_files, opening
from net.servers import Exchange, ok, saying, serving

ANSWER = ok(b'["%b"]' % LETTERS)
SIZE = 900_000
FORMS = ("json", "form", "raw")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where images are to go, and where a file stands in the way until it is mended."""
    folder = tmp_path / "spool"
    folder.touch()
    return folder


def mend(folder: Path) -> None:
    folder.unlink()


@pytest.fixture
async def client(folder: Path) -> AsyncIterator[UpstreamClient]:
    made = UpstreamClient(folder, memory=0)
    yield made
    await made.close()


@pytest.fixture
async def well(tmp_path: Path) -> AsyncIterator[UpstreamClient]:
    """One whose disk is in order."""
    made = UpstreamClient(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "RETRY_SECONDS", 0.001)


async def until_refused(caplog: pytest.LogCaptureFixture, *, times: int = 1) -> None:
    """Return when so many answers wait for the disk."""
    while sum("waits for the disk" in said for said in caplog.messages) < times:
        await asyncio.sleep(0)


def body_of(form: str, size: int, open_file: Open) -> Body:
    match form:
        case "json":
            return json_body([Inline(open_file, size)])
        case "form":
            return form_body([("image", FilePart("a.png", "image/png", size, open_file))])
        case _:
            return raw_body("image/png", size, open_file)


@contextlib.contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """The system lets no file of this process grow any further."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- the disk


@pytest.mark.usefixtures("at_once")
async def test_an_image_waits_until_the_disk_takes_it(
    client: UpstreamClient, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = os.urandom(3_000_000)
    async with saying(ok(b'["%b"]' % base64.b64encode(image))) as server:
        call = asyncio.create_task(create(client, server.url))
        await until_refused(caplog)
        assert not call.done()
        mend(folder)
        answer = await call
    assert await bytes_of(answer.blob(answer.document[0])) == image
    assert len(server.seen) == 1


@pytest.mark.usefixtures("at_once")
async def test_a_disk_that_takes_nothing_in_time_loses_the_answer_and_says_so(
    client: UpstreamClient,
) -> None:
    for answer in (ANSWER, ok(b'["%b"]' % base64.b64encode(bytes(3_000_000)))):
        async with saying(answer) as server:
            with pytest.raises(NotKept, match="could not be stored here: File exists") as caught:
                await create(client, server.url, timeout_seconds=0.3)
        assert isinstance(caught.value, BrokenOff)


@pytest.mark.usefixtures("at_once")
async def test_a_connection_that_broke_while_the_disk_was_waited_for_is_our_fault(
    client: UpstreamClient, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = ok(b'["%b"]' % base64.b64encode(bytes(600_000)))[:-1000]
    async with saying(cut) as server:
        call = asyncio.create_task(create(client, server.url))
        await until_refused(caplog)
        mend(folder)
        with pytest.raises(NotKept):
            await call


@pytest.mark.usefixtures("at_once")
async def test_answers_that_wait_for_the_disk_keep_nobody_from_being_read(
    client: UpstreamClient, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """More of them than are read at a time; one that needs no disk, and is large, passes them."""
    image = bytes(600_000)
    text = b"-" * 200_000

    async def script(exchange: Exchange) -> None:
        asks = exchange.seen.line.startswith("GET")
        await exchange.answer(b'["%b"]' % (text if asks else base64.b64encode(image)))

    async with serving(script) as server:
        calls = [asyncio.create_task(create(client, server.url)) for _ in range(70)]
        await until_refused(caplog, times=70)
        answer = await create(client, server.url, method="GET", fresh=False)
        assert answer.document == [text.decode()]
        assert not any(call.done() for call in calls)
        mend(folder)
        for answer in await asyncio.gather(*calls):
            assert await bytes_of(answer.blob(answer.document[0])) == image


async def test_what_was_written_in_part_is_continued(tmp_path: Path) -> None:
    kept = Spool(tmp_path)
    kept.add(IMAGE)
    kept.add(IMAGE)
    with files_no_longer_than(len(IMAGE) + 1000):
        for _ in range(2):
            with pytest.raises(CannotKeep, match="File too large"):
                await kept.write()
    kept.add(b"end")
    await kept.write()
    kept.complete()
    assert await bytes_of(kept) == IMAGE + IMAGE + b"end"


async def test_the_folder_of_images_is_made_when_it_is_missing(tmp_path: Path) -> None:
    client = UpstreamClient(tmp_path / "data" / "spool")
    async with saying(ANSWER) as server:
        answer = await create(client, server.url)
    await client.close()
    assert await bytes_of(answer.blob(answer.document[0])) == IMAGE


# --- memory


@pytest.mark.parametrize(
    ("size", "chunked", "is_held"),
    [
        (spool.STEP, True, True),
        (spool.STEP + 1, True, True),
        (spool.HELD, True, True),
        (spool.HELD + 1, True, False),
        (spool.HELD - 100, False, True),  # the rest of the document counts where it is announced
        (spool.HELD, False, False),
    ],
)
@pytest.mark.usefixtures("at_once")
async def test_an_image_needs_the_disk_only_where_it_is_over_what_may_be_held(
    folder: Path, size: int, *, chunked: bool, is_held: bool
) -> None:
    image = os.urandom(size)
    body = b'["%b"]' % base64.b64encode(image)
    whole = ok(body)
    if chunked:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
        pieces = [body[at : at + 100_000] for at in range(0, len(body), 100_000)]
        sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        whole = b"%b\r\n\r\n%b0\r\n\r\n" % (head, sent)
    client = UpstreamClient(folder)
    async with saying(whole) as server:
        call = create(client, server.url, max_bytes=20_000_000, timeout_seconds=5)
        if is_held:
            answer = await call
            assert await bytes_of(_image(answer)) == image
        else:
            with pytest.raises(NotKept):
                await call
    await client.close()


async def test_images_are_held_as_long_as_there_is_memory_and_it_is_given_back(
    tmp_path: Path,
) -> None:
    client = UpstreamClient(tmp_path, memory=2 * SIZE + 1000)
    async with saying(ok(b'["%b"]' % base64.b64encode(bytes(SIZE)))) as server:
        for _ in range(2):
            answers = [await create(client, server.url) for _ in range(3)]
            assert _spooled(tmp_path) == 1
            for answer in answers:
                assert await bytes_of(_image(answer)) == bytes(SIZE)
            del answers, answer
            while _spooled(tmp_path):
                await asyncio.sleep(0)
    await client.close()


def _spooled(folder: Path) -> int:
    """How many files of a folder this process holds open, named or not."""
    held = (Path("/proc/self/fd") / name for name in open_files())
    return sum(path.readlink().is_relative_to(folder) for path in held if path.is_symlink())


def _image(answer: Answer) -> ImageSource | None:
    return answer.blob(answer.document[0])


# --- room


async def test_room_is_found_in_a_folder_made_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "spool"
    client = UpstreamClient(folder)
    await client.check_room()
    await client.close()
    assert names_in(folder) == []


async def test_no_room_is_found_where_nothing_can_be_written(
    client: UpstreamClient, folder: Path
) -> None:
    with pytest.raises(Unavailable, match="cannot be kept on their way here: File exists"):
        await client.check_room()
    mend(folder)
    with (
        files_no_longer_than(0),
        pytest.raises(Unavailable, match="File too large"),
    ):
        await client.check_room()


async def test_no_room_is_found_on_a_disk_that_is_nearly_full(
    well: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "PROOF_SECONDS", 0)
    await well.check_room()
    monkeypatch.setattr(spool, "ROOM", 1 << 62)
    monkeypatch.setattr(spool, "SHARE", 1)
    with pytest.raises(Unavailable, match="bytes are free"):
        await well.check_room()


async def test_a_proof_of_room_serves_for_a_while_and_no_longer_once_the_disk_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "PROOF_SECONDS", 1000)
    folder = tmp_path / "spool"
    client = UpstreamClient(folder, memory=0)
    await client.check_room()
    folder.rmdir()
    folder.touch()
    await client.check_room()
    async with saying(ANSWER) as server:
        with pytest.raises(NotKept):
            await create(client, server.url, timeout_seconds=0.3)
    with pytest.raises(Unavailable):
        await client.check_room()
    await client.close()


# --- what is sent


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sent", [(), (bytes(300_000),), (bytes(SIZE),)])
@pytest.mark.parametrize("fresh", [True, False])
async def test_a_file_that_cannot_be_read_is_never_sent_whole(
    well: UpstreamClient, form: str, sent: tuple[bytes, ...], *, fresh: bool
) -> None:
    gone = OSError(5, "Input/output error")
    async with saying(ok(b"{}"), hang_up=False) as server:
        if not fresh:
            await create(well, server.url, fresh=False)  # this connection is used again
        with pytest.raises(BodyBroken) as caught:
            await create(
                well, server.url, body_of(form, SIZE, opening(*sent, fault=gone)), fresh=fresh
            )
        assert caught.value.__cause__ is gone
        await server.gone.wait()
        assert server.connections == 1
        assert not any(seen.whole for seen in server.seen[0 if fresh else 1 :])
        assert (await create(well, server.url, fresh=fresh)).document == {}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sent", [(bytes(SIZE - 1),), (bytes(SIZE), b"1"), (bytes(SIZE + 1),)])
async def test_a_file_of_another_size_is_never_sent_whole(
    well: UpstreamClient, form: str, sent: tuple[bytes, ...]
) -> None:
    async with saying(ok(b"{}")) as server:
        with pytest.raises(BodyBroken) as caught:
            await create(well, server.url, body_of(form, SIZE, opening(*sent)))
        assert isinstance(caught.value.__cause__, WrongSize)
        await server.gone.wait()
    assert not any(seen.whole for seen in server.seen)


async def test_a_reference_that_cannot_be_opened_is_no_missing_connection(
    well: UpstreamClient,
) -> None:
    trouble = Unavailable("Images cannot be stored or read right now.")
    async with saying(ok(b"{}")) as server:
        with pytest.raises(BodyBroken) as caught:
            await create(well, server.url, json_body(["a", Inline(opening(fault=trouble), 3)]))
        assert caught.value.__cause__ is trouble
        await server.gone.wait()


# --- what a provider is told


def line_to(url: str, client: UpstreamClient) -> Line:
    channel = Channel(id=1, slug="a", name="A", provider="openai", base_url=url, timeout_seconds=1)
    return Line(channel, Upstream(), client, headers={})


async def test_a_reference_that_cannot_be_read_is_tried_later_and_is_ours(
    well: UpstreamClient,
) -> None:
    body = body_of("json", SIZE, opening(bytes(300_000), fault=OSError(5, "Input/output error")))
    async with saying(ok(b"{}")) as server:
        line = line_to(server.url, well)
        for outcome in (await line.create("", body=body), await line.ask("", body=body)):
            assert isinstance(outcome, TryLater)
            assert (outcome.code, outcome.fault) == ("internal_error", Fault.OURS)
            assert outcome.message == "A reference image could not be read here."


@pytest.mark.usefixtures("at_once")
async def test_an_answer_that_could_not_be_kept_is_asked_for_again_and_never_bought_again(
    client: UpstreamClient,
) -> None:
    async with saying(ANSWER) as server:
        line = line_to(server.url, client)
        asked = await line.ask("", timeout_seconds=2)
        assert isinstance(asked, TryLater)
        assert asked.fault is Fault.OURS
        assert isinstance(await line.create("", body={}), Unknown)
