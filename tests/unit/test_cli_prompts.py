"""Several prompts from one file."""

from pathlib import Path

import pytest

from calotype.cli.faults import CommandFault
from calotype.cli.order import Order
from calotype.cli.prompts import (
    Common,
    Line,
    check_run,
    in_the_way,
    made,
    make_folders,
    read_lines,
    read_text,
)

COMMON = Common(model="m", fields={"resolution": "2K"}, references=["https://example.com/a.png"])


def lines(text: str, *, common: Common = COMMON, folder: Path = Path("out")) -> list[Line]:
    return read_lines(text, common=common, run="r1", folder=folder)


def test_each_line_that_is_not_empty_is_a_prompt_under_the_number_of_its_line() -> None:
    first, second = lines("a lighthouse\r\n\n   \n  a harbour at dawn  \n")
    assert first == Line(
        number=1,
        order=Order(
            prompt="a lighthouse",
            model="m",
            fields={"resolution": "2K"},
            references=["https://example.com/a.png"],
            idempotency_key="r1/1",
        ),
        output=Path("out/0001"),
    )
    assert (second.number, second.order.prompt) == (4, "a harbour at dawn")
    assert (second.order.idempotency_key, second.output) == ("r1/4", Path("out/0004"))


def test_an_object_says_what_is_special_about_its_line(tmp_path: Path) -> None:
    reference = tmp_path / "reference.png"
    reference.touch()
    (line,) = lines(
        '{"prompt": "x", "model": "other", "resolution": null, "seed": 7, "n": 2, '
        f'"metadata": {{"order": "1"}}, "image_input": ["{reference}"], "output": "x.png"}}'
    )
    assert line.order == Order(
        prompt="x",
        model="other",
        fields={"resolution": "2K", "seed": 7, "n": 2, "metadata": {"order": "1"}},
        references=[reference],
        idempotency_key="r1/1",
    )
    assert line.output == Path("out/x.png")


def test_a_line_of_its_own_leaves_what_all_share_as_it_is() -> None:
    own, plain = lines('{"prompt": "x", "resolution": "1K", "image_input": []}\ny')
    assert (own.order.fields, own.order.references) == ({"resolution": "1K"}, [])
    assert plain.order.fields == {"resolution": "2K"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no prompt"),
        ("\n \n", "no prompt"),
        ("ok\n{oops", 'line 2: is no JSON .*{"prompt": "{…"}'),
        ('{"prompt": "x", "seed": NaN}', "line 1: is no JSON"),
        ('{"prompt": "\\ud800"}', "line 1: is no JSON"),
        ("{}", 'says no prompt; write "prompt"'),
        ('{"prompt": " "}', "prompt must be text"),
        ('{"prompt": 7}', "prompt must be text"),
        ('{"prompt": "x", "model": []}', "model must be text"),
        ('{"prompt": "x", "seed": [1]}', "seed must be text, a number, true or false"),
        ('{"prompt": "x", "metadata": {"a": 1}}', "each value of metadata must be text"),
        ('{"prompt": "x", "image": "a.png"}', "write image_input"),
        ('{"prompt": "x", "image[]": "a.png"}', "write image_input"),
        ('{"prompt": "x", "image_input[]": "a.png"}', "write image_input"),
        ('{"prompt": "x", "self": 1}', "self has no place here"),
        ('{"prompt": "x", "metadata": "a=1"}', "metadata must be an object"),
        ('{"prompt": "x", "metadata": true}', "metadata must be an object"),
        ('{"prompt": "x", "seed": 1e999}', "line 1: is no JSON .*Out of range"),
        ('{"prompt": "x", "seed": ' + "[" * 100_000 + "}", "line 1: is no JSON"),
        ('{"prompt": "x", "output": "/tmp/x.png"}', "in the folder of the run"),
        ('{"prompt": "x", "output": "../x.png"}', "in the folder of the run"),
        ('{"prompt": "x", "output": "a/../../x.png"}', "in the folder of the run"),
        ('{"prompt": "x", "output": "."}', "in the folder of the run"),
        ('{"prompt": "x", "output": "a\\u0000b"}', "in the folder of the run"),
        ('{"prompt": "x", "image_input": [7]}', "list of URLs and files"),
        ('{"prompt": "x", "image_input": "none.png"}', "line 1: none.png: is no file"),
        ('{"prompt": "x", "idempotency_key": "k"}', "follows from --run"),
        ('a\n\n{"prompt": "x", "output": "0001"}', "line 3: writes out/0001, as line 1 does"),
    ],
)
def test_a_line_that_cannot_be_followed_is_refused_before_anything_is_sent(
    text: str, says: str
) -> None:
    with pytest.raises(CommandFault, match=says) as caught:
        lines(text)
    assert caught.value.exit_code == 2


