"""What ``calotype generate`` makes of its command line."""

from pathlib import Path

import pytest

from calotype.cli.faults import CommandFault
from calotype.cli.order import (
    Order,
    Value,
    check_output,
    numbered,
    read_base_url,
    read_fields,
    read_references,
    read_value,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("true", True),
        ("16:9", "16:9"),
        ("2K", "2K"),
        ('"42"', "42"),
        ("null", "null"),
        ("NaN", "NaN"),
        ("[1]", "[1]"),
        ("", ""),
        ("a=b", "a=b"),
    ],
)
def test_a_value_is_a_number_a_boolean_or_text(text: str, value: Value) -> None:
    read = read_value(text)
    assert (type(read), read) == (type(value), value)


def test_fields_without_a_value_are_left_out() -> None:
    fields = read_fields({"model": "m", "resolution": None}, ["seed=7", "style=a=b"])
    assert fields == {"model": "m", "seed": 7, "style": "a=b"}


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["seed"], "name=value"),
        (["=7"], "name=value"),
        (["seed=1", "seed=2"], "given twice"),
        (["resolution=1K"], "given twice"),
        (["image_input=x"], "--image"),
        (["prompt=x"], "first argument"),
    ],
)
def test_a_field_that_is_malformed_or_given_twice_is_refused(extra: list[str], says: str) -> None:
    with pytest.raises(CommandFault, match=says) as caught:
        read_fields({"model": "m", "resolution": "1K"}, extra)
    assert caught.value.exit_code == 2


def test_references_keep_the_order_in_which_they_were_given(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.touch()
    given = ["https://example.com/1.png", str(file), "http://example.com/2.png"]
    assert read_references(given) == [given[0], file, given[2]]


def test_a_reference_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandFault, match="no file"):
        read_references([str(tmp_path / "none.png")])


def test_urls_alone_make_a_json_document() -> None:
    order = _order(["https://example.com/1.png"])
    assert not order.has_files
    assert order.document() == {
        "model": "m",
        "seed": 7,
        "loop": True,
        "image_input": ["https://example.com/1.png"],
    }


def test_one_file_makes_it_a_form_of_texts(tmp_path: Path) -> None:
    order = _order(["https://example.com/1.png", tmp_path / "a.png"])
    assert order.has_files
    assert order.texts() == {"model": "m", "seed": "7", "loop": "true"}


def _order(references: list[str | Path]) -> Order:
    fields: dict[str, Value] = {"model": "m", "seed": 7, "loop": True}
    return Order(fields=fields, references=references, idempotency_key="k")


@pytest.mark.parametrize(
    "text", ["http://host:1", "http://host:1/", "http://host:1/v1", "http://host:1/v1/"]
)
def test_the_server_is_found_with_or_without_the_version_behind_it(text: str) -> None:
    assert read_base_url(text) == "http://host:1"


@pytest.mark.parametrize("text", ["", "host:1", "ftp://host", "http://"])
def test_an_address_that_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(CommandFault, match="http"):
        read_base_url(text)


def test_an_output_is_a_file_in_a_folder_that_exists(tmp_path: Path) -> None:
    check_output(tmp_path / "out.png")
    with pytest.raises(CommandFault, match="is a folder"):
        check_output(tmp_path)
    with pytest.raises(CommandFault, match="does not exist"):
        check_output(tmp_path / "none" / "out.png")


def test_further_images_get_a_number_before_the_ending() -> None:
    names = [numbered(Path("a/out.tar.png"), place).name for place in (1, 2, 3)]
    assert names == ["out.tar.png", "out.tar-2.png", "out.tar-3.png"]
