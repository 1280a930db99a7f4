"""One process's worker: its images, its upstreams, its queue and its runner."""

import asyncio
import fcntl
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import msgspec

from calotype.core import Core, asset_store_of, secret_of
from calotype.domain.channel import Channel
from calotype.domain.clock import Clock
from calotype.domain.errors import InvalidParameter, Unavailable
from calotype.domain.fairness import priority
from calotype.domain.task import Asset
from calotype.domain.urls import canonical_hosts, judge_reference_url
from calotype.domain.webhooks import Signer
from calotype.domain.wire import Upstream
from calotype.imaging.conversion import Converter
from calotype.imaging.signature import Signature, Unfit
from calotype.judging import check_here
from calotype.net.client import UpstreamClient
from calotype.net.fetcher import GuardedFetcher
from calotype.net.webhooks import WebhookClient
from calotype.observing.metrics import RECONCILED
from calotype.providers.kind import kind_of
from calotype.providers.line import Tools
from calotype.providers.port import Provider, Resident
from calotype.queue import EmbeddedQueue
from calotype.services import cancelling
from calotype.services.assets import UPSTREAM_SECONDS, Assets
from calotype.services.callbacks import TOPIC, unpacked
from calotype.services.deliverer import Deliverer
from calotype.services.delivery import Delivery
from calotype.services.prices import Prices
from calotype.services.references import ReferenceIntake
from calotype.services.running import Links, Runner
from calotype.services.thumbnails import Thumbnails
from calotype.settings import Settings, SettingsError
from calotype.store.port import SharedStore

if TYPE_CHECKING:
    from calotype.sharedqueue import SharedQueue

RECONCILE_SECONDS: Final = 10.0
CHECK_SECONDS: Final = 1.0
LAST_WEBHOOKS_SECONDS: Final = 5.0
"""How long a stopping worker waits for receivers; what is not taken is sent again."""
_PAGE: Final = 1000

log = logging.getLogger(__name__)


class Images:
    """What takes images in and keeps them."""

    def __init__(self, core: Core) -> None:
        settings = core.settings
        self.store = asset_store_of(settings)
        self.converter = Converter(settings.conversion_processes)
        self.thumbnails = Thumbnails(self.store, self.converter)
        self.assets = Assets(
            self.store,
            secret=secret_of(settings),
            url_seconds=settings.asset_url_seconds,
            ids=core.ids,
            clock=core.clock,
            provenance=settings.provenance,
            keep_upstream_metadata=settings.keep_upstream_metadata,
            base_url=settings.asset_base_url,
            converter=self.converter,
            signature=_signature(settings),
        )
        allowed = _allowed_hosts("reference_allow_hosts", settings.reference_allow_hosts)
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
        await self.thumbnails.close()
        await self.converter.close()
        await self.store.close()


class Upstreams:
    """What speaks to the upstreams of this process: one provider for each channel."""

    def __init__(self, core: Core) -> None:
        settings = core.settings
        spool = settings.data_dir / "spool"
        spool.mkdir(parents=True, exist_ok=True)
        self._client = UpstreamClient(
            spool,
            allow_hosts=_allowed_hosts("reference_allow_hosts", settings.reference_allow_hosts),
        )
        self._files = core.catalog.upstreams
        self._tools = Tools(
            client=self._client,
            clock=core.clock,
            models=core.catalog.models,
            data_dir=settings.data_dir,
            sandbox_seconds=settings.sandbox_seconds,
            sandbox_processes=settings.sandbox_processes,
        )
        self._made: list[Provider] = []
        self._loaded = False
        self._known: dict[int, tuple[Channel, Provider]] = {}
        self.providers: dict[int, Provider] = {}
        self.serve(core.router.channels)

    def serve(self, channels: Sequence[Channel]) -> list[int]:
        """Speak to these channels; all of them, or none of it has happened.

        One that changed gets a new provider, by which the jobs under way are asked for, too.

        Returns:
            The ids of those that are new or changed.

        Raises:
            SettingsError: a channel cannot be spoken to as it is configured.

        """
        made: dict[int, tuple[Channel, Provider]] = {}
        for channel in channels:
            known = self._known.get(channel.id)
            if known is not None and known[0] == channel:
                continue
            upstream = self._files.get(channel.provider) or Upstream()
            try:
                provider = kind_of(channel.provider).make(channel, upstream, self._tools)
            except (ValueError, msgspec.ValidationError) as error:
                raise SettingsError(f"channels: {channel.slug}: {error}") from error
            made[channel.id] = channel, provider
        self._known |= made
        for channel_id, (_, provider) in made.items():
            self._made.append(provider)
            self.providers[channel_id] = provider
        return list(made)

    def has_room(self) -> bool:
        """Whether ``check_room`` would be content without a look."""
        return self._client.has_room

    def work(self, channels: Sequence[Channel]) -> None:
        """Get ready to work for these channels; what others keep at hand for that may go."""
        wanted = [self.providers[channel.id] for channel in channels]
        for provider in self._made:
            if isinstance(provider, Resident):
                (provider.start if provider in wanted else provider.retire)()

    async def check_loaded(self) -> None:
        """Raise ``Unavailable`` while a channel gets ready that was there at the start.

        Once all have, those that come later are waited for by their own tasks alone.
        """
        if self._loaded:
            return
        for provider in self.providers.values():
            if isinstance(provider, Resident):
                provider.check()
        self._loaded = True

    async def check_room(self) -> None:
        """Raise ``Unavailable`` while there is no room for what upstreams answer."""
        await self._client.check_room()

    async def close(self) -> None:
        """Let go of connections and processes."""
        await asyncio.gather(*(provider.close() for provider in self._made))
        await self._client.close()


