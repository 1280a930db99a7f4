"""``calotype doctor``: proves that this installation works, or says what would cure it."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli import faults, session, show

if TYPE_CHECKING:  # importing it takes longer than starting
    from calotype.cli.checks import Finding


def doctor(
    context: typer.Context,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this installation: configuration, data folder, books, images, channels, clock.

    Changes nothing, makes nothing, and may be run beside a server. Ends with 1 when anything
    does not hold, each with its cure.
    """
    findings = _examine(context)
    if json:
        show.json({"ok": all(one.holds is not False for one in findings), "checks": list(findings)})
    else:
        _print(findings)
    if any(one.holds is False for one in findings):
        raise typer.Exit(faults.FAILED)


def _examine(context: typer.Context) -> "Sequence[Finding]":
    from calotype.cli import checks
    from calotype.core import build_core

    try:
        core = build_core(session.settings_of(context))
    except Exception as error:
        fault = faults.explain(error)
        if fault is None:
            raise
        return [
            checks.Finding(
                name="configuration",
                holds=False,
                message=fault.message,
                cure="mend it; the other checks need it",
            )
        ]
    return asyncio.run(checks.examine(core))


def _print(findings: "Sequence[Finding]") -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    marks = {True: ("✓", "green"), False: ("✗", "red"), None: ("·", "dim")}
    width = max(len(one.name) for one in findings)
    for one in findings:
        mark, style = marks[one.holds]
        line = Text.assemble((mark, style), f" {one.name.ljust(width)}  {show.plain(one.message)}")
        console.print(line, soft_wrap=True)
        for detail in one.details:
            console.print(Text(f"  {' ' * width}  {show.plain(detail)}"), soft_wrap=True)
        if one.cure:
            cure = Text.assemble(f"  {' ' * width}  → ", (show.plain(one.cure), "bold"))
            console.print(cure, soft_wrap=True)
    wrong = sum(one.holds is False for one in findings)
    if wrong:
        console.print(Text(f"{wrong} of {len(findings)} checks do not hold.", style="red"))
    else:
        console.print(Text("All is well.", style="green"))
