"""The progress of requests on stderr: bars on a terminal, a line for each change elsewhere."""

import contextlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from calotype.cli import show

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress, TaskID


class Board(Protocol):
    """Shows rows by their names until each has ended."""

    def update(self, row: str, state: str, progress: int) -> None:
        """Show a state, and the progress in percent."""

    def end(self, row: str) -> None:
        """Show nothing more of a row."""

    def paused(self) -> AbstractContextManager[None]:
        """A block that may write to the terminal."""

    def note(self, line: str) -> None:
        """A line beside the rows."""


@contextlib.contextmanager
def board(*, rows: int = 1) -> Iterator[Board]:
    """A board for so many rows in all; when there are several, with how many have ended."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    bars = _Bars(rows)
    with bars.shown():
        yield bars


class _Lines:
    def __init__(self) -> None:
        self._last: dict[str, tuple[str, int]] = {}

    def update(self, row: str, state: str, progress: int) -> None:
        if self._last.get(row) != (state, progress):
            self._last[row] = (state, progress)
            show.note(f"{row} {state} {progress} %")

    def end(self, row: str) -> None:
        self._last.pop(row, None)

    def paused(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def note(self, line: str) -> None:
        show.note(line)


class _Bars:
    def __init__(self, rows: int) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._progress = _progress(self._console)
        self._bars: dict[str, TaskID] = {}
        self._all = self._progress.add_task("all", total=rows) if rows > 1 else None
        self._live = self._new_live()

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        self._live.start()
        try:
            yield
        finally:
            self._live.stop()

    def _new_live(self) -> "Live":
        from rich.live import Live

        return Live(
            console=self._console,
            get_renderable=self._progress.get_renderable,
            refresh_per_second=10,
            transient=True,
            redirect_stdout=False,  # what is printed there goes where it was sent
            redirect_stderr=False,
        )

    def update(self, row: str, state: str, progress: int) -> None:
        if row not in self._bars:
            self._bars[row] = self._progress.add_task(row, total=100)
        text = state if self._all is None else f"{row} {state}"
        self._progress.update(self._bars[row], description=show.plain(text), completed=progress)

    def end(self, row: str) -> None:
        bar = self._bars.pop(row, None)
        if bar is not None:
            self._progress.remove_task(bar)
        if self._all is not None:
            self._progress.advance(self._all)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self._live.stop()
        try:
            yield
        finally:
            sys.stdout.flush()
            # One that was stopped would go back up over what has been written since.
            self._live = self._new_live()
            self._live.start()

    def note(self, line: str) -> None:
        with self.paused():
            show.note(line)


def _progress(console: "Console") -> "Progress":
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
    )
