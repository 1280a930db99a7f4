"""Processes live on between pieces of work, and none outlives what it is for."""

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from calotype.imaging.conversion import ConversionBroke, Converter, NotConvertible
from calotype.imaging.processes import LineProcess, Processes, ProcessGone
from harness import until


class Order(msgspec.Struct):
    """What the child is told."""

    word: str = ""
    wait: bool = False
    end: bool = False


class Reply(msgspec.Struct):
    """What the child says."""

    pid: int
    word: str


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that answers with its process id."""
    (tmp_path / "calotype_test_child.py").write_text(
        "import json, os, sys, time\n"
        "for line in sys.stdin:\n"
        "    order = json.loads(line)\n"
        "    if order['end']: os._exit(3)\n"
        "    if order['wait']: time.sleep(600)\n"
        "    print(json.dumps({'pid': os.getpid(), 'word': order['word']}), flush=True)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "calotype_test_child"


async def ask(processes: Processes, order: Order) -> Reply:
    async with processes.turn() as process:
        return await process.ask(order, Reply)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pid_of(process: LineProcess) -> int:
    assert process._process is not None
    return process._process.pid


async def test_one_process_does_one_work_after_the_other(child: str) -> None:
    processes = Processes(child, most=2)
    replies = [await ask(processes, Order(word=word)) for word in ("one", "two")]
    assert [each.word for each in replies] == ["one", "two"]
    assert len({each.pid for each in replies}) == 1
    await processes.close()
    assert not lives(replies[0].pid)


async def test_there_are_never_more_than_were_allowed(child: str) -> None:
    processes = Processes(child, most=2)
    replies = await asyncio.gather(*(ask(processes, Order()) for _ in range(10)))
    assert 1 <= len({each.pid for each in replies}) <= 2
    await processes.close()


async def test_a_process_without_work_ends_by_itself(child: str) -> None:
    processes = Processes(child, most=1, idle_seconds=0)
    first = await ask(processes, Order())
    await until(lambda: not lives(first.pid))
    assert (await ask(processes, Order())).pid != first.pid
    await processes.close()


async def test_a_process_is_replaced_after_many_works(child: str) -> None:
    processes = Processes(child, most=1, works=2)
    pids = [(await ask(processes, Order())).pid for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert not lives(pids[0])
    await processes.close()


async def test_a_process_that_crashes_fails_its_own_work_alone(child: str) -> None:
    processes = Processes(child, most=1)
    with pytest.raises(ProcessGone):
        await ask(processes, Order(end=True))
    assert (await ask(processes, Order(word="next"))).word == "next"
    await processes.close()


async def test_work_that_nobody_waits_for_any_more_ends_with_its_process(child: str) -> None:
    processes = Processes(child, most=1)
    async with processes.turn() as process:
        await process.ask(Order(), Reply)
        pid = pid_of(process)
        asking = asyncio.create_task(process.ask(Order(wait=True), Reply))
        await until(lambda: not process.sound)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert not lives(pid)
    assert (await ask(processes, Order(word="next"))).word == "next"
    await processes.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (64, 48), "teal").save(path)
    return path


async def test_a_conversion_whose_process_was_killed_is_done_by_another(
    picture: Path, tmp_path: Path
) -> None:
    converter = Converter(1)
    made = await converter.convert(picture, tmp_path / "a", "image/jpeg", account_id=1)
    assert made == "image/jpeg"
    (idle,) = converter._processes._idle
    os.kill(pid_of(idle), signal.SIGKILL)
    await converter.convert(picture, tmp_path / "b", "image/webp", account_id=1)
    with Image.open(tmp_path / "b") as image:
        assert (image.format, image.size) == ("WEBP", (64, 48))
    await converter.close()


async def test_what_cannot_be_written_is_the_systems_fault_not_the_images(
    picture: Path, tmp_path: Path
) -> None:
    converter = Converter(1)
    with pytest.raises(ConversionBroke):
        await converter.convert(picture, tmp_path / "no" / "such", "image/webp", account_id=1)
    await converter.close()


async def test_an_image_that_takes_too_much_memory_is_refused_and_the_next_is_not(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = (
        "import resource, calotype.imaging.conversion as c; c.MEMORY = 400 * 1024**2;"
        "import calotype.imaging.converting as m; m.MEMORY = c.MEMORY"
    )
    (tmp_path / "calotype_test_limited.py").write_text(f"{limited}; m.main()\n")
    source = ":".join([str(tmp_path), os.environ.get("PYTHONPATH", "")])  # noqa: TID251 -- for a child
    monkeypatch.setenv("PYTHONPATH", source)
    converter = Converter(1)
    converter._processes = Processes("calotype_test_limited", most=1)
    large = tmp_path / "large.png"
    Image.new("RGB", (10_000, 10_000)).save(large, compress_level=1)
    with pytest.raises(NotConvertible, match="memory"):
        await converter.convert(large, tmp_path / "a", "image/webp", account_id=1)
    await converter.convert(picture, tmp_path / "a", "image/webp", account_id=1)
    await converter.close()


async def test_a_process_imports_nothing_from_the_servers_folder_and_is_told_no_keys(
    child: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cwd"
    folder.mkdir()
    (folder / "json.py").write_text("raise SystemExit('shadowed')\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("CALOTYPE_DATABASE_URL", "hush")
    processes = Processes(child, most=1)
    reply = await ask(processes, Order(word="here"))
    assert reply.word == "here"
    environment = await asyncio.to_thread(Path(f"/proc/{reply.pid}/environ").read_bytes)
    assert b"hush" not in environment
    assert b"PYTHONPATH=" in environment
    await processes.close()


@pytest.mark.parametrize("said", ["Warning: hello", '{"pid": 1}', "x" * 2_000_000])
async def test_a_process_that_says_nonsense_counts_as_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    (tmp_path / "calotype_test_babbler.py").write_text(
        f"import sys\nfor line in sys.stdin: print({said!r}, flush=True)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    processes = Processes("calotype_test_babbler", most=1)
    with pytest.raises(ProcessGone, match="nobody understands"):
        await ask(processes, Order())
    await processes.close()


async def test_a_conversion_that_nobody_ends_any_more_ends_itself(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "calotype_test_stuck.py").write_text(
        "import time, calotype.imaging.converting as m\n"
        "m.LONGEST_SECONDS, m.GRACE_SECONDS = 0.1, 0.0\n"
        "m._serve = lambda order: time.sleep(600)\n"
        "m.main()\n"
    )
    source = ":".join([str(tmp_path), os.environ.get("PYTHONPATH", "")])  # noqa: TID251 -- for a child
    monkeypatch.setenv("PYTHONPATH", source)
    converter = Converter(1)
    converter._processes = Processes("calotype_test_stuck", most=1)
    with pytest.raises(ConversionBroke):
        await converter.convert(picture, tmp_path / "a", "image/webp", account_id=1)
    await converter.close()


async def test_no_account_has_all_processes(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "calotype_test_slow.py").write_text(
        "import time, calotype.imaging.converting as m\n"
        "serve = m._serve\n"
        "m._serve = lambda order: time.sleep(600) if 'slow' in order.target else serve(order)\n"
        "m.main()\n"
    )
    source = ":".join([str(tmp_path), os.environ.get("PYTHONPATH", "")])  # noqa: TID251 -- for a child
    monkeypatch.setenv("PYTHONPATH", source)
    converter = Converter(2)
    converter._processes = Processes("calotype_test_slow", most=2)
    slow = [
        asyncio.create_task(
            converter.convert(picture, tmp_path / f"slow {number}", "image/webp", account_id=1)
        )
        for number in range(2)
    ]
    await until(lambda: converter._processes._free._value < 2)
    async with asyncio.timeout(60):
        await converter.convert(picture, tmp_path / "a", "image/webp", account_id=2)
    for each in slow:
        each.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    await converter.close()
