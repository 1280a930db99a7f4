"""What goes into a send: the job for the provider, and what earlier sends of the task taught."""

import asyncio
import hashlib
import logging
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from calotype.domain.catalog import Model
from calotype.domain.channel import Channel
from calotype.domain.clock import Clock
from calotype.domain.health import LONGEST_BUSY_MS
from calotype.domain.ids import encode
from calotype.domain.outcomes import Fault
from calotype.domain.task import OPEN_ATTEMPT, Attempt, Event, Task
from calotype.domain.wire import Wire
from calotype.providers.port import Job, Provider, ReferenceImage
from calotype.store.port import Store

MAX_SENDS: Final = 24
"""Sends of one task at most, however patient its deadline is."""
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 30.0
JITTER: Final = 0.2
"""Pauses are made longer by up to this share, so that tasks of one moment drift apart."""

log = logging.getLogger(__name__)

LOST: Final = "upstream_outcome_unknown"
"""The code of an attempt whose answer was lost."""
UNKNOWN_MESSAGE: Final = (
    "Nobody can say whether the upstream took the request; it was not bought twice, "
    "and you were not charged."
)
_GAVE_UP: Final = {
    "upstream_rate_limited": "The upstream was busy for as long as the task could wait.",
    "upstream_unavailable": "No upstream could take the task for as long as it could wait.",
    "local_out_of_memory": "The picture does not fit into the memory of any machine of ours.",
    "upstream_rejected": "No upstream that there is can do what was asked for.",
}
"""What the client is told when the time is up, by the code of the last attempt."""
_LASTING: Final = frozenset({Fault.KEY, Fault.ACCOUNT, Fault.MODEL, Fault.UNFIT})
"""A channel that refused for one of these is not asked again for the same task."""


class Bench(msgspec.Struct, frozen=True):
    """A task under a claim, with what it is developed by."""

    task: Task
    model: Model
    channel: Channel
    provider: Provider
    wire: Wire | None
    begun: int = 0
    """When it was sent."""

    @property
    def free(self) -> bool:
        """Whether a second send costs nothing."""
        return is_free(self.channel, self.provider)

    @property
    def may_repeat(self) -> bool:
        """Whether a send of unknown outcome may go out again."""
        return self.free or self.channel.idempotent


def is_free(channel: Channel, provider: Provider) -> bool:
    """Whether a second send to a channel costs nothing: as the operator says, or the provider."""
    return provider.free if channel.free is None else channel.free


class History:
    """What the sends of a task so far say about where it may go next.

    Args:
        attempts: every one of them, oldest first.
        is_free: whether a second send to a channel costs nothing, by its id.

    """

    def __init__(self, attempts: Sequence[Attempt], *, is_free: Callable[[int], bool]) -> None:
        self.tries: Counter[int] = Counter()
        self.spent: set[int] = set()
        self.pauses: dict[int, int] = {}
        self.bound: int | None = None
        """The only channel that may be asked: it may have been bought there already."""
        self.last_code: str | None = None
        self.unfit: str | None = None
        """Why a channel was ruled out that was never asked: no reference fits it."""
        self._purchase = 0
        self._is_free = is_free
        for attempt in attempts:
            if attempt.state not in OPEN_ATTEMPT:
                self.add(attempt)

    def add(self, attempt: Attempt, *, retry_after: float | None = None) -> None:
        """Take in one more send that came to nothing; ``retry_after``: seconds, when told."""
        channel = attempt.channel_id
        self.tries[channel] += 1
        self.last_code = attempt.code
        if attempt.fault is not None and attempt.fault in _LASTING:
            self.spent.add(channel)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self.tries[channel] - 1))
        if retry_after:
            pause = min(retry_after, LONGEST_BUSY_MS / 1000)
        ended = attempt.finished_at or attempt.started_at
        self.pauses[channel] = ended + int(pause * 1000)
        if attempt.code == LOST and self.bound is None and not self._is_free(channel):
            self.bound, self._purchase = channel, attempt.number

    def purchase(self, channel_id: int, number: int) -> int:
        """The attempt that began the purchase which attempt ``number`` goes on with.

        A send whose answer was lost may still be on its way: its successors bear its name.
        """
        return self._purchase if channel_id == self.bound else number

    def gave_up(self, *, timely: bool) -> tuple[str, str]:
        """Code and message with which the task ends; ``timely``: no channel is left, ahead of time.

        The client is told what kept upstreams from taking it, and nothing of their inside.
        """
        if self.bound is not None:
            return LOST, UNKNOWN_MESSAGE
        if message := _GAVE_UP.get(self.last_code or ""):
            return self.last_code or "", message
        if self.unfit is not None and timely:
            return "unsupported_reference_type", self.unfit
        if timely:
            return "no_channel_available", "No channel takes this request any more."
        return "deadline_exceeded", "No upstream took it in time."

    @property
    def sends(self) -> int:
        """How often it has been sent."""
        return self.tries.total()


