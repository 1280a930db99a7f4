"""``calotype migrate --from … --to …``: from one machine to many."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from calotype.cli import show
from calotype.domain.money import format_usd
from calotype.settings import POSTGRES

if TYPE_CHECKING:  # importing it takes longer than refusing wrong flags
    from calotype.store.transfer import Transferred

_SQLITE: Final = "sqlite:///"


def transfer(source: str | None, target: str | None) -> None:
    """Copy one database into the other, and show what was copied and what it comes to.

    Raises:
        typer.BadParameter: the flags do not name a SQLite file and a PostgreSQL database.
        StoreError: it cannot be done; nothing was copied.

    """
    if source is None or target is None:
        raise typer.BadParameter("--from and --to go together; name both databases.")
    path = source.removeprefix(_SQLITE)
    if not source.startswith(_SQLITE) or not path:
        raise typer.BadParameter("--from: write sqlite:///path/to/calotype.db.")
    if not target.startswith(POSTGRES):
        raise typer.BadParameter("--to: write postgresql://user@host/name.")

    import asyncio

    from calotype.store import transfer as databases

    _show(asyncio.run(databases.transfer(Path(path), target)))


def _show(done: "Transferred") -> None:
    show.table(
        ["table", "rows"],
        [[table, str(rows)] for table, rows in done.rows.items()],
        right=["rows"],
    )
    print()
    names = list(done.sums)
    accounts = [
        [account, *(format_usd(done.sums[name].get(number, 0)) for name in names)]
        for number, account in done.accounts.items()
    ]
    total = ["all accounts", *(format_usd(sum(done.sums[name].values())) for name in names)]
    show.table(["account", *names], [*accounts, total], right=names)
    print()
    print(
        f"Copied, and equal on both sides: rows, sums of money by account (USDC), proof of the "
        f"books. {done.jobs} unfinished tasks wait for a worker."
    )
