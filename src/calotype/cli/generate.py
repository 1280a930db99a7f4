"""``calotype generate``: one image from a running server, to a file."""

import asyncio
import dataclasses
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from calotype.cli import show
from calotype.cli.faults import MISCONFIGURED, CommandFault
from calotype.cli.options import takes
from calotype.cli.order import (
    Order,
    check_output,
    numbered,
    read_base_url,
    read_fields,
    read_references,
)

if TYPE_CHECKING:  # importing it takes longer than starting
    from calotype.cli.client import Client

FIRST_PAUSE: Final = 0.3
LONGEST_PAUSE: Final = 2.0
_LEAST_PAUSE: Final = 0.1
_GROWTH: Final = 1.5
_FINAL: Final = ("success", "fail")


class _OutOfTime(Exception):
    """The task is not final, and nobody waits for it any longer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked:
    """The command line of ``calotype generate``."""

    prompt: Annotated[str, typer.Argument(help="What the image shows.", show_default=False)]
    model: Annotated[str, typer.Option("--model", "-m", help="An id from calotype models.")]
    aspect_ratio: Annotated[str | None, typer.Option(help="Such as 16:9, as the model has.")] = None
    resolution: Annotated[str | None, typer.Option(help="Such as 2K, as the model has.")] = None
    output_format: Annotated[str | None, typer.Option(help="Such as png, as the model has.")] = None
    parameter: Annotated[
        list[str],
        typer.Option(
            "-p",
            "--parameter",
            metavar="NAME=VALUE",
            help="Any other field of the request; repeat it for more.",
            show_default=False,
        ),
    ] = dataclasses.field(default_factory=list)
    image: Annotated[
        list[str],
        typer.Option(
            metavar="FILE_OR_URL",
            help="A reference image; repeat it for more.",
            show_default=False,
        ),
    ] = dataclasses.field(default_factory=list)
    channel_id: Annotated[int | None, typer.Option(help="Pin one of the model's channels.")] = None
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write the image; further ones get -2, -3 and so on.",
            show_default="named by the task, in this folder",
        ),
    ] = None
    base_url: Annotated[
        str, typer.Option(envvar="CALOTYPE_BASE_URL", metavar="URL", help="The server.")
    ] = "http://127.0.0.1:8080"
    api_key: Annotated[
        str,
        typer.Option(
            envvar="CALOTYPE_API_KEY",
            metavar="KEY",
            help="From calotype keys create; better in the environment than on the command line.",
            show_default=False,
        ),
    ] = ""
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to wait for the image; the task outlives it.")
    ] = 900
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Give the key of an earlier, interrupted command to go on with its task.",
            show_default="a new one",
        ),
    ] = None
    json: Annotated[bool, typer.Option("--json", help="Print the task and the files as JSON.")] = (
        False
    )


@takes(_Asked)
def generate(asked: _Asked) -> None:
    """Have an image made by a running server, wait for it, and write it to a file.

    A request whose connection breaks is sent again under the same idempotency key: it is never
    paid for twice. Ctrl-C stops the waiting, not the task.
    """
    if not asked.api_key.strip():
        raise CommandFault(
            "There is no API key; make one with calotype keys create --name me --credits 10, "
            "and give it as CALOTYPE_API_KEY or --api-key.",
            exit_code=MISCONFIGURED,
        )
    base_url = read_base_url(asked.base_url)
    named = {
        "model": asked.model,
        "prompt": asked.prompt,
        "response_format": "url",
        "aspect_ratio": asked.aspect_ratio,
        "resolution": asked.resolution,
        "output_format": asked.output_format,
        "channel_id": asked.channel_id,
    }
    order = Order(
        fields=read_fields(named, asked.parameter),
        references=read_references(asked.image),
        idempotency_key=asked.idempotency_key or str(uuid.uuid4()),
    )
    check_output(asked.output)
    asyncio.run(_run(asked, order, base_url=base_url))


async def _run(asked: _Asked, order: Order, *, base_url: str) -> None:
    from calotype.cli.client import Unreached, connect

    until = time.monotonic() + asked.timeout
    async with connect(base_url, api_key=asked.api_key.strip(), note=show.note) as client:
        try:
            task = await _follow(client, await client.submit(order), until=until)
            if task["state"] == "fail":
                raise _failure(task)
            files = await _save(client, task, asked.output)
        except asyncio.CancelledError:
            show.note(_how_to_go_on("Interrupted.", order))
            raise
        except _OutOfTime:
            message = f"No image after {asked.timeout:g} s."
            raise CommandFault(_how_to_go_on(message, order)) from None
        except Unreached as fault:
            raise CommandFault(_how_to_go_on(fault.message, order)) from fault
    if asked.json:
        show.json({**task, "files": [str(path) for path in files]})
    else:
        _print(task, files)


async def _follow(client: "Client", accepted: dict[str, Any], *, until: float) -> dict[str, Any]:
    """The task once it is final; it is asked for until then, through a server's restart too."""
    from calotype.cli.client import LOST_SECONDS, NOT_THROUGH, Passing, Unreached
    from calotype.cli.watch import watching

    word, task, pause = accepted["task_id"], accepted, FIRST_PAUSE
    lost_since: float | None = None
    with watching(word) as update:
        while True:
            if task:
                state = str(task.get("state", "")).lower()
                update(state, int(task.get("progress") or 0))
                if state in _FINAL:
                    return {**task, "state": state}
                pause = _bounded(pause, task.get("recommended_poll_interval_ms"))
            left = until - time.monotonic()
            if left <= 0:
                raise _OutOfTime
            await asyncio.sleep(min(pause, left))
            pause = min(LONGEST_PAUSE, pause * _GROWTH)
            try:
                task, lost_since = await client.task(word), None
            except (*NOT_THROUGH, Passing) as error:
                task, now = {}, time.monotonic()
                lost_since = lost_since or now
                if now - lost_since > LOST_SECONDS:
                    raise Unreached(
                        f"The server has not answered for {LOST_SECONDS:.0f} s."
                    ) from error
                pause = error.wait if isinstance(error, Passing) else pause


