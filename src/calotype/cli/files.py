"""``calotype files``: images that are uploaded once and used by many requests, over the API."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli import account, show
from calotype.cli.order import check_readable

if TYPE_CHECKING:  # importing it takes longer than starting
    from calotype.client import File

app = typer.Typer(
    no_args_is_help=True,
    help="Files: images that are uploaded once and are references of many requests, over the API "
    "with a key.",
)


@app.command()
def upload(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="The images.", show_default=False)
    ],
    *,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the references only, one a line.")
    ] = False,
    base_url: account.BaseUrl = account.BASE_URL,
    api_key: account.ApiKey = "",
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each file.")
    ] = False,
) -> None:
    """Upload images, over the API: it takes a server and a key.

    An image that is there already is found again, and kept for longer. With its reference any
    request names it: calotype generate "…" --image asset://asset_…
    """
    for path in paths:
        check_readable(path, str(path))
    with account.told(), account.client(base_url, api_key) as client:
        for path in paths:
            file = client.upload_file(path.expanduser())
            if json:
                show.json_line(file)
            elif quiet:
                print(file.reference, flush=True)
            else:
                print(f"{file.reference}  {show.plain(str(path))}  {_facts(file)}", flush=True)


@app.command(name="list")
def list_files(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the references only, one a line.")
    ] = False,
    base_url: account.BaseUrl = account.BASE_URL,
    api_key: account.ApiKey = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List your newest files, newest first, over the API: it takes a server and a key."""
    with account.told(), account.client(base_url, api_key) as client:
        files = list(client.files(limit=limit))
    if json:
        show.json(files)
    elif quiet:
        for file in files:
            print(file.reference)
    elif not files:
        show.note("There are no files; calotype files upload makes them.")
    else:
        show.table(
            ["REFERENCE", "TYPE", "SIZE", "PIXELS", "CREATED", "EXPIRES"],
            [
                [
                    file.reference,
                    file.content_type or "",
                    show.size(file.bytes or 0),
                    f"{file.width}x{file.height}",
                    _moment(file.created_at),
                    _moment(file.expires_at),
                ]
                for file in files
            ],
            right=["SIZE", "PIXELS"],
        )


@app.command()
def delete(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE…",
            help="Ids or references, such as asset_1k0v3m9d5b8qe.",
            show_default=False,
        ),
    ],
    *,
    base_url: account.BaseUrl = account.BASE_URL,
    api_key: account.ApiKey = "",
) -> None:
    """Delete files at once, over the API: it takes a server and a key.

    A task that still needs one of them fails.
    """
    with account.told(), account.client(base_url, api_key) as client:
        for word in files:
            client.delete_file(word.removeprefix("asset://"))
            print(f"{show.plain(word)} is deleted.", flush=True)


def _facts(file: "File") -> str:
    kind = (file.content_type or "").removeprefix("image/")
    return f"{kind} {file.width}x{file.height}, until {_moment(file.expires_at)}"


def _moment(seconds: int | None) -> str:
    """A time of the API for people, in UTC."""
    return show.moment(None if seconds is None else seconds * 1000)
