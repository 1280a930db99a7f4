"""Public ids: words that name one number, and numbers that only grow."""

import string
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.domain.ids import IdSource, Kind, decode, encode

LARGEST = 2**63 - 1
MILLISECOND_OF_2025 = 1_735_689_600_000
LAST_MILLISECOND = MILLISECOND_OF_2025 + 2**41 - 1
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"

kinds = st.sampled_from(get_args(Kind))
numbers = st.integers(0, LARGEST)


@given(kinds, numbers)
def test_a_word_names_the_number_it_was_made_from(kind: Kind, number: int) -> None:
    word = encode(kind, number)
    assert decode(kind, word) == number
    assert len(word) == len(kind) + 1 + 13
    assert set(word.removeprefix(f"{kind}_")) <= set(ALPHABET)


@given(numbers)
def test_a_word_of_one_kind_is_none_of_another(number: int) -> None:
    for kind in get_args(Kind):
        for other in get_args(Kind):
            if other != kind:
                assert decode(other, encode(kind, number)) is None


@given(numbers, numbers)
def test_words_sort_as_their_numbers_do(one: int, other: int) -> None:
    assert (encode("task", one) < encode("task", other)) == (one < other)


@given(kinds, st.text(max_size=40))
def test_garbage_names_nothing(kind: Kind, garbage: str) -> None:
    assert decode(kind, garbage) is None
    assert decode(kind, f"{kind}_{garbage}") is None or len(garbage) == 13


@given(st.text(st.sampled_from(string.printable), min_size=13, max_size=13))
def test_no_two_words_name_the_same_number(letters: str) -> None:
    number = decode("task", f"task_{letters}")
    if number is None:
        assert letters[0] not in "01234567" or set(letters) - set(ALPHABET)
    else:
        assert encode("task", number) == f"task_{letters}"


@pytest.mark.parametrize(
    "word",
    [
        "",
        "task_",
        "task",
        "0000000000000",
        "task_000000000000",
        "task_00000000000000",
        "task_8000000000000",
        "task_0000000000000\n",
        " task_0000000000000",
        "Task_0000000000000",
        "task_000000000000A",
        "task_000000000000i",
        "task_000000000000l",
        "task_000000000000o",
        "task_000000000000u",
        "task_00000000000-0",
        "task_" + 13 * "\u0660",
        "task_0000000000000'--",
    ],
)
def test_a_word_that_was_never_ours_names_nothing(word: str) -> None:
    assert decode("task", word) is None


@given(st.lists(st.integers(0, LAST_MILLISECOND), min_size=1, max_size=60))
def test_ids_grow_whatever_the_clock_does(moments: list[int]) -> None:
    ticking = iter(moments)
    source = IdSource(lambda: next(ticking))
    made = [source.next() for _ in moments]
    assert all(before < after for before, after in pairwise(made))
    assert all(0 < number <= LARGEST for number in made)
    assert all(decode("task", encode("task", number)) == number for number in made)


@given(st.integers(MILLISECOND_OF_2025, LAST_MILLISECOND - 1))
def test_ids_of_a_later_millisecond_are_larger_in_every_process(moment: int) -> None:
    earlier, later = IdSource(lambda: moment), IdSource(lambda: moment + 1)
    assert max(earlier.next() for _ in range(50)) < later.next()


def test_many_ids_of_one_millisecond_are_all_different() -> None:
    source = IdSource(lambda: MILLISECOND_OF_2025)
    assert len({source.next() for _ in range(5000)}) == 5000
