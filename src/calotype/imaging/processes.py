"""Processes of our own modules that live on: one line of JSON in, one line out.

A process is started when the first work is there, and ended after a while without any. When the
server dies, however it dies, its input ends and so does the process: nothing is left behind, which
the standard process pool cannot promise after kill -9.
"""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

import msgspec

IDLE_SECONDS: Final = 60.0
WORKS: Final = 200
"""After so many a process is ended, and with it whatever its libraries have not given back."""
_LINE_LIMIT: Final = 1024 * 1024
_GOODBYE_SECONDS: Final = 5.0
_TOLD: Final = frozenset(
    {"PATH", "HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "TMPDIR", "TEMP", "TMP", "TZ"}
)
_TOLD_KINDS: Final = ("LC_", "PYTHON")
"""What a process is told of our environment: it reads strangers' files, so no keys of ours."""

Reply = TypeVar("Reply")


class ProcessGone(Exception):
    """The process ended in the middle of its work."""


async def start_process(
    module: str, *, told: Collection[str] = (), stderr: int | None = None
) -> Process:
    """Run a module of ours that ends when its standard input does.

    Args:
        module: run by ``python -m``.
        told: beginnings of the names of more variables that it is told of our environment.
        stderr: where it goes; None is to our own.

    """
    return await asyncio.create_subprocess_exec(
        # Without -P whatever lies in the server's own folder would be imported first.
        *(sys.executable, "-P", "-m", module),
        env=_environment(told),
        stdin=PIPE,
        stdout=PIPE,
        stderr=stderr,
        limit=_LINE_LIMIT,
        start_new_session=True,  # Ctrl-C would end it before it can say that it ignores that
    )


class LineProcess:
    """One process; whoever has the turn works with it."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: Process | None = None
        self.works = 0
        self.sound = True
        """Whether it may be asked again."""

    async def ask(self, order: msgspec.Struct, reply: type[Reply]) -> Reply:
        """Have one piece of work done.

        Raises:
            ProcessGone: it ended meanwhile.

        """
        self.sound = False
        process = self._process or await self._start()
        self.works += 1
        if process.stdin is None or process.stdout is None:
            raise ProcessGone("The process has no pipes.")
        try:
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
            if not line:
                raise ProcessGone("The process went away.")
            answer = msgspec.json.decode(line, type=reply)
        except OSError as error:
            raise ProcessGone("The process went away.") from error
        except ValueError as error:  # too long a line, or no JSON
            raise ProcessGone("The process said what nobody understands.") from error
        self.sound = True
        return answer

    async def _start(self) -> Process:
        self._process = await start_process(self._module)
        return self._process

    async def end(self) -> None:
        """End it: at once where it is at work, else by the end of its input."""
        if (process := self._process) is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if not self.sound:
            kill(process)
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await process.wait()
        except (TimeoutError, asyncio.CancelledError) as error:
            kill(process)
            await process.wait()
            if isinstance(error, asyncio.CancelledError):
                raise

    @property
    def dead(self) -> bool:
        """Whether it has ended by itself."""
        return self._process is not None and self._process.returncode is not None


class Processes:
    """At most ``most`` processes of a module, each at one piece of work at a time.

    Args:
        module: run by ``python -m``; it answers each line of its standard input until that ends.
        most: how many.
        idle_seconds: after so long without work a process is ended.
        works: after so many pieces of work a process is ended.

    """

    def __init__(
        self, module: str, *, most: int, idle_seconds: float = IDLE_SECONDS, works: int = WORKS
    ) -> None:
        self._module = module
        self._free = asyncio.Semaphore(most)
        self._idle_seconds = idle_seconds
        self._works = works
        self._idle: dict[LineProcess, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[LineProcess]:
        """A process while entered; one that is left in the middle of its work is killed."""
        async with self._free:
            worker = self._take() or LineProcess(self._module)
            try:
                yield worker
            finally:
                if worker.sound and worker.works < self._works:
                    loop = asyncio.get_running_loop()
                    self._idle[worker] = loop.call_later(self._idle_seconds, self._retire, worker)
                else:
                    await worker.end()

    def _take(self) -> LineProcess | None:
        """The process that worked last, so that the others can come to rest."""
        while self._idle:
            worker, timer = self._idle.popitem()
            timer.cancel()
            if not worker.dead:
                return worker
        return None

    def _retire(self, worker: LineProcess) -> None:
        del self._idle[worker]
        task = asyncio.create_task(worker.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """End the processes that are not at work."""
        while worker := self._take():
            await worker.end()
        await asyncio.gather(*self._ending)


def _environment(told: Collection[str]) -> dict[str, str]:
    own = os.environ  # noqa: TID251 -- for a child
    kinds = (*_TOLD_KINDS, *told)
    return {name: own[name] for name in own if name in _TOLD or name.startswith(kinds)}


def kill(process: Process) -> None:
    """End a process at once, if it has not ended."""
    with suppress(ProcessLookupError):
        process.kill()
