"""What the tests of the runner work with: a clock, a scripted upstream, and all the rest real."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from calotype.assets.disk import DiskAssets
from calotype.catalog import load_catalog
from calotype.domain.catalog import Catalog
from calotype.domain.channel import Channel
from calotype.domain.health import Breakers
from calotype.domain.ids import IdSource
from calotype.domain.money import Balance, EntryKind
from calotype.domain.outcomes import (
    Done,
    ImageSource,
    PollOutcome,
    RecoverOutcome,
    SubmitOutcome,
    Unknown,
)
from calotype.domain.task import (
    OPEN_ATTEMPT,
    Asset,
    Attempt,
    AttemptState,
    BillingStatus,
    Event,
    NewTask,
    Reference,
    Request,
    State,
    Task,
)
from calotype.net.fetcher import GuardedFetcher
from calotype.providers.port import Job, Provider
from calotype.services.assets import Assets
from calotype.services.references import ReferenceIntake
from calotype.services.routing import Router
from calotype.services.running import Links, Runner
from calotype.store.port import Store
from calotype.store.sqlite import SqliteStore
from harness import picture

NOW = 1_760_000_000_000
DEADLINE_MS = 600_000
ABANDON_MS = 4_200_000
PRICE = 60_000
CREDIT = 100 * PRICE
PICTURE = picture(size=(64, 48))
CHANNEL = Channel(id=10, slug="paid", name="Paid", provider="scripted", free=False)
FREE = msgspec.structs.replace(CHANNEL, free=True)
SOON = 0.001
"""Seconds; zero would take the runner's own, longer pauses."""

T = TypeVar("T")


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now

    def forward(self, milliseconds: int) -> None:
        self.now += milliseconds


@dataclass
class Source:
    """A finished image; with ``fault`` its stream breaks after the first bytes."""

    content: bytes = PICTURE
    fault: BaseException | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            half = len(self.content) // 2
            yield self.content[:half]
            if self.fault is not None:
                raise self.fault
            yield self.content[half:]

        yield chunks()


def done(*sources: ImageSource, cost: int | None = None) -> Done:
    """An upstream's image; one good one unless given."""
    return Done(sources or (Source(),), cost_micro_usdc=cost)


async def stopped(running: "asyncio.Task[Any]") -> None:
    """Cancel a run and see it end."""
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


Script = Sequence[T | BaseException | Callable[[], T]]
"""What happens at each call: an outcome, an exception to raise, or what makes the outcome."""


class Scripted:
    """An upstream that answers from a script and remembers what it was asked.

    Where a script ends, the upstream hangs; ``reached`` is set when it does.
    """

    def __init__(
        self,
        submits: Script[SubmitOutcome] = (),
        polls: Script[PollOutcome] = (),
        recovers: Script[RecoverOutcome] = (),
        *,
        free: bool = False,
        synchronous: bool = False,
    ) -> None:
        self.free = free
        self.synchronous = synchronous
        self.sent: list[Job] = []
        self.polled: list[str] = []
        self.reached = asyncio.Event()
        self.recovered: list[str] = []
        self._submits, self._polls, self._recovers = iter(submits), iter(polls), iter(recovers)

    async def submit(self, job: Job) -> SubmitOutcome:
        self.sent.append(job)
        return await self._next(next(self._submits, None))

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        assert job.task
        self.polled.append(upstream_id)
        return await self._next(next(self._polls, None))

    async def recover(self, job: Job) -> RecoverOutcome:
        self.recovered.append(job.reference)
        return await self._next(next(self._recovers, Unknown("It cannot be asked.")))

    async def cancel(self, job: Job, upstream_id: str) -> bool:
        assert job.task
        assert upstream_id
        return False

    def callback(self, headers: Mapping[str, str], body: bytes) -> str | None:
        assert headers
        return body.decode()

    async def close(self) -> None:
        pass

    async def _next(self, step: T | BaseException | Callable[[], T] | None) -> T:
        if step is None:
            self.reached.set()
            await asyncio.Event().wait()
        if isinstance(step, BaseException):
            raise step
        assert step is not None
        return step() if callable(step) else step


