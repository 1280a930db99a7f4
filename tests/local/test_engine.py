"""The engine as its worker meets it: a process, its orders and its events."""

import json
import os
import resource
import shutil
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from calotype.providers.diffusers.wire import Draw, Drawn, Ended, Step, Stop
from local.engines import Engine, engine, order, picture
from local.weights import tiny


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine") / "errors"


@pytest.fixture(scope="module")
def loaded(weights_folder: Path, errors: Path) -> Iterator[Engine]:
    """An engine in which a library of torch prints all that it does."""
    with engine(errors, ONEDNN_VERBOSE="1") as started:
        started.load(tiny("sd", weights_folder), device="cpu")
        yield started


def long(*names: str, folder: Path) -> Draw:
    """More steps than fit into the line unread, so that it is still at them when a stop comes."""
    return order(*(picture(name, folder) for name in names), steps=400)


def test_what_libraries_print_does_not_break_the_line(
    loaded: Engine, errors: Path, tmp_path: Path
) -> None:
    ends, _ = loaded.batch(order(picture("a", tmp_path)))
    assert ends == {"a": Drawn(id="a")}
    assert b"onednn_verbose" in errors.read_bytes()


def test_a_stop_ends_the_drawing_between_steps(loaded: Engine, tmp_path: Path) -> None:
    loaded.order(long("a", folder=tmp_path))
    assert loaded.next(Step) == Step(done=1, of=400)
    loaded.order(Stop(id="a"))
    ends, _ = loaded.ends(1)
    assert ends == {"a": Ended(id="a", code="cancelled", message="It was stopped.")}
    ends, steps = loaded.batch(order(picture("b", tmp_path)))
    assert ends == {"b": Drawn(id="b")}
    assert len([step for step in steps if step.of == 400]) < 400 // 2
    assert [file.name for file in tmp_path.iterdir()] == ["b.png"]


def test_others_of_a_batch_go_on_when_one_is_stopped(loaded: Engine, tmp_path: Path) -> None:
    loaded.order(long("a", "b", folder=tmp_path))
    loaded.next(Step)
    loaded.order(Stop(id="a"))
    ends, steps = loaded.ends(2)
    assert list(ends) == ["a", "b"]
    assert isinstance(ends["a"], Ended)
    assert ends["b"] == Drawn(id="b")
    assert steps[-1] == Step(done=400, of=400)
    assert [file.name for file in tmp_path.iterdir()] == ["b.png"]


def test_a_stop_of_what_is_over_or_unknown_does_nothing(loaded: Engine, tmp_path: Path) -> None:
    loaded.batch(order(picture("a", tmp_path)))
    for name in ("a", "b"):
        loaded.order(Stop(id=name))
    assert loaded.batch(order(picture("b", tmp_path)))[0] == {"b": Drawn(id="b")}


def test_it_leaves_interrupts_to_its_worker_and_ends_with_it(
    weights_folder: Path, tmp_path: Path
) -> None:
    with engine() as started:
        started.load(tiny("sd", weights_folder), device="cpu")
        started.process.send_signal(signal.SIGINT)
        started.order(long("a", folder=tmp_path))
        started.next(Step)
        assert started.process.stdin
        started.process.stdin.close()
        assert Drawn(id="a") not in list(started.events())
        assert started.process.wait() == 0


def test_what_compiling_leaves_lies_in_the_folder_that_it_was_told(
    weights_folder: Path, tmp_path: Path
) -> None:
    """A real compiler takes a minute; this one says where it would work, and fails."""
    temporary, compiled, seen = (tmp_path / name for name in ("tmp", "compiled", "seen"))
    temporary.mkdir()
    compiler = tmp_path / "compiler"
    compiler.write_text(f'#!/bin/sh\necho "$TMPDIR" >>{seen}\nexit 1\n')
    compiler.chmod(0o755)
    told = {"device": "cpu", "compile": True, "compiled": str(compiled), "warm_up": (128, 64)}
    with engine(TMPDIR=str(temporary), CXX=str(compiler)) as started:
        broken = started.broken(tiny("klein", weights_folder), **told)
        assert (broken.code, "cannot be loaded: " in broken.message) == ("unfit", True)
        assert started.process.wait() == 1
    assert set(seen.read_text().split()) == {str(compiled)}
    assert list(compiled.iterdir())
    assert list(temporary.iterdir()) == []


def test_weights_that_cannot_be_loaded_end_it() -> None:
    with engine() as started:
        assert started.broken("/no/such/folder").code == "missing"
        assert started.process.wait() == 1


def test_a_picture_too_large_for_the_memory_ends_it(weights_folder: Path, tmp_path: Path) -> None:
    with engine() as started:
        started.load(tiny("sd", weights_folder), device="cpu")
        pages = int(Path(f"/proc/{started.process.pid}/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGESIZE") + 48 * 2**20
        resource.prlimit(started.process.pid, resource.RLIMIT_AS, (limit, limit))
        large = order(picture("a", tmp_path), picture("b", tmp_path), width=2048, height=2048)
        ends, _ = started.batch(large)
        assert [end.code for end in ends.values() if isinstance(end, Ended)] == [
            "out_of_memory",
            "out_of_memory",
        ]
        assert started.process.wait() == 3
    assert list(tmp_path.iterdir()) == []


def test_weights_too_large_for_the_memory_end_it(weights_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny("sd", weights_folder), tmp_path / "copy"))
    _grow(copy / "unet" / "diffusion_pytorch_model.safetensors", 2**36)
    with engine() as started:
        resource.prlimit(started.process.pid, resource.RLIMIT_AS, (2**35, 2**35))
        broken = started.broken(copy, device="cpu")
        assert broken.code == "out_of_memory", broken
        assert "does not fit into the memory of cpu" in broken.message
        assert started.process.wait() == 3


def _grow(file: Path, by: int) -> None:
    """Add a tensor of so many bytes, of which the disk holds none."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    end = len(content) - 8 - length
    header["more"] = {"dtype": "U8", "shape": [by], "data_offsets": [end, end + by]}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    os.truncate(file, 8 + len(text) + end + by)
