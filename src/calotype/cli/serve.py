"""``calotype serve``: the server process."""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import uvicorn
import uvloop

from calotype.api.protocol import Protocol
from calotype.app import build_app, run_worker
from calotype.cli.faults import FAILED
from calotype.core import Core, asset_store_of, prepare_assets, secret_of
from calotype.observing import tracing
from calotype.settings import Settings, SettingsError

_BACKLOG = 2048
_MANY_FILES = 10_240
KEEP_ALIVE_SECONDS = 75
"""How long a connection may be idle between two requests: longer than most clients and load
balancers keep one (60 s), as a request that meets its end is lost."""
_GC_THRESHOLDS = (20_000, 10, 100)
"""By default new objects are looked at after 700, and all after 70,000. 500 tasks in flight have
50,000, none of them garbage; with 2,000 in place of the 20,000 that cost 0.3 ms of each task."""
OPEN_REQUEST_SECONDS = 5
"""How long a stopping server waits for requests that are under way, before it drains tasks."""
LAST_SECONDS = 15
"""What a process that is told to stop has besides twice ``drain_seconds``; then it just ends."""

log = logging.getLogger(__name__)


def serve(core: Core, *, with_worker: bool) -> None:
    """Serve until told to stop; SIGTERM and Ctrl-C end it cleanly.

    Raises:
        SettingsError: the address cannot be listened on.
        StoreError: the database cannot be used.

    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    _allow_files()
    secret_of(core.settings)  # a bad secret is refused before anything is opened
    uvloop.run(_serve(core, with_worker=with_worker))


def work(core: Core, *, channels: Sequence[str] | None) -> None:
    """Work until told to stop; SIGTERM and Ctrl-C end it cleanly.

    Raises:
        SettingsError: the database is not shared, or a channel does not exist.
        StoreError: the database cannot be used.

    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    _allow_files()
    secret_of(core.settings)

    async def until_stopped() -> None:
        stop = asyncio.Event()

        def told() -> None:
            if not stop.is_set():
                _end_in_time(core.settings)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told)
        _spare_what_stays()
        async with _observed(core):
            await run_worker(core, channels=channels, stop=stop)

    uvloop.run(until_stopped())


def _end_in_time(settings: Settings) -> None:
    """Have a process that is to stop end in time, also where a database takes all and says nothing.

    It ends as if it were killed, which loses nothing that was accepted.
    """
    seconds = 2 * settings.drain_seconds + LAST_SECONDS
    timer = threading.Timer(seconds, _give_up, [seconds])
    timer.daemon = True
    timer.start()


def _give_up(seconds: float) -> None:
    log.critical(
        "not stopped after %g s, as where the database does not answer: ends as if it were killed",
        seconds,
    )
    os._exit(FAILED)


def _allow_files() -> None:
    """Open as many files and connections as the system lets this process.

    What it may open without asking is 1024 by default, and each client that waits is one.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (most, _MANY_FILES):  # macOS says that there is no limit, and refuses that
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
            return


async def _serve(core: Core, *, with_worker: bool) -> None:
    settings = core.settings
    await core.store.prepare()
    await _try_assets(core)
    listener = _listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    app = build_app(core, with_worker=with_worker, listens_on=url)
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # behind a proxy, public_url says how clients reach us
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=OPEN_REQUEST_SECONDS,
    )
    server = _Server(config, url=url, hurry=app.hurry, settings=settings)
    # uvicorn raises the signal that stopped it once more at its end; here that ends nothing.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    async with _observed(core):
        await server.serve(sockets=[listener])
    if not server.started:
        sys.exit(1)


@asynccontextmanager
async def _observed(core: Core) -> AsyncIterator[None]:
    """While entered, the process shows its metrics and sends its traces, where that is wanted.

    Raises:
        SettingsError: it cannot.

    """
    settings = core.settings
    if settings.otlp_endpoint:
        _trace(settings)
    try:
        if settings.metrics_port is None:
            yield
            return
        from calotype.api.metrics import shown  # its library takes time and memory

        async with shown(settings, core.store, core.router, clock=core.clock):
            yield
    finally:
        await asyncio.to_thread(tracing.stop)


def _trace(settings: Settings) -> None:
    try:
        tracing.start(settings.otlp_endpoint)
    except ImportError as error:
        where = settings.said_by.get("otlp_endpoint", "CALOTYPE_OTLP_ENDPOINT")
        raise SettingsError(
            f"{where}: tracing needs OpenTelemetry; install calotype[tracing]."
        ) from error


async def _try_assets(core: Core) -> None:
    """Refuse to start with a store of images that cannot be used."""
    store = asset_store_of(core.settings)
    try:
        await prepare_assets(core.settings, store)
    finally:
        await store.close()


class _Server(uvicorn.Server):
    """Says where it listens once it does, and lets nobody wait when it stops."""

    def __init__(
        self, config: uvicorn.Config, *, url: str, hurry: Callable[[], None], settings: Settings
    ) -> None:
        super().__init__(config)
        self._url = url
        self._hurry = hurry
        self._settings = settings

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _end_in_time(self._settings)
        self._hurry()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _spare_what_stays()
            ways = f"console: {self._url}/console, docs: {self._url}/docs"
            print(f"Calotype listens on {self._url} ({ways})", flush=True)


def _spare_what_stays() -> None:
    """Have the garbage collector look rarely at all there is, and never at what was there already.

    With 4,000 tasks in flight a full collection stops everything for 0.4 s. None is made here,
    either: it would take a tenth of the start, and hardly finds anything.
    """
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    gc.enable()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"CALOTYPE_HOST, CALOTYPE_PORT: cannot listen on {host}:{port} "
            f"({error.strerror}); free the port or choose another."
        ) from error
