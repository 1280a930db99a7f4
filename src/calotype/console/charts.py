"""Charts of what was used, as ``ui.bar_chart`` takes them."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

import msgspec

from calotype.domain.money import format_usd
from calotype.services.usage import Report, sum_of
from calotype.store.usage import Tally

MAX_BARS: Final = 92
"""Of more days than these each month has a bar."""
COLOURS: Final = 6
"""Of more models than these, the least used share the last colour."""
ROWS_SHOWN: Final = 20
OTHERS: Final = "others"

Bar = Mapping[str, Any]
"""``label`` (below it), ``title`` (what a pointer is told), ``values`` (its parts from below)."""


class Chart(msgspec.Struct, frozen=True):
    """Bars over time; each part of a bar has its words and a class of style."""

    series: Sequence[tuple[str, str]]
    bars: Sequence[Bar]
    step: str
    """What a bar stands for: ``Day`` or ``Month``."""


class Row(msgspec.Struct, frozen=True):
    """A line of a breakdown."""

    name: str
    tally: Tally
    share: float
    """Of all that was spent."""

    @property
    def success(self) -> float | None:
        """The share of tasks that brought an image; None without a task."""
        return success_of(self.tally)


def success_of(tally: Tally) -> float | None:
    """The share of tasks that brought an image; None without a task."""
    ended = tally.succeeded + tally.failed
    return tally.succeeded / ended if ended else None


def spending(report: Report) -> Chart:
    """What was spent, by model."""
    shown = [model for model, tally in report.by_model if tally.spent]
    if len(shown) > COLOURS:
        shown = [*shown[: COLOURS - 1], OTHERS]
    shown = shown or ["spent"]
    places = {model: place for place, model in enumerate(shown)}
    last = len(shown) - 1
    slots = _slots(report)
    values = {slot: [0] * len(shown) for slot in slots.values()}
    for (day, model), tally in report.models_by_day.items():
        if tally.spent:
            values[slots[day]][places.get(model, last)] += tally.spent
    series = [(model, f"c{place + 1}") for place, model in enumerate(shown)]
    bars = [_bar(slot, parts, series, money=True) for slot, parts in values.items()]
    return Chart(series, bars, _step(report))


def tasks(report: Report) -> Chart:
    """The tasks that ended, by whether they brought an image."""
    series = [("Succeeded", "c2"), ("Failed", "cbad")]
    slots = _slots(report)
    values = {slot: [0, 0] for slot in slots.values()}
    for day, tally in report.by_day:
        values[slots[day]][0] += tally.succeeded
        values[slots[day]][1] += tally.failed
    bars = [_bar(slot, parts, series, money=False) for slot, parts in values.items()]
    return Chart(series, bars, _step(report))


def margins(report: Report) -> Chart:
    """What was spent: what upstreams charged of it, what was left, and what they charged beyond."""
    slots = _slots(report)
    found: dict[tuple[str, str], list[Tally]] = {slot: [] for slot in slots.values()}
    for day, tally in report.by_day:
        found[slots[day]].append(tally)
    bars = []
    for (label, whole), tallies in found.items():
        total = sum_of(tallies)
        spent, cost = total.spent, total.cost
        told = f"{whole}: spent {format_usd(spent)} USDC, charged {format_usd(cost)} USDC"
        parts = [min(spent, cost), max(0, spent - cost), max(0, cost - spent)]
        bars.append({"label": label, "title": told, "values": parts})
    series = [("charged by upstreams", "c6"), ("left over", "c2"), ("charged beyond", "cbad")]
    if not any(bar["values"][-1] for bar in bars):
        series.pop()
        bars = [{**bar, "values": bar["values"][:-1]} for bar in bars]
    return Chart(series, bars, _step(report))


def rows(found: Sequence[tuple[str, Tally]], total: Tally) -> Sequence[Row]:
    """The lines of a breakdown; what is least stands together when there are many."""
    shown = list(found)
    if len(found) > ROWS_SHOWN:
        rest = found[ROWS_SHOWN - 1 :]
        others = (f"{len(rest)} others", sum_of([tally for _, tally in rest]))
        shown = [*found[: ROWS_SHOWN - 1], others]
    whole = total.spent or 1
    return [Row(name, tally, tally.spent / whole) for name, tally in shown]


def _bar(
    slot: tuple[str, str], parts: Sequence[int], series: Sequence[tuple[str, str]], *, money: bool
) -> Bar:
    """A bar for a slot, which is what stands below it and its full name."""
    label, whole = slot

    def said(value: int) -> str:
        return f"{format_usd(value)} USDC" if money else f"{value:,}"

    told = [
        f"{name} {said(value)}" for (name, _), value in zip(series, parts, strict=True) if value
    ]
    if money and len(told) > 1:
        told.insert(0, said(sum(parts)))
    return {"label": label, "title": f"{whole}: {', '.join(told) or 'nothing'}", "values": parts}


def _step(report: Report) -> str:
    return "Day" if len(report.by_day) <= MAX_BARS else "Month"


def _slots(report: Report) -> Mapping[date, tuple[str, str]]:
    """The bar that each day belongs to, in the order of time."""
    if _step(report) == "Day":
        return {day: (f"{day.day} {day:%b}", f"{day.day} {day:%b %Y}") for day, _ in report.by_day}
    return {day: (f"{day:%b %Y}", f"{day:%B %Y}") for day, _ in report.by_day}
