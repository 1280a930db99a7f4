"""Charts: a bar for each day or month, models in colours of their own, and nothing lost."""

from datetime import date, timedelta

from calotype.console import charts
from calotype.services.usage import Days, Report, sum_of
from calotype.store.usage import Tally

FIRST = date(2026, 1, 30)


def report(days: int, *used: tuple[int, str, Tally]) -> Report:
    """What was used of models on days, counted from the first one."""
    dates = [FIRST + timedelta(days=number) for number in range(days)]
    by_model: dict[str, list[Tally]] = {}
    for _, model, tally in used:
        by_model.setdefault(model, []).append(tally)
    return Report(
        days=Days(0, days - 1),
        total=sum_of([tally for *_, tally in used]),
        by_day=[
            (day, sum_of([tally for at, _, tally in used if at == number]))
            for number, day in enumerate(dates)
        ],
        models_by_day={(dates[number], model): tally for number, model, tally in used},
        by_model=sorted(
            ((model, sum_of(found)) for model, found in by_model.items()),
            key=lambda each: -each[1].spent,
        ),
    )


def spent(micro: int) -> Tally:
    return Tally(succeeded=1, images=1, spent=micro)


def test_a_day_has_a_bar_of_what_was_spent_on_each_model() -> None:
    chart = charts.spending(
        report(3, (0, "small", spent(10_000)), (0, "large", spent(500_000)), (2, "small", spent(1)))
    )
    assert (chart.step, chart.series) == ("Day", [("large", "c1"), ("small", "c2")])
    assert [bar["label"] for bar in chart.bars] == ["30 Jan", "31 Jan", "1 Feb"]
    assert [bar["values"] for bar in chart.bars] == [[500_000, 10_000], [0, 0], [0, 1]]
    assert chart.bars[0]["title"] == "30 Jan 2026: 0.51 USDC, large 0.50 USDC, small 0.01 USDC"
    assert chart.bars[1]["title"] == "31 Jan 2026: nothing"


def test_models_beyond_the_first_ones_stand_together() -> None:
    used = [(0, f"model {number}", spent(100 - number)) for number in range(9)]
    chart = charts.spending(report(1, *used, (0, "free", spent(0))))
    assert [name for name, _ in chart.series] == [*(name for _, name, _ in used[:5]), "others"]
    (bar,) = chart.bars
    assert bar["values"] == [100, 99, 98, 97, 96, 95 + 94 + 93 + 92]


def test_as_many_models_as_there_are_colours_have_one_each() -> None:
    used = [(0, f"model {number}", spent(100 - number)) for number in range(6)]
    chart = charts.spending(report(1, *used))
    assert [name for name, _ in chart.series] == [name for _, name, _ in used]
    assert chart.bars[0]["values"] == [100, 99, 98, 97, 96, 95]


def test_many_days_have_a_bar_for_each_month() -> None:
    chart = charts.spending(report(93, (0, "a", spent(5)), (1, "a", spent(7)), (92, "a", spent(9))))
    assert chart.step == "Month"
    assert [bar["label"] for bar in chart.bars] == [
        "Jan 2026",
        "Feb 2026",
        "Mar 2026",
        "Apr 2026",
        "May 2026",
    ]
    assert [bar["values"] for bar in chart.bars] == [[12], [0], [0], [0], [9]]


def test_tasks_are_counted_by_whether_they_brought_an_image() -> None:
    chart = charts.tasks(
        report(2, (0, "a", Tally(3, 1)), (0, "b", Tally(0, 2)), (1, "a", Tally(1)))
    )
    assert [bar["values"] for bar in chart.bars] == [[3, 3], [1, 0]]
    assert chart.bars[0]["title"] == "30 Jan 2026: Succeeded 3, Failed 3"


def test_where_nothing_was_spent_there_is_one_empty_series() -> None:
    chart = charts.spending(report(2, (0, "a", Tally(failed=1))))
    assert chart.series == [("spent", "c1")]
    assert [bar["values"] for bar in chart.bars] == [[0], [0]]


def test_a_long_breakdown_ends_with_all_the_others() -> None:
    found = [(f"key {number}", spent(10)) for number in range(50)]
    rows = charts.rows(found, sum_of([tally for _, tally in found]))
    assert len(rows) == charts.ROWS_SHOWN
    assert (rows[-1].name, rows[-1].tally.spent, rows[-1].share) == ("31 others", 310, 0.62)
    assert rows[0].success == 1.0
    assert charts.rows([("a", Tally())], Tally())[0].success is None
