"""``calotype mcp``: the tools of a running server for an agent that starts this command."""

import asyncio
import signal

from calotype.cli import account


def mcp(
    *,
    base_url: account.BaseUrl = account.BASE_URL,
    api_key: account.ApiKey = "",
) -> None:
    """Serve a running server's tools to an agent, by MCP over stdin and stdout.

    It is started by the agent, and ends when that closes stdin. What a server offers at /mcp it
    offers too, and besides takes files of this machine as references.
    """
    client = account.async_client(base_url, api_key, note=_untold)

    from calotype.mcp.stdio import serve

    # Python's own way would wait for a line of stdin; there is nothing here to bring to an end.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(serve(client))


def _untold(_retried: str) -> None:
    """What is tried again is not told: the agent reads answers, and nobody reads stderr."""
