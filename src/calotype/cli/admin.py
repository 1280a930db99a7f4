"""``calotype admin``: the operator's way into the console."""

from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli import session, show

if TYPE_CHECKING:  # importing them takes longer than the command
    from calotype.core import Core
    from calotype.settings import Settings

_MINUTES = 10
_MOST_MINUTES = 24 * 60

app = typer.Typer(no_args_is_help=True, help="The operator's console: signing in to it.")


@app.callback()
def _group() -> None:
    """Keep ``link`` a command of its own although it is the only one."""


@app.command()
def link(
    context: typer.Context,
    *,
    minutes: Annotated[
        int, typer.Option(min=1, max=_MOST_MINUTES, help="How long the link is good for.")
    ] = _MINUTES,
) -> None:
    """Print a link that signs the operator in to the console, once.

    The link alone goes to stdout. Whoever has it is the operator: hand it to nobody.
    """

    async def body(core: "Core") -> str:
        from calotype.core import secret_of
        from calotype.services.audit import CLI
        from calotype.services.signin import Links

        links = Links(secret_of(core.settings), core.clock)
        async with core.audit.action(CLI, "admin.link", "operator", f"for {minutes} min"):
            return f"{_address(core.settings)}/console/enter?token={links.make(minutes=minutes)}"

    print(session.with_core(context, body))
    show.note(f"Good for {minutes} min, once. It opens the whole console: hand it to nobody.")


def _address(settings: "Settings") -> str:
    """Where a browser finds the server, as far as the settings tell."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 -- it is replaced
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
