"""/console/operator: what needs the operator, and how the server does; /console/operator/queue."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, operator_page
from calotype.console.charts import success_of
from calotype.console.context import Console
from calotype.console.filters import day, duration, percent, size, usd
from calotype.console.query import asked
from calotype.domain.health import WHOLE
from calotype.domain.limits import DAY_MS
from calotype.services.usage import date_of
from calotype.services.watching import LEAST_FREE, LITTLE_FREE, ChannelStanding, free_bytes
from calotype.store.operating import FIGURED, QueueDepth
from calotype.store.usage import Tally

OVERVIEW: Final = "/console/operator"
QUEUE: Final = f"{OVERVIEW}/queue"
CHANNELS: Final = f"{OVERVIEW}/channels"
UNKNOWN: Final = f"{OVERVIEW}/unknown"
DAYS: Final = 14
"""Days of the chart."""
LONG_MS: Final = 10 * 60_000
"""A task that has not ended for so long needs a look."""
_COUNTED: Final = 100
_NAMED: Final = 4


class Concern(msgspec.Struct, frozen=True, kw_only=True):
    """Something that needs the operator."""

    tone: str
    title: str
    text: str
    path: str = ""


class Line(msgspec.Struct, frozen=True):
    """What waits for a channel."""

    depth: QueueDepth
    slug: str
    """Empty for one that is not configured any more."""
    name: str
    concurrency: int
    """0: no limit."""


def routes(console: Console) -> list[Route]:
    """The routes of this group."""
    pages = _Overview(console)
    return [
        Route(OVERVIEW, operator_page(console, pages.overview)),
        Route(QUEUE, operator_page(console, pages.queue)),
    ]


class _Overview:
    def __init__(self, console: Console) -> None:
        self._console = console

    async def overview(self, request: Request, _visitor: Visitor) -> Response:
        """What needs the operator first, then today in figures."""
        asked(request)
        console, now = self._console, self._console.clock()
        today = now // DAY_MS
        found = await console.store.usage.totals(
            "day", account_id=None, first_day=today - DAYS + 1, last_day=today
        )
        tallies = {int(number): tally for number, tally in found}
        depths = await console.store.operating.depth()
        return console.render.page(
            request,
            "operator/overview.html",
            fragment="operator/_now.html",
            concerns=await self._concerns(depths, now),
            tiles=_tiles(tallies, depths, today),
            lines=self._lines(depths),
            busy=bool(tallies),
            bars=[
                _bar(number, tallies.get(number, Tally()))
                for number in range(today - DAYS + 1, today + 1)
            ],
        )

    async def queue(self, request: Request, _visitor: Visitor) -> Response:
        """What waits, by channel."""
        asked(request)
        depths = await self._console.store.operating.depth()
        return self._console.render.page(
            request,
            "operator/queue.html",
            fragment="operator/_queue.html",
            lines=self._lines(depths),
            waiting=sum(one.waiting for one in depths),
            queuing=sum(one.queuing for one in depths),
            generating=sum(one.generating for one in depths),
            oldest=min((one.oldest_at for one in depths), default=None),
            now=self._console.clock(),
        )

    def _lines(self, depths: Sequence[QueueDepth]) -> list[Line]:
        return [self._line(depth) for depth in depths]

    def _line(self, depth: QueueDepth) -> Line:
        channel = self._console.router.get(depth.channel_id)
        if channel is None:
            return Line(depth, "", f"Channel {depth.channel_id}, not configured any more", 0)
        in_force = channel in self._console.router.channels
        return Line(depth, channel.slug if in_force else "", channel.name, channel.concurrency)

    async def _concerns(self, depths: Sequence[QueueDepth], now: int) -> list[Concern]:
        console = self._console
        found = _of_unserved(console.watching.unserved())
        for standing in await console.watching.channels():
            found += _of_channel(standing, now)
        found += await self._of_unknown()
        found += _of_waiting(depths, now)
        found += await self._of_webhooks()
        found += _of_disk(await free_bytes(console.settings.data_dir))
        return sorted(found, key=lambda one: ("bad", "warn", "info").index(one.tone))

    async def _of_unknown(self) -> list[Concern]:
        found = await self._console.store.operating.unknown(limit=_COUNTED)
        if not found:
            return []
        count = f"{_COUNTED} or more" if len(found) == _COUNTED else str(len(found))
        return [
            Concern(
                tone="warn",
                title=f"{count} unknown outcome{'s' if len(found) > 1 else ''} to settle",
                text="No image came, and the upstream may have charged all the same.",
                path=UNKNOWN,
            )
        ]

    async def _of_webhooks(self) -> list[Concern]:
        found = await self._console.store.operating.retried_webhooks()
        if not found.deliveries:
            return []
        count = f"{FIGURED} or more" if found.deliveries == FIGURED else str(found.deliveries)
        many = found.deliveries > 1
        return [
            Concern(
                tone="info",
                title=f"{count} webhook{'s are' if many else ' is'} being retried",
                text=f"{found.receivers} receiver{'s have' if found.receivers > 1 else ' has'} not "
                f"taken {'them' if many else 'it'} yet; tries go on for three days.",
            )
        ]


def _of_unserved(models: Sequence[str]) -> list[Concern]:
    if not models:
        return []
    what = models[0] if len(models) == 1 else f"{len(models)} models"
    return [
        Concern(
            tone="bad",
            title=f"No channel takes {what}",
            text=f"Whoever asks for {_listed(models)} is refused. Switch a channel on, or "
            "configure one.",
            path=CHANNELS,
        )
    ]


def _of_channel(standing: ChannelStanding, now: int) -> list[Concern]:
    slug, path = standing.channel.slug, f"{CHANNELS}/{standing.channel.slug}"
    found = [
        Concern(
            tone="bad" if now < one.until and standing.takes_new else "warn",
            title=f"{slug}: nothing is sent" if now < one.until else f"{slug} is tried again",
            text=one.detail or f"Its fault: {one.fault}.",
            path=path,
        )
        for one in standing.breakers
        if one.model == WHOLE
    ]
    models = [one.model for one in standing.breakers if one.model != WHOLE]
    if models:
        found.append(
            Concern(
                tone="warn",
                title=f"{slug}: {len(models)} model{'s' if len(models) > 1 else ''} held back",
                text=f"Too much of what was sent for {_listed(models)} came to nothing.",
                path=path,
            )
        )
    if standing.switch is not None and not standing.takes_new:
        found.append(
            Concern(
                tone="info",
                title=f"{slug} is switched off",
                text="It takes no new tasks until it is switched on again.",
                path=path,
            )
        )
    return found


def _listed(names: Sequence[str]) -> str:
    """The first few of them."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _of_waiting(depths: Sequence[QueueDepth], now: int) -> list[Concern]:
    oldest = min((one.oldest_at for one in depths), default=now)
    if now - oldest < LONG_MS:
        return []
    return [
        Concern(
            tone="warn",
            title=f"A task has not ended for {duration(now - oldest)}",
            text="It is the oldest of those that are not final.",
            path=QUEUE,
        )
    ]


