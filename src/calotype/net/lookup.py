"""Asking DNS."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

_THREADS: Final = 16


class SystemLookup(AbstractResolver):
    """The operating system's name lookup, in threads of its own.

    A stranger can name a host whose name server answers slowly or never; that must not use up
    the event loop's default threads, which the rest of the process works with.

    Args:
        threads: lookups at a time; further ones wait.

    """

    def __init__(self, threads: int = _THREADS) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Every address of ``host``.

        Raises:
            OSError: the name cannot be resolved.

        """
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM),
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """Let the threads go; a lookup under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class LastingLookup(AbstractResolver):
    """Knows of lookups that go on although nobody waits for them any more.

    A thread that asks for a name cannot be stopped: whoever counts what is under way has to
    count it until it has ended.

    Args:
        lookup: who asks; closed together with this.

    """

    def __init__(self, lookup: AbstractResolver) -> None:
        self._lookup = lookup
        self._under_way: dict[asyncio.Task[list[ResolveResult]], str] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Every address of ``host``.

        Raises:
            OSError: the name cannot be resolved.

        """
        looking = asyncio.create_task(self._lookup.resolve(host, port, family))
        self._under_way[looking] = host
        looking.add_done_callback(self._under_way.pop)
        return await asyncio.shield(looking)

    async def ended(self, host: str) -> None:
        """Wait until what is being asked for ``host`` by now has come to its end."""
        looking = [task for task, asked in self._under_way.items() if asked == host]
        if looking:
            await asyncio.wait(looking)

    async def close(self) -> None:
        """Close the lookup."""
        await self._lookup.close()
