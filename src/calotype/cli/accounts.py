"""``calotype accounts``: what holds for all keys of an account."""

from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli import session, show
from calotype.cli.credits import find
from calotype.cli.order import wrong
from calotype.domain.catalog import MAX_DAYS
from calotype.domain.limits import MAX_PER_MINUTE, MAX_TASKS

if TYPE_CHECKING:  # importing them takes longer than the command
    from calotype.core import Core
    from calotype.settings import Settings
    from calotype.store.port import Account

app = typer.Typer(
    no_args_is_help=True, help="Accounts: how long their images are kept, and their limits."
)


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


@app.command()
def limits(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="The account's name.")],
    *,
    tasks: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_TASKS, help="Most unfinished tasks; 0 for no limit."),
    ] = None,
    per_minute: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_PER_MINUTE,
            help="Tasks at once, and as many more with every minute; 0 for no limit.",
        ),
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Leave both to the settings again.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show or set how much an account may submit, with all its keys together.

    It holds at once, in every process.
    """
    changes = default or tasks is not None or per_minute is not None
    if default and (tasks is not None or per_minute is not None):
        raise wrong("--default stands alone; it takes both back.")

    async def body(core: "Core") -> tuple["Account", "Settings"]:
        from calotype.services.audit import CLI

        owner = await find(core, account)
        if not changes:
            return owner, core.settings
        most = None if default else owner.max_tasks if tasks is None else tasks
        rate = None if default else owner.per_minute if per_minute is None else per_minute
        said = f"tasks {_limit(most)}, per minute {_limit(rate)}"
        async with core.audit.action(CLI, "account.limits", f"account {owner.name}", said):
            return await core.accounts.limit(owner, tasks=most, per_minute=rate), core.settings

    owner, settings = session.with_core(context, body)
    if json:
        own = {"max_tasks": owner.max_tasks, "per_minute": owner.per_minute}
        show.json({"account": owner.name, **own})
        return
    show.pairs(
        {
            "account": owner.name,
            "unfinished tasks": _limit(owner.max_tasks, default=settings.account_tasks),
            "tasks a minute": _limit(owner.per_minute, default=settings.account_per_minute),
        }
    )


def _limit(own: int | None, *, default: int | None = None) -> str:
    """A limit in words; ``default`` is what the settings say."""
    if own is None:
        said = "as the settings say"
        return said if default is None else f"{said}: {_limit(default)}"
    return f"{own}" if own else "no limit"


def _told(days: int | None) -> str:
    if days is None:
        return "as the models and the settings say"
    return f"{days} day{'' if days == 1 else 's'}" if days else "until they are deleted"
