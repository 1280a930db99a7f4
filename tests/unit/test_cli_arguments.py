"""Amounts, durations and names as people type them."""

import pytest
import typer

from calotype.cli import arguments


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3600s", 3600), ("90m", 5400), ("12h", 43_200), ("30d", 2_592_000), (" 1d ", 86_400)],
)
def test_a_duration_is_a_number_and_its_unit(text: str, seconds: int) -> None:
    assert arguments.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1.5h", "30 d", "1y", "99999d"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        arguments.duration(text)


@pytest.mark.parametrize(
    ("text", "micro"), [("12.50", 12_500_000), ("-3", -3_000_000), ("0.000001", 1)]
)
def test_an_amount_is_read_exactly(text: str, micro: int) -> None:
    assert arguments.usd(text) == micro


@pytest.mark.parametrize("text", ["0", "0.0000001", "ten", "nan", "inf", ""])
def test_an_amount_that_cannot_be_booked_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        arguments.usd(text)


def test_a_first_credit_is_above_nothing() -> None:
    assert arguments.positive_usd("5") == 5_000_000
    with pytest.raises(typer.BadParameter, match="credits add"):
        arguments.positive_usd("-5")


def test_a_name_is_taken_without_the_blanks_around_it() -> None:
    assert arguments.label("  my laptop ") == "my laptop"


@pytest.mark.parametrize("text", ["", "   ", "two\nlines", "bell\a", "x" * 101])
def test_a_name_that_nobody_can_read_or_type_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        arguments.label(text)
