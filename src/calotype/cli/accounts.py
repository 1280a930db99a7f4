"""``calotype accounts``: what holds for all keys of an account."""

from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli import session, show
from calotype.cli.credits import find
from calotype.cli.order import wrong
from calotype.domain.catalog import MAX_DAYS

if TYPE_CHECKING:  # importing them takes longer than the command
    from calotype.core import Core
    from calotype.store.port import Account

app = typer.Typer(no_args_is_help=True, help="Accounts: how long their images are kept.")


@app.callback()
def _group() -> None:
    """Keep ``retention`` a command of its own although it is the only one."""


@app.command()
def retention(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="The account's name.")],
    *,
    results: Annotated[
        int | None,
        typer.Option(
            min=0, max=MAX_DAYS, metavar="DAYS", help="Keep results for so long; 0 for ever."
        ),
    ] = None,
    references: Annotated[
        int | None,
        typer.Option(
            min=0, max=MAX_DAYS, metavar="DAYS", help="Keep references for so long; 0 for ever."
        ),
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Leave both to the models and the settings again.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show or say for how many days images of an account are kept.

    It holds for images that come from now on; those that are there keep their time.
    """
    changes = default or results is not None or references is not None
    if default and (results is not None or references is not None):
        raise wrong("--default stands alone; it takes both back.")

    async def body(core: "Core") -> "Account":
        from calotype.services.audit import CLI

        owner = await find(core, account)
        if not changes:
            return owner
        kept = (
            (None, None)
            if default
            else (
                owner.result_days if results is None else results,
                owner.reference_days if references is None else references,
            )
        )
        said = f"results {_told(kept[0])}, references {_told(kept[1])}"
        async with core.audit.action(CLI, "account.retention", f"account {owner.name}", said):
            return await core.accounts.keep_images(owner, results=kept[0], references=kept[1])

    owner = session.with_core(context, body)
    if json:
        days = {"result_days": owner.result_days, "reference_days": owner.reference_days}
        show.json({"account": owner.name, **days})
        return
    show.pairs(
        {
            "account": owner.name,
            "results": _told(owner.result_days),
            "references": _told(owner.reference_days),
        }
    )


def _told(days: int | None) -> str:
    if days is None:
        return "as the models and the settings say"
    return f"{days} day{'' if days == 1 else 's'}" if days else "until they are deleted"
