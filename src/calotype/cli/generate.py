"""``calotype generate``: images from a running server, to files."""

import asyncio
import dataclasses
import secrets
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli import account, completion, show
from calotype.cli.develop import Made, OutOfTime, follow, save, tell
from calotype.cli.faults import CommandFault
from calotype.cli.many import Many, Tally
from calotype.cli.options import takes
from calotype.cli.order import (
    Fields,
    Order,
    check_folder,
    check_output,
    judge,
    read_fields,
    read_metadata,
    read_references,
    wrong,
)
from calotype.cli.progress import board
from calotype.cli.prompts import Common, check_run, in_the_way, made, read_lines, read_text
from calotype.cli.record import Record
from calotype.cli.session import run_until_stopped
from calotype.domain.money import format_usd

if TYPE_CHECKING:  # importing it takes longer than starting
    from calotype.cli.view import Viewer


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked:
    """The command line of ``calotype generate``."""

    prompt: Annotated[
        str | None,
        typer.Argument(help="What the image shows; or give --prompts.", show_default=False),
    ] = None
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="One prompt on each line, or JSON objects with what is special; - is stdin.",
            show_default=False,
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="ID",
            help="An id from calotype models.",
            show_default=False,
            autocompletion=completion.models,
        ),
    ] = None
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="How many images, where the model has that.")
    ] = None
    aspect_ratio: Annotated[
        str | None,
        typer.Option(
            help="Such as 16:9, as the model has.",
            autocompletion=completion.aspect_ratios,
        ),
    ] = None
    resolution: Annotated[
        str | None,
        typer.Option(
            help="Such as 2K, as the model has.",
            autocompletion=completion.resolutions,
        ),
    ] = None
    output_format: Annotated[
        str | None,
        typer.Option(
            help="Such as png, as the model has.",
            autocompletion=completion.output_formats,
        ),
    ] = None
    parameter: Annotated[
        list[str],
        typer.Option(
            "-p",
            "--parameter",
            metavar="NAME=VALUE",
            help="Any other field of the request; repeat it for more.",
            show_default=False,
            autocompletion=completion.parameters,
        ),
    ] = dataclasses.field(default_factory=list)
    image: Annotated[
        list[str],
        typer.Option(
            metavar="FILE_OR_URL",
            help="A reference image: a file, a URL, or asset:// and the id of an uploaded file; "
            "repeat it for more.",
            show_default=False,
        ),
    ] = dataclasses.field(default_factory=list)
    channel_id: Annotated[int | None, typer.Option(help="Pin one of the model's channels.")] = None
    callback_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Is sent a webhook when the task is final.")
    ] = None
    metadata: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="Shown with the task, and what it can be found by; repeat it for more.",
            show_default=False,
        ),
    ] = dataclasses.field(default_factory=list)
    deadline_seconds: Annotated[
        int | None, typer.Option(min=1, help="After so long nothing new is sent for the task.")
    ] = None
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write the image; further ones get -2, -3 and so on. "
            "With --prompts a folder.",
            show_default="named by the task or the run, in this folder",
        ),
    ] = None
    show: Annotated[
        bool | None,
        typer.Option(
            "--show/--no-show",
            help="Show the images in this terminal.",
            show_default="where it can",
        ),
    ] = None
    open: Annotated[
        bool, typer.Option("--open", help="Open the image with the desktop's own program.")
    ] = False
    base_url: account.BaseUrl = account.BASE_URL
    api_key: account.ApiKey = ""
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to wait for an image; its task outlives it.")
    ] = 900
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Give the key of an earlier, interrupted command to go on with its task; "
            "one that failed takes a new key.",
            show_default="a new one",
        ),
    ] = None
    concurrency: Annotated[
        int, typer.Option(min=1, max=64, help="With --prompts, so many at a time.")
    ] = 4
    run: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="With --prompts, the key of an interrupted run, to go on with it.",
            show_default="a new one",
        ),
    ] = None
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the task and the files as JSON; with --prompts a line each."
        ),
    ] = False


@takes(_Asked)
def generate(asked: _Asked) -> None:
    """Have images made by a running server, wait for them, and write them to files.

    A request whose connection breaks is sent again under the same idempotency key: it is never
    paid for twice. Ctrl-C stops the waiting, not the tasks.
    """
    from calotype.cli.view import Viewer

    view = Viewer(wanted=False if asked.json else asked.show)
    if asked.prompt is not None and asked.prompts is None:
        _one(asked, asked.prompt, view)
    elif asked.prompt is None and asked.prompts is not None:
        _several(asked, asked.prompts, view)
    else:
        raise wrong("Give a prompt, such as 'A lighthouse', or a file of them with --prompts.")


