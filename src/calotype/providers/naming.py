"""What a channel has to say where its upstream's file cannot know what a model is called."""

from calotype.domain.channel import Channel
from calotype.domain.wire import Wire
from calotype.providers.kind import SetUpFault


def named_by_the_operator(channel: Channel, model: str, wire: Wire) -> Wire:
    """The wire as it is; the catalog's own id of a model is none that the upstream could know.

    Raises:
        SetUpFault: neither the channel nor the file has an id.

    """
    if not (channel.served(model).id or wire.id):
        raise SetUpFault("the upstream does not know the catalog's id; write its own here.")
    return wire
