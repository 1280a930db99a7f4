"""Serving one agent over stdin and stdout, as the client of a running server."""

from mcp.server.stdio import stdio_server

from calotype.client import AsyncCalotype
from calotype.mcp.previews import Previews
from calotype.mcp.server import build_server
from calotype.mcp.tools import Tools


async def serve(client: AsyncCalotype) -> None:
    """Serve until stdin ends; the client is closed then."""
    async with client, stdio_server() as (received, sent):
        server = build_server(Tools(client, Previews(), files=True))
        await server.run(received, sent, server.create_initialization_options())
