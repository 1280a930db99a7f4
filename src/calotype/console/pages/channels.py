"""/console/operator/channels: the upstreams, how they do, and their switches."""

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, operator_page
from calotype.console.context import Console
from calotype.console.errors import PageError
from calotype.console.pages.overview import CHANNELS
from calotype.console.query import SAID, Notices, notice
from calotype.console.render import redirect
from calotype.domain.channel import Channel
from calotype.domain.errors import UnknownChannel
from calotype.services.effective import without_credentials
from calotype.services.watching import ChannelReport

NOTICES: Final[Notices] = {
    "on": ("good", "The channel takes new tasks now."),
    "off": ("good", "The channel takes no new tasks; those that it was given go on."),
    "configured": ("good", "The channel goes by its configuration again."),
    "reset": ("good", "The channel is sent to again: its breakers are closed."),
}
_SWITCHES: Final[Mapping[str, bool | None]] = {"on": True, "off": False, "configured": None}


def routes(console: Console) -> list[Route]:
    """The routes of this group."""
    pages = _Channels(console)
    one = f"{CHANNELS}/{{slug}}"
    return [
        Route(CHANNELS, operator_page(console, pages.all)),
        Route(one, operator_page(console, pages.one)),
        Route(one, operator_page(console, pages.change), methods=["POST"]),
    ]


class _Channels:
    def __init__(self, console: Console) -> None:
        self._console = console

    async def all(self, request: Request, _visitor: Visitor) -> Response:
        """Every channel in force."""
        kind, words = notice(request, NOTICES) or ("", "")
        return self._console.render.page(
            request,
            "operator/channels.html",
            standings=await self._console.watching.channels(),
            models=len(self._console.catalog.models),
            now=self._console.clock(),
            kind=kind,
            words=words,
        )

    async def one(self, request: Request, _visitor: Visitor) -> Response:
        """All of one channel."""
        kind, words = notice(request, NOTICES) or ("", "")
        report = await self._console.watching.channel(request.path_params["slug"])
        if report is None:
            raise PageError(404, "There is no channel of this name any more.")
        return self._console.render.page(
            request,
            "operator/channel.html",
            report=report,
            standing=report.standing,
            channel=report.standing.channel,
            facts=_facts(report.standing.channel),
            stopped=[model for model in report.models if model.breaker],
            now=self._console.clock(),
            kind=kind,
            words=words,
            prices=_prices(report),
        )

    async def change(self, request: Request, visitor: Visitor) -> Response:
        """Switch it, or close its breakers."""
        slug, done = request.path_params["slug"], visitor.form.get("do")
        if done not in NOTICES:
            raise PageError(400, f"do is one of {', '.join(NOTICES)}.")
        operating = self._console.operating
        try:
            if done in _SWITCHES:
                await operating.switch(visitor.actor, slug, enabled=_SWITCHES[done])
            else:
                await operating.reset(visitor.actor, slug)
        except UnknownChannel:
            raise PageError(404, "There is no channel of this name any more.") from None
        if visitor.form.get("from") == "list":
            return redirect(f"{CHANNELS}?{SAID}={done}")
        return redirect(f"{CHANNELS}/{slug}?{SAID}={done}")


def _prices(report: ChannelReport) -> Mapping[str, tuple[int, int]]:
    """What each model costs the client here, from the least to the most."""
    return {
        each.model.id: (min(each.offer.prices.values()), max(each.offer.prices.values()))
        for each in report.models
    }


def _facts(channel: Channel) -> list[tuple[str, str]]:
    """How it is configured; no secret is in it."""
    yes = {True: "Yes", False: "No", None: "What the provider says"}
    return [
        ("Id", str(channel.id)),
        ("Provider", channel.provider),
        ("Address", without_credentials(channel.base_url) or "The provider's usual one"),
        ("Enabled", yes[channel.enabled]),
        ("Priority", str(channel.priority)),
        ("Weight", str(channel.weight)),
        ("At a time", f"{channel.concurrency:,}" if channel.concurrency else "No limit"),
        (
            "Sends a minute",
            f"{channel.requests_per_minute:,}" if channel.requests_per_minute else "No limit",
        ),
        ("Longest wait for an answer", f"{channel.timeout_seconds:g} s"),
        ("Upstream calls back", yes[channel.callbacks]),
        ("A second send is free", yes[channel.free]),
        ("A second send is recognised", yes[channel.idempotent]),
    ]
