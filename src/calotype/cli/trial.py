"""One picture of a local channel's engine, as a worker has it drawn."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from calotype import judging
from calotype.catalog import load_catalog
from calotype.cli import show
from calotype.cli.faults import MISCONFIGURED, CommandFault
from calotype.domain.catalog import Catalog
from calotype.domain.channel import Channel, Served
from calotype.domain.task import Request
from calotype.providers.diffusers.batching import room
from calotype.providers.diffusers.engines import MODULE, Engine, EngineBroken, EngineGone
from calotype.providers.diffusers.options import Options, check_here, read, set_up
from calotype.providers.diffusers.wire import Draw, Ended, Event, Picture, Ready
from calotype.providers.kind import SetUpFault
from calotype.settings import Settings

_PROVIDER: Final = "diffusers"
_PROMPT: Final = "a lighthouse on a cliff at dusk"
_SEED: Final = 1
_MORE_MEMORY: Final = "take a smaller model or dtype, or a device with more memory"


class Trial(NamedTuple):
    """What is tried.

    Args:
        options: of the channel, read.
        order: one picture of the usual size in the usual steps; its file is not named yet.
        silent_seconds: after so long without a word in its middle the engine is given up.

    """

    options: Options
    order: Draw
    silent_seconds: float

    @property
    def weights(self) -> str:
        """A folder, or a repository of the hub."""
        return self.options.load.weights


def of_channel(settings: Settings, slug: str | None) -> Trial:
    """The first model of a configured channel; without a slug of the only one.

    Raises:
        CommandFault: there is no such channel.
        SettingsError: the configuration is wrong, or this machine cannot draw by it.

    """
    catalog = load_catalog(settings.catalog_dir)
    found = [one for one in judging.judged(settings, catalog) if one.provider == _PROVIDER]
    named = [one for one in found if slug in {None, one.slug}]
    if len(named) != 1:
        there = ", ".join(one.slug for one in found)
        raise CommandFault(
            f"There is {'no channel ' + slug if slug else 'no one channel'} of {_PROVIDER}; "
            + (f"name one of {there}." if there else "configure one, or try a model by --model."),
            exit_code=MISCONFIGURED,
        )
    judging.check_here(named, settings)
    return _trial(named[0], catalog, settings.data_dir)


def of_model(settings: Settings, model: str, options: Mapping[str, str]) -> Trial:
    """A model without a channel; ``options`` are those that a channel would have.

    Raises:
        CommandFault: there is no such model or option, or this machine cannot draw with it.

    """
    catalog = load_catalog(settings.catalog_dir)
    upstream = catalog.upstreams[_PROVIDER]
    known = [name for name in upstream.models if name in catalog.models]
    if model not in known:
        raise CommandFault(
            f"--model {model}: this machine could draw {', '.join(known)}; name one of them.",
            exit_code=MISCONFIGURED,
        )
    made = Channel(
        id=0,
        slug=model,
        name=model,
        provider=_PROVIDER,
        models={model: Served()},
        options=options,
    )
    try:
        channel = set_up(made, upstream, Path())
        check_here(channel)
    except SetUpFault as fault:
        option = fault.key.replace("options.", "--")
        raise CommandFault(f"{option}: {fault}", exit_code=MISCONFIGURED) from None
    return _trial(channel, catalog, settings.data_dir)


def _trial(channel: Channel, catalog: Catalog, data: Path) -> Trial:
    name = next(iter(channel.models or ()))
    model, wire = catalog.models[name], catalog.upstreams[_PROVIDER].wire(name)
    if wire is None:
        raise LookupError(f"{name} was judged before")
    usual = {one.name: one.default for one in model.parameters if one.default is not None}
    request = Request(model=name, prompt=_PROMPT, n=1, parameters=usual)
    fields = wire.fields(model, request, reference_sizes=())
    picture = Picture(id=name, prompt=_PROMPT, seed=_SEED, file="")
    order = Draw(
        pictures=(picture,),
        width=fields["width"],
        height=fields["height"],
        steps=fields["steps"],
        guidance=float(fields["guidance"]),
    )
    return Trial(read(channel, data), order, channel.timeout_seconds)


async def draw(trial: Trial, file: Path) -> dict[str, str]:
    """Load, draw into ``file``, and end the engine; what was measured, for people.

    Raises:
        CommandFault: it did not come, with what can be done about it.

    """
    order, size = trial.order, (trial.order.width, trial.order.height)
    pictures = tuple(msgspec.structs.replace(one, file=str(file)) for one in order.pictures)
    ends: list[Event] = []
    engine = await Engine.start(MODULE, silent_seconds=trial.silent_seconds)
    try:
        ready = await engine.load(msgspec.structs.replace(trial.options.load, warm_up=size))
        began = time.monotonic()
        await engine.draw(msgspec.structs.replace(order, pictures=pictures), ends.append)
        seconds = time.monotonic() - began
    except EngineBroken as broken:
        code = 1 if broken.code == "out_of_memory" else MISCONFIGURED
        raise CommandFault(str(broken), exit_code=code) from None
    except EngineGone as gone:
        cure = (
            _MORE_MEMORY if gone.out_of_memory else "try another device, to see if it is this one"
        )
        raise CommandFault(f"{gone} Now {cure}.") from None
    finally:
        await engine.end()
    if isinstance(ends[-1], Ended):
        raise _not_drawn(ends[-1])
    return _figures(trial, ready, seconds)


def _not_drawn(end: Ended) -> CommandFault:
    match end.code:
        case "out_of_memory":
            return CommandFault(f"The picture does not fit into the memory; {_MORE_MEMORY}.")
        case "unsafe":
            return CommandFault(
                "The safety checker of these weights refused a lighthouse; set safety to "
                '"false", or take other weights.'
            )
        case _:
            return CommandFault(f"The picture was not drawn: {end.message}")


def _figures(trial: Trial, ready: Ready, seconds: float) -> dict[str, str]:
    order = trial.order
    size = (order.width, order.height)
    batch = room(trial.options, ready, order.width * order.height, warm_up=size)
    free = f", {show.size(ready.free_bytes)} left" if ready.free_bytes else ""
    return {
        "weights": f"{trial.weights} ({ready.pipeline})",
        "device": ready.device,
        "loaded": f"in {ready.seconds:.1f} s, with a first step to warm up",
        "drawn": f"in {seconds:.1f} s: {size[0]} x {size[1]}, steps: {order.steps}",
        "memory": f"{show.size(ready.memory_bytes)} with the weights, "
        f"{show.size(ready.picture_bytes)} more for a picture{free}",
        "batch": f"{batch} at once",
    }
