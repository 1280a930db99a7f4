"""``/metrics`` for Prometheus, on a port of its own, in servers and workers alike.

It asks for no key, so it listens on loopback unless the operator says otherwise.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import uvicorn
from prometheus_client import exposition, gc_collector, metrics_core, process_collector, registry
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

import calotype
from calotype.domain.clock import Clock
from calotype.domain.health import WHOLE
from calotype.observing.metrics import COUNTS, DURATIONS, Count, Durations, Labels
from calotype.services.gauges import Gauges, Standings
from calotype.services.routing import Router
from calotype.settings import Settings, SettingsError
from calotype.store.port import Store

PATH: Final = "/metrics"
CLOSED, HALF_OPEN, OPEN = 0, 1, 2

Family = metrics_core.Metric

log = logging.getLogger(__name__)


class Exposition:
    """The ASGI application that answers ``GET /metrics``."""

    def __init__(self, store: Store, router: Router, *, clock: Clock) -> None:
        self._router = router
        self._clock = clock
        self._gauges = Gauges(store, clock=clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            raise RuntimeError("only HTTP is spoken here")
        answer = await self._answer(Request(scope))
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.url.path != PATH:
            return PlainTextResponse(f"There is only {PATH} here.\n", 404)
        if request.method not in {"GET", "HEAD"}:
            return PlainTextResponse("GET reads.\n", 405, {"allow": "GET, HEAD"})
        encode, kind = exposition.choose_encoder(request.headers.get("accept", ""))
        return Response(encode(await self.registry()), headers={"content-type": kind})

    async def registry(self) -> registry.CollectorRegistry:
        """All that there is to show now."""
        found = await self._gauges.standings()
        if found is None:
            log.warning("metrics go without what the database knows: it does not answer")
        shown = registry.CollectorRegistry()
        process_collector.ProcessCollector(registry=shown)
        gc_collector.GCCollector(registry=shown)
        shown.register(_Families([*self._counted(), *self._standing(found)]))
        return shown

    def _counted(self) -> Iterator[Family]:
        for count in COUNTS:
            yield self._count(count)
        for durations in DURATIONS:
            yield self._durations(durations)

    def _count(self, count: Count) -> Family:
        kind = (
            metrics_core.GaugeMetricFamily if count.goes_down else metrics_core.CounterMetricFamily
        )
        family = kind(count.name, count.text, labels=count.labels)
        for labels, value in list(count.values.items()):
            family.add_metric(self._words(count.labels, labels), value)
        return family

    def _durations(self, durations: Durations) -> Family:
        family = metrics_core.HistogramMetricFamily(
            durations.name, durations.text, labels=durations.labels
        )
        ends = [*(f"{bound:g}" for bound in durations.bounds), "+Inf"]
        for labels, spread in list(durations.spreads.items()):
            below, buckets = 0, []
            for end, number in zip(ends, spread.counts, strict=True):
                below += number
                buckets.append((end, below))
            family.add_metric(self._words(durations.labels, labels), buckets, spread.total)
        return family

    def _words(self, names: Sequence[str], labels: Labels) -> list[str]:
        """Labels as they are shown: a channel by its slug."""
        return [
            self._slug(int(label)) if name == "channel" else str(label)
            for name, label in zip(names, labels, strict=True)
        ]

    def _slug(self, channel_id: int) -> str:
        channel = self._router.get(channel_id)
        return str(channel_id) if channel is None else channel.slug

    def _standing(self, found: Standings | None) -> Iterator[Family]:
        yield _gauge("info", "Which version runs.", ["version"], [([calotype.__version__], 1)])
        yield self._breakers()
        yield _gauge("database_up", "Whether the database answered.", [], [([], found is not None)])
        if found is None:
            return
        depths, totals = found.depths, found.totals
        slugs = {one.channel_id: self._slug(one.channel_id) for one in depths}
        slugs |= {channel.id: channel.slug for channel in self._router.channels}
        known = {one.channel_id: one for one in depths}
        yield _gauge(
            "queue_tasks",
            "Tasks that are not final, by the channel whose turn it is.",
            ["channel", "state"],
            [
                ([slug, state], getattr(known.get(number), state, 0))
                for number, slug in slugs.items()
                for state in ("waiting", "queuing", "generating")
            ],
        )
        yield _gauge(
            "queue_oldest_seconds",
            "How long ago the oldest task was accepted that is not final; 0 without any.",
            ["channel"],
            [
                ([slug], (found.at - known[number].oldest_at) / 1000 if number in known else 0)
                for number, slug in slugs.items()
            ],
        )
        for name, text, value in (
            ("ledger_balance_micro_usdc", "What all accounts have.", totals.balance),
            ("ledger_reserved_micro_usdc", "What of it is reserved for tasks.", totals.reserved),
            (
                "unknown_outcomes",
                "Attempts that nobody has settled; 10000 at most.",
                totals.unknown,
            ),
            ("webhooks_pending", "Webhooks to be delivered; 10000 at most.", totals.webhooks),
        ):
            yield _gauge(name, text, [], [([], value)])

    def _breakers(self) -> Family:
        now = self._clock()
        values = {(channel.id, WHOLE): CLOSED for channel in self._router.channels}
        for one in self._router.breakers.open():
            values[one.channel_id, one.model] = OPEN if now < one.until else HALF_OPEN
        return _gauge(
            "breaker_state",
            "0: closed, 1: half-open, 2: open; without a model, of the whole channel.",
            ["channel", "model"],
            [([self._slug(number), model], value) for (number, model), value in values.items()],
        )


class _Families(registry.Collector):
    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        """What was made."""
        yield from self._families


def _gauge(
    name: str, text: str, labels: Sequence[str], values: Sequence[tuple[Sequence[str], float]]
) -> Family:
    family = metrics_core.GaugeMetricFamily(f"calotype_{name}", text, labels=labels)
    for words, value in values:
        family.add_metric(words, value)
    return family


@asynccontextmanager
async def shown(
    settings: Settings, store: Store, router: Router, *, clock: Clock
) -> AsyncIterator[str]:
    """While entered, metrics are shown; gives their URL.

    Raises:
        SettingsError: the address cannot be listened on.

    """
    host, port = settings.metrics_host, settings.metrics_port
    app = Exposition(store, router, clock=clock)
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, ws="none")
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            lambda: HttpToolsProtocol(config, state, {}), host, port or 0
        )
    except OSError as error:
        raise SettingsError(
            f"CALOTYPE_METRICS_HOST, CALOTYPE_METRICS_PORT: cannot listen on {host}:{port} "
            f"({error.strerror}); free the port or choose another."
        ) from error
    bound = server.sockets[0].getsockname()[1]
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{bound}{PATH}"
    log.info("metrics are shown at %s", url)
    try:
        yield url
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        await server.wait_closed()
