"""A task's progress on stderr: a bar on a terminal, a line for each change elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from calotype.cli import show

if TYPE_CHECKING:
    from rich.progress import Progress

Update = Callable[[str, int], None]
"""Told the state and the progress in percent."""


@contextlib.contextmanager
def watching(name: str) -> Iterator[Update]:
    """Shows the progress of the task ``name`` until the end of the block."""
    if sys.stderr.isatty():
        with _bar() as bar:
            place = bar.add_task("waiting", total=100)
            yield lambda state, progress: bar.update(
                place, description=show.plain(state), completed=progress
            )
    else:
        yield _Lines(name).update


class _Lines:
    def __init__(self, name: str) -> None:
        self._name = name
        self._last: tuple[str, int] | None = None

    def update(self, state: str, progress: int) -> None:
        if self._last != (state, progress):
            self._last = (state, progress)
            show.note(f"{self._name} {state} {progress} %")


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
