"""How amounts, times and sizes read."""

import pytest

from calotype.console import filters

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
NOW = 1_795_424_000_876


@pytest.mark.parametrize(
    ("micro", "shown"),
    [
        (0, "0.00 USDC"),
        (120_000, "0.12 USDC"),
        (1, "0.000001 USDC"),
        (-30_001, "-0.030001 USDC"),
        (1_234_567_890_000, "1,234,567.89 USDC"),
        (-1_500_000_000, "-1,500.00 USDC"),
    ],
)
def test_an_amount_shows_every_digit_that_counts(micro: int, shown: str) -> None:
    assert filters.usd(micro) == shown


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (NOW, "just now"),
        (NOW - 4 * SECOND, "just now"),
        (NOW - 59 * SECOND, "59 s ago"),
        (NOW - 5 * MINUTE, "5 min ago"),
        (NOW - 26 * HOUR, "1 d ago"),
        (NOW + 3 * HOUR, "in 3 h"),
        (NOW - 40 * DAY, "14 Oct 2026"),
    ],
)
def test_a_time_is_told_from_now(ms: int, shown: str) -> None:
    assert filters.ago(ms, now=NOW) == shown


def test_a_time_is_told_in_full_and_for_machines() -> None:
    assert filters.moment(NOW) == "23 Nov 2026, 08:53:20 UTC"
    assert filters.iso(NOW) == "2026-11-23T08:53:20.876Z"


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (850, "850 ms"),
        (4200, "4.2 s"),
        (30 * SECOND, "30 s"),
        (59_960, "1 min"),
        (200 * SECOND, "3 min 20 s"),
        (2 * HOUR + 5 * MINUTE, "2 h 5 min"),
        (4 * DAY + 3 * HOUR, "4 d 3 h"),
    ],
)
def test_a_span_is_told_in_two_units_at_most(ms: int, shown: str) -> None:
    assert filters.duration(ms) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(812, "812 B"), (1_468_006, "1.4 MiB"), (2**40, "1.0 TiB")]
)
def test_a_size_is_told_in_its_unit(count: int, shown: str) -> None:
    assert filters.size(count) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.5, "50 %"),
        (0.998, "99.8 %"),
        (0.99999, "99.9 %"),
        (1e-9, "0.1 %"),
    ],
)
def test_what_is_not_quite_all_or_nothing_is_not_shown_as_that(share: float, shown: str) -> None:
    assert filters.percent(share) == shown
