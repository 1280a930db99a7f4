"""Several requests at a time: each to its files, and what became of all of them."""

import asyncio
import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.cli import account, develop, show
from calotype.cli.develop import Made, OutOfTime
from calotype.cli.faults import CommandFault, explain
from calotype.cli.prompts import Line, make_folders
from calotype.domain.money import format_usd

if TYPE_CHECKING:  # importing it takes longer than starting
    from calotype.cli.progress import Board
    from calotype.cli.record import Record
    from calotype.client import AsyncCalotype, AsyncTask


@dataclasses.dataclass(kw_only=True)
class Tally:
    """What became of the requests of a run."""

    asked: int
    images: int = 0
    there: int = 0
    failed: int = 0
    ended: int = 0
    """Requests that something became of, good or bad."""
    micro_usdc: int = 0

    @property
    def complete(self) -> bool:
        """Whether every request has its images."""
        return self.failed == 0 and self.ended == self.asked

    def told(self) -> str:
        """In one line."""
        parts = [f"{self.images} images of {self.asked} prompts"]
        parts += [f"{self.there} were there already"] if self.there else []
        parts += [f"{self.failed} failed"] if self.failed else []
        unsent = self.asked - self.ended
        parts += [f"{unsent} were not sent"] if unsent else []
        return f"{', '.join(parts)}; {format_usd(self.micro_usdc)} USDC"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Many:
    """How several requests are sent.

    Args:
        lines: the requests.
        there: the first image of those that have it already, by the line's number.
        record: of what the run has sent.
        concurrency: so many at a time.
        seconds: how long one may take.
        as_json: print a JSON object for each request.
        view: is shown each image.

    """

    lines: Sequence[Line]
    there: Mapping[int, Path]
    record: "Record"
    concurrency: int
    seconds: float
    as_json: bool
    view: Callable[[Path], None]

    async def through(self, client: "AsyncCalotype", board: "Board") -> Tally:
        """Send all, until each has come to something or none of the rest can."""
        make_folders(self.lines)
        tally = Tally(asked=len(self.lines))
        for line in self.lines:
            if line.number in self.there:
                self._tell_there(line, board)
                tally.there += 1
                tally.ended += 1
                board.end(_row(line))
        rest = iter([line for line in self.lines if line.number not in self.there])
        workers = (self._work(client, board, rest, tally) for _ in range(self.concurrency))
        await asyncio.gather(*workers)
        return tally

    async def _work(
        self, client: "AsyncCalotype", board: "Board", rest: Iterator[Line], tally: Tally
    ) -> None:
        for line in rest:
            board.update(_row(line), "sending", 0)
            done, error = await self._make(client, board, line)
            if done is not None:
                self._tell_made(line, done, board)
                tally.images += len(done.files)
                billing = done.task.billing
                tally.micro_usdc += billing.actual_amount_micro_usdc if billing else 0
            elif error is not None:
                self._tell_failed(line, error, board)
                tally.failed += 1
                if _hopeless(error):
                    deque(rest, maxlen=0)  # nobody takes up another one
            tally.ended += 1
            board.end(_row(line))

    async def _make(
        self, client: "AsyncCalotype", board: "Board", line: Line
    ) -> tuple[Made | None, Exception | None]:
        """What was made, or what went wrong."""
        from calotype.client import CalotypeError

        try:
            task = await self._follow(client, board, line)
            return Made(task, await develop.save(client, task, line.output)), None
        except OutOfTime:
            return None, CommandFault(f"No image after {self.seconds:g} s.")
        except (CommandFault, CalotypeError, OSError) as error:
            return None, error

    async def _follow(self, client: "AsyncCalotype", board: "Board", line: Line) -> "AsyncTask":
        """What comes of a line: under the key that it was sent with last, or else the next one."""
        from calotype.client import TaskFailed

        sent = self.record.sent(line)
        if sent:
            with contextlib.suppress(TaskFailed):  # that was then
                return await self._send(client, board, line, times=sent)
        self.record.sending(line, sent + 1)
        return await self._send(client, board, line, times=sent + 1)

    async def _send(
        self, client: "AsyncCalotype", board: "Board", line: Line, *, times: int
    ) -> "AsyncTask":
        order = line.order
        if times > 1:
            key = f"{order.idempotency_key}/{times}"
            order = dataclasses.replace(order, idempotency_key=key)
        return await develop.follow(
            client, order, board=board, row=_row(line), seconds=self.seconds
        )

    def _tell_made(self, line: Line, done: Made, board: "Board") -> None:
        with board.paused():
            if self.as_json:
                show.json_line({"line": line.number, **done.document()})
                return
            develop.tell(done)
            for path in done.files:
                self.view(path)

    def _tell_there(self, line: Line, board: "Board") -> None:
        path = self.there[line.number]
        with board.paused():
            if self.as_json:
                show.json_line({"line": line.number, "state": "there", "files": [str(path)]})
            show.note(f"line {line.number}: {path} is there already")

    def _tell_failed(self, line: Line, error: Exception, board: "Board") -> None:
        from calotype.client import CalotypeError

        told = account.fault(error) if isinstance(error, CalotypeError) else explain(error)
        message = told.message if told else str(error)
        with board.paused():
            if self.as_json:
                known = _document(error) or {"state": "unknown", "error": {"message": message}}
                show.json_line({"line": line.number, **known, "files": []})
            show.note(f"line {line.number}: {message}")


def _row(line: Line) -> str:
    return f"line {line.number}"


def _document(error: Exception) -> dict[str, Any] | None:
    """What the server said of a request that failed."""
    from calotype.client import APIError, TaskFailed

    match error:
        case TaskFailed():
            return error.task.raw
        case APIError():
            told = {"code": error.code, "message": error.message, "param": error.param}
            return {"state": "refused", "error": told}
        case _:
            return None


def _hopeless(error: Exception) -> bool:
    """Whether the next request would meet with the same."""
    from calotype.client import (
        AuthenticationError,
        BillingError,
        ConnectionFailed,
        PermissionDeniedError,
    )

    return isinstance(
        error, AuthenticationError | BillingError | ConnectionFailed | PermissionDeniedError
    )
