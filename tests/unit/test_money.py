"""Money: amounts that people type and read, and what an entry does to an account."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from calotype.domain.money import (
    EFFECTS,
    MAX_AMOUNT,
    MICRO,
    Balance,
    EntryKind,
    format_usd,
    parse_usd,
)

amounts = st.integers(-MAX_AMOUNT, MAX_AMOUNT)


@given(amounts)
@example(0)
@example(1)
@example(-1)
@example(MAX_AMOUNT)
@example(-MAX_AMOUNT)
def test_an_amount_that_is_shown_can_be_typed_in_again(micro: int) -> None:
    assert parse_usd(format_usd(micro)) == micro


@given(amounts)
def test_an_amount_is_shown_with_cents_and_with_every_digit_that_counts(micro: int) -> None:
    whole, _, fraction = format_usd(micro).partition(".")
    assert 2 <= len(fraction) <= 6
    assert len(fraction) == 2 or not fraction.endswith("0")
    assert Decimal(f"{whole}.{fraction}") * MICRO == micro
    assert whole.lstrip("-") == str(abs(micro) // MICRO)


@pytest.mark.parametrize(
    ("text", "micro"),
    [
        ("12.50", 12_500_000),
        ("12.5", 12_500_000),
        (" 7 ", 7_000_000),
        ("+3", 3_000_000),
        ("-0.000001", -1),
        ("0", 0),
        ("0.000000", 0),
        ("1000000000", MAX_AMOUNT),
    ],
)
def test_an_amount_is_read_as_people_write_it(text: str, micro: int) -> None:
    assert parse_usd(text) == micro


@pytest.mark.parametrize(
    "text", ["", " ", "abc", "12,50", "1.2.3", "$5", "5 USD", "0x10", "--1", "nan", "sNaN", "inf"]
)
def test_what_is_no_amount_is_refused_and_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no amount") as refused:
        parse_usd(text)
    assert f"'{text}'" in str(refused.value)


@pytest.mark.parametrize("text", ["0.0000001", "1e-7", "3.1415926"])
def test_an_amount_finer_than_a_millionth_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"at most six decimals"):
        parse_usd(text)


@given(amounts, st.integers(7, 60))
def test_a_digit_however_far_behind_the_point_is_never_rounded_away(micro: int, place: int) -> None:
    whole, _, fraction = format_usd(micro).partition(".")
    with pytest.raises(ValueError, match=r"is (no amount in whole micro-USDC|more than)"):
        parse_usd(f"{whole}.{fraction.ljust(place - 1, '0')}1")


@pytest.mark.parametrize("text", ["1000000000.000001", "-1000000001", "1e30"])
def test_an_amount_beyond_the_largest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"'.*' is "):
        parse_usd(text)


def test_an_amount_beyond_all_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'1e999999' is "):
        parse_usd("1e999999")


@pytest.mark.parametrize("text", ["1e1000000", "-1e1000000", "1e-2000000"])
def test_an_amount_beyond_what_decimal_can_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"'.*' is "):
        parse_usd(text)


@given(st.text(max_size=20))
def test_any_text_is_an_amount_within_bounds_or_refused(text: str) -> None:
    try:
        micro = parse_usd(text)
    except ValueError:
        return
    assert abs(micro) <= MAX_AMOUNT


@given(st.integers(0, MAX_AMOUNT), st.integers(0, MAX_AMOUNT))
def test_a_reservation_that_is_settled_leaves_nothing_reserved(price: int, cost: int) -> None:
    actual = min(price, cost)
    entries = [
        (EntryKind.CREDIT, price),
        (EntryKind.RESERVE, price),
        (EntryKind.COMMIT, actual),
        (EntryKind.RELEASE, price - actual),
    ]
    balance = sum(EFFECTS[kind].balance * amount for kind, amount in entries)
    reserved = sum(EFFECTS[kind].reserved * amount for kind, amount in entries)
    assert (balance, reserved) == (price - actual, 0)


def test_every_kind_of_entry_has_its_effect() -> None:
    assert set(EFFECTS) == set(EntryKind)


def test_what_is_reserved_is_not_available() -> None:
    assert Balance(balance=50, reserved=20).available == 30
