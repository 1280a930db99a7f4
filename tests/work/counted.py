"""Runs the command line while its work is counted; tells the counts whenever it is asked.

Nothing of ours is changed for it: the standard library's profile hook and SQLite's own hooks count.
They call functions written in C, which are no calls themselves. Connections are kept for ever, as
opening them is not what is counted.
"""

import gc
import itertools
import json
import operator
import sqlite3
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final

import uvicorn

from calotype.cli import main

_ENDLESS: Final = sys.maxsize
_calls: Any = itertools.count()
_steps: Final = itertools.repeat(0, _ENDLESS)
_statements: list[str] = []
"""What ran since it was last looked at."""
_done: Counter[str] = Counter()
_open: set["_Connection"] = set()


class _Connection(sqlite3.Connection):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        _open.add(self)
        self.set_trace_callback(_statements.append)
        self.set_progress_handler(_steps.__next__, 1)

    def close(self) -> None:
        if self in _open:
            _open.discard(self)
            _done["rows"] += self.total_changes
        super().close()


def _on_call(_frame: FrameType, event: str, _argument: object) -> None:
    if event == "call":
        next(_calls)


def _look() -> None:
    """Count the statements that ran since this was called last."""
    while _statements:
        text = _statements.pop()
        if not text.startswith("--"):  # what a trigger does
            _done["statements"] += 1
            _done["commits"] += text == "COMMIT"


def _counts() -> dict[str, int]:
    _look()
    return {
        "statements": _done["statements"],
        "commits": _done["commits"],
        "rows": _done["rows"] + sum(each.total_changes for each in tuple(_open)),
        "steps": _ENDLESS - operator.length_hint(_steps),
        "calls": _calls.__reduce__()[1][0],
    }


def _memory() -> int:
    """Bytes that Python holds and did not when this was asked for the first time."""
    _look()  # else they would be weighed too
    gc.collect()
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    return tracemalloc.get_traced_memory()[0]


_ANSWERS: dict[str, Callable[[], Any]] = {
    "counts": _counts,
    "memory": _memory,
}


def _answer() -> None:
    for line in sys.stdin:
        print(json.dumps(_ANSWERS[line.strip()]()), flush=True)  # noqa: T201 -- read by a test


if __name__ == "__main__":
    sqlite3.connect = partial(sqlite3.connect, factory=_Connection)  # type: ignore[assignment]  # as it is called
    uvicorn.Config = partial(uvicorn.Config, timeout_keep_alive=600)  # type: ignore[assignment,misc]  # same
    threading.Thread(target=_answer, daemon=True).start()  # before the hook, so it counts nothing
    threading.setprofile(_on_call)
    sys.setprofile(_on_call)
    main()
