"""Whether the configured channels can do what they are to.

They are held against the providers, the upstreams' files and the catalog.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from calotype.channels import ChannelFault
from calotype.domain.catalog import Catalog, Model
from calotype.domain.channel import Channel, Served, base_url_fault, in_the_clear
from calotype.domain.wire import ANY_MODEL, Upstream
from calotype.providers.kind import Kind, SetUpFault, has_kind, kind_of
from calotype.providers.sandbox import SANDBOX
from calotype.settings import Settings, SettingsError
from calotype.tables import joined, suggested

_KEY: Final = "api_key_env"


def judged(settings: Settings, catalog: Catalog) -> tuple[Channel, ...]:
    """The configured channels, each with the models that it serves.

    Raises:
        SettingsError: with file, key and cure.

    """
    beside = settings.config.parent if settings.config else Path()
    channels = []
    for place, channel in enumerate(settings.channels, start=1):
        try:
            channels.append(_judged(channel, catalog, beside))
        except ChannelFault as fault:
            raise _misset(settings, place, fault) from None
    return tuple(channels)


def check_here(channels: Iterable[Channel], settings: Settings) -> None:
    """See whether a worker on this machine can work for these channels.

    Args:
        channels: judged before.
        settings: that configure them.

    Raises:
        SettingsError: it cannot, for one of them; with file, key and cure.

    """
    places = {each.id: place for place, each in enumerate(settings.channels, start=1)}
    for channel in channels:
        check = kind_of(channel.provider).check_here
        try:
            if check is not None:
                check(channel)
        except SetUpFault as fault:
            said = ChannelFault(fault.key, str(fault))
            raise _misset(settings, places[channel.id], said) from None


def _misset(settings: Settings, place: int, fault: ChannelFault) -> SettingsError:
    """A channel's fault, with its place in the file."""
    where = f"{settings.config}: channels" if settings.config else "channels"
    return SettingsError(f"{where}[{place}]{fault}")


def _judged(channel: Channel, catalog: Catalog, beside: Path) -> Channel:
    names = (SANDBOX, *catalog.upstreams)
    if channel.provider not in names or not has_kind(channel.provider):
        providers = [name for name in names if has_kind(name)]
        raise ChannelFault(
            "provider",
            f"there is no provider '{channel.provider}'; {suggested(channel.provider, providers)}"
            f"there are {', '.join(providers)}.",
        )
    upstream, kind = catalog.upstreams.get(channel.provider), kind_of(channel.provider)
    _check_connection(channel, kind, upstream)
    channel = _with_folders(channel, kind, beside)
    if channel.models is None:
        if upstream is None:
            return channel
        channel = _with_every_model(channel, upstream, catalog)
    for name, served in (channel.models or {}).items():
        _check_model(joined("models", name), name, served, upstream, catalog)
    if upstream is not None:
        channel = _set_up(channel, kind, upstream, beside)
        _check_narrowed(channel, kind, upstream, catalog)
    return channel


def _with_folders(channel: Channel, kind: Kind, beside: Path) -> Channel:
    """The channel with its folders as they are found from where the process was started."""
    found = {}
    for name in kind.folders:
        if named := channel.options.get(name):
            try:
                found[name] = str(beside / Path(named).expanduser())
            except RuntimeError:
                raise ChannelFault(
                    joined("options", name), f"there is no such home folder as in '{named}'."
                ) from None
    if not found:
        return channel
    return msgspec.structs.replace(channel, options={**channel.options, **found})


def _check_connection(channel: Channel, kind: Kind, upstream: Upstream | None) -> None:
    for name in channel.options:
        if name not in kind.options:
            known = "; ".join(f"{each}: {what}" for each, what in kind.options.items())
            there_are = f"there are {known}." if known else "it has none."
            raise ChannelFault(
                joined("options", name),
                f"{channel.provider} has no such option; {suggested(name, kind.options)}"
                f"{there_are}",
            )
    if kind.needs_key and channel.api_key is None:
        raise ChannelFault(
            _KEY,
            f"{channel.provider} wants a key; name the variable that holds it here, or a file "
            "as api_key_file.",
        )
    if upstream is None:
        return
    if not kind.remote:
        if channel.base_url:
            raise ChannelFault(
                "base_url", f"{channel.provider} works on this machine; take the line out."
            )
        return
    base_url = channel.base_url or upstream.base_url
    if not base_url:
        raise ChannelFault(
            "base_url", f"is missing; {channel.provider} is nowhere in particular, so say where."
        )
    _check_way(channel, "base_url", base_url)
    for name in kind.urls:
        if url := channel.options.get(name):
            key = joined("options", name)
            if fault := base_url_fault(url):
                raise ChannelFault(key, f"{fault}.")
            _check_way(channel, key, url)


