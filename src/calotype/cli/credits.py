"""``calotype credits``: what an account has, and booking more of it."""

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli import arguments, session, show
from calotype.cli.faults import CommandFault
from calotype.domain.ids import encode
from calotype.domain.money import format_usd

if TYPE_CHECKING:  # importing them takes longer than the command
    from calotype.core import Core
    from calotype.store.port import Account
    from calotype.store.usage import LedgerLine

ENTRIES = 10
"""Ledger entries that are shown, the newest."""

app = typer.Typer(no_args_is_help=True, help="Credits: what accounts have, and adding to it.")


@app.command(context_settings={"ignore_unknown_options": True})  # so that -5 is an amount
def add(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="The account's name.")],
    amount: Annotated[
        int,
        typer.Argument(
            parser=arguments.usd,
            metavar="USD",
            help="Such as 12.50; below zero takes away what is available, as a correction.",
        ),
    ],
    *,
    note: Annotated[str, typer.Option(help="Why; kept in the ledger.")] = "",
) -> None:
    """Add credit to an account, or take some away."""

    async def body(core: "Core") -> "Account":
        owner = await find(core, account)
        return await book(core, owner, amount, note=note)

    owner = session.with_core(context, body)
    done = (
        f"Added {format_usd(amount)} USDC to"
        if amount > 0
        else (f"Took {format_usd(-amount)} USDC from")
    )
    print(f"{done} '{show.plain(owner.name)}'.")
    show.pairs(_balance(owner))


@app.command(name="show")
def show_credits(
    context: typer.Context,
    account: Annotated[
        str | None, typer.Argument(help="The account's name; without it every account.")
    ] = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what accounts have: balance, the part of it that is reserved, and what is available.

    An account by its name comes with its newest ledger entries.
    """

    async def body(core: "Core") -> "list[tuple[Account, Sequence[LedgerLine]]]":
        owners = await core.store.accounts() if account is None else [await find(core, account)]
        read = core.store.usage.entries
        return [(owner, await read(owner.id, limit=ENTRIES)) for owner in owners]

    found = session.with_core(context, body)
    if json:
        documents = [_document(owner, entries) for owner, entries in found]
        show.json(documents if account is None else documents[0])
    elif account is None:
        _overview([owner for owner, _ in found])
    else:
        _details(*found[0])


async def find(core: "Core", name: str) -> "Account":
    """The account of this name.

    Raises:
        CommandFault: there is none; the message says which it may have been meant to be.

    """
    found = await core.accounts.find(name)
    if found is not None:
        return found
    names = [account.name for account in await core.store.accounts()]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{close[0]}'?" if close else "calotype credits show lists them."
    raise CommandFault(
        f"There is no account '{name}'; {hint} calotype keys create opens an account."
    )


async def book(core: "Core", owner: "Account", amount: int, *, note: str) -> "Account":
    """Add credit to an account or take some away, as the audit has it; what it has by then."""
    from calotype.services.audit import CLI

    said = f"{format_usd(amount)} USDC{f': {note}' if note else ''}"
    async with core.audit.action(CLI, "credit.add", f"account {owner.name}", said):
        return await core.accounts.add_credit(owner, amount, note=note)


def _overview(owners: "Sequence[Account]") -> None:
    if not owners:
        show.note("There are no accounts yet; calotype keys create --name me opens one.")
        return
    amounts = ["BALANCE", "RESERVED", "AVAILABLE"]
    rows = [[owner.name, *_balance(owner).values()] for owner in owners]
    show.table(["ACCOUNT", *amounts], rows, right=amounts)


def _details(owner: "Account", entries: "Sequence[LedgerLine]") -> None:
    show.pairs({"account": owner.name, **_balance(owner)})
    print()
    show.table(
        ["WHEN", "KIND", "AMOUNT", "TASK", "NOTE"],
        [
            [
                show.moment(entry.created_at),
                str(entry.kind),
                format_usd(entry.amount),
                "" if entry.task_id is None else encode("task", entry.task_id),
                entry.note,
            ]
            for entry in entries
        ],
        right=["AMOUNT"],
    )


def _balance(owner: "Account") -> dict[str, str]:
    balance = owner.balance
    return {
        "balance": f"{format_usd(balance.balance)} USDC",
        "reserved": f"{format_usd(balance.reserved)} USDC",
        "available": f"{format_usd(balance.available)} USDC",
    }


def _document(owner: "Account", entries: "Sequence[LedgerLine]") -> dict[str, Any]:
    return {
        "account": owner.name,
        "balance_micro_usdc": owner.balance.balance,
        "reserved_micro_usdc": owner.balance.reserved,
        "available_micro_usdc": owner.balance.available,
        "entries": [
            {
                "kind": entry.kind,
                "amount_micro_usdc": entry.amount,
                "task_id": None if entry.task_id is None else encode("task", entry.task_id),
                "created_at": show.seconds(entry.created_at),
                "note": entry.note,
            }
            for entry in entries
        ],
    }
