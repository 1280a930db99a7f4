"""The sandbox as a provider.

It keeps next to nothing: the id it gives out says when the work began and how long it takes, so
that any process can go on polling after a crash, as with a real upstream. That a job was cancelled
is known where it was, which is where it is polled.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from calotype.domain.catalog import ASPECT_RATIO, OUTPUT_FORMAT, RESOLUTION, pixel_size
from calotype.domain.clock import Clock
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    PollOutcome,
    RecoverOutcome,
    Refused,
    Running,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.providers.port import Job
from calotype.providers.sandbox.steering import WORDS, Steering, read_steering
from calotype.providers.sandbox.studio import Order, Studio

_ID: Final = re.compile(r"sandbox-(\d{1,15})-(\d{1,15})\Z")
_CHUNK: Final = 256 * 1024
_REMEMBERED: Final = 10_000
"""Cancelled jobs of which nobody has asked since."""


class SandboxProvider:
    """Simulated work, then a picture.

    Args:
        studio: draws the pictures.
        seconds: how long the work takes; 0 answers at once, like a synchronous upstream.
        clock: the time, shared by every process that polls.

    """

    free = True

    def __init__(self, studio: Studio, *, seconds: float, clock: Clock) -> None:
        self._studio = studio
        self._seconds = seconds
        self._clock = clock
        self.synchronous = seconds == 0
        self._cancelled: dict[str, None] = {}

    async def submit(self, job: Job) -> SubmitOutcome:
        """Accept the job, or fail in the way that the prompt asks for."""
        steering = read_steering(job.request.prompt)
        if refusal := _refusal(job, steering):
            return refusal
        delay = steering.words.get("delay")
        total = int((self._seconds if delay is None else delay) * 1000)
        if total == 0 and "never" not in steering.words:
            return self._end(job, steering)
        return Accepted(f"sandbox-{self._clock()}-{total}", poll_after=_cadence(total))

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        """How far the simulated work is."""
        match = _ID.match(upstream_id)
        if match is None:
            return Failed("upstream_failed", "The sandbox never gave out this id.")
        began, total = int(match[1]), int(match[2])
        spent = self._clock() - began
        steering = read_steering(job.request.prompt)
        if self._cancelled.pop(job.task, upstream_id) is None:
            return Failed("cancelled", "The job was cancelled at the upstream.")
        if "never" in steering.words:
            return Running(progress=min(50, spent // 100), poll_after=_cadence(total))
        if spent >= total:
            return self._end(job, steering)
        return Running(
            progress=min(95, 100 * spent // total),
            poll_after=min(_cadence(total), (total - spent) / 1000),
        )

    async def recover(self, _job: Job) -> RecoverOutcome:
        """It keeps nothing, so it cannot tell; being free, it is simply asked again."""
        return Unknown("The sandbox remembers no request.")

    async def cancel(self, job: Job, upstream_id: str) -> bool:
        """Stop the simulated work, unless the prompt says that it cannot be stopped."""
        steering = read_steering(job.request.prompt)
        if "unstoppable" in steering.words or _ID.match(upstream_id) is None:
            return False
        self._cancelled[job.task] = None
        while len(self._cancelled) > _REMEMBERED:
            del self._cancelled[next(iter(self._cancelled))]
        return True

    def callback(self, _headers: Mapping[str, str], _body: bytes) -> str | None:
        """It never calls."""
        return None

    async def close(self) -> None:
        """End the drawing processes."""
        await self._studio.close()

    def _end(self, job: Job, steering: Steering) -> Done | Failed:
        if "500-after" in steering.words:
            return Failed("upstream_failed", "The upstream accepted the job and failed at it.")
        number, n = steering.words.get("malformed", 0), job.request.n
        bad = n if number is None else int(number)
        return Done(
            tuple(
                _Malformed() if place < bad else _Drawing(job, self._studio, place)
                for place in range(n)
            ),
            trained=False,
        )


def _refusal(job: Job, steering: Steering) -> Refused | TryLater | Unknown | None:
    if steering.unknown:
        return Refused(
            "upstream_rejected",
            f"The sandbox knows no word 'sandbox:{steering.unknown[0]}'; it knows "
            f"{', '.join(WORDS)}, and numbers below a million with up to three decimals.",
        )
    if "refuse" in steering.words:
        return Refused(
            "content_policy_violation", "The upstream refused the prompt by its content policy."
        )
    if job.attempt <= steering.times("429"):
        return TryLater("upstream_rate_limited", "The upstream is rate limiting us.")
    if job.attempt <= steering.times("500-before"):
        return TryLater("upstream_unavailable", "The upstream had a fault and took nothing.")
    if "unknown" in steering.words:
        return Unknown("The connection ended before the upstream's answer came.")
    return None


def _cadence(total_ms: int) -> float:
    """Seconds between polls: about a dozen over the whole work."""
    return min(1.0, max(0.05, total_ms / 12_000))


class _Malformed:
    """What an upstream sends when it is broken."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            yield b'{"error": "this is no image"}'

        yield chunks()


class _Drawing:
    """A picture that is drawn when it is read."""

    def __init__(self, job: Job, studio: Studio, place: int) -> None:
        self._job = job
        self._studio = studio
        self._place = place

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
        with await self._studio.draw(self._order) as file:

            async def chunks() -> AsyncIterator[bytes]:
                while chunk := await asyncio.to_thread(file.read, _CHUNK):
                    yield chunk

            yield chunks()

    async def _order(self, folder: Path) -> Order:
        job = self._job
        parameters = job.request.parameters
        first = job.references[0] if job.references else None
        width, height = pixel_size(
            job.model,
            parameters,
            reference_size=(first.width, first.height) if first else None,
        )
        paths: list[str] = []
        for place, reference in enumerate(job.references):
            path = folder / f"reference-{place}"
            with path.open("wb") as file:
                async with reference.open() as chunks:
                    async for chunk in chunks:
                        file.write(chunk)
            paths.append(str(path))
        label = [str(parameters[name]) for name in (ASPECT_RATIO, RESOLUTION) if name in parameters]
        if job.request.n > 1:
            label.append(f"{self._place + 1} of {job.request.n}")
        return Order(
            prompt=job.request.prompt,
            model=job.request.model,
            width=width,
            height=height,
            format=str(parameters.get(OUTPUT_FORMAT, job.model.output_format)),
            label=" · ".join(label),
            references=tuple(paths),
            target=str(folder / "picture"),
            place=self._place,
        )
