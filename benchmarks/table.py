"""What ``make bench`` prints: a path, its goal, the median of its runs and of their floors."""

from collections.abc import Callable
from statistics import median
from typing import Final, NamedTuple

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

console: Final = Console(width=190, soft_wrap=True)


class Goal(NamedTuple):
    """A limit of the result, or of its ratio to the floor."""

    limit: float
    is_most: bool
    of_floor: bool

    def is_met(self, result: float, ratio: float) -> bool:
        """Whether a median is on the right side."""
        found = ratio if self.of_floor else result
        return found <= self.limit if self.is_most else found >= self.limit

    def shown(self, unit: str) -> str:
        """As a cell of the table."""
        sign = "≤" if self.is_most else "≥"
        return f"{sign} {_number(self.limit)}{' of the floor' if self.of_floor else unit}"


def at_least(limit: float, *, of_floor: bool = False) -> Goal:
    """More is better."""
    return Goal(limit, is_most=False, of_floor=of_floor)


def at_most(limit: float, *, of_floor: bool = False) -> Goal:
    """Less is better."""
    return Goal(limit, is_most=True, of_floor=of_floor)


class Floor(NamedTuple):
    """The least that could be, measured beside a result."""

    value: float
    what: str


class _Figure:
    def __init__(self, unit: str, goal: Goal | None, floor: str) -> None:
        self.unit = unit
        self.goal = goal
        self.floor = floor
        self.runs: list[float] = []
        self.floors: list[float] = []

    def cells(self) -> tuple[str, ...]:
        goal = self.goal.shown(self.unit) if self.goal else ""
        result, floor, ratio, verdict = median(self.runs), "", "", ""
        shown = f"{_number(result)}{self.unit}"
        if len(self.runs) > 1:
            shown += f" ({_number(min(self.runs))} to {_number(max(self.runs))})"
        ratios = [run / each for run, each in zip(self.runs, self.floors, strict=False) if each]
        if ratios:
            floor = f"{_number(median(self.floors))}{self.unit}, {self.floor}"
            ratio = _number(median(ratios))
        if self.goal:
            is_met = self.goal.is_met(result, median(ratios) if ratios else 0)
            verdict = "met" if is_met else "missed"
        return goal, shown, floor, ratio, verdict


class Figures:
    """The table, filled run by run."""

    def __init__(self) -> None:
        self._figures: dict[str, _Figure] = {}

    def add(
        self,
        path: str,
        value: float,
        unit: str,
        *,
        goal: Goal | None = None,
        floor: Floor | None = None,
    ) -> None:
        """What one run came to."""
        figure = self._figures.setdefault(path, _Figure(unit, goal, floor.what if floor else ""))
        figure.runs.append(value)
        if floor:
            figure.floors.append(floor.value)
        console.print(f"  {path}: {_number(value)}{unit}")

    def show(self) -> None:
        """Print it, as Markdown."""
        table = Table("path", "goal", "result", "floor", "ratio", "", box=MARKDOWN)
        for path, figure in self._figures.items():
            table.add_row(path, *figure.cells())
        console.print(table)


class Rows:
    """Figures that are said in words, each once."""

    def __init__(self) -> None:
        self._table = Table("path", "result", "p50 / p99", "floor", "ratio", "goal", "note")

    def add(self, path: str, result: str, *, goal: str, note: str = "") -> None:
        """A single figure."""
        self._table.add_row(path, result, "", "", "", goal, note)
        console.print(f"  {path}: {result} {note}")

    def beside(
        self, path: str, result: str, *, latency: str, floor: str, ratio: str, goal: str, note: str
    ) -> None:
        """A figure beside a floor's, every column as it is to stand there."""
        self._table.add_row(path, result, latency, floor, ratio, goal, note)
        console.print(f"  {path}: {result}, floor {floor}, ratio {ratio} ({note})")

    def show(self) -> None:
        """Print the table."""
        console.print(self._table)


_DIGITS: Final[tuple[tuple[float, Callable[[float], str]], ...]] = (
    (100, "{:,.0f}".format),
    (10, "{:.1f}".format),
    (0, "{:.2f}".format),
)


def _number(value: float) -> str:
    """Three digits or more."""
    return next(shown(value) for least, shown in _DIGITS if abs(value) >= least)
