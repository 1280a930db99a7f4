"""The log: one line for each record, in which nothing of a client's passes for anything else."""

import io
import json
import logging
from contextvars import copy_context
from types import TracebackType
from typing import Any, Literal

import pytest

from calotype.cli import logs
from calotype.cli.logs import OneLine
from calotype.observing import context

HOSTILE = "a\r\n2026-01-01T00:00:00.000Z [error] forged\x1b[31m\x00\x85\u2028b"
Form = Literal["pretty", "json"]


def record(message: str, *values: object, fault: bool = False) -> logging.LogRecord:
    trace = _trace() if fault else None
    made = logging.LogRecord("calotype.test", logging.ERROR, "x.py", 1, message, values, trace)
    made.created, made.msecs = 1_760_000_000.007, 7
    return made


def _trace() -> tuple[type[BaseException], BaseException, TracebackType | None]:
    try:
        raise ValueError(HOSTILE)  # noqa: TRY301 -- the traceback is what is wanted
    except ValueError as error:
        return type(error), error, error.__traceback__


@pytest.mark.parametrize("form", ["pretty", "json"])
@pytest.mark.parametrize("fault", [False, True])
def test_a_record_is_one_line_whatever_it_holds(form: Form, *, fault: bool) -> None:
    line = OneLine(form).format(record("told: %s", HOSTILE, fault=fault))
    assert line.splitlines() == [line]
    assert not {"\x1b", "\x00", "\r", "\n", "\x85", "\u2028"} & set(line)
    assert "2025-10-09T08:53:20.007Z" in line
    assert ("ValueError" in line) == fault


def test_json_tells_of_when_what_and_where() -> None:
    told = json.loads(OneLine("json").format(record("told: %s", HOSTILE, fault=True)))
    traceback = told.pop("traceback")
    assert told == {
        "timestamp": "2025-10-09T08:53:20.007Z",
        "event": f"told: {HOSTILE}",
        "level": "error",
        "logger": "calotype.test",
    }
    assert traceback.startswith("Traceback")


def test_colours_are_the_renderers_own_alone() -> None:
    line = OneLine("pretty", colours=True).format(record(HOSTILE))
    assert "\x1b[" in line
    assert "forged\\x1b[31m" in line


@pytest.mark.parametrize("form", ["pretty", "json"])
def test_a_record_names_request_task_and_account(form: Form) -> None:
    def told() -> str:
        context.REQUEST.set("req_1")
        context.TASK.set("task_1")
        context.ACCOUNT.set(7)
        return OneLine(form).format(record("told"))

    line = copy_context().run(told)
    for name, value in (("request_id", "req_1"), ("task_id", "task_1"), ("account_id", 7)):
        expected = f'"{name}": {json.dumps(value)}' if form == "json" else f"{name}={value}"
        assert expected in line


@pytest.fixture
def root() -> Any:
    """The root logger as it was before."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    access = logging.getLogger(logs.ACCESS).level
    yield logger
    logger.handlers[:], logger.level = handlers, level
    logging.getLogger(logs.ACCESS).setLevel(access)


@pytest.mark.parametrize(("terminal", "form"), [(True, "pretty"), (False, "json")])
def test_the_form_is_pretty_on_a_terminal_and_json_elsewhere(
    monkeypatch: pytest.MonkeyPatch, root: logging.Logger, *, terminal: bool, form: Form
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    stream = Stream()
    monkeypatch.setattr("sys.stderr", stream)
    logs.configure("info")
    root.info("told")
    assert stream.getvalue().startswith("{") == (form == "json")


def test_requests_are_logged_where_that_is_wanted_alone(root: logging.Logger) -> None:
    logs.configure("debug")
    assert root.isEnabledFor(logging.DEBUG)
    assert not logging.getLogger(logs.ACCESS).isEnabledFor(logging.INFO)
    logs.configure("info", access=True)
    assert logging.getLogger(logs.ACCESS).isEnabledFor(logging.INFO)
