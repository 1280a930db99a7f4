"""What commands print, and that nothing in it can steer a terminal."""

import logging
from types import TracebackType

import pytest

from calotype.cli import show
from calotype.cli.logs import OneLine


def test_text_of_others_reaches_the_terminal_without_control_characters() -> None:
    assert show.plain("a\x1b[31mred\nline\ttab\u202e") == "a�[31mred line tab�"


def test_long_text_is_cut_with_an_ellipsis() -> None:
    assert show.plain("lighthouse", limit=6) == "light…"
    assert show.plain("lighthouse", limit=10) == "lighthouse"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (30 << 20, "30.0 MiB")],
)
def test_sizes_are_shown_in_the_unit_that_fits(count: int, text: str) -> None:
    assert show.size(count) == text


def test_times_are_shown_in_utc() -> None:
    assert show.moment(1_760_000_000_999) == "2025-10-09 08:53:20Z"
    assert show.moment(None, none="never") == "never"


def test_a_table_off_the_terminal_has_one_line_for_each_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show.table(["NAME", "N"], [["[red]long[/red] " * 40, "1"], ["b", "22"]], right=["N"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("[red]long[/red] [red]")
    assert [line[-2:] for line in lines] == [" N", " 1", "22"]


def test_pairs_stand_beneath_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    show.pairs({"id": "x", "name": "two\nlines"})
    assert capsys.readouterr().out == "id    x\nname  two lines\n"


def test_a_log_record_is_one_line_with_its_traceback() -> None:
    record = logging.LogRecord(
        "calotype.test", logging.ERROR, "x.py", 1, "first\r\nsecond %s", ("a\nb",), _trace()
    )
    record.created, record.msecs = 1_760_000_000.0, 7
    line = OneLine("pretty").format(record)
    assert line.splitlines() == [line]
    for part in (
        "2025-10-09T08:53:20.007Z [error",
        "first\\r\\nsecond a\\nb",
        "calotype.test",
        "ValueError: broken",
    ):
        assert part in line


def _trace() -> tuple[type[BaseException], BaseException, TracebackType | None]:
    try:
        raise ValueError("broken")  # noqa: TRY301 -- the traceback is what is wanted
    except ValueError as error:
        return type(error), error, error.__traceback__
