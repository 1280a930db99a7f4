"""The words in a prompt that steer the sandbox."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from calotype.providers.sandbox.steering import WORDS, read_steering

known = st.sampled_from(sorted(WORDS))
numbers = st.decimals(min_value=0, max_value=999_999, places=3).map(lambda number: f"{number:f}")
wrapping = st.text(st.sampled_from("abc XYZ,.;!?\n—é画"), max_size=20)


@pytest.mark.parametrize("word", WORDS)
def test_a_word_steers_wherever_it_stands(word: str) -> None:
    for prompt in (
        f"sandbox:{word}",
        f"sandbox:{word} a cat",
        f"a cat, sandbox:{word}, asleep",
        f"a cat sandbox:{word}.",
        f"(sandbox:{word})",
        f"画 sandbox:{word}\n",
    ):
        steering = read_steering(prompt)
        assert steering.words == {word: None}, prompt
        assert steering.unknown == ()


@given(known, numbers, wrapping, wrapping)
def test_the_number_of_a_word_is_read_exactly(
    word: str, number: str, before: str, after: str
) -> None:
    steering = read_steering(f"{before} sandbox:{word}={number} {after}")
    assert steering.words == {word: float(number)}
    assert steering.unknown == ()


@given(st.lists(st.tuples(known, st.none() | st.integers(0, 999_999)), max_size=6))
def test_of_a_word_that_stands_twice_the_last_holds(words: list[tuple[str, int | None]]) -> None:
    prompt = " ".join(
        f"sandbox:{word}" if number is None else f"sandbox:{word}={number}"
        for word, number in words
    )
    assert read_steering(prompt).words == dict(words)


@given(st.text())
def test_a_prompt_without_steering_steers_nothing(prompt: str) -> None:
    assume("sandbox:" not in prompt)
    steering = read_steering(prompt)
    assert (steering.words, steering.unknown) == ({}, ())


@given(st.text(st.sampled_from("sandbox:=.0123456789-a é\n"), max_size=60))
def test_any_prompt_can_be_read(prompt: str) -> None:
    steering = read_steering(prompt)
    assert set(steering.words) <= set(WORDS)
    assert not set(steering.unknown) & set(WORDS)


@pytest.mark.parametrize("word", ["explode", "42", "refused", "delay-", "429x", "-refuse"])
def test_a_word_that_does_not_exist_is_told(word: str) -> None:
    assert read_steering(f"a cat sandbox:{word} sandbox:refuse").unknown == (word,)


@pytest.mark.parametrize("number", ["1234567", "0.1234", "9999999.5", "abc", "-1", "1.2.3", "2s"])
def test_a_number_that_cannot_be_read_is_told_and_never_cut_short(number: str) -> None:
    steering = read_steering(f"a cat sandbox:delay={number} asleep")
    assert steering.words == {}
    assert steering.unknown == (f"delay={number}",)


@pytest.mark.parametrize("end", [".", ",", ";", "!", ")", " ", "\n", "…"])
def test_the_end_of_a_sentence_is_no_part_of_the_number(end: str) -> None:
    assert read_steering(f"a cat (sandbox:delay=2.5{end}").words == {"delay": 2.5}
    assert read_steering(f"a cat (sandbox:delay=2{end}").words == {"delay": 2.0}


@pytest.mark.parametrize("prompt", ["Sandbox:refuse", "mysandbox:refuse", "sandbox refuse"])
def test_what_only_looks_like_a_word_is_part_of_the_picture(prompt: str) -> None:
    assert read_steering(prompt).words == {}


@pytest.mark.parametrize(
    ("prompt", "sends"),
    [("a cat", 0), ("sandbox:429", 1), ("sandbox:429=3", 3), ("sandbox:429=0", 0)],
)
def test_a_word_counts_the_sends_it_is_good_for(prompt: str, sends: int) -> None:
    assert read_steering(prompt).times("429") == sends
