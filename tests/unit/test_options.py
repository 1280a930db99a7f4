"""What a client asks of a task beyond its image: taken as it was said, or refused in a sentence."""

import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.catalog import load_catalog
from calotype.domain.errors import InvalidParameter
from calotype.domain.options import NO_OPTIONS, Options, check_metadata, read_options
from calotype.domain.task import Reference
from calotype.domain.validation import normalise
from calotype.services.submission import _fingerprint

CATALOG = load_catalog()
PLAIN = {"model": "gpt-image-2", "prompt": "a lighthouse"}
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def read(fields: dict[str, Any], *, text: bool = False) -> Options:
    return read_options(fields, text=text, judge_url=str)


def fault(fields: dict[str, Any], *, text: bool = False) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as caught:
        read(fields, text=text)
    (name,) = fields
    assert caught.value.param == name
    assert caught.value.message.endswith(".")
    msgspec.json.encode(caught.value.message)
    return caught.value


def test_what_is_null_or_absent_asks_for_nothing() -> None:
    absent = {"callback_url": None, "metadata": None, "deadline_seconds": None}
    assert read(PLAIN) == read(absent) == read({"metadata": {}}) == NO_OPTIONS


@given(
    st.dictionaries(
        TEXT.filter(lambda key: 1 <= len(key) <= 64),
        TEXT.filter(lambda value: len(value) <= 512),
        max_size=16,
    )
)
def test_metadata_within_its_limits_comes_as_it_was_said_in_json_and_in_a_form(
    metadata: dict[str, str],
) -> None:
    assert read({"metadata": metadata}).metadata == metadata
    assert read({"metadata": json.dumps(metadata)}, text=True).metadata == metadata


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.characters(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("a" * 65), inner),
        max_leaves=30,
    )
)
def test_metadata_is_taken_or_refused_in_a_sentence(metadata: Any) -> None:
    try:
        taken = check_metadata(metadata)
    except InvalidParameter as error:
        wrong = error
    else:
        assert_metadata(taken, metadata)
        return
    assert wrong.param == "metadata"
    assert wrong.message.endswith(".")
    assert len(wrong.message) < 300
    msgspec.json.encode(wrong.message)


def assert_metadata(taken: dict[str, str], metadata: object) -> None:
    assert taken == metadata
    assert len(taken) <= 16
    for key, value in taken.items():
        assert 1 <= len(key) <= 64
        assert len(value) <= 512
        assert "\0" not in key + value
        assert len(key.encode()) + len(value.encode()) <= 2500  # what an index takes


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        ("order", "object"),
        ([], "object"),
        (7, "object"),
        ({"order": 7}, "'order' is 7"),
        ({"order": None}, "null"),
        ({"order": {"a": "b"}}, "an object"),
        ({"": "x"}, "1 to 64"),
        ({"k" * 65: "x"}, "65"),
        ({"order": "x" * 513}, "513"),
        ({str(number): "" for number in range(17)}, "at most 16"),
        ({"a\0": "b"}, "NUL"),
        ({"a": "b\ud800"}, "surrogates"),
    ],
)
def test_what_is_no_metadata_is_refused_with_what_would_be_right(metadata: Any, word: str) -> None:
    assert word in fault({"metadata": metadata}).message


@pytest.mark.parametrize("text", ["", "order=7", "[]", '{"a": 1}', '{"a": "\\ud800"}', "[" * 9000])
def test_a_forms_metadata_must_be_an_object_as_text(text: str) -> None:
    fault({"metadata": text}, text=True)


@pytest.mark.parametrize("value", [1, 86_400, 3.0])
def test_a_deadline_is_a_number_of_seconds_up_to_a_day(value: float) -> None:
    assert read({"deadline_seconds": value}).deadline_seconds == value
    assert read({"deadline_seconds": f" {value:.0f}"}, text=True).deadline_seconds == value


@pytest.mark.parametrize("value", [0, -1, 86_401, 1.5, True, "60", [60], 10**400])
def test_what_is_no_deadline_is_refused(value: object) -> None:
    assert "1 to 86400" in fault({"deadline_seconds": value}).message


def test_idempotency_keys_of_requests_without_options_survive_an_upgrade() -> None:
    asked = normalise(CATALOG, PLAIN, text=False)
    assert _fingerprint(asked, NO_OPTIONS, []).hex() == (
        "3d8a8551bbd6c7bd16aa0a8c1097b9f7e1164c52fa1b8ed82beb205980f84942"
    )
    assert _fingerprint(asked, NO_OPTIONS, [Reference(url="https://example.com/a.png")]).hex() == (
        "1a8c8c6f867e69e9fd2885a7956a30f432387b4f2218c19016930296582dc6bb"
    )


def test_every_option_is_part_of_what_a_key_stands_for() -> None:
    asked = normalise(CATALOG, PLAIN, text=False)
    kinds = [
        NO_OPTIONS,
        Options(callback_url="https://example.com/a"),
        Options(callback_url="https://example.com/b"),
        Options(metadata={"a": "b"}),
        Options(metadata={"a": "c"}),
        Options(deadline_seconds=1),
        Options(deadline_seconds=2),
    ]
    assert len({_fingerprint(asked, options, []) for options in kinds}) == len(kinds)
    assert len(_fingerprint(asked, NO_OPTIONS, [])) == hashlib.sha256().digest_size
    one, other = Options(metadata={"a": "1", "b": "2"}), Options(metadata={"b": "2", "a": "1"})
    assert _fingerprint(asked, one, []) == _fingerprint(asked, other, [])