def _bounded(pause: float, recommended: Any) -> float:
    """The pause before the next look: never longer than the server recommends."""
    if isinstance(recommended, int | float) and recommended > 0:
        pause = min(pause, recommended / 1000)
    return max(_LEAST_PAUSE, pause)


async def _save(client: "Client", task: dict[str, Any], output: Path | None) -> list[Path]:
    data = (task.get("result") or {}).get("data") or []
    if not data:
        raise CommandFault(f"{task['task_id']} succeeded without an image.")
    files = list[Path]()
    for place, image in enumerate(data, start=1):
        base = output or Path(f"{task['task_id']}{_suffix(image)}")
        path = numbered(base, place)
        try:
            await client.download(image["url"], path)
        except (CommandFault, OSError) as error:
            raise CommandFault(
                f"{path}: {str(error).rstrip('.')}. The server keeps the image: {image['url']}"
            ) from error
        files.append(path)
    return files


def _suffix(image: dict[str, Any]) -> str:
    import mimetypes

    guessed = mimetypes.guess_extension(str(image.get("content_type", "")), strict=False)
    return guessed or Path(str(image["url"]).partition("?")[0]).suffix or ".image"


def _print(task: dict[str, Any], files: list[Path]) -> None:
    from calotype.domain.money import format_usd

    for path, image in zip(files, task["result"]["data"], strict=True):
        width, height = image.get("width"), image.get("height")
        print(f"{path}  {width}x{height}" if width and height else path)
        expected = _suffix(image)
        if path.suffix.lower().replace("jpeg", "jpg") != expected:
            show.note(f"{path} holds a {expected.removeprefix('.').upper()} image.")
    amount = (task.get("billing") or {}).get("actual_amount_micro_usdc")
    if amount is not None:
        print(f"{format_usd(amount)} USDC")


def _failure(task: dict[str, Any]) -> CommandFault:
    error = task.get("error") or {}
    again = " Trying again can help." if error.get("retryable") else ""
    message = error.get("message") or "The task failed."
    return CommandFault(f"{message} ({error.get('code', 'no code')}){again}")


def _how_to_go_on(what: str, order: Order) -> str:
    return (
        f"{what} What the server has accepted goes on there: the same command with "
        f"--idempotency-key {order.idempotency_key} waits for it again and pays nothing more."
    )
