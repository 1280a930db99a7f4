"""What a run has sent, kept in its folder: it goes on with the same requests, or not at all.

Each row is the number of a line, how often it has been sent under a new key, and the hash of the
request; the last row of a line counts.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from calotype.cli.order import wrong
from calotype.cli.prompts import Line

_ROW: Final = re.compile(r"([1-9]\d{0,8}) ([1-9]\d{0,8}) ([0-9a-f]{64})")


class Record:
    """Of one run.

    Args:
        folder: of the run; it need not be there yet.
        run: its key.

    Raises:
        OSError: what is there cannot be read.

    """

    def __init__(self, folder: Path, run: str) -> None:
        self._run = run
        self._path = folder / f".calotype-{run}"
        self._sent: dict[int, tuple[int, str]] = {}
        self._files: dict[Path, str] = {}
        if not self._path.exists():
            return
        for row in self._path.read_text(encoding="ascii", errors="replace").splitlines():
            match = _ROW.fullmatch(row)  # a row may have been cut off
            if match:
                self._sent[int(match[1])] = int(match[2]), match[3]

    def check(self, lines: Sequence[Line]) -> None:
        """Whether the lines that were sent are what they were.

        Raises:
            CommandFault: one is not.
            OSError: a reference cannot be read.

        """
        for line in lines:
            sent = self._sent.get(line.number)
            if sent is not None and sent[1] != self._hash(line):
                raise wrong(
                    f"--prompts, line {line.number}: is not what run {self._run} sent for it. Put "
                    "it back, and further prompts at the end; or begin a run anew, in a folder of "
                    "its own and without --run."
                )

    def sent(self, line: Line) -> int:
        """Under how many keys a line was sent."""
        return self._sent.get(line.number, (0, ""))[0]

    def sending(self, line: Line, times: int) -> None:
        """Keep that a line is being sent under its so manieth key."""
        self._sent[line.number] = times, self._hash(line)
        with self._path.open("a", encoding="ascii") as file:
            file.write(f"\n{line.number} {times} {self._hash(line)}")

    def _hash(self, line: Line) -> str:
        order = line.order
        parts = [
            order.prompt,
            order.model,
            order.fields,
            [one if isinstance(one, str) else ["", self._hash_of(one)] for one in order.references],
            str(line.output.relative_to(self._path.parent)),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _hash_of(self, path: Path) -> str:
        if path not in self._files:
            with path.open("rb") as file:
                self._files[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._files[path]