class Worker:
    """Queue, runner and sender of webhooks of this process.

    Args:
        core: what it works with.
        images: where images go.
        upstreams: what speaks to the channels.
        channels: slugs of the channels to work for; None is all.
        own_url: where the server of this process listens; empty where there is none.

    Raises:
        SettingsError: a channel does not exist, or another process works on this data folder.

    """

    def __init__(
        self,
        core: Core,
        images: Images,
        upstreams: Upstreams,
        *,
        channels: Sequence[str] | None = None,
        own_url: str = "",
    ) -> None:
        self._core = core
        self._slugs = channels
        self._channels = _chosen(core.router.channels, channels)
        check_here(self._channels, core.settings)
        self._upstreams = upstreams
        self._runner = Runner(
            core.store,
            core.catalog,
            core.router,
            providers=upstreams.providers,
            assets=images.assets,
            references=images.references,
            clock=core.clock,
            links=Links(
                enqueue=self.put,
                has_room=upstreams.has_room,
                check_room=upstreams.check_room,
                reference_url=partial(_public_url, images, core.settings),
                callback_url=partial(_callback_url, core.settings),
            ),
        )
        self._deliverer = _deliverer(core, images, own_url)
        self._unlisten: Callable[[], Awaitable[None]] | None = None
        self._served_orphans: set[int] = set()
        self._lock: IO[str] | None = None
        self._queue: EmbeddedQueue | SharedQueue | None = None
        self._reconciler: asyncio.Task[None] | None = None
        if not core.settings.shared_database:
            self._lock = _lock(core.settings.worker_lock_path)
            self._queue = EmbeddedQueue(self._runner.run, channels=self._channels)

    def put(self, task_id: int, channel_id: int, priority: int | None) -> None:
        """Tell the embedded queue of a task; a shared one was told by the store."""
        if isinstance(self._queue, EmbeddedQueue):
            self._queue.put(task_id, channel_id, priority)

    def nudge(self, channel_id: int, upstream_id: str) -> None:
        """Poll a job now, where it is followed here."""
        self._runner.nudge(channel_id, upstream_id)

    def look(self, task_id: int) -> None:
        """See at once whether a task that is developed here is to be stopped."""
        self._runner.look(task_id)

    def check_here(self, channels: Sequence[Channel], settings: Settings) -> None:
        """Raise ``SettingsError`` where those of these that it would serve cannot work here."""
        check_here(_chosen(channels, self._slugs, strict=False), settings)

    def reload(self) -> None:
        """Serve the channels that are in force by now; those that are gone are served out."""
        self._channels = _chosen(self._core.router.channels, self._slugs, strict=False)
        self._upstreams.work(self._channels)
        if self._queue is not None:
            self._queue.serve(self._channels)

    async def start(self) -> None:
        """Begin, with every task that an earlier process left unfinished."""
        self._upstreams.work(self._channels)
        if isinstance(self._queue, EmbeddedQueue):
            self._queue.start()
            await self._enqueue_unfinished()
        else:
            await self._start_shared()
        await self._deliverer.start()

    async def _start_shared(self) -> None:
        from calotype.sharedqueue import SharedQueue  # its library takes time and memory

        store = self._core.store
        if not isinstance(store, SharedStore):
            raise TypeError("only a shared store has a shared queue")
        self._unlisten = await store.listen(self._heard)
        self._queue = SharedQueue(
            self._runner.run,
            channels=self._channels,
            jobs=await store.open_jobs(),
            lease=timedelta(seconds=self._core.settings.worker_lease_seconds),
            limit=self._core.settings.worker_concurrency or None,
        )
        await self._serve_orphans()
        self._queue.start()
        self._reconciler = asyncio.create_task(
            _keep_reconciled(
                store,
                self._core.clock,
                prices=Prices(self._core.catalog, self._core.router),
                days=self._core.catalog.result_days_of,
                then=self._serve_orphans,
            )
        )

    async def _serve_orphans(self) -> None:
        """Take up tasks whose channel is gone from the configuration: they can go elsewhere."""
        if self._slugs is not None or self._queue is None:
            return
        known = {channel.id for channel in self._core.router.channels} | self._served_orphans
        left = set(await self._core.store.unfinished_channels()) - known
        self._queue.serve(
            [Channel(id=number, slug="", name="", provider="") for number in sorted(left)]
        )
        self._served_orphans |= left

    def _heard(self, topic: str, payload: str) -> None:
        if topic == TOPIC:
            self.nudge(*unpacked(payload))
        elif topic == cancelling.TOPIC:
            self.look(int(payload))

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
        seconds = self._core.settings.drain_seconds
        cut_off = await self._queue.stop(seconds) if self._queue else 0
        await self._deliverer.stop(min(seconds, LAST_WEBHOOKS_SECONDS))
        if self._unlisten is not None:
            await self._unlisten()
        if self._lock is not None:
            self._lock.close()
        log.info(
            "the worker has stopped: %d tasks finished or parked, %d cut off in mid-step",
            *(running - cut_off, cut_off),
        )