def _check_way(channel: Channel, key: str, url: str) -> None:
    if channel.api_key is not None and in_the_clear(url):
        raise ChannelFault(
            key,
            "everybody on the way would read the key; write https://, or an address of your own "
            "network.",
        )


def _with_every_model(channel: Channel, upstream: Upstream, catalog: Catalog) -> Channel:
    """The channel with all that its upstream's file knows by name and id."""
    models = {
        name: Served()
        for name, wire in upstream.models.items()
        if name in catalog.models and wire.id and not wire.hopeless(catalog.models[name])
    }
    if not models:
        raise ChannelFault(
            "models",
            f"is missing; {channel.provider} may serve any model, so name those that it does.",
        )
    return msgspec.structs.replace(channel, models=models)


def _check_model(
    key: str, name: str, served: Served, upstream: Upstream | None, catalog: Catalog
) -> None:
    model = catalog.models.get(name)
    if name in catalog.unoffered:
        raise ChannelFault(
            key, "no channel was configured for it at the start; restart, and it is offered."
        )
    if model is None:
        raise ChannelFault(
            key,
            f"there is no such model; {suggested(name, catalog.models)}there are "
            f"{', '.join(catalog.models)}.",
        )
    if upstream is not None:
        wire = upstream.wire(name)
        if wire is None:
            known = ", ".join(sorted(upstream.models.keys() & catalog.models.keys()))
            raise ChannelFault(
                key,
                f"the provider does not have it; it has {known or 'none'}. More are added in "
                "your own catalog folder, under upstreams/.",
            )
        if not (served.id or wire.id or wire is upstream.models.get(ANY_MODEL)):
            raise ChannelFault(
                key, "the upstream's id is not the same for everybody; write yours here."
            )
        if lacking := wire.hopeless(model):
            raise ChannelFault(
                key,
                f"the provider has no {lacking}, which every request for {name} sets, so none "
                f"could go there; say how it is written in your own catalog folder, under "
                "upstreams/, or take the model out.",
            )
    _check_price(key, served.price, model)


def _set_up(channel: Channel, kind: Kind, upstream: Upstream, beside: Path) -> Channel:
    """The channel with what its options imply."""
    if kind.set_up is None:
        return channel
    try:
        return kind.set_up(channel, upstream, beside)
    except SetUpFault as fault:
        raise ChannelFault(fault.key, str(fault)) from None


def _check_narrowed(channel: Channel, kind: Kind, upstream: Upstream, catalog: Catalog) -> None:
    """What the channel is set up with can do something of what its upstream's file says."""
    if kind.narrow is None:
        return
    for name in channel.models or {}:
        wire = upstream.wire(name)
        if wire is None:
            continue
        try:
            lacking = kind.narrow(channel, name, wire).hopeless(catalog.get(name))
        except SetUpFault as fault:
            raise ChannelFault(joined("models", name), str(fault)) from None
        if lacking:
            raise ChannelFault(
                joined("models", name),
                f"what it is set up with has no {lacking}, which every request for {name} sets; "
                "give it one, or take the model out.",
            )


def _check_price(key: str, price: int | Mapping[str, int] | None, model: Model) -> None:
    """A price by tiers names each of them, once."""
    if price is None or isinstance(price, int):
        return
    tiers = [tier.id for tier in model.pricing.tiers]
    for tier in price:
        if tier not in tiers:
            raise ChannelFault(
                joined(f"{key}.price", tier),
                f"{model.id} has no such tier; {suggested(tier, tiers)}there are "
                f"{', '.join(tiers)}.",
            )
    missing = [tier for tier in tiers if tier not in price]
    if missing:
        raise ChannelFault(
            f"{key}.price", f"says nothing of {', '.join(missing)}; give each tier its price."
        )
