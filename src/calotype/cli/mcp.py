"""``calotype mcp``: the tools of a running server for an agent that starts this command."""

import asyncio
import signal
from typing import Annotated

import typer

from calotype.cli.faults import MISCONFIGURED, CommandFault


def mcp(
    *,
    base_url: Annotated[
        str, typer.Option(envvar="CALOTYPE_BASE_URL", metavar="URL", help="The server.")
    ] = "http://127.0.0.1:8080",
    api_key: Annotated[
        str,
        typer.Option(
            envvar="CALOTYPE_API_KEY",
            metavar="KEY",
            help="From calotype keys create; better in the environment than on the command line.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Serve a running server's tools to an agent, by MCP over stdin and stdout.

    It is started by the agent, and ends when that closes stdin. What a server offers at /mcp it
    offers too, and besides takes files of this machine as references.
    """
    if not api_key.strip():
        raise CommandFault(
            "There is no API key; make one with calotype keys create --name me --credits 10, "
            "and give it as CALOTYPE_API_KEY or --api-key.",
            exit_code=MISCONFIGURED,
        )
    from calotype.client import AsyncCalotype

    try:
        client = AsyncCalotype(api_key, base_url)
    except ValueError as error:
        raise CommandFault(str(error), exit_code=MISCONFIGURED) from error

    from calotype.mcp.stdio import serve

    # Python's own way would wait for a line of stdin; there is nothing here to bring to an end.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(serve(client))
