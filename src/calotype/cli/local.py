"""``calotype local``: weights for pictures that this machine draws itself, and a trial of them."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from calotype.cli import show
from calotype.cli.faults import MISCONFIGURED, CommandFault

_LIBRARIES = ("diffusers", "huggingface_hub", "torch", "transformers")

app = typer.Typer(
    no_args_is_help=True, help="Pictures that this machine draws itself: weights, and a trial."
)


@app.command()
def pull(
    repository: Annotated[
        str, typer.Argument(metavar="ID", help="As the hub has it, such as stabilityai/sd-turbo.")
    ],
    *,
    revision: Annotated[
        str | None, typer.Option(help="A branch, tag or commit, instead of the newest.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Put it there, instead of the hub's cache.", metavar="FOLDER"),
    ] = None,
) -> None:
    """Fetch weights from the hub: settings and safetensors, each compared with its hash.

    Goes on where it was cut off. Set HF_TOKEN for what is gated or private. The folder that all
    lies in goes to stdout.
    """
    _require("huggingface_hub")
    from calotype.cli import hub

    print(hub.pull(repository, revision=revision, to=to))
    if to is not None or revision is not None:
        show.note("Name this folder in the channel: options.weights.")


def _require(*libraries: str) -> None:
    lacking = [name for name in libraries if importlib.util.find_spec(name) is None]
    if lacking:
        raise CommandFault(
            f"This needs {' and '.join(lacking)}; run pip install 'calotype[local]'.",
            exit_code=MISCONFIGURED,
        )
