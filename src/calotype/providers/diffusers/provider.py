"""Local pictures as a provider: ``submit`` waits for the engine's picture, one job after another.

Nothing is bought, so whatever becomes of a worker, the job is drawn again. Of a task's seed, or
without one of its id, the seeds of its pictures follow one another.
"""

import asyncio
import hashlib
import logging
import math
import os
import shutil
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from calotype.domain.catalog import pixel_size
from calotype.domain.channel import Channel
from calotype.domain.errors import Unavailable
from calotype.domain.outcomes import (
    Done,
    Fault,
    ImageSource,
    PollOutcome,
    Refused,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.wire import Upstream
from calotype.providers.diffusers.batching import Batcher, Down, End, Kept, Shape, Wanted
from calotype.providers.diffusers.folders import Exchange
from calotype.providers.diffusers.options import read
from calotype.providers.diffusers.wire import Ended, Picture
from calotype.providers.line import Tools
from calotype.providers.plain import Plain
from calotype.providers.port import Job
from calotype.providers.scrubbing import scrubbed
from calotype.providers.verdicts import ended, on_create, unfit

OUT_OF_MEMORY: Final = "local_out_of_memory"
_NO_MEMORY: Final = "The picture does not fit into the memory of the machine that draws it."
_UNREADABLE: Final = TryLater(
    "internal_error", "A file for the engine could not be written here.", fault=Fault.OURS
)
_READ: Final = 256 * 1024
_SEEDS: Final = 2**31

log = logging.getLogger(__name__)


class Diffusers(Plain):
    """Draws for one channel, with an engine of its own."""

    free = True
    synchronous = True

    def __init__(
        self,
        channel: Channel,
        _upstream: Upstream,
        tools: Tools,
        *,
        batcher: Callable[..., Batcher] = Batcher,
    ) -> None:
        self._channel = channel
        self._options = read(channel, tools.data_dir)
        self._exchange = Exchange()
        self._batcher = batcher(
            self._options,
            name=channel.slug,
            warm_up=_usual_size(channel, tools),
            silent_seconds=channel.timeout_seconds,
        )
        self._under_way: dict[str, _Drawing] = {}
        self._started = False

    def start(self) -> None:
        """Load the weights, unless the channel says that they are loaded at the first task."""
        self._started = True
        self._batcher.keep()

    def retire(self) -> None:
        """Let the engine go when the jobs at hand have ended."""
        self._batcher.retire()

    def check(self) -> None:
        """Raise ``Unavailable`` while the weights are being loaded for the first time."""
        if self._started and self._options.warm_up and not self._batcher.settled:
            raise Unavailable(f"Channel {self._channel.slug} loads its weights.", retry_after=5)

    async def submit(self, job: Job) -> SubmitOutcome:
        """Draw, and wait for it."""
        try:
            drawing = _Drawing(job, self._exchange.fresh(job.task))
        except OSError:
            log.exception("channel %s: %s", self._channel.slug, _UNREADABLE.message)
            return _UNREADABLE
        self._under_way[job.task] = drawing
        try:
            return await self._drawn(job, drawing)
        except TimeoutError:
            message = f"The picture took longer than {self._channel.timeout_seconds:g} seconds."
            return TryLater("upstream_unavailable", message, fault=Fault.UPSTREAM)
        finally:
            del self._under_way[job.task]
            self._drop(drawing)

    async def _drawn(self, job: Job, drawing: "_Drawing") -> SubmitOutcome:
        """What became of a job; ``TimeoutError`` says that it took too long."""
        try:
            await drawing.prepare()
        except Exception:  # the port says no more of what opening a reference may raise
            log.exception("channel %s: %s", self._channel.slug, _UNREADABLE.message)
            return _UNREADABLE
        finally:
            if not drawing.wanted:
                drawing.remove()
        if not drawing.cancelled:
            self._batcher.put(drawing.wanted)
            await drawing.begun.wait()  # what is before it has a limit of its own
            async with asyncio.timeout(self._channel.timeout_seconds):
                await drawing.over.wait()
        if drawing.cancelled:
            return ended("cancelled", detail="")
        if drawing.images:  # of several some may have failed, as at any upstream
            return Done(tuple(drawing.images))
        return self._imageless(job, drawing.ends[0])

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:  # noqa: ARG002 -- the port's form
        """Nothing can be asked: no job is ever accepted without its image."""
        return Unknown("An engine keeps no jobs to ask about.")

    async def cancel(self, job: Job, upstream_id: str) -> bool:  # noqa: ARG002 -- the port's form
        """Stop drawing it at the next step."""
        drawing = self._under_way.get(job.task)
        if drawing is None:
            return False
        drawing.cancelled = True
        self._drop(drawing)
        return True

    async def close(self) -> None:
        """End the engine, and remove all files."""
        await self._batcher.close()
        self._exchange.close()

    def _drop(self, drawing: "_Drawing") -> None:
        for one in drawing.wanted:
            self._batcher.drop(one)

    def _imageless(self, job: Job, end: Ended | Down) -> SubmitOutcome:
        """The outcome of a job of which no picture came."""
        detail = scrubbed(end.message, {job.request.prompt, job.fields.get("negative_prompt", "")})
        log.warning("channel %s: %s: %s", self._channel.slug, end.code, detail)
        match end:
            case Down(code="unfit" | "missing"):
                return on_create("model", detail=detail)
            case Down(code=code, retry_after=seconds):
                word = OUT_OF_MEMORY if code == "out_of_memory" else "upstream_unavailable"
                return TryLater(word, detail, retry_after=seconds, fault=Fault.UPSTREAM)
            case Ended(code="out_of_memory"):
                return Refused(OUT_OF_MEMORY, _NO_MEMORY, Fault.UNFIT, detail)
            case Ended(code="unsafe"):
                return ended("policy", detail="")
            case Ended(code="unfit"):
                return unfit(detail)
            case _:
                return ended("failed", detail="the engine could not draw it.")


class _Drawing:
    """One job: its pictures, and the folder with their files.

    Args:
        job: what is asked.
        folder: its own; it goes when the engine has nothing of it in its hands any more.

    """

    def __init__(self, job: Job, folder: Path) -> None:
        self._job = job
        self._folder = folder
        self._shares = [0.0] * job.request.n
        self._in_hand = job.request.n
        self.wanted: list[Wanted] = []
        self.images: list[ImageSource] = []
        self.ends: list[Ended | Down] = []
        self.begun = asyncio.Event()
        """Set when the engine is told the first picture, or none is to be drawn."""
        self.over = asyncio.Event()
        """Set when each picture has ended."""
        self.cancelled = False

    async def prepare(self) -> None:
        """Write out references and pictures as they are put to the engine, if still wanted."""
        references = await _filed(self._job, self._folder)
        if not self.cancelled:
            self._want(references)

    def _want(self, references: tuple[str, ...]) -> None:
        job, fields = self._job, self._job.fields
        strength = fields.get("strength") if references else None
        steps = fields["steps"]
        shape = Shape(
            width=fields["width"],
            height=fields["height"],
            steps=steps_of(steps, strength) if strength else steps,
            guidance=float(fields["guidance"]),
            strength=strength,
            references=len(references),
        )
        seed = fields.get("seed", _seed_of(job.task))
        self.wanted = [
            Wanted(
                Picture(
                    id=f"{job.task}-{job.attempt}-{place}",
                    prompt=job.request.prompt,
                    seed=seed + place,
                    file=str(self._folder / f"{place}.png"),
                    negative_prompt=fields.get("negative_prompt", ""),
                    references=references,
                ),
                shape,
                begin=self.begun.set,
                report=partial(self._report, place),
                end=self._end,
                leave=self._leave,
            )
            for place in range(job.request.n)
        ]

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _report(self, place: int, share: float) -> None:
        self._shares[place] = share
        self._job.report(min(99, int(100 * sum(self._shares) / len(self._shares))))

    def _end(self, end: End) -> None:
        if isinstance(end, Kept):
            try:
                self.images.append(_Image(end.file))
            except OSError as error:
                self.ends.append(Ended(id="", code="failed", message=str(error)))
        else:
            self.ends.append(end)
        if len(self.images) + len(self.ends) == len(self.wanted):
            self.begun.set()
            self.over.set()

    def _leave(self) -> None:
        self._in_hand -= 1
        if self._in_hand == 0:
            self.remove()


class _Image:
    """A picture whose file has no name any more: it goes when this is no longer referred to."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        file.unlink()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        at = 0
        while chunk := await asyncio.to_thread(self._read, at):
            at += len(chunk)
            yield chunk

    def _read(self, at: int) -> bytes:
        return os.pread(self._descriptor, _READ, at)


async def _filed(job: Job, folder: Path) -> tuple[str, ...]:
    """The references as files."""
    paths = []
    for place, reference in enumerate(job.references):
        path = folder / f"reference-{place}"
        with path.open("wb") as file:
            async with reference.open() as chunks:
                async for chunk in chunks:
                    file.write(chunk)
        paths.append(str(path))
    return tuple(paths)


def steps_of(drawn: int, strength: float) -> int:
    """How many steps to ask for where a pipeline draws as large a share as its strength."""
    steps = math.ceil(drawn / strength)
    return steps if int(steps * strength) >= drawn else steps + 1  # as the library reckons


def _seed_of(task: str) -> int:
    """The seed of a task that names none: the same each time it is drawn."""
    return int.from_bytes(hashlib.sha256(task.encode()).digest()[:4]) % _SEEDS


def _usual_size(channel: Channel, tools: Tools) -> tuple[int, int] | None:
    """What the model draws where nothing is said of the size."""
    for name in channel.models or ():
        if (model := tools.models.get(name)) is not None:
            usual = {
                each.name: each.default for each in model.parameters if each.default is not None
            }
            return pixel_size(model, usual, reference_size=None)
    return None