async def _public_url(images: Images, settings: Settings, asset: Asset) -> str | None:
    """A signed URL of a stored image that upstreams can fetch, where the world can reach it.

    One of the store's own, where it makes any: not every upstream follows redirects.
    """
    life = max(settings.asset_url_seconds, UPSTREAM_SECONDS)
    url = await images.store.signed_url(asset.key, seconds=life)
    if url is None:
        base = settings.public_url.rstrip("/")
        url = images.assets.upstream_url(asset, server=base)
    if not url.startswith("https://"):
        return None
    try:
        judge_reference_url(url, allow_hosts=frozenset())
    except InvalidParameter:
        return None
    return url


def _signature(settings: Settings) -> Signature | None:
    """With what results are signed.

    Raises:
        SettingsError: it cannot sign.

    """
    certificate, key = settings.c2pa_certificate, settings.c2pa_key
    if certificate is None and key is None:
        return None

    def where(subject: str) -> str:
        name = f"c2pa_{subject}"
        return settings.said_by.get(name, f"CALOTYPE_{name.upper()}")

    if certificate is None:
        raise SettingsError(f"{where('key')}: needs c2pa_certificate beside it.")
    if key is None:
        raise SettingsError(f"{where('certificate')}: needs c2pa_key beside it.")
    from calotype.imaging.signing import check  # its library takes time and memory

    signature = Signature(str(certificate), str(key))
    try:
        until = check(signature)
    except Unfit as unfit:
        raise SettingsError(f"{where(unfit.subject)}: {unfit}.") from None
    log.info("results are signed; the certificate is valid until %s", until.date())
    return signature


def _callback_url(settings: Settings, slug: str) -> str | None:
    base = settings.public_url.rstrip("/")
    return f"{base}/v1/callbacks/{slug}" if base else None


def images_at(settings: Settings, own_url: str) -> str:
    """What image URLs in webhooks begin with; the log says where no receiver elsewhere gets there.

    An address that stands for all of a machine's own is none to go to: this machine's stands there.
    """
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = own_url or f"http://{host}:{settings.port}"
    reached = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    if reached != url or not own_url:
        log.warning(
            "public_url is not set, so webhooks name images by an address of this machine alone"
        )
    return reached


def _deliverer(core: Core, images: Images, own_url: str) -> Deliverer:
    settings = core.settings
    return Deliverer(
        core.store,
        delivery=Delivery(
            core.store, core.catalog, core.router, assets=images.assets, clock=core.clock
        ),
        client=WebhookClient(webhook_hosts(settings)),
        signer=Signer(secret_of(settings)),
        base_url=images_at(settings, own_url),
        clock=core.clock,
    )


def webhook_hosts(settings: Settings) -> frozenset[str]:
    """The private hosts that webhooks may be sent to.

    Raises:
        SettingsError: one of them is no host.

    """
    return _allowed_hosts("webhook_allow_hosts", settings.webhook_allow_hosts)


def _allowed_hosts(name: str, hosts: Sequence[str]) -> frozenset[str]:
    try:
        return canonical_hosts(frozenset(hosts))
    except ValueError as error:
        raise SettingsError(
            f"CALOTYPE_{name.upper()}: {error}; write host names or addresses, each with a port "
            "or without one, separated by commas."
        ) from None


def _chosen(
    channels: Sequence[Channel], slugs: Sequence[str] | None, *, strict: bool = True
) -> list[Channel]:
    if slugs is None:
        return list(channels)
    known = {channel.slug: channel for channel in channels}
    for slug in slugs:
        if slug not in known and strict:
            raise SettingsError(
                f"--channels: there is no channel '{slug}'; there are {', '.join(known)}."
            )
    return [known[slug] for slug in slugs if slug in known]


async def _keep_reconciled(
    store: SharedStore,
    clock: Clock,
    *,
    prices: Prices,
    days: Callable[[str], int],
    then: Callable[[], Awaitable[None]],
) -> None:
    while True:
        try:
            await then()
            done = await store.reconcile(now=clock(), price=prices.of, days=days)
            if done is not None and done.anything:
                for action in ("enqueued", "dropped", "ended"):
                    RECONCILED.add(action, by=getattr(done, action))
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
