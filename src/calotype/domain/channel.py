"""A channel: an upstream as the operator configured it."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from calotype.domain.errors import InvalidParameter
from calotype.domain.secret import Secret
from calotype.domain.urls import canonical_host, judge_reference_url

_Money = Annotated[int, Meta(ge=0, le=10**12)]
_URL_TEXT: Final = re.compile(r"[!-\[\]-~]+")
"""ASCII that can be seen; no backslash, which some parsers take for a slash."""
_NO_URL: Final = "is no URL of the web; write it like https://api.example.com/v1"


class Served(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a channel serves one model.

    Args:
        id: the upstream's own id; empty takes the one in ``catalog/upstreams/<provider>.toml``.
        edit: the id when references are given; empty takes the one there, or ``id``.
        price: micro-USDC that an image costs the client here, instead of the catalog's price; or
            the catalog's tier ids with a price each.
        cost: micro-USDC that an image costs the operator, where the upstream does not tell.

    """

    id: str = ""
    edit: str = ""
    price: _Money | dict[str, _Money] | None = None
    cost: _Money | None = None


class Channel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to have a task developed.

    Where it says how large a number may be, that is for the operator's file: whoever makes one in
    code is not checked.

    Args:
        id: shown to clients, who may pin it; never reused for another upstream.
        slug: short name for people and logs.
        provider: the protocol; what ``providers.kind`` finds.
        base_url: where the upstream is; empty takes the provider's usual place.
        api_key: the credential; None where the upstream wants none.
        callback_secret: proves that a callback comes from the upstream.
        callbacks: ask the upstream to tell when a job ends, besides asking it.
        models: public model id → how it is served; None serves every model.
        priority: higher is asked first.
        weight: share of the traffic among channels of the same priority.
        concurrency: most tasks at a time over all workers; 0 is no limit.
        requests_per_minute: most sends in any minute over all workers; 0 is no limit.
        timeout_seconds: longest wait for the answer to a send.
        eta_seconds: how long a task usually takes here; None takes what the model's entry says.
        free: a second send costs nothing, so an unknown outcome may be sent again; None takes
            what the provider says.
        idempotent: a second send under the same reference is not billed twice, so an unknown
            outcome may be sent again under it.
        enabled: False takes no new tasks; those that it was given go on.
        options: what only this provider knows, such as ``api_version``.

    """

    id: int
    slug: str
    name: str
    provider: str
    description: str = ""
    base_url: str = ""
    api_key: Secret | None = None
    callback_secret: Secret | None = None
    callbacks: bool = False
    models: dict[str, Served] | None = None
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    weight: Annotated[int, Meta(ge=1, le=1000)] = 1
    concurrency: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    requests_per_minute: Annotated[int, Meta(ge=0, le=6_000)] = 0
    timeout_seconds: Annotated[float, Meta(ge=1, le=3600)] = 600.0
    eta_seconds: Annotated[int, Meta(ge=1, le=86_400)] | None = None
    free: bool | None = None
    idempotent: bool = False
    enabled: bool = True
    options: Mapping[str, str] = MappingProxyType({})

    def serves(self, model: str) -> bool:
        """Whether the channel can develop this model."""
        return self.models is None or model in self.models

    def served(self, model: str) -> Served:
        """How it serves this model."""
        return (self.models or {}).get(model) or Served()


def channels_in_force(
    configured: tuple[Channel, ...], *, built_in: Channel, models: list[str]
) -> tuple[Channel, ...]:
    """The configured channels, and the built-in sandbox for each model that none serves.

    A channel that is not ``enabled`` still serves: switching it off does not put the sandbox, which
    charges as any channel does, in its place.
    """
    left = {
        model: Served(id=model)
        for model in models
        if not any(channel.serves(model) for channel in configured)
    }
    if not left:
        return configured
    return (*configured, msgspec.structs.replace(built_in, models=left))


def base_url_fault(url: str) -> str | None:
    """What is wrong with where an upstream is said to be, and what would be right; None: nothing.

    It repeats no part of the URL, which may carry a credential.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        canonical = canonical_host(host)
    except ValueError:
        return _NO_URL
    if not _URL_TEXT.fullmatch(url) or parts.scheme not in {"http", "https"}:
        return _NO_URL
    if "@" in parts.netloc:
        return "holds a credential; take it out, and name it by api_key_env or api_key_file"
    if "?" in url or "#" in url:
        return "has a query or a fragment; end it with the path"
    if canonical != host:
        return f"names its host in an unusual way; write it as {canonical}"
    return None


def in_the_clear(url: str) -> bool:
    """Whether what is sent to this base URL can be read on its way through the internet."""
    if not url.startswith("http://"):
        return False
    try:
        judge_reference_url(url, allow_hosts=frozenset())
    except InvalidParameter:
        return False  # no public host, as the URL itself is well-formed
    return True
