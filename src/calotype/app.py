"""The composition root: with ``core.py``, the only file that knows every part.

``build_app`` makes the server, ``run_worker`` a worker without one.
"""

import asyncio
import fcntl
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final

from starlette.types import ASGIApp

from calotype.api import application
from calotype.api.context import Context
from calotype.assets.disk import DiskAssets
from calotype.core import Core, secret_of
from calotype.domain.channel import Channel
from calotype.domain.clock import Clock
from calotype.domain.errors import Unavailable
from calotype.domain.fairness import priority
from calotype.domain.urls import canonical_hosts
from calotype.net.fetcher import GuardedFetcher
from calotype.providers.registry import PROVIDERS
from calotype.queue import EmbeddedQueue, SharedQueue
from calotype.services.assets import Assets
from calotype.services.delivery import Delivery
from calotype.services.references import ReferenceIntake
from calotype.services.running import Runner
from calotype.services.submission import Submission
from calotype.settings import Settings, SettingsError
from calotype.store.port import SharedStore

IDEMPOTENCY_KEPT_MS: Final = 48 * 3600 * 1000
"""Twice what the contract promises."""
HOUSEKEEPING_SECONDS: Final = 600.0
RECONCILE_SECONDS: Final = 10.0
CHECK_SECONDS: Final = 1.0
_PAGE: Final = 1000

log = logging.getLogger(__name__)


def build_app(core: Core, *, with_worker: bool) -> ASGIApp:
    """The server: API, and with it, unless told otherwise, queue and worker."""
    settings = core.settings
    images = _Images(core)
    worker = Worker(core, images) if with_worker else None
    context = Context(
        accounts=core.accounts,
        assets=images.assets,
        asset_store=images.disk,
        catalog=core.catalog,
        delivery=Delivery(
            core.store, core.catalog, core.router, assets=images.assets, clock=core.clock
        ),
        references=images.references,
        router=core.router,
        store=core.store,
        submission=Submission(
            core.store,
            core.catalog,
            core.router,
            assets=images.assets,
            enqueue=worker.put if worker else _nobody,
            ids=core.ids,
            clock=core.clock,
        ),
        public_url=settings.public_url,
    )

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        await core.store.prepare()
        await images.disk.sweep()
        housekeeper = asyncio.create_task(_keep_house(core))
        if worker:
            await worker.start()
        try:
            yield
        finally:
            housekeeper.cancel()
            if worker:
                await worker.stop()
            await images.close()
            await core.store.close()

    checks = {"database": core.store.ping, "assets": images.disk.ping}
    if worker:
        checks["queue"] = worker.check
    return application.build(context, checks=checks, lifespan=lifespan)


def _allowed_hosts(settings: Settings) -> frozenset[str]:
    try:
        return canonical_hosts(frozenset(settings.reference_allow_hosts))
    except ValueError as error:
        raise SettingsError(
            f"CALOTYPE_REFERENCE_ALLOW_HOSTS: {error}; write host names or addresses, "
            "separated by commas."
        ) from None


def _nobody(_task_id: int, _channel_id: int, _priority: int) -> None:
    """Without a worker nobody is told; the next start with one finds the task."""


class _Images:
    """What takes images in and keeps them."""

    def __init__(self, core: Core) -> None:
        settings = core.settings
        self.disk = DiskAssets(settings.data_dir / "assets")
        self.assets = Assets(
            self.disk,
            secret=secret_of(settings),
            url_seconds=settings.asset_url_seconds,
            ids=core.ids,
            clock=core.clock,
        )
        allowed = _allowed_hosts(settings)
        self.fetcher = GuardedFetcher(
            allowed,
            max_bytes=max(model.references.max_bytes for model in core.catalog.models.values()),
            timeout_seconds=settings.reference_timeout_seconds,
        )
        self.references = ReferenceIntake(
            self.assets, self.fetcher, allow_hosts=allowed, clock=core.clock
        )

    async def close(self) -> None:
        """Let go of connections and of the staging folder."""
        await self.fetcher.close()
        self.disk.close()


