"""``calotype tasks watch`` and ``calotype tasks cancel``: the account's own tasks, over the API."""

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from calotype.cli import account, completion, show
from calotype.cli.session import until_told_to_stop

if TYPE_CHECKING:  # importing it takes longer than starting
    from rich.table import Table
    from rich.text import Text

    from calotype.client import AsyncCalotype, AsyncTask, TaskEvent
    from calotype.client.documents import TaskView

    Event = TaskEvent[AsyncTask]

REFILL_SECONDS: Final = 30.0
"""After so long the table reads the newest tasks again, whatever it has heard."""
_LISTED: Final = 100
_KEPT: Final = 500
_PROMPT: Final = 48
_BAR: Final = 20
_AROUND: Final = 3
"""Lines of a terminal that the rows leave free."""
_INTERRUPTED: Final = 130
_RANKS: Final = {"waiting": 0, "queuing": 1, "generating": 2, "success": 3, "fail": 3}

Show = Callable[["Event"], None]


def watch(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TASK_ID",
            help="Only these, until each is final; without any, all of the account's.",
            autocompletion=completion.own_tasks,
        ),
    ] = None,
    *,
    base_url: account.BaseUrl = account.BASE_URL,
    api_key: account.ApiKey = "",
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each event.")
    ] = False,
) -> None:
    """Watch your tasks as they develop, over the API: it takes a server and a key.

    A live table on a terminal, else one line for each event. Ctrl-C ends it; a restart of the
    server does not. With task ids it ends by itself once all are final, with 1 when one failed.

    calotype tasks list and show are the operator's: they read the database of this machine.
    """
    client = account.async_client(base_url, api_key, note=show.note)
    with account.told():
        code = asyncio.run(_watch(client, tasks or [], json=json))
    if code:
        raise typer.Exit(code)


def cancel(
    task: account.TaskId,
    *,
    base_url: account.BaseUrl = account.BASE_URL,
    api_key: account.ApiKey = "",
    json: Annotated[bool, typer.Option("--json", help="Print the task as JSON.")] = False,
) -> None:
    """Cancel one of your tasks, over the API: it takes a server and a key.

    What was not sent yet ends at once, for nothing; what an upstream works on ends when that is
    settled. A final task stays as it is.
    """
    with account.told(), account.client(base_url, api_key) as client:
        found = client.cancel(task)
    if json:
        show.json(found.raw)
        return
    print(_line(found.id, found))
    if not found.is_final:
        show.note(f"It was sent already; calotype tasks watch {found.id} tells how it ends.")


async def _watch(client: "AsyncCalotype", words: Sequence[str], *, json: bool) -> int:
    """Show until told to stop or all is final; the exit code."""
    async with client, until_told_to_stop() as stopped:
        work = asyncio.create_task(_show(client, words, json=json))
        stopping = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return 0 if work.result() else 1
            return _INTERRUPTED if words else 0
        finally:
            for task in (work, stopping):
                task.cancel()
            await asyncio.gather(work, stopping, return_exceptions=True)  # what breaks off now


async def _show(client: "AsyncCalotype", words: Sequence[str], *, json: bool) -> bool:
    """Whether all that was named succeeded; what is not named never ends."""
    named = [await client.task(word) for word in dict.fromkeys(words)]
    board = _Board(named) if sys.stdout.isatty() and not json else None
    tell: Show = board.hear if board else _print_json if json else _print_line
    shown = board.shown(client, fill=not named) if board else contextlib.nullcontext()
    async with shown:
        return await (_each(named, tell) if named else _all(client, tell))


async def _all(client: "AsyncCalotype", tell: Show) -> bool:
    async for event in client.events():
        tell(event)
    return True


async def _each(tasks: "Sequence[AsyncTask]", tell: Show) -> bool:
    """Whether all succeeded, once all are final."""

    async def follow(task: "AsyncTask") -> bool:
        state: str = task.state
        async for event in task.events():
            tell(event)
            state = event.state
        return state == "success"

    return all(await asyncio.gather(*map(follow, tasks)))


def _print_json(event: "Event") -> None:
    document: dict[str, Any] = {
        "id": event.id,
        "task_id": event.task_id,
        "state": event.state,
        "progress": event.progress,
        "at": event.at,
    }
    show.json_line(document if event.task is None else {**document, "task": event.task.raw})