def make_job(
    bench: Bench,
    number: int,
    *,
    purchase: int,
    references: Sequence[ReferenceImage],
    callback_url: str | None = None,
    report: Callable[[int], None] = lambda _percent: None,
) -> Job:
    """All that the provider needs for one attempt."""
    task, served = bench.task, bench.channel.served(bench.task.model)
    fields, upstream_model = {}, served.id or task.model
    if bench.wire is not None:
        sizes = [(reference.width, reference.height) for reference in references]
        fields = bench.wire.fields(bench.model, task.request, reference_sizes=sizes)
        upstream_model = bench.wire.model_id(served.id, served.edit, references=len(references))
    return Job(
        task=encode("task", task.id),
        attempt=number,
        reference=reference_of(task.id, purchase),
        model=bench.model,
        upstream_model=upstream_model or task.model,
        request=task.request,
        references=tuple(references),
        fields=fields,
        callback_url=callback_url,
        report=report,
    )


def reference_of(task_id: int, purchase: int) -> str:
    """Our own name for one purchase, in the form of a random UUID."""
    digest = hashlib.sha256(f"calotype {task_id} {purchase}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def jittered(seconds: float, chance: random.Random) -> float:
    """A pause, made a little longer by chance."""
    return seconds * (1 + JITTER * chance.random())


class Together:
    """A check that is made once for all who ask for it while it is made, and for a while after.

    Sends begin in crowds: what was written in one transaction goes on in one moment.

    Args:
        check: raises what is wrong.
        seconds: so long it is believed that nothing is.

    """

    def __init__(self, check: Callable[[], Awaitable[None]], *, seconds: float = 0.0) -> None:
        self._check = check
        self._seconds = seconds
        self._believed_until = float("-inf")
        self._made: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Make the check, or wait for the one that is being made; raises what it raises."""
        if asyncio.get_running_loop().time() < self._believed_until:
            return
        if self._made is None or self._made.done():
            self._made = asyncio.create_task(self._make())
        await asyncio.shield(self._made)

    async def _make(self) -> None:
        await self._check()
        self._believed_until = asyncio.get_running_loop().time() + self._seconds


class Reporter:
    """Writes down how far a job is while its ``submit`` waits, one write at a time."""

    def __init__(self, store: Store, task: Task, *, clock: Clock) -> None:
        self._store = store
        self._task = task
        self._clock = clock
        self._percent = 0
        self._fresh: asyncio.Event | None = None
        self._writer: asyncio.Task[None] | None = None

    def report(self, percent: int) -> None:
        """Take in a percentage; what it falls behind is left out."""
        if percent > self._percent:
            self._percent = percent
            if self._fresh is None:  # most jobs never tell, and there may be many of them
                self._fresh = asyncio.Event()
                self._writer = asyncio.create_task(self._write(self._fresh))
            self._fresh.set()

    async def _write(self, fresh: asyncio.Event) -> None:
        while True:
            await fresh.wait()
            fresh.clear()
            try:
                await self._store.advance(
                    self._task, Event.RUN, progress=self._percent, now=self._clock()
                )
            except Exception as error:  # noqa: BLE001 -- how far it is may be lost; the job may not
                log.info("a task's progress was not written down: %s", type(error).__name__)

    async def stop(self) -> None:
        """Write nothing more."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