class Worker:
    """Queue and runner of this process.

    Args:
        core: what it works with.
        images: where images go.
        channels: slugs of the channels to work for; None is all.

    Raises:
        SettingsError: a channel does not exist, or another process works on this data folder.

    """

    def __init__(
        self, core: Core, images: _Images, *, channels: Sequence[str] | None = None
    ) -> None:
        self._core = core
        self._channels = _chosen(core.router.channels, channels)
        self._providers = {
            channel.id: PROVIDERS[channel.provider](channel, core.settings, core.clock)
            for channel in core.router.channels
        }
        self._runner = Runner(
            core.store,
            core.catalog,
            core.router,
            providers=self._providers,
            assets=images.assets,
            references=images.references,
            clock=core.clock,
        )
        self._lock: IO[str] | None = None
        self._queue: EmbeddedQueue | SharedQueue | None = None
        self._reconciler: asyncio.Task[None] | None = None
        if not core.settings.shared_database:
            self._lock = _lock(core.settings.worker_lock_path)
            self._queue = EmbeddedQueue(self._runner.run, channels=self._channels)

    def put(self, task_id: int, channel_id: int, priority: int) -> None:
        """Tell the embedded queue of a task; a shared one was told by the store."""
        if isinstance(self._queue, EmbeddedQueue):
            self._queue.put(task_id, channel_id, priority)

    async def start(self) -> None:
        """Begin, with every task that an earlier process left unfinished."""
        if isinstance(self._queue, EmbeddedQueue):
            self._queue.start()
            await self._enqueue_unfinished()
        else:
            await self._start_shared()

    async def _start_shared(self) -> None:
        store = self._core.store
        if not isinstance(store, SharedStore):
            raise TypeError("only a shared store has a shared queue")
        self._queue = SharedQueue(
            self._runner.run,
            channels=self._channels,
            jobs=await store.open_jobs(),
            lease=timedelta(seconds=self._core.settings.worker_lease_seconds),
            limit=self._core.settings.worker_concurrency or None,
        )
        self._queue.start()
        self._reconciler = asyncio.create_task(_keep_reconciled(store, self._core.clock))

    async def _enqueue_unfinished(self) -> None:
        after, found = 0, 0
        backlogs: Counter[int] = Counter()
        while page := await self._core.store.unfinished(after=after, limit=_PAGE):
            for one in page:
                known = self._core.router.get(one.channel_id) is not None
                self.put(
                    one.task_id,
                    one.channel_id if known else self._core.router.channels[0].id,
                    priority(submitted_at=one.created_at, backlog=backlogs[one.account_id]),
                )
                backlogs[one.account_id] += 1
            after, found = page[-1].task_id, found + len(page)
        if found:
            log.info("going on with %d unfinished tasks", found)

    async def check(self) -> None:
        """Raise when tasks are not being handed out."""
        if self._queue is None or not self._queue.alive:
            raise Unavailable("The queue has stopped.", retry_after=5)

    async def until(self, stop: asyncio.Event) -> None:
        """Wait for ``stop``.

        Raises:
            Unavailable: the queue has stopped on its own.

        """
        while not stop.is_set():
            await self.check()
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await stop.wait()

    async def stop(self) -> None:
        """Park what can be parked, wait for the rest within the limit."""
        if self._reconciler is not None:
            self._reconciler.cancel()
        self._runner.park()
        running = self._queue.running if self._queue else 0
        log.info("stopping with %d tasks in this process", running)
        cut_off = await self._queue.stop(self._core.settings.drain_seconds) if self._queue else 0
        for provider in self._providers.values():
            await provider.close()
        if self._lock is not None:
            self._lock.close()
        log.info(
            "the worker has stopped: %d tasks finished or parked, %d cut off in mid-step",
            *(running - cut_off, cut_off),
        )


async def run_worker(core: Core, *, channels: Sequence[str] | None, stop: asyncio.Event) -> None:
    """A worker without an API, until told to stop.

    Raises:
        SettingsError: the database is not shared, or a channel does not exist.
        Unavailable: the queue has stopped on its own; a supervisor is to start another worker.

    """
    if not core.settings.shared_database:
        raise SettingsError(
            "CALOTYPE_DATABASE_URL: a worker of its own needs PostgreSQL; with the embedded "
            "database the server is the worker."
        )
    await core.store.prepare()
    images = _Images(core)
    await images.disk.sweep()
    worker = Worker(core, images, channels=channels)
    await worker.start()
    log.info("the worker has begun")
    try:
        await worker.until(stop)
    finally:
        await worker.stop()
        await images.close()
        await core.store.close()


def _chosen(channels: Sequence[Channel], slugs: Sequence[str] | None) -> list[Channel]:
    if slugs is None:
        return list(channels)
    known = {channel.slug: channel for channel in channels}
    for slug in slugs:
        if slug not in known:
            raise SettingsError(
                f"--channels: there is no channel '{slug}'; there are {', '.join(known)}."
            )
    return [known[slug] for slug in slugs]


async def _keep_reconciled(store: SharedStore, clock: Clock) -> None:
    while True:
        try:
            done = await store.reconcile(now=clock())
            if done is not None and done.anything:
                log.warning(
                    "reconciled: %d jobs made anew, %d dropped, %d overdue tasks ended",
                    *(done.enqueued, done.dropped, done.ended),
                )
        except Unavailable:
            log.warning("reconciliation has to wait: the database does not answer")
        except Exception:
            log.exception("reconciliation broke; it is tried again")
        await asyncio.sleep(RECONCILE_SECONDS)


def _lock(path: Path) -> IO[str]:
    """Hold the data folder's only worker's place; the system gives it back however we end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise SettingsError(
            f"{path}: another server develops tasks in this data folder; stop it, "
            "or start this one with --no-worker."
        ) from None
    return file


async def _keep_house(core: Core) -> None:
    while True:
        try:
            before = core.clock() - IDEMPOTENCY_KEPT_MS
            while await core.store.forget_idempotency_keys(before=before):
                pass
        except Unavailable:
            log.warning("housekeeping has to wait: the database does not answer")
        except Exception:
            log.exception("housekeeping broke; it is tried again later")
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
