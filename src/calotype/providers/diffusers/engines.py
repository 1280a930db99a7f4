"""An engine as the worker sees it: a process that is started, told to load, and told to draw."""

import asyncio
import logging
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from calotype.imaging.processes import start_process
from calotype.providers.diffusers.wire import (
    OUT_OF_MEMORY,
    Broken,
    Draw,
    Drawn,
    Ended,
    Event,
    Load,
    Order,
    Ready,
    Stop,
)

MODULE: Final = "calotype.providers.diffusers.engine"
LOAD_SECONDS: Final = 3600.0
"""After so long an engine that has not loaded is given up."""
GOODBYE_SECONDS: Final = 3.0
TOLD: Final = (
    *("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"),
    *("CUDA_", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE"),
    *("HIP_", "HSA_", "ROCM_", "ROCR_", "PYTORCH_", "TORCH", "TRITON_", "OMP_", "MKL_"),
)
"""What of our environment tells it where weights lie and what the device is.

No token is, so no beginning may be that of one: ``NVIDIA_API_KEY`` is a name in use.
"""
_LAST_WORDS: Final = 3
"""Lines of what an engine said before it went."""

log = logging.getLogger(__name__)


class EngineGone(Exception):
    """The process ended, or does not answer as it should.

    Args:
        message: for the operator.
        out_of_memory: that is why, as far as can be told.

    """

    def __init__(self, message: str, *, out_of_memory: bool) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory


class EngineBroken(Exception):
    """The weights cannot be loaded."""

    def __init__(self, broken: Broken) -> None:
        super().__init__(broken.message)
        self.code = broken.code


class Engine:
    """One process; ``start`` makes one.

    Args:
        process: that was started.
        silent_seconds: after so long without a word in the middle of a batch it is given up.

    """

    def __init__(self, process: Process, *, silent_seconds: float) -> None:
        self._process = process
        self._silent_seconds = silent_seconds
        self._private = False
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._listening = asyncio.create_task(self._listen())
        self._waiting = asyncio.create_task(process.wait())

    @classmethod
    async def start(cls, module: str, *, silent_seconds: float) -> "Engine":
        """Start the process; it has loaded nothing yet."""
        process = await start_process(module, told=TOLD, stderr=PIPE)
        return cls(process, silent_seconds=silent_seconds)

    @property
    def gone(self) -> "asyncio.Task[int]":
        """Done when the process has ended."""
        return self._waiting

    async def load(self, order: Load) -> Ready:
        """Have the weights loaded.

        Raises:
            EngineBroken: they cannot be.
            EngineGone: it ended meanwhile.

        """
        self._tell(order)
        event = await self._event(LOAD_SECONDS)
        if isinstance(event, Broken):
            raise EngineBroken(event)
        if not isinstance(event, Ready):
            raise self.lost("The engine did not load, and said what nobody asked.")
        return event

    async def draw(self, order: Draw, heed: Callable[[Event], None]) -> None:
        """Have a batch drawn; ``heed`` is told what happens until each picture has ended.

        Raises:
            EngineGone: it ended meanwhile.

        """
        self._private = True
        self._tell(order)
        left = {picture.id for picture in order.pictures}
        while left:
            event = await self._event(self._silent_seconds)
            if isinstance(event, Drawn | Ended):
                left.discard(event.id)
            heed(event)

    def stop(self, picture: str) -> None:
        """Have a picture that was ordered not drawn."""
        self._tell(Stop(id=picture))

    def _tell(self, order: Order) -> None:
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")

    async def _event(self, seconds: float) -> Event:
        line = b""
        try:
            async with asyncio.timeout(seconds):
                if self._process.stdout is not None:
                    line = await self._process.stdout.readline()
                if not line:
                    await asyncio.wait([self._waiting])
            event: Event = msgspec.json.decode(line, type=Event)
        except TimeoutError:
            raise self.lost(f"The engine said nothing for {seconds:g} seconds.") from None
        except (OSError, ValueError) as error:  # too long a line, no JSON, or none at all
            if line:
                raise self.lost("The engine said what nobody understands.") from error
            raise self.lost("The engine went away.") from error
        return event

    def lost(self, message: str) -> EngineGone:
        """What there is to say of a process that ended, or of one that is given up."""
        code = self._process.returncode
        if code is not None:
            what = f"by {signal.Signals(-code).name}" if code < 0 else f"with {code}"
            message = f"The engine ended {what}."
        said = "" if self._private else " ".join(self._last_words)
        message = f"{message} {said}".strip()
        return EngineGone(message, out_of_memory=code in {-signal.SIGKILL, OUT_OF_MEMORY})

    async def _listen(self) -> None:
        """Put into the log what it says beside the protocol, until it is told a prompt.

        From then on its libraries may repeat one.
        """
        stderr = self._process.stderr
        while stderr is not None:
            try:
                line = await stderr.readline()
            except ValueError:  # too long a line
                continue
            if not line:
                return
            if not self._private:
                text = line.decode(errors="replace").strip()
                self._last_words.append(text)
                log.debug("engine %d: %s", self._process.pid, text)

    async def end(self) -> None:
        """End it, within seconds, whatever it is at."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait([self._waiting], timeout=GOODBYE_SECONDS)
        finally:
            with suppress(ProcessLookupError, PermissionError):  # and whatever it has started
                os.killpg(self._process.pid, signal.SIGKILL)
            await asyncio.wait([self._waiting, self._listening], timeout=GOODBYE_SECONDS)
            self._waiting.cancel()
            self._listening.cancel()