def _print_line(event: "Event") -> None:
    text = _line(event.task_id, event.task, state=event.state, progress=event.progress)
    print(f"{show.moment(event.at * 1000)}  {text}", flush=True)


def _line(
    word: str, task: "TaskView | None", *, state: str | None = None, progress: int | None = None
) -> str:
    state = state or (task.state if task else "")
    progress = progress if progress is not None else (task.progress if task else 0)
    return show.plain(f"{word}  {state}  {progress} %  {_outcome(task)}".rstrip())


def _outcome(task: "TaskView | None") -> str:
    if task is None:
        return ""
    if task.error is not None:
        return f"{task.error.message} ({task.error.code})"
    return task.result[0].url if task.result else ""


@dataclasses.dataclass(kw_only=True)
class _Row:
    state: str
    progress: int
    model: str = ""
    prompt: str = ""
    code: str = ""


class _Board:
    """A table of tasks on the terminal, newest first, that events and listings keep up to date.

    Events say what happens, listings what a task is and what happened before we listened. Which
    of them comes first is open; a task only goes forward, so the further one is right.
    """

    def __init__(self, tasks: "Sequence[AsyncTask]") -> None:
        self._rows: dict[str, _Row] = {}
        self._unknown = asyncio.Event()
        for task in tasks:
            self.fill(task)

    def hear(self, event: "Event") -> None:
        """Take in an event."""
        if event.task_id not in self._rows:
            self._unknown.set()
        self._forward(event.task_id, event.state, event.progress)
        if event.task is not None:
            self.fill(event.task)

    def fill(self, task: "TaskView") -> None:
        """Take in a task."""
        row = self._forward(task.id, task.state, task.progress)
        row.model, row.prompt = task.model, str(task.request.get("prompt", ""))
        row.code = task.error.code if task.error else ""

    def _forward(self, word: str, state: str, progress: int) -> _Row:
        row = self._rows.setdefault(word, _Row(state=state, progress=progress))
        if (_RANKS.get(state, 0), progress) > (_RANKS.get(row.state, 0), row.progress):
            row.state, row.progress = state, progress
        while len(self._rows) > _KEPT:
            del self._rows[min(self._rows)]
        return row

    @contextlib.asynccontextmanager
    async def shown(self, client: "AsyncCalotype", *, fill: bool) -> AsyncIterator[None]:
        """Shows the table for as long as the block runs."""
        from rich.live import Live

        filling = asyncio.create_task(self._keep_filling(client)) if fill else None
        try:
            with Live(get_renderable=self.table, refresh_per_second=5):
                yield
        finally:
            if filling is not None:
                filling.cancel()
                await asyncio.wait({filling})

    async def _keep_filling(self, client: "AsyncCalotype") -> None:
        from calotype.client import CalotypeError

        while True:
            self._unknown.clear()
            with contextlib.suppress(CalotypeError):  # events tell when the server is lost
                async for task in client.tasks(limit=_LISTED):
                    self.fill(task)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFILL_SECONDS):
                    await self._unknown.wait()

    def table(self) -> "Table":
        """As many of the newest rows as the terminal has lines."""
        from rich.console import Console
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        room = max(1, Console().height - _AROUND)
        rows = sorted(self._rows.items(), reverse=True)[:room]
        words = [Text(show.plain(word)) for word, _ in rows]
        states = [
            Text(show.plain(f"{row.state}: {row.code}" if row.code else row.state))
            for _, row in rows
        ]
        models = [Text(show.plain(row.model)) for _, row in rows]
        grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        _keep_whole(grid, "TASK", words)
        _keep_whole(grid, "STATE", states)
        grid.add_column("", max_width=_BAR)
        _keep_whole(grid, "MODEL", models)
        grid.add_column(Text("PROMPT", no_wrap=True))
        for word, state, model, (_, row) in zip(words, states, models, rows, strict=True):
            prompt = Text(show.plain(row.prompt, limit=_PROMPT), no_wrap=True, overflow="ellipsis")
            bar = ProgressBar(total=100, completed=row.progress)
            grid.add_row(word, state, bar, model, prompt)
        return grid


def _keep_whole(grid: "Table", name: str, cells: "Sequence[Text]") -> None:
    """Add a column that a narrow terminal does not cut."""
    width = max(len(name), *(cell.cell_len for cell in cells), 0)
    grid.add_column(name, no_wrap=True, min_width=width)