def _of_disk(free: int) -> list[Concern]:
    if free >= LITTLE_FREE:
        return []
    return [
        Concern(
            tone="bad" if free < LEAST_FREE else "warn",
            title=f"{size(free)} free on the disk of the images",
            text="Make room: without it new images cannot be stored.",
        )
    ]


def _tiles(
    tallies: Mapping[int, Tally], depths: Sequence[QueueDepth], today: int
) -> list[dict[str, Any]]:
    now, before = tallies.get(today, Tally()), tallies.get(today - 1, Tally())
    ended, ended_before = now.succeeded + now.failed, before.succeeded + before.failed
    flying = sum(one.generating for one in depths)
    waiting = sum(one.waiting + one.queuing for one in depths)
    return [
        {"label": "Tasks today", "value": f"{ended:,}", "note": f"{ended_before:,} yesterday"},
        {
            "label": "Succeeded today",
            "value": _rate(now),
            "note": f"{_rate(before)} yesterday",
            "tone": "warn" if ended and now.failed * 5 > ended else "",
        },
        {
            "label": "Clients spent today",
            "value": usd(now.spent),
            "note": f"{usd(before.spent)} yesterday",
        },
        {
            "label": "Upstreams charged today",
            "value": usd(now.cost),
            "note": "as far as they tell",
        },
        {
            "label": "Generating now",
            "value": f"{flying:,}",
            "note": f"{waiting:,} waiting",
            "href": QUEUE,
        },
    ]


def _rate(tally: Tally) -> str:
    share = success_of(tally)
    return "none yet" if share is None else percent(share)


def _bar(number: int, tally: Tally) -> dict[str, Any]:
    on = date_of(number)
    told = f"{tally.succeeded:,} succeeded, {tally.failed:,} failed, {usd(tally.spent)} spent"
    return {
        "label": f"{on.day} {on:%b}",
        "title": f"{day(number * DAY_MS)}: {told}",
        "values": [tally.succeeded, tally.failed],
    }