def _fields(asked: _Asked) -> Fields:
    fields = read_fields(
        {
            "n": asked.n,
            "aspect_ratio": asked.aspect_ratio,
            "resolution": asked.resolution,
            "output_format": asked.output_format,
            "channel_id": asked.channel_id,
            "callback_url": asked.callback_url,
            "deadline_seconds": asked.deadline_seconds,
        },
        asked.parameter,
    )
    if asked.metadata:
        fields["metadata"] = read_metadata(asked.metadata)
    return fields


# One prompt


def _one(asked: _Asked, prompt: str, view: "Viewer") -> None:
    if asked.run is not None:
        raise wrong("--run: goes with --prompts; for one prompt there is --idempotency-key.")
    if asked.model is None:
        raise wrong("--model: name one; calotype models lists them.")
    order = Order(
        prompt=prompt,
        model=asked.model,
        fields=_fields(asked),
        references=read_references(asked.image),
        idempotency_key=asked.idempotency_key or str(uuid.uuid4()),
    )
    judge(order)
    # Files of an earlier command with the same key are that one's own.
    check_output(asked.output, n=order.n if asked.idempotency_key is None else 1)
    done = run_until_stopped(_made(asked, order))
    if asked.json:
        show.json(done.document())
    else:
        tell(done)
        billing = done.task.billing
        if billing is not None:
            print(f"{format_usd(billing.actual_amount_micro_usdc)} USDC")
        for path in done.files:
            view.show(path)
    if asked.open:
        from calotype.cli.view import open_outside

        for path in done.files:
            open_outside(path)


async def _made(asked: _Asked, order: Order) -> Made:
    from calotype.client import CalotypeError, ConnectionFailed, TaskFailed

    with board() as rows:
        client = account.async_client(asked.base_url, asked.api_key, note=rows.note)
        try:
            async with client:
                task = await follow(client, order, board=rows, row=None, seconds=asked.timeout)
                return Made(task, await save(client, task, asked.output))
        except asyncio.CancelledError:
            rows.note(_how_to_go_on("Interrupted.", order))
            raise
        except OutOfTime:
            message = f"No image after {asked.timeout:g} s."
            raise CommandFault(_how_to_go_on(message, order)) from None
        except ConnectionFailed as error:
            fault = account.fault(error)
            if error.idempotency_key is not None and not error.maybe_received:
                raise fault from error  # nobody has got the request
            raise CommandFault(_how_to_go_on(fault.message, order)) from error
        except TaskFailed as error:
            message = account.fault(error).message
            if asked.idempotency_key is not None:
                message += " A key tells of one task only; without it the prompt is sent anew."
            raise CommandFault(message) from error
        except CalotypeError as error:
            raise account.fault(error) from error


def _how_to_go_on(what: str, order: Order) -> str:
    return (
        f"{what} What the server has accepted goes on there: the same command with "
        f"--idempotency-key {order.idempotency_key} waits for it again and pays nothing more."
    )


# Several prompts


def _several(asked: _Asked, source: str, view: "Viewer") -> None:
    if asked.idempotency_key is not None:
        raise wrong("--idempotency-key: is for one prompt; with --prompts there is --run.")
    common = Common(
        model=asked.model, fields=_fields(asked), references=read_references(asked.image)
    )
    run = secrets.token_hex(6) if asked.run is None else check_run(asked.run)
    folder = asked.output or Path(f"calotype-{run}")
    lines = read_lines(read_text(source), common=common, run=run, folder=folder)
    check_folder(folder)
    record = Record(folder, run)
    record.check(lines)
    there = made(lines)
    taken = in_the_way(lines) if asked.run is None else None
    if taken is not None:
        raise wrong(
            f"{taken} is there already: name another folder with -o, or go "
            "on with the run that made it with --run KEY, which leaves out what is there."
        )
    many = Many(
        lines=lines,
        there=there,
        record=record,
        concurrency=asked.concurrency,
        seconds=asked.timeout,
        as_json=asked.json,
        view=view.show,
    )
    show.note(f"Run {run}: {len(lines)} prompts, {asked.concurrency} at a time, to {folder}")
    tally = run_until_stopped(_all_made(asked, many, run=run))
    if asked.json:
        show.note(tally.told())
    else:
        print(tally.told())
    if asked.open:
        from calotype.cli.view import open_outside

        open_outside(folder)
    if not tally.complete:
        raise CommandFault(
            f"Not every prompt has its images; the same command with --run {run} tries those "
            "again and pays for nothing twice."
        )


async def _all_made(asked: _Asked, many: Many, *, run: str) -> "Tally":
    with board(rows=len(many.lines)) as rows:
        client = account.async_client(asked.base_url, asked.api_key, note=rows.note)
        try:
            async with client:
                return await many.through(client, rows)
        except asyncio.CancelledError:
            rows.note(
                "Interrupted. What the server has accepted goes on there: the same command with "
                f"--run {run} goes on with the rest and pays for nothing twice."
            )
            raise
