"""/console/operator/catalog: the models as they are in force, and who offers them."""

from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, operator_page
from calotype.console.context import Console
from calotype.console.errors import PageError
from calotype.domain.catalog import Model, quoted
from calotype.domain.channel import Channel
from calotype.services.effective import SHIPPED, Offer, offers, shortfalls, source_of

PATH: Final = "/console/operator/catalog"


class Offered(msgspec.Struct, frozen=True):
    """A model at a channel."""

    channel: Channel
    offer: Offer
    takes_new: bool
    """Whether the channel takes new tasks."""
    shortfalls: Sequence[str]


class Entry(msgspec.Struct, frozen=True):
    """A model as it is in force."""

    model: Model
    source: str
    """The operator's file; empty for a model that comes with Calotype."""
    offered: Sequence[Offered]

    @property
    def cheapest(self) -> int:
        """Micro-USDC that an image costs the client at least."""
        return min(self._prices)

    @property
    def dearest(self) -> int:
        """And at most."""
        return max(self._prices)

    @property
    def available(self) -> bool:
        """Whether somebody who asks for it now gets it."""
        return self.model.enabled and any(each.takes_new for each in self.offered)

    @property
    def resolutions(self) -> Sequence[str]:
        """Every one that some ratio has, the smallest first."""
        return list(dict.fromkeys(name for row in self.model.sizes.values() for name in row))

    @property
    def _prices(self) -> Sequence[int]:
        in_force = [
            price for each in self.offered if each.takes_new for price in each.offer.prices.values()
        ]
        return in_force or [tier.price_micro_usdc for tier in self.model.pricing.tiers]


def routes(console: Console) -> list[Route]:
    """The routes of this group."""

    async def catalog(request: Request, _visitor: Visitor) -> Response:
        models = sorted(console.catalog.models.values(), key=lambda each: (each.brand, each.name))
        return console.render.page(
            request,
            "operator/catalog.html",
            entries=[_entry(console, model) for model in models],
            path_is=PATH,
        )

    async def model(request: Request, _visitor: Visitor) -> Response:
        found = console.catalog.models.get(request.path_params["model"])
        if found is None:
            raise PageError(404, f"There is no model {quoted(request.path_params['model'])}.")
        return console.render.page(
            request, "operator/model.html", entry=_entry(console, found), path_is=PATH
        )

    return [
        Route(PATH, operator_page(console, catalog)),
        Route(f"{PATH}/{{model}}", operator_page(console, model)),
    ]


def _entry(console: Console, model: Model) -> Entry:
    router = console.router
    channels = {channel.id: channel for channel in router.channels}
    source = source_of(console.catalog, model.id)
    offered = []
    for offer in offers(console.catalog, model, channels.values()):
        channel = channels[offer.channel_id]
        short = shortfalls(model, router.wire(channel, model.id))
        offered.append(Offered(channel, offer, router.takes_new(channel), short))
    offered.sort(key=lambda each: (not each.takes_new, -each.channel.priority, each.channel.id))
    return Entry(model, "" if source == SHIPPED else source, offered)
