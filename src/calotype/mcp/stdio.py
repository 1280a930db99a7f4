"""Serving one agent over stdin and stdout, as the client of a running server."""

from mcp.server.stdio import stdio_server

from calotype.client import AsyncCalotype
from calotype.mcp.previews import Previews
from calotype.mcp.server import build_server
from calotype.mcp.tools import Tools


async def serve(*, base_url: str, api_key: str) -> None:
    """Serve until stdin ends."""
    async with AsyncCalotype(api_key, base_url) as client, stdio_server() as (received, sent):
        server = build_server(Tools(client, Previews(), files=True))
        await server.run(received, sent, server.create_initialization_options())
