"""The query of the task list, whatever it holds."""

import json
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from calotype.api.task_list import read_query
from calotype.domain.errors import InvalidRequest
from calotype.domain.ids import encode


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["state", "model", "since", "limit", "cursor", "metadata.a", "x"])
            | st.text(),
            st.text() | st.sampled_from(["fail", "5", "100", encode("page", 7)]),
        ),
        max_size=4,
    ),
    st.binary(max_size=6),
)
def test_any_query_is_read_or_refused_in_a_sentence(
    pairs: list[tuple[str, str]], junk: bytes
) -> None:
    written = "&".join(
        f"{quote(n, errors='replace')}={quote(v, errors='replace')}" for n, v in pairs
    )
    for query in (written.encode(), written.encode() + junk):
        try:
            asked = read_query(query)
        except InvalidRequest as error:
            wrong = error
        else:
            assert 1 <= asked.limit <= 100
            continue
        assert wrong.message.endswith(".")
        assert len(wrong.message) < 400
        json.dumps([wrong.message, wrong.param]).encode()


@given(st.integers(0, 2**63 - 1))
def test_every_task_has_a_cursor_that_is_read_again(task_id: int) -> None:
    assert read_query(b"cursor=" + encode("page", task_id).encode()).before == task_id
