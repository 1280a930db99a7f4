"""What ``calotype generate`` makes of its command line."""

from pathlib import Path

import pytest

from calotype.cli.faults import CommandFault
from calotype.cli.order import (
    Order,
    Value,
    check_folder,
    check_output,
    judge,
    numbered,
    read_fields,
    read_metadata,
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
        (["metadata=x"], "--metadata"),
        (["self=x"], "no model has it"),
        (["seed=1e999"], "seed: 1e999 is more than a number can be"),
        (["seed=-1e999"], "more than a number can be"),
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


def test_metadata_is_pairs_of_text() -> None:
    assert read_metadata(["order=1234", "note=a=b", "empty="]) == {
        "order": "1234",
        "note": "a=b",
        "empty": "",
    }


@pytest.mark.parametrize("given", [["order"], ["=x"], ["a=1", "a=2"]])
def test_metadata_that_is_malformed_or_given_twice_is_refused(given: list[str]) -> None:
    with pytest.raises(CommandFault, match="--metadata") as caught:
        read_metadata(given)
    assert caught.value.exit_code == 2


def test_an_output_is_a_file_in_a_folder_that_exists(tmp_path: Path) -> None:
    check_output(tmp_path / "out.png")
    with pytest.raises(CommandFault, match="is a folder"):
        check_output(tmp_path)
    with pytest.raises(CommandFault, match="does not exist"):
        check_output(tmp_path / "none" / "out.png")


@pytest.mark.parametrize(
    ("there", "output"),
    [("out-2.png", "out.png"), ("out-3.PNG", "out"), ("out-2.jpg", "./out"), ("OUT-2.png", "out")],
)
def test_a_file_that_was_not_named_is_not_written_over(
    there: str, output: str, tmp_path: Path
) -> None:
    (tmp_path / there).touch()
    with pytest.raises(CommandFault, match="is there already"):
        check_output(tmp_path / output, n=3)
    check_output(tmp_path / output, n=1)


def test_files_that_no_image_of_the_request_goes_to_are_in_nobodys_way(tmp_path: Path) -> None:
    for name in ("out.png", "out-4.png", "out-02.png", "out-2.txt", "other-2.png"):
        (tmp_path / name).touch()
    check_output(tmp_path / "out.png", n=3)
    check_output(tmp_path / "out", n=3)


@pytest.mark.parametrize(
    ("prompt", "fields", "says"),
    [
        ("a", {"image[]": "x"}, "references"),
        ("a", {"metadata": "x"}, "cannot be sent"),
        ("a", {"self": "x"}, "cannot be sent"),
        ("a", {"seed": float("inf")}, "cannot be sent"),
        ("\udcff", {}, "no Unicode text"),
    ],
)
def test_a_request_that_cannot_be_sent_is_refused_before(
    prompt: str, fields: dict[str, Value], says: str
) -> None:
    order = Order(prompt=prompt, model="m", fields={**fields}, references=[], idempotency_key="k")
    with pytest.raises(CommandFault, match=says) as caught:
        judge(order)
    assert caught.value.exit_code == 2


def test_the_folder_of_a_run_need_not_be_there_yet_but_has_to_be_one(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "deep")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(CommandFault, match="no folder"):
            check_folder(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_further_images_get_a_number_before_the_ending() -> None:
    names = [numbered(Path("a/out.tar.png"), place).name for place in (1, 2, 3)]
    assert names == ["out.tar.png", "out.tar-2.png", "out.tar-3.png"]
