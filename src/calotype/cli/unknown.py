"""``calotype tasks unknown`` and ``resolve``: attempts that an upstream may have billed."""

from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli import arguments, completion, session, show
from calotype.cli.faults import MISCONFIGURED, CommandFault
from calotype.domain.ids import encode
from calotype.domain.money import format_usd

if TYPE_CHECKING:  # importing them takes longer than the command
    from calotype.core import Core
    from calotype.store.operating import UnknownAttempt


def unknown(
    context: typer.Context,
    *,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="List those that were resolved, instead.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List attempts that an upstream may have billed although no image came of them."""

    async def body(core: "Core") -> list[list[str]]:
        found = await core.store.operating.unknown(resolved=resolved, limit=limit)
        return [_row(core, one, resolved=resolved) for one in found]

    rows = session.with_core(context, body, make=False)
    columns = ["TASK", "ATTEMPT", "CHANNEL", "STARTED", "DETAIL"]
    columns += ["RESOLVED", "RESOLUTION"] if resolved else []
    if json:
        show.json([dict(zip(map(str.lower, columns), row, strict=True)) for row in rows])
    elif rows:
        show.table(columns, rows)
    else:
        show.note("There are none.")


def resolve(
    context: typer.Context,
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK_ID",
            help="Such as task_1k0v3m8a0qz4e.",
            autocompletion=completion.stored_tasks,
        ),
    ],
    number: Annotated[
        int, typer.Argument(metavar="NUMBER", min=1, help="Of the attempt, as it is listed.")
    ],
    *,
    billed: Annotated[bool, typer.Option("--billed", help="The upstream has billed it.")] = False,
    free: Annotated[bool, typer.Option("--free", help="The upstream has not billed it.")] = False,
    cost: Annotated[
        int | None,
        typer.Option(
            parser=arguments.positive_usd,
            metavar="USD",
            help="What it billed; counts in the usage of the day on which the task ended.",
        ),
    ] = None,
) -> None:
    """Settle an attempt of unknown outcome by what the upstream's own records say, once."""
    if billed == free or (free and cost is not None):
        raise CommandFault(
            "Say --billed, with --cost USD where you know it, or --free.", exit_code=MISCONFIGURED
        )

    async def body(core: "Core") -> None:
        from calotype.services.audit import CLI

        await core.operating.resolve(
            CLI, task, number, resolution="billed" if billed else "free", cost=cost
        )

    session.with_core(context, body, make=False)
    charged = "" if cost is None else f" for {format_usd(cost)} USDC"
    print(f"Attempt {number} of {task} was {'billed' if billed else 'free'}{charged}.")


def _row(core: "Core", one: "UnknownAttempt", *, resolved: bool) -> list[str]:
    attempt = one.attempt
    channel = core.router.get(attempt.channel_id)
    row = [
        encode("task", one.task_id),
        str(attempt.number),
        channel.slug if channel else str(attempt.channel_id),
        show.moment(attempt.started_at),
        show.plain(attempt.detail or ""),
    ]
    if resolved:
        cost = attempt.cost_micro_usdc
        charged = f", {format_usd(cost)} USDC" if cost else ""
        row += [show.moment(attempt.resolved_at), f"{attempt.resolution}{charged}"]
    return row
