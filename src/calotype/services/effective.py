"""What is in force, and where each value comes from: settings, and the models of the catalog.

Made to be shown: no secret is in it, nor what stands before the ``@`` or after the ``?`` of a URL.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from calotype.domain.catalog import Catalog, Model
from calotype.domain.channel import Channel, Served
from calotype.domain.secret import Secret
from calotype.domain.wire import Wire, spelled
from calotype.settings import Settings

DEFAULT: Final = "default"
"""The source of a setting that nobody has set."""
SHIPPED: Final = "shipped"
"""The source of a model that comes with Calotype."""
_PLAIN_URL: Final = re.compile(r"([a-z]+://)(?:[^@/?#]*@)?([^@?#]*)(?:\?[^@#]*)?")
_URLS: Final = frozenset({"database_url", "public_url", "assets_url", "asset_base_url"})
_INSIDE: Final = frozenset({"said_by", "channels"})
"""Fields that are none to show: channels have pages of their own."""


class EffectiveSetting(msgspec.Struct, frozen=True):
    """A setting as it is in force."""

    name: str
    value: str
    """For people; empty where there is none."""
    source: str
    """``default``, ``<file>: <key>``, the variable, or the option of the command."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """How a channel offers a model."""

    channel_id: int
    slug: str
    upstream_id: str
    """The upstream's id of the model; empty where the provider needs none."""
    edit_id: str
    """Its id when there are references."""
    prices: Mapping[str, int]
    """The catalog's tier ids → micro-USDC that an image costs the client."""
    cost: int | None
    """Micro-USDC that an image costs the operator, where the channel says so."""
    overrides: frozenset[str]
    """Which of ``id``, ``edit``, ``price`` and ``cost`` the channel says itself."""


def settings_in_force(settings: Settings) -> list[EffectiveSetting]:
    """Every setting but the channels, in the order of the documentation."""
    return [
        EffectiveSetting(
            field.name,
            _shown(field.name, getattr(settings, field.name)),
            settings.said_by.get(field.name, DEFAULT),
        )
        for field in msgspec.structs.fields(Settings)
        if field.name not in _INSIDE
    ]


def source_of(catalog: Catalog, model: str) -> str:
    """Where a model comes from: the operator's file, or ``SHIPPED``."""
    return catalog.files.get(model, SHIPPED)


def offers(catalog: Catalog, model: Model, channels: Iterable[Channel]) -> list[Offer]:
    """How those channels offer a model that serve it, whether they take new tasks or not."""
    return [_offer(catalog, model, channel) for channel in channels if channel.serves(model.id)]


def shortfalls(model: Model, wire: Wire | None) -> list[str]:
    """What a channel cannot do of a model, for people; requests that ask for it go elsewhere.

    Args:
        model: the catalog's entry.
        wire: how the channel takes it; None for one that takes requests as they are.

    """
    if wire is None:
        return []
    told = []
    if wire.max_references < model.references.max_items:
        told.append(
            f"at most {wire.max_references} references" if wire.max_references else "no references"
        )
    if 0 < wire.prompt_length < model.prompt.max_length:
        told.append(f"prompts of at most {wire.prompt_length:,} characters")
    if wire.max_images < model.n.maximum:
        told.append(
            f"at most {wire.max_images} images at a time"
            if wire.max_images > 1
            else "one image at a time"
        )
    for parameter in model.parameters:
        written = wire.parameters.get(parameter.name)
        if written is None and not wire.covers(parameter.name):
            told.append(f"no {parameter.name}")
        elif written is not None and written.enum:
            said = [spelled(value) for value in parameter.enum if value in written.enum]
            if len(said) < len(parameter.enum):
                told.append(f"{parameter.name} {', '.join(said)} only")
    return told


def _offer(catalog: Catalog, model: Model, channel: Channel) -> Offer:
    served, upstream = channel.served(model.id), catalog.upstreams.get(channel.provider)
    wire = upstream.wire(model.id) if upstream else None
    id_ = served.id or (wire.id if wire else "")
    edit = served.edit or (wire.edit.replace("{id}", id_) if wire else "")
    said = {"id": served.id, "edit": served.edit, "price": served.price, "cost": served.cost}
    return Offer(
        channel_id=channel.id,
        slug=channel.slug,
        upstream_id=id_,
        edit_id=edit or id_,
        prices={
            tier.id: _price(served, tier.id, tier.price_micro_usdc) for tier in model.pricing.tiers
        },
        cost=served.cost,
        overrides=frozenset(
            name for name, value in said.items() if value is not None and value != ""
        ),
    )


def _price(served: Served, tier: str, of_catalog: int) -> int:
    if isinstance(served.price, dict):
        return served.price.get(tier, of_catalog)
    return of_catalog if served.price is None else served.price


def _shown(name: str, value: Any) -> str:
    match value:
        case Secret():
            return "set" if value.value else "not set"
        case None:
            return ""
        case tuple():
            return ", ".join(value)
        case Path():
            return str(value)
        case str() if name in _URLS:
            return without_credentials(value)
        case _:
            return f"{value:g}" if isinstance(value, float) else str(value)


def without_credentials(url: str) -> str:
    """A URL as it may be shown: neither user nor password nor query; all hidden where in doubt."""
    plain = _PLAIN_URL.fullmatch(url)
    if plain:
        return plain[1] + plain[2]
    return f"{url.partition('://')[0]}://…" if "://" in url else ("…" if url else "")
