"""The query of a list of tasks or pictures."""

from urllib.parse import urlencode, urlsplit

import pytest

from calotype.console.search import MAX_TEXT, PICTURES, TASKS, Search
from calotype.domain.ids import encode
from calotype.domain.limits import DAY_MS
from calotype.domain.task import State

DAY = 1_795_392_000_000  # 2026-11-23


def search(*said: tuple[str, str]) -> Search:
    return Search(urlencode(said).encode(), TASKS)


def test_everything_that_can_be_asked_for_is_read_and_written_back() -> None:
    asked = search(
        ("state", "success"),
        ("model", "gpt-image-2"),
        ("from", "2026-11-23"),
        ("to", "2026-11-23"),
        ("text", " a märchen & more "),
        ("metadata", "order=7391"),
        ("metadata", "of=a=b"),
        ("before", encode("page", 5)),
    )
    assert not asked.wrong
    assert asked.state is State.SUCCESS
    assert asked.wanted == {
        "model": "gpt-image-2",
        "since": DAY,
        "until": DAY + DAY_MS,
        "text": "a märchen & more",
        "metadata": {"order": "7391", "of": "a=b"},
        "before": 5,
    }
    again = urlsplit(asked.link("/console/tasks", before=5)).query
    assert Search(again.encode(), TASKS).wanted == asked.wanted
    assert Search(urlsplit(asked.link("/")).query.encode(), TASKS).before is None


def test_fields_that_were_left_empty_ask_for_nothing() -> None:
    asked = search(*((name, " ") for name in TASKS))
    assert (asked.wanted, asked.wrong) == (search().wanted, {})
    assert not asked.filtered
    assert asked.link("/console/tasks") == "/console/tasks"


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("state", "done", "state"),
        ("from", "23.11.2026", "from"),
        ("from", "20261123", "from"),
        ("to", "2026-02-30", "to"),
        ("to", "1969-12-31", "to"),
        ("from", "\u0662\u0660\u0662\u0666-11-23", "from"),
        ("text", "x" * (MAX_TEXT + 1), "text"),
        ("text", "a\0b", "text"),
        ("model", "a\0b", "model"),
        ("metadata", "order", "metadata"),
        ("metadata", "=7391", "metadata"),
        ("metadata", "order=" + "7" * 1000, "metadata"),
        ("metadata", "order=\0", "metadata"),
        ("before", "5", ""),
        ("page", "5", ""),
        ("<script>", "5", ""),
    ],
)
def test_what_makes_no_sense_is_told_at_its_field(name: str, value: str, field: str) -> None:
    assert list(search((name, value)).wrong) == [field]


def test_what_contradicts_itself_is_told() -> None:
    assert list(search(("from", "2026-11-23"), ("to", "2026-11-22")).wrong) == ["to"]
    assert list(search(("metadata", "a=1"), ("metadata", "a=2")).wrong) == ["metadata"]
    assert list(search(("state", "fail"), ("state", "fail")).wrong) == ["state"]


def test_a_filter_of_tasks_is_none_of_pictures() -> None:
    assert "" in Search(b"state=fail", PICTURES).wrong


def test_what_was_just_done_is_no_filter() -> None:
    asked = search(("said", "cancel"))
    assert asked.notice({"cancel": ("info", "It stops.")}) == ("info", "It stops.")
    assert not asked.filtered
    assert asked.link("/console/tasks") == "/console/tasks"


@pytest.mark.parametrize("query", [b"text=%ff", b"text=\xff", b"%ff=1"])
def test_an_address_that_is_no_text_is_told(query: bytes) -> None:
    assert "" in Search(query, PICTURES).wrong