@dataclass
class Bench:
    """One account with credit, and runners over the same database and images."""

    store: SqliteStore
    disk: DiskAssets
    assets: Assets
    clock: Clock
    ids: IdSource
    fetcher: GuardedFetcher
    root: Path
    account_id: int
    catalog: Catalog = field(default_factory=cache(load_catalog))

    def runner(
        self,
        provider: Provider,
        *,
        store: Store | None = None,
        disk: DiskAssets | None = None,
        channel: Channel | None = CHANNEL,
    ) -> Runner:
        """A worker as a process has it that was just started."""
        assets = self.assets if disk is None else self.assets_in(disk)
        return Runner(
            store or self.store,
            self.catalog,
            Router(
                [channel] if channel else [],
                upstreams=self.catalog.upstreams,
                breakers=Breakers(),
                chance=random.Random(1),  # noqa: S311 -- no secret
                clock=self.clock,
            ),
            providers={CHANNEL.id: provider},
            assets=assets,
            references=ReferenceIntake(
                assets, self.fetcher, allow_hosts=frozenset({"127.0.0.1"}), clock=self.clock
            ),
            clock=self.clock,
        )

    def gateway(self, *channels: tuple[Channel, Provider]) -> "Gateway":
        """A worker with several channels."""
        moves: list[tuple[int, int]] = []
        breakers = Breakers()
        router = Router(
            [channel for channel, _ in channels],
            upstreams=self.catalog.upstreams,
            breakers=breakers,
            chance=random.Random(1),  # noqa: S311 -- no secret
            clock=self.clock,
        )
        runner = Runner(
            self.store,
            self.catalog,
            router,
            providers={channel.id: provider for channel, provider in channels},
            assets=self.assets,
            references=ReferenceIntake(
                self.assets, self.fetcher, allow_hosts=frozenset({"127.0.0.1"}), clock=self.clock
            ),
            clock=self.clock,
            links=Links(enqueue=lambda task, channel, _: moves.append((task, channel))),
        )
        return Gateway(self, runner, router, moves)

    def assets_in(self, disk: DiskAssets) -> Assets:
        return make_assets(disk, self.ids, self.clock)

    async def submitted(
        self,
        *,
        n: int = 1,
        price: int = PRICE,
        model: str = "gpt-image-2",
        references: Sequence[Reference] = (),
        uploads: Sequence[Asset] = (),
        pinned: int | None = None,
        allowed: tuple[int, ...] | None = None,
    ) -> int:
        """A new task that waits."""
        number = self.ids.next()
        new = NewTask(
            id=number,
            account_id=self.account_id,
            key_id=1,
            request_id=f"req_{number}",
            request=Request(
                model,
                "a lighthouse",
                n,
                {"aspect_ratio": "1:1", "resolution": "1K"},
                channel_id=pinned,
                channel_ids=allowed,
            ),
            references=tuple(references),
            uploads=tuple(uploads),
            channel_id=CHANNEL.id,
            price=price,
            deadline_at=self.clock.now + DEADLINE_MS,
            abandon_at=self.clock.now + ABANDON_MS,
            created_at=self.clock.now,
        )
        return (await self.store.submit(new)).task_id

    async def begun(self, task_id: int, *, upstream_id: str | None) -> None:
        """Leave the rows of a task as a process does that died in the middle."""
        taken = await self.store.take(task_id, now=self.clock.now)
        assert taken is not None
        number = await self.store.begin_attempt(
            taken.task, channel_id=CHANNEL.id, event=Event.QUEUE, now=self.clock.now
        )
        if upstream_id is not None:
            await self.store.accept_attempt(taken.task, number, upstream_id=upstream_id)

    async def ran(
        self, provider: Provider, *, channel: Channel = CHANNEL, task_id: int | None = None
    ) -> Task:
        """A task after a runner is through with it; a new one unless given."""
        number = await self.submitted() if task_id is None else task_id
        runner = self.runner(provider, channel=channel)
        while (later := await runner.run(number)) is not None:
            self.clock.forward(int(later * 1000))
        return await self.task(number)

    async def task(self, task_id: int) -> Task:
        task = await self.store.task(task_id)
        assert task is not None
        return task

    async def attempts(self, task_id: int) -> list[tuple[AttemptState, str | None]]:
        """State and upstream's id of each attempt; a closed one must say when it ended."""
        attempts = await self.store.attempts(task_id)
        assert all((each.finished_at is None) == (each.state in OPEN_ATTEMPT) for each in attempts)
        return [(each.state, each.upstream_id) for each in attempts]

    async def attempt(self, task_id: int) -> Attempt:
        (attempt,) = await self.store.attempts(task_id)
        return attempt

    def files(self) -> list[Path]:
        """Every file in the asset store, staged ones too."""
        files = (path for path in (self.root / "assets").rglob("*") if path.is_file())
        return sorted(path for path in files if path.name != "lock")

    async def assert_paid(self, task: Task, actual: int = PRICE) -> None:
        """Success: its images are there, and it was billed once."""
        assert (task.state, task.progress, task.error) == (State.SUCCESS, 100, None)
        assert (task.billing, task.actual) == (BillingStatus.COMMITTED, actual)
        assert task.released == task.reserved - actual
        stored = [await self.store.asset(image.asset_id) for image in task.result]
        assert stored
        for asset in stored:
            assert asset is not None
            assert len(self.disk.path(asset.key).read_bytes()) == asset.bytes
        await self.assert_balanced(CREDIT - actual)

    async def assert_released(self, task: Task, code: str) -> None:
        """Failure: nothing is stored, and nothing was billed."""
        assert task.state is State.FAIL
        assert task.error is not None
        assert task.error.code == code, task.error
        assert task.error.message
        assert (task.billing, task.actual, task.released) == (
            BillingStatus.RELEASED,
            0,
            task.reserved,
        )
        assert (task.result, self.files()) == ((), [])
        await self.assert_balanced(CREDIT)

    async def assert_balanced(self, balance: int) -> None:
        assert await self.store.balance(self.account_id) == Balance(balance=balance, reserved=0)
        assert await self.store.prove() == []


