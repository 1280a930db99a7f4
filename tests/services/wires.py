"""Wires around the parts of a runner: something can happen between any two of its steps."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any


class Killed(BaseException):
    """The process is no more."""


class Wire:
    """Counts steps; ``step`` says what happens at each."""

    async def step(self) -> None:
        """What happens before and after each coroutine of what is wired."""

    def around(self, thing: Any) -> Any:
        """The same thing, with a step before and after each of its coroutines."""
        return _Wired(thing, self)


class Tripwire(Wire):
    """Kills at the n-th step; from then on whatever is tried in this process comes to nothing."""

    def __init__(self, step: int) -> None:
        self.left = step
        self.dead = False

    async def step(self) -> None:
        if self.left == 0:
            self.dead = True
        self.left -= 1
        if self.dead:
            raise Killed


class _Wired:
    def __init__(self, thing: Any, wire: Wire) -> None:
        self._thing = thing
        self._wire = wire

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._thing, name)
        if name in {"free", "synchronous", "path"}:
            return found
        if name in {"open", "stage", "file"}:
            return self._context(found)

        async def stepped(*given: Any, **named: Any) -> Any:
            await self._wire.step()
            result = await found(*given, **named)
            await self._wire.step()
            return result

        return stepped

    def _context(self, found: Callable[..., Any]) -> Any:
        @asynccontextmanager
        async def stepped(*given: Any) -> AsyncIterator[Any]:
            await self._wire.step()
            async with found(*given) as inner:
                yield self._wire.around(inner) if hasattr(inner, "publish") else inner

        return stepped
