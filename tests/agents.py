"""Agents: the SDK's own client, over HTTP with a key, or over the pipes of a real process."""

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx2
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ImageContent, TextContent

import calotype

PATIENCE = 60.0


class Door(Protocol):
    """A way in for an agent."""

    def __call__(self, url: str, key: str) -> AbstractAsyncContextManager[Client]: ...


@asynccontextmanager
async def agent(url: str, key: str, *, mode: str = "auto") -> AsyncIterator[Client]:
    """An agent that speaks to a server's ``/mcp``."""
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE, trust_env=False) as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


@asynccontextmanager
async def local_agent(url: str, key: str, *, mode: str = "auto") -> AsyncIterator[Client]:
    """An agent that starts ``calotype mcp``."""
    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", "calotype", "mcp"],
        env={"CALOTYPE_BASE_URL": url, "CALOTYPE_API_KEY": key},
        cwd=Path(calotype.__file__).parents[1],  # this very tree, whichever is installed
    )
    async with Client(stdio_client(command), mode=mode) as client:
        yield client


def agent_of_2025(url: str, key: str) -> AbstractAsyncContextManager[Client]:
    """An agent over HTTP that begins with a handshake, as all did before 2026."""
    return agent(url, key, mode="legacy")


def said(result: CallToolResult) -> str:
    """The text of an answer."""
    text = result.content[0]
    assert isinstance(text, TextContent)
    return text.text


def refusal(result: CallToolResult) -> str:
    """The text of an answer that is an error."""
    assert result.is_error, said(result)
    return said(result)


def told(result: CallToolResult) -> dict[str, Any]:
    """The data of an answer that is none."""
    assert not result.is_error, said(result)
    assert isinstance(result.structured_content, dict)
    return result.structured_content


def pictures(result: CallToolResult) -> list[ImageContent]:
    """The images of an answer."""
    return [block for block in result.content if isinstance(block, ImageContent)]
