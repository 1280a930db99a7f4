"""Which channel develops a task: at submission, and again when one could not take it."""

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from calotype.domain.catalog import Model
from calotype.domain.channel import Channel
from calotype.domain.clock import Clock
from calotype.domain.errors import (
    CalotypeError,
    ChannelNotAllowed,
    InvalidParameter,
    Unavailable,
    UnknownChannel,
)
from calotype.domain.fitting import Shape
from calotype.domain.health import Breakers
from calotype.domain.pricing import price
from calotype.domain.task import Request
from calotype.domain.wire import Upstream, Wire

Files = Sequence[Shape | None]
"""The references of a request, None for one not yet fetched."""

PATIENCE_MS: Final = 2_000
"""So long the channel whose turn it is is waited for, before one that was tried more often."""


class Route(msgspec.Struct, frozen=True):
    """The channel that is to be asked next, and when."""

    channel: Channel
    at: int
    """Milliseconds since 1970; not in the past."""


class Router:
    """Chooses among the channels in force.

    A channel is a candidate for a request only when it can say all of it; among candidates the
    higher priority goes first, of those the ones that take the references as they are, then chance
    by weight and health.

    Args:
        channels: every channel.
        upstreams: provider → how it takes each model.
        breakers: which channels are well.
        chance: where the weighted choice comes from.
        clock: the time.
        narrow: from a channel, a model and the wire of the upstream's file to the wire of this
            channel, where what it is set up with can do less. None: all take what the file says.

    """

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        upstreams: Mapping[str, Upstream],
        breakers: Breakers,
        chance: random.Random,
        clock: Clock,
        narrow: Callable[[Channel, str, Wire], Wire] | None = None,
    ) -> None:
        self.breakers = breakers
        self._upstreams = upstreams
        self._chance = chance
        self._clock = clock
        self._channels: dict[int, Channel] = {}
        self._retired: dict[int, Channel] = {}
        self._by_model: dict[str, tuple[Channel, ...]] = {}
        self._priced: dict[str, bool] = {}
        self._narrow = narrow
        self._wires: dict[tuple[int, str], Wire | None] = {}
        self._switched: Mapping[int, bool] = {}
        self.replace(channels)

    def replace(self, channels: Sequence[Channel]) -> None:
        """Put other channels in force; those left out go on with what they have accepted."""
        gone = {each.id: each for each in self._channels.values()} | self._retired
        self._channels = {channel.id: channel for channel in channels}
        self._retired = {id_: each for id_, each in gone.items() if id_ not in self._channels}
        self._by_model.clear()
        self._priced.clear()
        self._wires.clear()

    def switch(self, switched: Mapping[int, bool]) -> bool:
        """Put in force what was switched by hand, stronger than ``enabled``; whether it is new."""
        if switched == self._switched:
            return False
        self._switched = switched
        self._by_model.clear()
        self._priced.clear()
        return True

    def takes_new(self, channel: Channel) -> bool:
        """Whether a channel takes new tasks, as configured or as it was switched by hand."""
        return self._switched.get(channel.id, channel.enabled)

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Every channel in force."""
        return tuple(self._channels.values())

    def get(self, channel_id: int) -> Channel | None:
        """The channel with this id, in force or retired since the start."""
        return self._channels.get(channel_id) or self._retired.get(channel_id)

    def usual_seconds(self, channel_id: int, model: Model) -> int:
        """How long a task of this model usually takes on a channel."""
        channel = self.get(channel_id)
        known = channel.eta_seconds if channel else None
        return model.eta_seconds if known is None else known

    def serving(self, model: str) -> tuple[Channel, ...]:
        """The channels that take new tasks of a model, the preferred ones first."""
        if model not in self._by_model:
            able = [
                channel
                for channel in self._channels.values()
                if self.takes_new(channel) and channel.serves(model)
            ]
            able.sort(key=lambda channel: (-channel.priority, channel.id))
            self._by_model[model] = tuple(able)
        return self._by_model[model]

    def wire(self, channel: Channel, model: str) -> Wire | None:
        """How a channel takes a model; None for one that takes requests as they are."""
        key = channel.id, model
        if key not in self._wires:
            upstream = self._upstreams.get(channel.provider)
            wire = upstream.wire(model) if upstream else None
            if wire is not None and self._narrow is not None:
                wire = self._narrow(channel, model, wire)
            self._wires[key] = wire
        return self._wires[key]

    def able(self, request: Request, files: Files) -> list[Channel]:
        """The channels that can honour every part of a request."""
        return [
            channel
            for channel in self._wanted(request)
            if self._unable(channel, request, files) is None
        ]

    def choose(self, model: Model, request: Request, files: Files) -> Channel:
        """The channel for a new task.

        Raises:
            errors.UnknownChannel: the pinned channel does not serve the model.
            errors.ChannelNotAllowed: the key may use none of them, or not the pinned one.
            errors.InvalidParameter: no channel (or not the pinned one) can honour the request.
            errors.Unavailable: no channel serves the model, or none that may be used takes new
                tasks.

        """
        wanted = self._wanted(request)
        if not wanted:
            raise self._nobody(model, request)
        if len(wanted) == 1 and self.wire(wanted[0], model.id) is None:
            return wanted[0]
        able = [each for each in wanted if self._unable(each, request, files) is None]
        if not able:
            raise self._nobody_able(model, request, files)
        return self._best(able, request.model, files)

    def highest_price(self, model: Model, request: Request, files: Files) -> int:
        """Micro-USDC that a task can come to on any channel that may get it."""
        plain = price(model, request.parameters, request.n)
        priced = self._priced.get(model.id)
        if priced is None:
            own = [channel.served(model.id).price for channel in self.serving(model.id)]
            priced = self._priced[model.id] = any(each is not None for each in own)
        if not priced:
            return plain
        return max(
            price(model, request.parameters, request.n, channel.served(model.id))
            for channel in self.able(request, files)
        )

    def next(
        self,
        request: Request,
        files: Files,
        *,
        current: int,
        bound: int | None,
        tries: Mapping[int, int],
        spent: Collection[int],
        pauses: Mapping[int, int],
        now: int,
    ) -> Route | None:
        """Where a task goes that has not been accepted anywhere.

        Args:
            request: what is asked.
            files: its references.
            current: the channel whose turn it is; it keeps the task where others are no better,
                and where there is no other also when it takes nothing new.
            bound: the only channel that may be asked, where there is one; also when it takes
                nothing new.
            tries: channel id → how often it has been sent there.
            spent: channels that would refuse it again.
            pauses: channel id → the time before which this task leaves it alone.
            now: milliseconds since 1970.

        Returns:
            None when no channel is left.

        """
        for left in self._left(request, current=current, bound=bound):
            able = [
                channel
                for channel in left
                if channel.id not in spent and self._unable(channel, request, files) is None
            ]
            if able:
                break
        else:
            return None
        fewest = min(tries.get(channel.id, 0) for channel in able)
        opens = {channel.id: self._at(channel, request, pauses, now) for channel in able}
        fresh = [channel for channel in able if tries.get(channel.id, 0) == fewest]
        near = [channel for channel in fresh if opens[channel.id] <= now + PATIENCE_MS]
        near = near or [channel for channel in able if opens[channel.id] <= now]
        if not near:
            return _soonest(able, opens)
        tier = _highest(near)
        ready = [channel for channel in tier if opens[channel.id] <= now]
        if not ready:
            return _soonest(tier, opens)
        ready = list(self._rather(ready, request.model, files))
        for channel in ready:
            if channel.id == current:
                return Route(channel, now)
        return Route(self._by_weight(ready, request.model, now), now)

    def _at(self, channel: Channel, request: Request, pauses: Mapping[int, int], now: int) -> int:
        opens = self.breakers.opens_at(channel.id, request.model, now=now)
        return max(opens, pauses.get(channel.id, 0))

    def _wanted(self, request: Request) -> tuple[Channel, ...]:
        serving = self.serving(request.model)
        if request.channel_id is None and request.channel_ids is None:
            return serving
        return tuple(channel for channel in serving if _allows(request, channel))

    def _left(
        self, request: Request, *, current: int, bound: int | None
    ) -> Iterator[Sequence[Channel]]:
        """Where an accepted task may go, and where if none of those can have it.

        A channel that takes nothing new goes on with a task that may have been bought there, that
        pinned it, or that it was given and no other can have.
        """
        if bound is not None:
            yield self._serves(self.get(bound), request)
        elif request.channel_id is not None:
            yield self._serves(self._channels.get(request.channel_id), request)
        else:
            yield self._wanted(request)
            yield self._serves(self._channels.get(current), request)

    @staticmethod
    def _serves(channel: Channel | None, request: Request) -> Sequence[Channel]:
        return [channel] if channel is not None and channel.serves(request.model) else []

    def _unable(self, channel: Channel, request: Request, files: Files) -> str | None:
        wire = self.wire(channel, request.model)
        if wire is None:
            return None
        reasons = (wire.limits.hopeless(file) for file in files if file is not None)
        return wire.unable(request, references=len(files)) or next(filter(None, reasons), None)

    def _rather(self, channels: Sequence[Channel], model: str, files: Files) -> Sequence[Channel]:
        """Those that take the references as they are; all of them where none does."""
        if not any(files):
            return channels
        limits = [
            (each, wire.limits if (wire := self.wire(each, model)) else None) for each in channels
        ]
        return [
            channel
            for channel, limit in limits
            if limit is None or not any(limit.faults(file) for file in files if file is not None)
        ] or channels

    def _best(self, able: Sequence[Channel], model: str, files: Files) -> Channel:
        """The highest priority that is well, there by chance; or the one that is well first."""
        if len(able) == 1:
            return able[0]
        now = self._clock()
        opens = {each.id: self.breakers.opens_at(each.id, model, now=now) for each in able}
        soonest = min(opens.values())
        ready = [channel for channel in able if opens[channel.id] <= soonest]
        return self._by_weight(self._rather(_highest(ready), model, files), model, now)

    def _by_weight(self, channels: Sequence[Channel], model: str, now: int) -> Channel:
        if len(channels) == 1:
            return channels[0]
        weights = [each.weight * self.breakers.share(each.id, model, now=now) for each in channels]
        return self._chance.choices(channels, weights=weights)[0]

    def _nobody(self, model: Model, request: Request) -> CalotypeError:
        serving = self.serving(model.id)
        if not serving:
            return Unavailable(f"No channel serves {model.id} right now.", retry_after=60)
        known = [channel for channel in self._channels.values() if channel.serves(model.id)]
        if off := [channel for channel in known if _allows(request, channel)]:
            return Unavailable(
                f"What this request may use for {model.id} takes no new tasks right now: "
                f"{_named(off)}.",
                retry_after=60,
            )
        if request.channel_id in {None, *[channel.id for channel in known]}:
            return _not_allowed(model, request, known)
        return UnknownChannel(
            f"channel_id {request.channel_id} does not serve {model.id}; its channels are "
            f"{_named(serving)}.",
            param="channel_id",
        )

    def _nobody_able(self, model: Model, request: Request, files: Files) -> InvalidParameter:
        reasons = "; ".join(
            f"{channel.id} ({channel.slug}): {self._unable(channel, request, files)}"
            for channel in self._wanted(request)
        )
        pinned = request.channel_id is not None
        who = "The channel asked for cannot" if pinned else f"No channel of {model.id} can"
        return InvalidParameter(
            f"{who} take this request as it stands: {reasons}.",
            param="channel_id" if pinned else None,
        )


def _allows(request: Request, channel: Channel) -> bool:
    """Whether a request, and the key that it came by, may use a channel."""
    pinned, allowed = request.channel_id, request.channel_ids
    return pinned in {None, channel.id} and (allowed is None or channel.id in allowed)


def _highest(channels: Sequence[Channel]) -> list[Channel]:
    """Those of the highest priority among them."""
    highest = max(channel.priority for channel in channels)
    return [channel for channel in channels if channel.priority == highest]


def _soonest(channels: Sequence[Channel], opens: Mapping[int, int]) -> Route:
    """The one that may be asked first, then."""
    soonest = min(channels, key=lambda each: (opens[each.id], each.id))
    return Route(soonest, opens[soonest.id])


def _not_allowed(model: Model, request: Request, serving: Sequence[Channel]) -> ChannelNotAllowed:
    able = [channel for channel in serving if channel.id in (request.channel_ids or ())]
    if able:
        return ChannelNotAllowed(
            f"This API key may not use channel {request.channel_id}; for {model.id} it may use "
            f"{_named(able)}.",
            param="channel_id",
        )
    return ChannelNotAllowed(
        f"This API key may use none of the channels that serve {model.id}, which are "
        f"{_named(serving)}; use another key, or another model.",
        param="channel_id",
    )


def _named(channels: Iterable[Channel]) -> str:
    return ", ".join(f"{channel.id} ({channel.slug})" for channel in channels)
