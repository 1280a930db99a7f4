"""DNS for tests."""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult


class Lookup(AbstractResolver):
    """DNS as told: each time a name is asked for, the next of its answers; the last one stays."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): told for name, told in answers.items()}
        self.asked: list[str] = []
        self.closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        assert family == socket.AF_UNSPEC
        self.asked.append(host)
        told = self.answers.get(host)
        if told is None:
            raise OSError(None, f"no such name near 10.1.2.3: {host}")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in (told.pop(0) if len(told) > 1 else told[0])
        ]

    async def close(self) -> None:
        self.closed = True
