"""``calotype doctor``: proves that this installation works, or says what would cure it."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli import faults, session, show
from calotype.cli.order import wrong

if TYPE_CHECKING:  # importing it takes longer than starting
    from calotype.cli.checks import Finding


def doctor(
    context: typer.Context,
    *,
    assets: Annotated[
        bool, typer.Option("--assets", help="Compare every stored file with the database, too.")
    ] = False,
    remove_orphans: Annotated[
        bool,
        typer.Option(
            "--remove-orphans", help="Remove files older than a day that no row names; asks first."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this installation: configuration, data folder, books, images, channels, clock.

    Changes nothing unless it is asked to, makes nothing, and may be run beside a server. Ends with
    1 when anything does not hold, each with its cure.
    """
    if remove_orphans and json and not yes:
        raise wrong("--remove-orphans asks first, which --json cannot; add --yes.")
    findings = [*_examine(context)]
    if (assets or remove_orphans) and len(findings) > 1:  # else the configuration is wrong
        findings += _examine_assets(context)
    if remove_orphans and not json:
        _print(findings)
    if remove_orphans and _may_remove(findings, yes=yes):
        _remove_orphans(context)
        findings = [*_examine(context), *_examine_assets(context)]
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


def _examine_assets(context: typer.Context) -> "Sequence[Finding]":
    from calotype.cli import assetchecks
    from calotype.core import build_core

    return asyncio.run(assetchecks.examine_assets(build_core(session.settings_of(context))))


def _may_remove(findings: "Sequence[Finding]", *, yes: bool) -> bool:
    from calotype.cli import assetchecks

    return assetchecks.ask(findings, yes=yes)


def _remove_orphans(context: typer.Context) -> None:
    from calotype.cli import assetchecks

    removed = session.with_core(context, assetchecks.remove_orphans, make=False)
    show.note(f"Removed {removed.count} files, {show.size(removed.bytes)}.")


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
