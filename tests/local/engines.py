"""A real engine process, spoken to as a worker does."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from calotype.providers.diffusers.wire import (
    Broken,
    Draw,
    Drawn,
    Ended,
    Event,
    Load,
    Order,
    Picture,
    Ready,
    Step,
)

_INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"
_ENGINE = [sys.executable, "-P", "-m", "calotype.providers.diffusers.engine"]
T = TypeVar("T", bound=Event)


class Engine:
    """The process, its orders and its events."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def order(self, order: Order) -> None:
        assert self.process.stdin
        self.process.stdin.write(msgspec.json.encode(order) + b"\n")
        self.process.stdin.flush()

    def events(self) -> Iterator[Event]:
        """What it tells, until it ends."""
        assert self.process.stdout
        for line in self.process.stdout:
            yield msgspec.json.decode(line, type=Event)

    def next(self, kind: type[T]) -> T:
        event = next(self.events())
        assert isinstance(event, kind), event
        return event

    def load(self, weights: Path | str, **settings: Any) -> Ready:
        self.order(Load(weights=str(weights), **settings))
        return self.next(Ready)

    def broken(self, weights: Path | str, **settings: Any) -> Broken:
        self.order(Load(weights=str(weights), **settings))
        return self.next(Broken)

    def batch(self, order: Draw) -> tuple[dict[str, Drawn | Ended], list[Step]]:
        """Draw a batch: the end of each picture, and the steps that were told."""
        self.order(order)
        return self.ends(len(order.pictures))

    def ends(self, pictures: int) -> tuple[dict[str, Drawn | Ended], list[Step]]:
        ends: dict[str, Drawn | Ended] = {}
        steps = []
        for event in self.events():
            if isinstance(event, Step):
                steps.append(event)
            elif isinstance(event, Drawn | Ended):
                ends[event.id] = event
            if len(ends) == pictures:
                break
        return ends, steps


@contextmanager
def engine(errors: Path | None = None, **environment: str) -> Iterator[Engine]:
    """An engine that ends with the test; on one core, as others test beside it.

    Args:
        errors: where its standard error goes.
        environment: variables of it.

    """
    # Without what torch has set in the process of the tests, where it is imported too.
    own = {name: value for name, value in os.environ.items() if name != _INDUCTOR}  # noqa: TID251 -- for a child
    with (
        (errors or Path(os.devnull)).open("wb") as stderr,
        subprocess.Popen(
            _ENGINE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            pipesize=4096,  # holds some 120 steps, so that a drawing of more waits to be read
            env={**own, "OMP_NUM_THREADS": "1", **environment},
        ) as process,
    ):
        try:
            yield Engine(process)
        finally:
            process.kill()


def picture(name: str, folder: Path, **settings: Any) -> Picture:
    settings = {"prompt": "a heron", "seed": 7, **settings}
    return Picture(id=name, file=str(folder / f"{name}.png"), **settings)


def order(*pictures: Picture, **settings: Any) -> Draw:
    settings = {"width": 128, "height": 64, "steps": 2, "guidance": 0.0, **settings}
    return Draw(pictures=pictures, **settings)


def engines_of(process: int) -> set[int]:
    """The engine processes that a server or worker has started, by their ids."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    found = set()
    for each in children:
        with suppress(FileNotFoundError):  # it ends this moment
            if b"diffusers.engine" in Path(f"/proc/{each}/cmdline").read_bytes():
                found.add(int(each))
    return found


def has_torch(process: int) -> bool:
    """Whether a process has loaded torch."""
    return "libtorch" in Path(f"/proc/{process}/maps").read_text()
