"""``calotype local``: weights for pictures that this machine draws itself, and a trial of them."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from calotype.cli import session, show
from calotype.cli.faults import MISCONFIGURED, CommandFault
from calotype.cli.order import wrong

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


@app.command()
def check(
    context: typer.Context,
    channel: Annotated[
        str | None,
        typer.Argument(
            metavar="[CHANNEL]",
            help="Its slug; left out where there is but one.",
            show_default=False,
        ),
    ] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(help="Try this model without a channel.", metavar="ID"),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="With --model: a folder, or owner/name of the hub.", show_default=False),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="With --model: auto, cpu, cuda or cuda:N.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="With --model: auto, float32, bfloat16 or float16.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the picture goes, as PNG.")
    ] = Path("local-check.png"),
) -> None:
    """Load a channel's weights as a worker would, draw one picture, tell the time and the memory.

    Without a configuration --model says what to draw.
    """
    from calotype.cli import trial
    from calotype.cli.order import check_output

    check_output(output)
    own = {"weights": weights, "device": device, "dtype": dtype}
    options = {name: value for name, value in own.items() if value is not None}
    settings = session.settings_of(context)
    if model is not None:
        if channel is not None:
            raise wrong("Name a channel or --model, not both.")
        trying = trial.of_model(settings, model, options)
    elif options:
        raise wrong(f"--{next(iter(options))} goes with --model; a channel has options of its own.")
    else:
        trying = trial.of_channel(settings, channel)
    show.note(f"Loading {trying.weights}; large weights take minutes.")
    figures = session.run_until_stopped(trial.draw(trying, output.absolute()))
    show.pairs({**figures, "picture": str(output)})


def _require(*libraries: str) -> None:
    lacking = [name for name in libraries if importlib.util.find_spec(name) is None]
    if lacking:
        raise CommandFault(
            f"This needs {' and '.join(lacking)}; run pip install 'calotype[local]'.",
            exit_code=MISCONFIGURED,
        )
