"""Which channel develops a task."""

import random
from collections.abc import Sequence

from calotype.domain.catalog import Model
from calotype.domain.channel import Channel
from calotype.domain.errors import Unavailable, UnknownChannel


class Router:
    """Chooses among the channels in force.

    Args:
        channels: every channel.
        chance: where the weighted choice comes from.

    """

    def __init__(self, channels: Sequence[Channel], *, chance: random.Random) -> None:
        self._channels = {channel.id: channel for channel in channels}
        self._chance = chance
        self._by_model: dict[str, tuple[Channel, ...]] = {}

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Every channel."""
        return tuple(self._channels.values())

    def get(self, channel_id: int) -> Channel | None:
        """The channel with this id, where it is still configured."""
        return self._channels.get(channel_id)

    def usual_seconds(self, channel_id: int, model: Model) -> int:
        """How long a task of this model usually takes on a channel."""
        channel = self.get(channel_id)
        known = channel.eta_seconds if channel else None
        return model.eta_seconds if known is None else known

    def serving(self, model: str) -> tuple[Channel, ...]:
        """The channels that can develop a model, the preferred ones first."""
        if model not in self._by_model:
            able = [channel for channel in self._channels.values() if channel.serves(model)]
            able.sort(key=lambda channel: (-channel.priority, channel.id))
            self._by_model[model] = tuple(able)
        return self._by_model[model]

    def choose(self, model: Model, *, pinned: int | None) -> Channel:
        """The channel for a new task: the pinned one, or one of the highest priority by weight.

        Raises:
            errors.UnknownChannel: the pinned channel does not serve the model.
            errors.Unavailable: no channel does.

        """
        able = self.serving(model.id)
        if pinned is not None:
            for channel in able:
                if channel.id == pinned:
                    return channel
            known = ", ".join(f"{channel.id} ({channel.slug})" for channel in able)
            raise UnknownChannel(
                f"channel_id {pinned} does not serve {model.id}; its channels are {known}.",
                param="channel_id",
            )
        if not able:
            raise Unavailable(f"No channel serves {model.id} right now.", retry_after=60)
        best = [channel for channel in able if channel.priority == able[0].priority]
        if len(best) == 1:
            return best[0]
        return self._chance.choices(best, weights=[channel.weight for channel in best])[0]
