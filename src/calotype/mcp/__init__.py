"""Calotype for agents: an MCP server whose tools use the public API as any client does.

Nothing here is imported before someone speaks MCP: the SDK is large. ``server.py`` makes the
server, ``web.py`` answers requests to ``/mcp``, ``stdio.py`` is behind ``calotype mcp``.
"""
