"""What stands in a form, and where a path may lead."""

from contextlib import suppress
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.console.access import local
from calotype.console.forms import Form
from calotype.domain.errors import MalformedBody

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.dictionaries(TEXT, st.lists(TEXT, min_size=1, max_size=4), max_size=6))
def test_what_a_browser_sends_is_what_was_filled_in(fields: dict[str, list[str]]) -> None:
    form = Form.parse(urlencode(fields, doseq=True).encode())
    assert {name: list(form.all(name)) for name in fields} == fields
    assert {name: form.get(name) for name in fields} == {
        name: values[0].strip() for name, values in fields.items()
    }


@pytest.mark.parametrize("body", [b"a=%00", b"%00=a", b"a=%ff", b"\xff=a", "\N{SNOWMAN}".encode()])
def test_what_is_no_text_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        Form.parse(body)


@given(st.binary())
def test_a_body_never_breaks_the_form(body: bytes) -> None:
    with suppress(MalformedBody):
        Form.parse(body)


@pytest.mark.parametrize(
    "path",
    [
        "/console/tasks",
        "/console/tasks?state=fail&model=a%2Fb",
        "/console",
        "/console?x=1",
    ],
)
def test_paths_of_the_console_are_gone_back_to(path: str) -> None:
    assert local(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "//evil.example",
        "https://evil.example/console/",
        "/consolex",
        "/docs",
        "/console/../v1",
        "/console/\\evil",
        "/console/\r\nSet-Cookie: a=b",
        "/console/sign-in?next=/console/sign-in",
        "/console/\N{SNOWMAN}",
        "javascript:alert(1)",
    ],
)
def test_nothing_else_is(path: str) -> None:
    assert local(path) == ""