def test_without_a_model_for_all_each_line_has_to_name_one() -> None:
    nothing = Common(model=None, fields={}, references=[])
    (line,) = lines('{"prompt": "x", "model": "own"}', common=nothing)
    assert line.order.model == "own"
    with pytest.raises(CommandFault, match=r"line 1: says no model.*--model"):
        lines("x", common=nothing)


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ('"output": "x"', '"output": "x.png"', "line 2: writes out/x.png, as line 1 does"),
        ('"output": "x.jpg"', '"output": "./x"', "line 2: writes out/x, as line 1 does"),
        ('"output": "X"', '"output": "x"', "as line 1 does"),
        ('"output": "\u00e9"', '"output": "e\u0301"', "as line 1 does"),
        ('"output": "x", "n": 3', '"output": "x-3.png"', "where image 3 of line 1 goes"),
        ('"output": "x-2"', '"output": "x.png", "n": 2', "line 1: .*image 2 of line 2"),
    ],
)
def test_two_lines_that_would_write_one_file_are_refused(
    first: str, second: str, says: str
) -> None:
    with pytest.raises(CommandFault, match=says):
        lines(f'{{"prompt": "a", {first}}}\n{{"prompt": "b", {second}}}')


def test_numbers_that_no_image_has_are_free_for_another_line() -> None:
    text = '{"prompt": "a", "output": "x", "n": 2}\n{"prompt": "b", "output": "x-3"}'
    assert len(lines(text + '\n{"prompt": "c", "output": "x-02"}')) == 3


def test_a_run_that_begins_anew_finds_what_is_in_its_way(tmp_path: Path) -> None:
    (tmp_path / "0001-2.png").touch()
    assert in_the_way(lines("a", folder=tmp_path)) is None
    two = Common(model="m", fields={"n": 2}, references=[])
    found = in_the_way(lines("a", common=two, folder=tmp_path))
    assert found == tmp_path / "0001-2.png"
    (tmp_path / "0001.jpg").touch()
    assert in_the_way(lines("a", folder=tmp_path)) == tmp_path / "0001.jpg"


def test_a_folder_where_an_image_should_go_is_found_before_it_is_bought(tmp_path: Path) -> None:
    found = lines(
        '{"prompt": "a", "output": "x.png"}\n{"prompt": "b", "output": "x.png/y"}', folder=tmp_path
    )
    with pytest.raises(CommandFault, match=r"line 1: .*is a folder"):
        make_folders(found)


def test_a_line_has_its_image_when_one_lies_there_whatever_its_type(tmp_path: Path) -> None:
    for name in (
        "0001.jpg",
        "0002.txt",
        ".0003.png.0a.part",
        "0004-2.png",
        "named.png",
        "bare.png",
    ):
        (tmp_path / name).touch()
    found = made(
        lines(
            'a\nb\nc\nd\n{"prompt": "e", "output": "named.png"}\n'
            '{"prompt": "f", "output": "bare"}\n{"prompt": "g", "output": "sub/named.png"}',
            folder=tmp_path,
        )
    )
    assert {number: path.name for number, path in found.items()} == {
        1: "0001.jpg",
        5: "named.png",
        6: "bare.png",
    }


def test_a_file_is_read_as_utf_8_with_or_without_its_mark(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbfa caf\xc3\xa9\n")
    assert read_text(str(path)) == "a café\n"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CommandFault, match="no text in UTF-8"):
        read_text(str(path))


@pytest.mark.parametrize("text", ["", "..", "a/b", "-x", "a b", "é", "x" * 65])
def test_a_key_of_a_run_can_stand_in_a_header_and_name_a_folder(text: str) -> None:
    assert check_run("Winter-2026.1_a") == "Winter-2026.1_a"
    with pytest.raises(CommandFault, match="--run"):
        check_run(text)
