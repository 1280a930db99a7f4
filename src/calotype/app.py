"""The composition root: with ``core.py`` and ``worker.py``, the only file that knows every part.

``build_app`` makes the server, ``run_worker`` a worker without one.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Final

from calotype.api import application
from calotype.api.context import Context
from calotype.api.edge import Edge
from calotype.console import routes as console_routes
from calotype.console.context import Console
from calotype.console.errors import ErrorPages
from calotype.console.render import Renderer
from calotype.console.sessions import Sessions
from calotype.console.throttle import Throttle
from calotype.core import Core, channels_of, prepare_assets, secret_of
from calotype.domain.errors import Unavailable
from calotype.domain.limits import AccountLimits
from calotype.domain.webhooks import Signer
from calotype.services import cancelling
from calotype.services.callbacks import TOPIC, Callbacks, packed
from calotype.services.cancelling import Cancelling
from calotype.services.deleting import Deleting
from calotype.services.delivery import Delivery
from calotype.services.feed import Feed
from calotype.services.files import Files
from calotype.services.health import HealthKeeper, keep_fresh
from calotype.services.signin import Links
from calotype.services.submission import Submission
from calotype.services.thumbnails import Thumbnails
from calotype.services.usage import Usage
from calotype.services.watching import Watching
from calotype.services.webhooks import Webhooks
from calotype.settings import SettingsError
from calotype.store.port import SharedStore
from calotype.worker import Images, Upstreams, Worker, webhook_hosts

IDEMPOTENCY_KEPT_MS: Final = 48 * 3600 * 1000
"""Twice what the contract promises."""
CHANNEL_EVENTS_KEPT_MS: Final = 30 * 24 * 3600 * 1000
HOUSEKEEPING_SECONDS: Final = 600.0
EXPIRY_SECONDS: Final = 60.0
"""How late the files of an image go whose time is over; it is not shown from then on."""
KEYS_NOTED_SECONDS: Final = 30.0
"""How late it may be told that a key was used."""

log = logging.getLogger(__name__)


def build_app(core: Core, *, with_worker: bool, listens_on: str = "") -> Edge:
    """The server: API, and with it, unless told otherwise, queue and worker.

    Args:
        core: what it works with.
        with_worker: whether tasks are developed and webhooks sent in this process.
        listens_on: the server's own URL; webhooks name it where no public one is set.

    """
    settings = core.settings
    images, upstreams, feed = Images(core), Upstreams(core), Feed(core.store)
    worker = Worker(core, images, upstreams, own_url=listens_on) if with_worker else None
    webhooks = Webhooks(
        core.store,
        signer=Signer(secret_of(settings)),
        allow_hosts=webhook_hosts(settings),
        clock=core.clock,
    )
    deleting = Deleting(core.store, images.store, clock=core.clock)
    context = Context(
        accounts=core.accounts,
        assets=images.assets,
        asset_store=images.store,
        callbacks=Callbacks(core.router, upstreams.providers, tell=_teller(core, worker)),
        cancelling=Cancelling(core.store, tell=_canceller(core, worker), clock=core.clock),
        catalog=core.catalog,
        deleting=deleting,
        delivery=Delivery(
            core.store, core.catalog, core.router, assets=images.assets, clock=core.clock
        ),
        feed=feed,
        files=Files(
            core.store,
            images.assets,
            deleting=deleting,
            reference_days=core.catalog.reference_days,
            clock=core.clock,
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
            judge_callback=webhooks.judge,
            ids=core.ids,
            clock=core.clock,
            limits=AccountLimits(settings.account_tasks, settings.account_per_minute),
        ),
        thumbnails=images.thumbnails,
        webhooks=webhooks,
        public_url=settings.public_url,
    )

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        await core.store.prepare()
        await images.store.sweep()
        if not settings.shared_database:  # whatever was wrong may have been mended meanwhile
            await _keeper(core).forget({each.channel_id for each in await core.store.health()})
        core.switches.watch(built.refresh)
        await core.switches.refresh()
        try:
            with (
                _reloading(core, upstreams, worker, shown=built.refresh),
                _housekeeping(core, deleting),
            ):
                if worker:
                    await worker.start()
                try:
                    yield
                finally:
                    if worker:
                        await worker.stop()
        finally:
            await feed.close()
            await _note_keys(core)
            await upstreams.close()
            await images.close()
            await core.store.close()

    checks = {"database": core.store.ping, "assets": images.store.ping}
    if worker:
        checks["queue"] = worker.check
        checks["channels"] = upstreams.check_loaded
    console = _console(core, context, images.thumbnails)
    built = application.build(
        context,
        checks=checks,
        lifespan=lifespan,
        console=console_routes.routes(console),
        error_pages=ErrorPages(console.render),
        client_seconds=settings.client_seconds,
    )
    return built.asgi


@contextmanager
def _housekeeping(core: Core, deleting: Deleting) -> Iterator[None]:
    """While entered, what is to be done again and again is done."""
    house, expiry = HOUSEKEEPING_SECONDS, EXPIRY_SECONDS
    works = (
        keep_fresh(_keeper(core).refresh, core.switches.refresh),
        _keep_noting_keys(core),
        _again(partial(_forget, core), seconds=house, name="forgetting what is old"),
        # Apart from the rest, which no asset store is to hold up.
        _again(deleting.finish, seconds=house, name="removing deleted images"),
        _again(deleting.expire, seconds=expiry, name="removing images whose time is over"),
    )
    keepers = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for keeper in keepers:
            keeper.cancel()


def _console(core: Core, context: Context, thumbnails: Thumbnails) -> Console:
    """The pages, over the services that the API uses."""
    secret, settings = secret_of(core.settings), core.settings
    sessions = Sessions(secret, settings=settings, store=core.store, clock=core.clock)
    return Console(
        settings=settings,
        catalog=core.catalog,
        router=core.router,
        store=core.store,
        accounts=core.accounts,
        assets=context.assets,
        asset_store=context.asset_store,
        cancelling=context.cancelling,
        deleting=context.deleting,
        delivery=context.delivery,
        feed=context.feed,
        references=context.references,
        submission=context.submission,
        thumbnails=thumbnails,
        webhooks=context.webhooks,
        audit=core.audit,
        operating=core.operating,
        watching=Watching(core.store, core.catalog, core.router, clock=core.clock),
        usage=Usage(core.store, core.router, clock=core.clock),
        links=Links(secret, core.clock),
        clock=core.clock,
        render=Renderer(sessions, clock=core.clock),
        sessions=sessions,
        throttle=Throttle(),
    )


def _nobody(_task_id: int, _channel_id: int, _priority: int) -> None:
    """Without a worker nobody is told; the next start with one finds the task."""


def _keeper(core: Core) -> HealthKeeper:
    return HealthKeeper(core.store, core.router.breakers, clock=core.clock)


def _teller(core: Core, worker: Worker | None) -> Callable[[int, str], Awaitable[None]]:
    """How the follower of a job is told that its upstream called."""

    async def tell(channel_id: int, upstream_id: str) -> None:
        if isinstance(core.store, SharedStore):
            await core.store.publish(TOPIC, packed(channel_id, upstream_id))
        elif worker is not None:
            worker.nudge(channel_id, upstream_id)

    return tell


def _canceller(core: Core, worker: Worker | None) -> Callable[[int], Awaitable[None]]:
    """How whoever develops a task is told that its client gave it up."""

    async def tell(task_id: int) -> None:
        if isinstance(core.store, SharedStore):
            await core.store.publish(cancelling.TOPIC, str(task_id))
        elif worker is not None:
            worker.look(task_id)

    return tell


@contextmanager
def _reloading(
    core: Core,
    upstreams: Upstreams,
    worker: Worker | None,
    *,
    shown: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """While entered, SIGHUP puts the channels of the configuration in force anew."""
    health, forgetting = _keeper(core), set[asyncio.Task[None]]()

    def reload() -> None:
        try:
            settings = core.settings.reloaded()
            channels = channels_of(settings, core.catalog)
            if worker is not None:
                worker.check_here(channels, settings)
            changed = upstreams.serve(channels)
        except SettingsError as error:
            log.error("the channels stay as they were: %s", error)  # noqa: TRY400 -- it says all
            return
        core.router.replace(channels)
        if worker is not None:
            worker.reload()
        shown()
        task = asyncio.create_task(health.forget(changed))
        forgetting.add(task)
        task.add_done_callback(forgetting.discard)
        log.info("channels in force: %s", ", ".join(channel.slug for channel in channels))

    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGHUP)
    with suppress(ValueError, RuntimeError):  # only the main thread may listen for signals
        loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        with suppress(ValueError, RuntimeError):
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, before)


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
    images, upstreams = Images(core), Upstreams(core)
    await prepare_assets(core.settings, images.store)
    await images.store.sweep()
    await core.switches.refresh()
    worker = Worker(core, images, upstreams, channels=channels)
    keeper = asyncio.create_task(keep_fresh(_keeper(core).refresh, core.switches.refresh))
    try:
        with _reloading(core, upstreams, worker):
            await worker.start()
            log.info("the worker has begun")
            try:
                await worker.until(stop)
            finally:
                await worker.stop()
    finally:
        keeper.cancel()
        await upstreams.close()
        await images.close()
        await core.store.close()


async def _again(work: Callable[[], Awaitable[object]], *, seconds: float, name: str) -> None:
    """Do a piece of the housekeeping now and every so often, whatever becomes of it."""
    while True:
        try:
            await work()
        except Unavailable as error:
            log.warning("%s has to wait: %s", name, error)
        except Exception:
            log.exception("%s broke; it is tried again later", name)
        await asyncio.sleep(seconds)


async def _forget(core: Core) -> None:
    """Drop what is kept for a while only."""
    before = core.clock() - IDEMPOTENCY_KEPT_MS
    while await core.store.forget_idempotency_keys(before=before):
        pass
    before = core.clock() - CHANNEL_EVENTS_KEPT_MS
    while await core.store.forget_channel_events(before=before):
        pass


async def _keep_noting_keys(core: Core) -> None:
    while True:
        await asyncio.sleep(KEYS_NOTED_SECONDS)
        await _note_keys(core)


async def _note_keys(core: Core) -> None:
    try:
        await core.accounts.note_used()
    except Unavailable:
        log.warning("when keys were last used is written later: the database does not answer")
    except Exception:
        log.exception("when keys were last used cannot be written; it is tried again later")