@dataclass
class Gateway:
    """A runner over several channels, and the queue between them."""

    bench: Bench
    runner: Runner
    router: Router
    moves: list[tuple[int, int]]
    """Task and channel of each move so far."""

    async def ran(self, task_id: int) -> Task:
        """A task after it went wherever it had to go."""
        while True:
            before = len(self.moves)
            later = await self.runner.run(task_id)
            if later is not None:
                self.bench.clock.forward(int(later * 1000))
            elif len(self.moves) == before:
                return await self.bench.task(task_id)


def make_assets(disk: DiskAssets, ids: IdSource, clock: Clock) -> Assets:
    """Without provenance: what the upstream made is what is stored, byte for byte."""
    return Assets(disk, secret=b"s" * 32, url_seconds=60, ids=ids, clock=clock, provenance=False)


@asynccontextmanager
async def opened_bench(root: Path) -> AsyncIterator[Bench]:
    """A bench over a fresh database and asset store."""
    clock = Clock()
    ids = IdSource(clock)
    store = SqliteStore(root / "calotype.db")
    await store.migrate()
    account = await store.open_account("ada", now=NOW)
    await store.book(account.id, EntryKind.CREDIT, CREDIT, note="", now=NOW)
    disk = DiskAssets(root / "assets")
    assets = make_assets(disk, ids, clock)
    fetcher = GuardedFetcher(frozenset({"127.0.0.1"}), max_bytes=10_000_000, timeout_seconds=5)
    try:
        yield Bench(store, disk, assets, clock, ids, fetcher, root, account.id)
    finally:
        await fetcher.close()
        await disk.close()
        await store.close()
