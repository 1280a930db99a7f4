"""What `make bench` says of its runs."""

import pytest

from table import Figures, Floor, Goal, at_least, at_most


@pytest.mark.parametrize(
    ("goal", "runs", "verdict"),
    [
        (at_least(100), [90, 150, 100], "met"),
        (at_least(100), [99, 150, 90], "missed"),
        (at_most(100), [90, 150, 100], "met"),
        (at_most(100), [101, 150, 90], "missed"),
        (at_least(0.5, of_floor=True), [90, 150, 101], "met"),
        (at_least(0.5, of_floor=True), [90, 150, 99], "missed"),
        (None, [1], ""),
    ],
)
def test_the_median_decides_whether_a_goal_is_met(
    goal: Goal | None, runs: list[float], verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = Figures()
    for run in runs:
        figures.add("a path", run, "/s", goal=goal, floor=Floor(200, "the disk"))
    figures.show()
    row = capsys.readouterr().out.strip().splitlines()[-1]
    assert row.split("|")[-2].strip() == verdict


def test_a_row_has_the_goal_the_spread_the_floor_and_the_ratio(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = Figures()
    for run, floor in ((12_000, 24_000), (15_000, 20_000), (16_000, 64_000)):
        figures.add("submit", run, "/s", goal=at_least(15_000), floor=Floor(floor, "bare"))
    figures.show()
    row = capsys.readouterr().out.strip().splitlines()[-1]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "submit",
        "≥ 15,000/s",
        "15,000/s (12,000 to 16,000)",
        "24,000/s, bare",
        "0.50",
        "met",
    ]
