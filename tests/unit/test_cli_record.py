"""What a run remembers of what it has sent."""

from pathlib import Path

import pytest

from calotype.cli.faults import CommandFault
from calotype.cli.prompts import Common, Line, read_lines
from calotype.cli.record import Record

REFERENCE = "reference.png"


def lines(text: str, folder: Path, **fields: str) -> list[Line]:
    common = Common(model="m", fields={**fields}, references=[folder / REFERENCE])
    return read_lines(text, common=common, run="r", folder=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a run whose first two lines were sent, the second one twice."""
    (tmp_path / REFERENCE).write_bytes(b"reference")
    record = Record(tmp_path, "r")
    first, second, _ = lines("a\nb\nc", tmp_path)
    for line, times in ((first, 1), (second, 1), (second, 2)):
        record.sending(line, times)
    return tmp_path


def test_a_run_knows_how_often_it_sent_each_line(folder: Path) -> None:
    record = Record(folder, "r")
    assert [record.sent(line) for line in lines("a\nb\nc", folder)] == [1, 2, 0]
    assert [Record(folder, "other").sent(line) for line in lines("a\nb", folder)] == [0, 0]


def test_lines_that_were_not_sent_may_change_and_new_ones_come(folder: Path) -> None:
    Record(folder, "r").check(lines(' a\n{"prompt": "b", "seed": null}\nelse\nd', folder))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("x\nb\nc", 1),
        ("new\na\nb\nc", 1),
        ("a\nc", 2),
        ('a\n{"prompt": "b", "seed": 1}', 2),
        ('a\n{"prompt": "b", "output": "x"}', 2),
        ('a\n{"prompt": "b", "image_input": []}', 2),
        ('a\n{"prompt": "b", "model": "n"}', 2),
    ],
)
def test_a_line_that_was_sent_and_is_another_now_is_named(
    text: str, number: int, folder: Path
) -> None:
    with pytest.raises(CommandFault, match=f"line {number}: is not what run r sent") as caught:
        Record(folder, "r").check(lines(text, folder))
    assert caught.value.exit_code == 2


def test_what_all_lines_share_belongs_to_each(folder: Path) -> None:
    with pytest.raises(CommandFault, match="line 1"):
        Record(folder, "r").check(lines("a\nb\nc", folder, resolution="2K"))
    (folder / REFERENCE).write_bytes(b"another")
    with pytest.raises(CommandFault, match="line 1"):
        Record(folder, "r").check(lines("a\nb\nc", folder))


def test_a_row_that_was_cut_off_harms_no_other(folder: Path) -> None:
    first, _, third = lines("a\nb\nc", folder)
    with (folder / ".calotype-r").open("a") as file:
        file.write("\n3 1 abc")
    record = Record(folder, "r")
    assert (record.sent(first), record.sent(third)) == (1, 0)
    record.sending(third, 1)
    assert Record(folder, "r").sent(third) == 1
