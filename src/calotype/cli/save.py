"""``calotype tasks save``: the images of a task that was submitted before, over the API."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli import account, develop, show
from calotype.cli.order import check_output
from calotype.cli.progress import board
from calotype.cli.session import run_until_stopped

if TYPE_CHECKING:  # importing it takes longer than starting
    from calotype.cli.develop import Made


def save(
    task: account.TaskId,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write the image; further ones get -2, -3 and so on.",
            show_default="named by the task, in this folder",
        ),
    ] = None,
    base_url: account.BaseUrl = account.BASE_URL,
    api_key: account.ApiKey = "",
    json: Annotated[
        bool, typer.Option("--json", help="Print the task and the files as JSON.")
    ] = False,
) -> None:
    """Write the images of one of your tasks to files, over the API, once it has succeeded.

    Goes on where a calotype generate was cut short; nothing is bought. Files that are there are
    written over.
    """
    check_output(output)
    with account.told():
        made = run_until_stopped(_saved(task, output, base_url, api_key))
    if json:
        show.json(made.document())
    else:
        develop.tell(made)


async def _saved(word: str, output: Path | None, base_url: str, api_key: str) -> "Made":
    with board() as rows:
        async with account.async_client(base_url, api_key, note=rows.note) as client:
            task = await develop.attend(await client.task(word), board=rows, row=word)
            return develop.Made(task, await develop.save(client, task, output))
