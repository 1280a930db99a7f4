"""A listener on every address of this machine, which nobody is to connect to."""

import asyncio
import contextlib
import socket
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from net.names import Lookup


class Canary:
    """Counts who comes, whatever they say."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0

    async def take(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\ninside")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()


@asynccontextmanager
async def listening() -> AsyncIterator[Canary]:
    """A canary on a free port, of IPv6 as well where this machine has it."""
    canary = Canary()
    async with await asyncio.start_server(canary.take, sock=_everywhere()) as server:
        canary.port = server.sockets[0].getsockname()[1]
        yield canary


def _everywhere() -> socket.socket:
    try:
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, ValueError):
        return socket.create_server(("", 0))


def _corpus() -> tuple[dict[str, list[str]], dict[str, list[list[str]]]]:
    told = tomllib.loads(Path(__file__).with_name("ssrf.toml").read_text(encoding="utf-8"))
    return told["text"], told["names"]


GROUPS, NAMES = _corpus()
FORMS = [form for forms in GROUPS.values() for form in forms]
FIRSTS = [forms[0] for forms in GROUPS.values()]
"""One of each group, for doors that take their time."""


def aimed(form: str, canary: Canary) -> str:
    """The form with the canary's port in it."""
    return form.replace("{port}", str(canary.port))


def lying_dns() -> Lookup:
    """DNS that answers as the corpus says."""
    lookup = Lookup()
    lookup.answers = {name: [list(told) for told in answers] for name, answers in NAMES.items()}
    return lookup
