"""A channel: an upstream as the operator configured it."""

import msgspec


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """One way to have a task developed.

    Args:
        id: shown to clients, who may pin it; never reused for another upstream.
        slug: short name for people and logs.
        provider: the protocol; a name from ``providers.registry``.
        models: public model id → the upstream's own id; None serves every model.
        priority: higher is asked first.
        weight: share of the traffic among channels of the same priority.
        concurrency: most tasks at a time over all workers; 0 is no limit.
        eta_seconds: how long a task usually takes here; None takes what the model's entry says.
        free: a second send costs nothing, so an unknown outcome may be sent again; None takes
            what the provider says.

    """

    id: int
    slug: str
    name: str
    provider: str
    description: str = ""
    models: dict[str, str] | None = None
    priority: int = 0
    weight: int = 1
    concurrency: int = 0
    eta_seconds: int | None = None
    free: bool | None = None

    def serves(self, model: str) -> bool:
        """Whether the channel can develop this model."""
        return self.models is None or model in self.models


def channels_in_force(
    configured: tuple[Channel, ...], *, built_in: Channel, models: list[str]
) -> tuple[Channel, ...]:
    """The configured channels, and the built-in sandbox for each model that none serves."""
    left = {
        model: model for model in models if not any(channel.serves(model) for channel in configured)
    }
    if not left:
        return configured
    return (*configured, msgspec.structs.replace(built_in, models=left))
